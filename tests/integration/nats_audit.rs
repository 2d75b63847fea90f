//! The write-once audit, on real servers.

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use jiff::Timestamp;
use lookback::nats::audit::{self, AuditError, Claim};
use lookback::nats::connect::Nats;
use lookback::nats::desired::DesiredStream;
use lookback::nats::ensure::Ensured;
use lookback::nats::streams;
use lookback_dev::support::{NatsCluster, TcpProxy, eventually};
use lookback_protocol::audit::{Act, AuditRecord, ReplayClaim, VERSION};
use lookback_protocol::names::Owner;
use lookback_protocol::position::Epoch;
use lookback_protocol::replay::request::RequestId;
use serde_json::{Value, json};

use crate::nats_fixture::{Fixture, SOON, connect, key};

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
    let far = connect(format!("nats://{}", proxy.address())).await?;
    let ours = record("a", "far")?;
    proxy.cut_after(0);
    assert_eq!(audit::claim(&far, &ours).await?, Claim::Taken);
    let near = audit::claim(&fixture.nats, &record("a", "near")?).await?;
    assert_eq!(found(near)?, ours);
    Ok(())
}

#[tokio::test]
async fn a_claim_that_arrives_late_changes_nothing() -> Result<()> {
    let fixture = audit().await?;
    let proxy = TcpProxy::start(fixture.server.address()).await?;
    let far = connect(format!("nats://{}", proxy.address())).await?;
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
        for (n, claim) in join_all(claims).await.into_iter().enumerate() {
            match claim {
                Ok(Claim::Taken) => {
                    ensure!(winner.replace(n).is_none(), "two winners in round {round}");
                }
                Ok(Claim::Found(record)) => losers.push(*record),
                Err(AuditError::Unavailable(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let won = &mine[winner.context("no winner")?];
        assert!(losers.iter().all(|found| found == won), "{losers:?}");
        for node in &nodes {
            let stands = audit::read(node, &audit::subject(won)).await?;
            assert_eq!(stands.as_ref(), Some(won));
        }
    }
    Ok(())
}
