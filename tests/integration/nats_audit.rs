//! The write-once audit, on real servers.

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use jiff::Timestamp;
use lookback::nats::audit::{self, AuditError, Claim};
use lookback::nats::connect::Nats;
use lookback::nats::desired::DesiredStream;
use lookback::nats::ensure::Ensured;
use lookback::nats::entries::Cursor;
use lookback::nats::streams;
use lookback::operator::audit::{Auditor, Author, Told};
use lookback_dev::support::{NatsCluster, TcpProxy, eventually};
use lookback_protocol::audit::{Act, AuditKind, AuditRecord, OperatorAct, ReplayClaim, VERSION};
use lookback_protocol::names::{Owner, PipelineKey};
use lookback_protocol::position::Epoch;
use lookback_protocol::replay::request::RequestId;
use serde_json::{Value, json};

use crate::nats_fixture::{Fixture, SOON, connect, connect_as_usual, key};

fn record(id: &str, by: &str) -> Result<AuditRecord> {
    Ok(AuditRecord {
        v: VERSION,
        act: Act::Replay(ReplayClaim {
            request_id: RequestId::new(id)?,
            fingerprint: "h-0123456789ab".to_owned(),
            epoch: Epoch(2),
            plan_hash: "5f0c".to_owned(),
        }),
        owner: Owner {
            cluster: "cluster".to_owned(),
            pipeline: key(),
        },
        by: by.to_owned(),
        time: Timestamp::UNIX_EPOCH,
        details: json!({}),
    })
}

/// An act of the operator.
fn act(act_key: &str, message: &str) -> AuditRecord {
    AuditRecord {
        v: VERSION,
        act: Act::Operator(OperatorAct {
            key: act_key.to_owned(),
            reason: "ReplayCompleted".to_owned(),
            message: message.to_owned(),
        }),
        owner: Owner {
            cluster: "cluster".to_owned(),
            pipeline: key(),
        },
        by: "one".to_owned(),
        time: Timestamp::UNIX_EPOCH,
        details: json!({}),
    }
}

/// The keys of the acts on a page, and where the next begins.
async fn keys(
    nats: &Nats,
    kind: Option<AuditKind>,
    from: Cursor,
    limit: usize,
) -> Result<(Vec<String>, Option<Cursor>)> {
    let page = audit::page(nats, &key(), kind, from, limit).await?;
    let records = page.items.into_iter().map(|item| item.record);
    let keys = records.map(|record| Ok(record.map_err(anyhow::Error::msg)?.act.key()));
    Ok((keys.collect::<Result<_>>()?, page.next))
}

fn found(claim: Claim) -> Result<AuditRecord> {
    match claim {
        Claim::Found(record) => Ok(*record),
        Claim::Taken => anyhow::bail!("it was taken again"),
    }
}

async fn audit() -> Result<Fixture> {
    let fixture = Fixture::bare().await?;
    streams::ensure_shared(&fixture.nats, &DesiredStream::audit(1)).await?;
    Ok(fixture)
}

#[tokio::test]
async fn a_first_claim_is_taken_and_reads_back() -> Result<()> {
    let fixture = audit().await?;
    let ours = record("a", "one")?;
    let subject = audit::subject(&ours);
    assert_eq!(audit::read(&fixture.nats, &subject).await?, None);
    assert_eq!(audit::claim(&fixture.nats, &ours).await?, Claim::Taken);
    assert_eq!(audit::read(&fixture.nats, &subject).await?, Some(ours));
    Ok(())
}

#[tokio::test]
async fn a_second_claim_finds_the_first() -> Result<()> {
    let fixture = audit().await?;
    audit::claim(&fixture.nats, &record("a", "one")?).await?;
    let mut other = record("a", "two")?;
    let Act::Replay(claim) = &mut other.act else {
        anyhow::bail!("{other:?} is no claim");
    };
    claim.epoch = Epoch(3);
    let first = found(audit::claim(&fixture.nats, &other).await?)?;
    assert_eq!(first, record("a", "one")?);
    assert!(!other.is_same_claim(&first));
    Ok(())
}

#[tokio::test]
async fn an_operator_that_crashed_after_its_claim_recognises_it() -> Result<()> {
    let fixture = audit().await?;
    audit::claim(&fixture.nats, &record("a", "before the crash")?).await?;
    let mut again = record("a", "after the crash")?;
    again.time = "2026-02-03T04:05:06Z".parse()?;
    let first = found(audit::claim(&fixture.nats, &again).await?)?;
    assert!(again.is_same_claim(&first));
    Ok(())
}

#[tokio::test]
async fn a_lost_answer_is_replaced_by_what_the_leader_holds() -> Result<()> {
    let fixture = audit().await?;
    let proxy = TcpProxy::start(fixture.server.address()).await?;
    let far = connect_as_usual(format!("nats://{}", proxy.address())).await?;
    let ours = record("a", "far")?;
    proxy.cut_at("{\"stream\":\"LOOKBACK_AUDIT\"");
    assert_eq!(audit::claim(&far, &ours).await?, Claim::Taken);
    let near = audit::claim(&fixture.nats, &record("a", "near")?).await?;
    assert_eq!(found(near)?, ours);
    Ok(())
}

#[tokio::test]
async fn a_claim_that_arrives_late_changes_nothing() -> Result<()> {
    let fixture = audit().await?;
    let proxy = TcpProxy::start(fixture.server.address()).await?;
    let far = connect_as_usual(format!("nats://{}", proxy.address())).await?;
    proxy.freeze();
    let lost = audit::claim(&far, &record("a", "far")?).await;
    assert!(matches!(lost, Err(AuditError::Unavailable(_))), "{lost:?}");
    let near = record("a", "near")?;
    assert_eq!(audit::claim(&fixture.nats, &near).await?, Claim::Taken);
    proxy.thaw();
    let again = eventually(SOON, "the client is back", async || {
        Ok(audit::claim(&far, &record("a", "far")?).await?)
    })
    .await?;
    assert_eq!(found(again)?, near);
    Ok(())
}

#[tokio::test]
async fn nothing_that_was_claimed_can_be_overwritten_deleted_or_purged() -> Result<()> {
    let fixture = audit().await?;
    let ours = record("a", "one")?;
    audit::claim(&fixture.nats, &ours).await?;
    let subject = audit::subject(&ours);
    let written = fixture
        .js
        .publish(subject.clone(), "{}".into())
        .await?
        .await;
    assert!(written.is_err(), "{written:?}");
    let deleting = [
        ("STREAM.MSG.DELETE.LOOKBACK_AUDIT", json!({ "seq": 1 })),
        ("STREAM.PURGE.LOOKBACK_AUDIT", json!({ "filter": subject })),
    ];
    for (request, body) in deleting {
        let answer: Value = fixture.js.request(request.to_owned(), &body).await?;
        assert!(answer.get("error").is_some(), "{request}: {answer}");
    }
    assert_eq!(audit::read(&fixture.nats, &subject).await?, Some(ours));
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_read_is_no_free_claim() -> Result<()> {
    let fixture = audit().await?;
    let ours = record("a", "one")?;
    let newer = json!({ "v": 2 }).to_string();
    let subject = audit::subject(&ours);
    fixture.js.publish(subject, newer.into()).await?.await?;
    let claimed = audit::claim(&fixture.nats, &ours).await;
    assert!(
        matches!(claimed, Err(AuditError::Unreadable { .. })),
        "{claimed:?}"
    );
    Ok(())
}

#[tokio::test]
async fn without_the_stream_nothing_is_claimed() -> Result<()> {
    let fixture = Fixture::bare().await?;
    let claimed = audit::claim(&fixture.nats, &record("a", "one")?).await;
    assert!(
        matches!(claimed, Err(AuditError::Unavailable(_))),
        "{claimed:?}"
    );
    Ok(())
}

#[tokio::test]
async fn pipelines_that_want_other_copies_of_the_audit_leave_it_alone() -> Result<()> {
    let fixture = audit().await?;
    let ensured = streams::ensure_shared(&fixture.nats, &DesiredStream::audit(3)).await?;
    assert_eq!(ensured, Ensured::Unchanged);
    Ok(())
}

#[tokio::test]
async fn of_sixteen_claims_on_three_replicas_one_wins_each_round() -> Result<()> {
    let cluster = NatsCluster::start().await?;
    let mut nodes: Vec<Nats> = Vec::new();
    for url in cluster.urls() {
        nodes.push(connect(url).await?);
    }
    streams::ensure_shared(&nodes[0], &DesiredStream::audit(3)).await?;
    for node in &nodes {
        eventually(SOON, "each node knows the stream", async || {
            audit::claim(node, &record("warm-up", "anyone")?).await?;
            Ok(())
        })
        .await?;
    }
    for round in 0..20 {
        let id = format!("round-{round}");
        let mine = (0..16)
            .map(|n| record(&id, &format!("claimant {n}")))
            .collect::<Result<Vec<_>>>()?;
        let claims = mine
            .iter()
            .enumerate()
            .map(|(n, record)| audit::claim(&nodes[n % 3], record));
        let mut winner = None;
        let mut losers = Vec::new();
        let mut untold = Vec::new();
        for (n, claim) in join_all(claims).await.into_iter().enumerate() {
            match claim {
                Ok(Claim::Taken) => {
                    ensure!(winner.replace(n).is_none(), "two winners in round {round}");
                }
                Ok(Claim::Found(record)) => losers.push(*record),
                Err(AuditError::Unavailable(_)) => untold.push(n),
                Err(error) => return Err(error.into()),
            }
        }
        // Who was not told whether it won may have.
        let subject = audit::subject(&mine[0]);
        let stands = audit::read(&nodes[0], &subject).await?;
        let mut unknown = untold.into_iter();
        let winner = winner.or_else(|| unknown.find(|&n| stands.as_ref() == Some(&mine[n])));
        let won = &mine[winner.context("no winner")?];
        assert!(losers.iter().all(|found| found == won), "{losers:?}");
        for node in &nodes {
            let stands = audit::read(node, &subject).await?;
            assert_eq!(stands.as_ref(), Some(won));
        }
    }
    Ok(())
}

#[tokio::test]
async fn an_act_that_is_recorded_again_is_recorded_once() -> Result<()> {
    let fixture = audit().await?;
    audit::record(&fixture.nats, &act("a", "before the crash")).await?;
    let mut again = act("a", "before the crash");
    again.by = "another".to_owned();
    again.time = Timestamp::now();
    audit::record(&fixture.nats, &again).await?;
    let page = audit::page(&fixture.nats, &key(), None, Cursor(0), 10).await?;
    let records: Vec<_> = page.items.into_iter().map(|item| item.record).collect();
    assert_eq!(records, [Ok(act("a", "before the crash"))]);
    Ok(())
}

#[tokio::test]
async fn another_act_under_the_same_key_is_named_and_nothing_is_overwritten() -> Result<()> {
    let fixture = audit().await?;
    audit::record(&fixture.nats, &act("a", "the first")).await?;
    let refused = audit::record(&fixture.nats, &act("a", "the second")).await;
    let Err(AuditError::Taken { subject, by, .. }) = refused else {
        anyhow::bail!("{refused:?}");
    };
    assert_eq!(subject, "lookback.audit.prod.edr.operator.a");
    assert_eq!(by, "one");
    let stands = audit::read(&fixture.nats, &subject).await?;
    assert_eq!(stands, Some(act("a", "the first")));
    Ok(())
}

#[tokio::test]
async fn an_act_of_the_operator_that_is_too_large_is_cut_and_holds_no_other_back() -> Result<()> {
    let fixture = audit().await?;
    let owner = record("a", "one")?.owner;
    let author = Author {
        nats: &fixture.nats,
        owner: &owner,
        instance: "one",
    };
    let told = |key: &str, message: String, details: Value| Told {
        act: OperatorAct {
            key: key.to_owned(),
            reason: "LossAcknowledged".to_owned(),
            message,
        },
        details,
    };
    let much = "x".repeat(fixture.nats.max_payload());
    let standing = vec![
        told("details", "lost".to_owned(), json!({ "gaps": much })),
        told("message", much.clone(), json!({})),
        told("no token", "lost".to_owned(), json!({})),
        told("small", "lost".to_owned(), json!({})),
    ];
    Auditor::default().keep(author, standing).await;
    let page = audit::page(&fixture.nats, &key(), None, Cursor::default(), 10).await?;
    let mut records = Vec::new();
    for item in page.items {
        let record = item.record.map_err(anyhow::Error::msg)?;
        let Act::Operator(act) = record.act else {
            anyhow::bail!("{:?} is no act of the operator", record.act);
        };
        let is_cut = act.message.ends_with("[cut]");
        records.push((act.key, is_cut, record.details["cut"].as_u64()));
    }
    let details = serde_json::to_vec(&json!({ "gaps": much }))?.len() as u64;
    assert_eq!(
        records,
        [
            ("details".to_owned(), false, Some(details)),
            ("message".to_owned(), true, None),
            ("small".to_owned(), false, None)
        ]
    );
    Ok(())
}

#[tokio::test]
async fn the_audit_of_a_pipeline_is_listed_by_kind_or_whole_with_the_oldest_first() -> Result<()> {
    let fixture = audit().await?;
    let mut neighbour = act("b", "of another pipeline");
    neighbour.owner.pipeline = PipelineKey::new("prod", "edr2")?;
    for record in [
        record("r2", "one")?,
        act("z", "first"),
        neighbour,
        act("a", "last"),
        record("r1", "one")?,
    ] {
        audit::record(&fixture.nats, &record).await?;
    }
    let nats = &fixture.nats;
    let (all, next) = keys(nats, None, Cursor(0), 10).await?;
    assert_eq!(all, ["r2", "z", "a", "r1"]);
    assert_eq!(next, None);
    let (acts, _) = keys(nats, Some(AuditKind::Operator), Cursor(0), 10).await?;
    assert_eq!(acts, ["z", "a"]);
    let (none, _) = keys(nats, Some(AuditKind::Archive), Cursor(0), 10).await?;
    assert_eq!(none, [""; 0]);
    Ok(())
}

#[tokio::test]
async fn pages_go_on_where_the_last_one_ended_and_leave_no_consumer() -> Result<()> {
    let fixture = audit().await?;
    for n in 0..7 {
        audit::record(&fixture.nats, &act(&n.to_string(), "one of seven")).await?;
    }
    let mut seen = Vec::new();
    let mut from = Some(Cursor(0));
    while let Some(at) = from {
        let (keys, next) = keys(&fixture.nats, None, at, 3).await?;
        assert!(keys.len() <= 3, "{keys:?}");
        seen.extend(keys);
        from = next;
    }
    assert_eq!(seen, ["0", "1", "2", "3", "4", "5", "6"]);
    let mut stream = fixture.js.get_stream("LOOKBACK_AUDIT").await?;
    assert_eq!(stream.info().await?.state.consumer_count, 0);
    Ok(())
}

#[tokio::test]
async fn a_record_of_a_newer_version_is_named_and_does_not_end_the_list() -> Result<()> {
    let fixture = audit().await?;
    audit::record(&fixture.nats, &act("a", "before")).await?;
    let subject = key().audit_subject(AuditKind::Operator, "newer");
    let newer = json!({ "v": 2 }).to_string();
    fixture
        .js
        .publish(subject.clone(), newer.into())
        .await?
        .await?;
    audit::record(&fixture.nats, &act("b", "after")).await?;
    let page = audit::page(&fixture.nats, &key(), None, Cursor(0), 10).await?;
    let [before, newer, after] = page.items.as_slice() else {
        anyhow::bail!("{page:?}");
    };
    assert_eq!(before.record, Ok(act("a", "before")));
    assert_eq!((newer.sequence, &newer.subject), (2, &subject));
    let why = newer.record.as_ref().err().context("it was read")?;
    assert!(why.contains("version"), "{why}");
    assert_eq!(after.record, Ok(act("b", "after")));
    Ok(())
}

#[tokio::test]
async fn before_the_first_pipeline_of_an_account_the_audit_is_empty() -> Result<()> {
    let fixture = Fixture::bare().await?;
    let (none, next) = keys(&fixture.nats, None, Cursor(0), 10).await?;
    assert_eq!((none.len(), next), (0, None));
    Ok(())
}

#[tokio::test]
async fn what_was_recorded_is_listed_at_once_from_every_server_of_a_cluster() -> Result<()> {
    let cluster = NatsCluster::start().await?;
    let mut nodes: Vec<Nats> = Vec::new();
    for url in cluster.urls() {
        nodes.push(connect(url).await?);
    }
    streams::ensure_shared(&nodes[0], &DesiredStream::audit(3)).await?;
    for node in &nodes {
        eventually(SOON, "each node knows the stream", async || {
            audit::record(node, &act("warm-up", "anyone")).await?;
            Ok(())
        })
        .await?;
    }
    for n in 1..=60 {
        let writer = &nodes[n % 3];
        audit::record(writer, &act(&n.to_string(), "one of sixty")).await?;
        let (keys, _) = keys(&nodes[(n + 1) % 3], None, Cursor(0), 100).await?;
        assert_eq!(keys.len(), n + 1, "{keys:?}");
    }
    Ok(())
}
