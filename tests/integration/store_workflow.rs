//! The workflow of a pipeline's alerts: written once, read at once, and followed by the store.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use futures::future::join_all;
use lookback::nats::alerts::StepError;
use lookback::nats::connect::{Nats, Timeouts};
use lookback::nats::definition;
use lookback::nats::ensure::{Deleted, Ensured, ObjectError};
use lookback::nats::entries::ReadError;
use lookback_protocol::alert::NEW;
use lookback_protocol::names::{AUDIT_STREAM, Owner, PipelineKey, STATE_BUCKET, STATE_STREAM};
use lookback_protocol::workflow::{Definition, Refusal, TransitionSpec, Workflow, WorkflowSpec};

use crate::nats_fixture::key;
use crate::store_fixture::{
    Copies, Servers, Spy, StoreFixture, connect_with, observed, owner, raw, to,
};

/// Creators that begin at once.
const CREATORS: usize = 8;

fn of_cluster(cluster: &str, pipeline: PipelineKey) -> Owner {
    Owner {
        cluster: cluster.to_owned(),
        pipeline,
    }
}

/// new -> `state`, when `guard` allows it.
fn to_one(state: &str, guard: Option<&str>) -> WorkflowSpec {
    WorkflowSpec {
        states: vec![state.to_owned()],
        transitions: vec![TransitionSpec {
            id: "go".to_owned(),
            from: vec![NEW.to_owned()],
            to: state.to_owned(),
            guard: guard.map(str::to_owned),
        }],
    }
}

fn definition(owner: Owner, spec: WorkflowSpec) -> Result<Definition> {
    let workflow = Workflow::new(spec).map_err(|faults| anyhow::anyhow!("{faults:?}"))?;
    Ok(Definition::new(owner, &workflow))
}

fn default_of(owner: Owner) -> Definition {
    Definition::new(owner, &Workflow::default())
}

/// The sequence of the last message, by which any write shows.
async fn last_of(nats: &Nats, stream: &str) -> Result<u64> {
    Ok(observed(nats, stream).await?.state.last_seq)
}

async fn bucket(fixture: &StoreFixture) -> Result<jetstream::kv::Store> {
    Ok(fixture.js.get_key_value(STATE_BUCKET).await?)
}

#[tokio::test]
async fn s01_a_workflow_is_read_as_it_was_written_and_written_only_when_it_differs() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let nats = &fixture.nats;
    assert_eq!(definition::read(nats, &key()).await?, None);
    let default = default_of(owner());
    assert_eq!(
        definition::ensure(nats, &default, None).await?,
        Ensured::Created
    );
    assert_eq!(definition::read(nats, &key()).await?, Some(default.clone()));
    let written = last_of(nats, STATE_STREAM).await?;
    assert_eq!(
        definition::ensure(nats, &default, None).await?,
        Ensured::Unchanged
    );
    assert_eq!(last_of(nats, STATE_STREAM).await?, written);
    let other = definition(owner(), to_one("done", Some("reason != ''")))?;
    let fields = ["former", "states", "transitions"]
        .map(str::to_owned)
        .to_vec();
    assert_eq!(
        definition::ensure(nats, &other, None).await?,
        Ensured::Updated { fields }
    );
    let other = other.after(default);
    assert_eq!(other.former, ["closed", "escalated", "triage"]);
    assert_eq!(definition::read(nats, &key()).await?, Some(other));
    Ok(())
}

#[tokio::test]
async fn s01_without_a_definition_the_default_workflow_is_followed() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let alert = fixture.one().await?;
    let stepped = fixture.alerts.step(&alert.id, None, &to("triage")).await?;
    assert_eq!(stepped.transition, "triage");
    Ok(())
}

#[tokio::test]
async fn s09_a_definition_is_the_one_message_of_a_subject_of_its_own() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    for spec in [WorkflowSpec::default(), to_one("done", None)] {
        fixture.define(spec).await?;
    }
    let stored = raw(&fixture.js, STATE_STREAM).await?;
    let subjects: Vec<_> = stored.iter().map(|it| it.subject.as_str()).collect();
    assert_eq!(subjects, ["$KV.LOOKBACK_STATE.prod.edr.def"]);
    let body: Definition = serde_json::from_slice(&stored[0].body)?;
    let last = definition(owner(), to_one("done", None))?;
    assert_eq!(body, last.after(default_of(owner())));
    Ok(())
}

/// Each of them believes that the pipeline is its own. Whoever lost was told so.
async fn one_creator_wins(copies: Copies, rounds: usize) -> Result<()> {
    let fixture = StoreFixture::start(copies).await?;
    let each = fixture.each().await?;
    for round in 0..rounds {
        let pipeline = PipelineKey::new("prod", &format!("p{round}"))?;
        let definitions: Vec<Definition> = (0..CREATORS)
            .map(|at| default_of(of_cluster(&format!("cluster-{at}"), pipeline.clone())))
            .collect();
        let created = definitions.iter().enumerate().map(|(at, definition)| {
            let nats = &each[at % each.len()];
            async move { definition::ensure(nats, definition, None).await }
        });
        let (mut winners, mut unknown) = (Vec::new(), Vec::new());
        for (definition, created) in definitions.iter().zip(join_all(created).await) {
            match created {
                Ok(ensured) => {
                    ensure!(ensured == Ensured::Created, "round {round}: {ensured:?}");
                    winners.push(definition.clone());
                }
                Err(ObjectError::Foreign { .. }) => {}
                Err(ObjectError::Api { .. }) => unknown.push(definition.clone()),
                Err(error) => return Err(error.into()),
            }
        }
        let stands = definition::read(&fixture.nats, &pipeline).await?;
        // Who was not told whether it won may have.
        let stands = stands.with_context(|| format!("nobody won round {round}"))?;
        if !(winners.is_empty() && unknown.contains(&stands)) {
            assert_eq!(winners, [stands], "round {round}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn s14_of_creators_of_one_definition_one_wins_and_overwrites_nothing() -> Result<()> {
    one_creator_wins(Copies::One, 50).await
}

#[tokio::test]
async fn s14_of_creators_on_three_servers_one_wins_and_overwrites_nothing() -> Result<()> {
    one_creator_wins(Copies::Three, 25).await
}

#[tokio::test]
async fn s14_a_definition_of_another_owner_is_left_alone_unless_it_is_to_be_adopted() -> Result<()>
{
    let fixture = StoreFixture::r1().await?;
    let nats = &fixture.nats;
    let theirs = default_of(of_cluster("theirs", key()));
    definition::ensure(nats, &theirs, None).await?;
    let ours = default_of(owner());
    for adopt in [None, Some("another/prod/edr")] {
        let refused = definition::ensure(nats, &ours, adopt).await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "workflow prod.edr.def belongs to theirs/prod/edr, not to cluster/prod/edr; it is left alone"
        );
        assert_eq!(definition::read(nats, &key()).await?, Some(theirs.clone()));
    }
    let from = "theirs/prod/edr".to_owned();
    assert_eq!(
        definition::ensure(nats, &ours, Some(&from)).await?,
        Ensured::Adopted { from }
    );
    assert_eq!(definition::read(nats, &key()).await?, Some(ours));
    Ok(())
}

#[tokio::test]
async fn s14_only_ones_own_definition_is_deleted_and_can_be_written_again() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let nats = &fixture.nats;
    let ours = default_of(owner());
    definition::ensure(nats, &ours, None).await?;
    let refused = definition::delete(nats, &of_cluster("theirs", key())).await;
    assert!(
        matches!(refused, Err(ObjectError::Foreign { .. })),
        "{refused:?}"
    );
    assert_eq!(definition::read(nats, &key()).await?, Some(ours.clone()));
    assert_eq!(definition::delete(nats, &owner()).await?, Deleted::Now);
    assert_eq!(definition::read(nats, &key()).await?, None);
    assert_eq!(definition::delete(nats, &owner()).await?, Deleted::Absent);
    assert_eq!(
        definition::ensure(nats, &ours, None).await?,
        Ensured::Created
    );
    Ok(())
}

#[tokio::test]
async fn s14_a_key_that_a_person_deleted_counts_as_never_written() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let nats = &fixture.nats;
    let ours = default_of(owner());
    definition::ensure(nats, &ours, None).await?;
    bucket(&fixture)
        .await?
        .delete(key().definition_key())
        .await?;
    assert_eq!(definition::read(nats, &key()).await?, None);
    assert_eq!(definition::list(nats).await?, []);
    assert_eq!(
        definition::ensure(nats, &ours, None).await?,
        Ensured::Created
    );
    assert_eq!(definition::read(nats, &key()).await?, Some(ours));
    Ok(())
}

#[tokio::test]
async fn s15_a_definition_is_read_by_one_message_get() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    fixture.define(WorkflowSpec::default()).await?;
    let mut spy = Spy::open(&fixture).await?;
    let read = definition::read(&fixture.nats, &key()).await?;
    assert_eq!(read, Some(default_of(owner())));
    assert_eq!(
        spy.heard().await?,
        [format!("STREAM.MSG.GET.{STATE_STREAM}")]
    );
    Ok(())
}

#[tokio::test]
async fn s15_whatever_server_is_asked_the_last_version_is_read() -> Result<()> {
    let fixture = StoreFixture::r3().await?;
    let each = fixture.each().await?;
    let mut written = default_of(owner());
    definition::ensure(&fixture.nats, &written, None).await?;
    for version in 0..100 {
        let next = definition(owner(), to_one(&format!("v{}", version % 7), None))?;
        definition::ensure(&fixture.nats, &next, None).await?;
        written = next.after(written);
        for nats in &each {
            let read = definition::read(nats, &key()).await?;
            assert_eq!(read.as_ref(), Some(&written));
        }
    }
    Ok(())
}

#[tokio::test]
async fn s15_silence_and_another_version_are_errors_and_not_the_absence_of_a_definition()
-> Result<()> {
    let mut fixture = StoreFixture::r1().await?;
    fixture.define(WorkflowSpec::default()).await?;
    let newer = serde_json::to_string(&default_of(owner()))?.replace("\"v\":1", "\"v\":2");
    let kv = bucket(&fixture).await?;
    kv.put(key().definition_key(), newer.into()).await?;
    let read = definition::read(&fixture.nats, &key()).await;
    assert!(
        matches!(read, Err(ReadError::Unreadable { .. })),
        "{read:?}"
    );
    let nats = connect_with(fixture.servers.urls(), Timeouts::default()).await?;
    let Servers::One(server) = &mut fixture.servers else {
        anyhow::bail!("the fixture has one server");
    };
    server.kill();
    let read = definition::read(&nats, &key()).await;
    assert!(matches!(read, Err(ReadError::Api { .. })), "{read:?}");
    Ok(())
}

#[tokio::test]
async fn s16_every_definition_of_the_account_is_listed_once_in_its_last_version() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let nats = &fixture.nats;
    let mut expected = BTreeMap::new();
    for number in 0..250 {
        let pipeline = PipelineKey::new(&format!("ns{}", number % 7), &format!("p{number}"))?;
        let written = default_of(of_cluster("cluster", pipeline.clone()));
        definition::ensure(nats, &written, None).await?;
        // What else stands in the bucket is no definition.
        let kv = bucket(&fixture).await?;
        kv.put(pipeline.checkpoint_key(0), "{}".into()).await?;
        expected.insert(pipeline, written);
    }
    for (at, written) in expected.values_mut().enumerate().step_by(3) {
        let next = definition(written.owner.clone(), to_one(&format!("v{at}"), None))?;
        definition::ensure(nats, &next, None).await?;
        *written = next.after(written.clone());
    }
    let gone: Vec<Owner> = expected
        .values()
        .step_by(50)
        .map(|it| it.owner.clone())
        .collect();
    for owner in gone {
        definition::delete(nats, &owner).await?;
        expected.remove(&owner.pipeline);
    }
    let mut spy = Spy::open(&fixture).await?;
    let mut listed = definition::list(nats).await?;
    listed.sort_by_key(|it| it.owner.pipeline.clone());
    assert_eq!(listed, Vec::from_iter(expected.into_values()));
    // Each by one message get, and one more to know that there is none.
    let gets = vec![format!("STREAM.MSG.GET.{STATE_STREAM}"); listed.len() + 1];
    assert_eq!(spy.heard().await?, gets);
    Ok(())
}

#[tokio::test]
async fn s24_a_step_that_the_definition_does_not_have_is_refused_and_nothing_is_written()
-> Result<()> {
    let fixture = StoreFixture::r1().await?;
    fixture
        .define(to_one("done", Some("by == 'user/lead'")))
        .await?;
    let alert = fixture.one().await?;
    let streams = [key().alerts_stream(), AUDIT_STREAM.to_owned()];
    let mut before = Vec::new();
    for stream in &streams {
        before.push(last_of(&fixture.nats, stream).await?);
    }
    for (state, expected) in [
        (
            "triage",
            Refusal::NoTransition {
                from: NEW.to_owned(),
                to: "triage".to_owned(),
                possible: "go -> done, archive -> archived".to_owned(),
            },
        ),
        (
            "done",
            Refusal::Forbidden {
                transition: "go".to_owned(),
                guard: "by == 'user/lead'".to_owned(),
            },
        ),
    ] {
        let refused = fixture.alerts.step(&alert.id, None, &to(state)).await;
        let Err(StepError::Refused { id, source }) = refused else {
            anyhow::bail!("it is not refused: {refused:?}");
        };
        assert_eq!((id, source), (alert.id.clone(), expected));
    }
    for (stream, before) in streams.iter().zip(before) {
        assert_eq!(last_of(&fixture.nats, stream).await?, before, "{stream}");
    }
    assert_eq!(fixture.alerts.get(&alert.id).await?, alert);
    Ok(())
}

#[tokio::test]
async fn s24_a_changed_definition_holds_for_the_next_step_of_whoever_is_connected() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    fixture.define(to_one("done", None)).await?;
    let other = fixture.another().await?;
    let alert = fixture.one().await?;
    other.step(&alert.id, None, &to("done")).await?;
    fixture.define(to_one("over", None)).await?;
    let refused = other.step(&alert.id, None, &to("over")).await;
    let source = match refused {
        Err(StepError::Refused { source, .. }) => source,
        other => anyhow::bail!("it is not refused: {other:?}"),
    };
    assert_eq!(
        source,
        Refusal::UnknownState {
            state: "done".to_owned()
        }
    );
    let second = fixture.create(2..3).await?.pop().context("no alert")?;
    assert_eq!(
        other.step(&second, None, &to("over")).await?.alert.state,
        "over"
    );
    Ok(())
}
