//! What the operator says of alerts and dead letters, what it writes into the audit, and that a pipeline
//! has stores of its own.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::ResourceExt;
use kube::api::DeleteParams;
use lookback::api::DetectionPipeline;
use lookback::nats::alerts::AlertStore;
use lookback::nats::audit::{self, StoredRecord};
use lookback::nats::checkpoint::JetStreamCheckpoints;
use lookback::nats::connect::Nats;
use lookback::nats::entries::Cursor;
use lookback::nats::outbox::JetStreamOutbox;
use lookback::nats::{definition, streams};
use lookback::worker::ports::{Checkpoints, Lookup, Outbox};
use lookback_dev::support::eventually;
use lookback_protocol::audit::{Act, AuditKind};
use lookback_protocol::checkpoint;
use lookback_protocol::consumer::OWNER_KEY;
use lookback_protocol::names::{Owner, PipelineKey};
use lookback_protocol::replay::record::ReplayPhase;
use lookback_protocol::workflow::{Definition, To, WorkflowSpec};
use serde_json::{Value, json};

use crate::operator_fixture::{CLUSTER, NAME, SOON, STREAM, World};
use crate::replay_fixture::{ALARM, applied, applied_with, ask as ask_for, begun, completed};
use crate::store_fixture::{ask, record_of, to};

const OTHER: &str = "edr2";

fn owner(pipeline: PipelineKey) -> Owner {
    Owner {
        cluster: CLUSTER.to_owned(),
        pipeline,
    }
}

/// What the operator did to a pipeline, as the audit has it.
async fn acts(nats: &Nats, key: &PipelineKey) -> Result<Vec<StoredRecord>> {
    let kind = Some(AuditKind::Operator);
    Ok(audit::page(nats, key, kind, Cursor(0), 100).await?.items)
}

/// Keys and reasons of what the operator did, in order.
async fn told(nats: &Nats, key: &PipelineKey) -> Result<Vec<(String, String)>> {
    let mut told = Vec::new();
    for stored in acts(nats, key).await? {
        let record = stored.record.map_err(anyhow::Error::msg)?;
        let Act::Operator(act) = record.act else {
            anyhow::bail!("{record:?} is no act of the operator");
        };
        told.push((act.key, act.reason));
    }
    Ok(told)
}

#[tokio::test]
async fn alerts_and_dead_letters_are_counted_by_state() -> Result<()> {
    let world = World::new().await?;
    let operator = world.operator().await?;
    world.create(world.spec()).await?;
    world.appears::<StatefulSet>(NAME).await?;
    let (nats, key) = (world.connect().await?, world.key());
    let outbox = JetStreamOutbox::new(nats.clone(), key.clone());
    let mut ids = Vec::new();
    for n in 1..=5 {
        let record = record_of(&key, n);
        outbox.create_alert(&record, Lookup::No).await?;
        ids.push(record.id);
    }
    let store = AlertStore::new(nats.clone(), owner(key.clone()));
    store.step(&ids[0], None, &to("triage")).await?;
    store.step(&ids[1], None, &ask(To::Archive)).await?;
    let js = world.js().await?;
    for (state, id) in [("parked", "0-1-aaaaaaaa"), ("discarded", "0-2-aaaaaaaa")] {
        let subject = key.dead_letter_subject(state, id);
        js.publish(subject, "{}".into()).await?.await?;
    }
    let status = eventually(SOON, "the counts", async || {
        let status = world.status().await?;
        let alerts = status.alerts.clone().context("no alerts yet")?;
        let letters = status.dead_letters.clone().context("no dead letters yet")?;
        ensure!(
            (alerts.stored, letters.parked, letters.discarded) == (4, 1, 1),
            "{alerts:?} {letters:?}"
        );
        Ok(status)
    })
    .await?;
    let expected = [
        ("new", 3),
        ("triage", 1),
        ("escalated", 0),
        ("closed", 0),
        ("archived", 1),
    ];
    let expected: BTreeMap<_, _> = expected.map(|(state, n)| (state.to_owned(), n)).into();
    assert_eq!(status.alerts.context("no alerts")?.by_state, expected);
    let parked = world
        .condition("DeadLettersClear", "False", "EventsParked")
        .await?;
    assert!(
        parked.message.contains("parked, 1 of them"),
        "{}",
        parked.message
    );
    let labels = format!("{{namespace=\"{}\",name=\"edr\",state=", world.namespace);
    let page = operator.get("/metrics").await?;
    for line in [
        format!("lookback_pipeline_alerts{labels}\"new\"}} 3"),
        format!("lookback_pipeline_dead_letters{labels}\"parked\"}} 1"),
    ] {
        assert!(page.contains(&line), "{line} is not in {page}");
    }
    operator.end().await
}

#[tokio::test]
async fn alerts_in_a_state_that_the_workflow_lost_are_named() -> Result<()> {
    let world = World::new().await?;
    let operator = world.operator().await?;
    let mut spec = world.spec();
    let wait = json!({"id": "wait", "from": ["new"], "to": "waiting"});
    spec["alerts"] = json!({"workflow": {"states": ["waiting"], "transitions": [wait]}});
    world.create(spec).await?;
    world.appears::<StatefulSet>(NAME).await?;
    let subject = world.key().alert_subject("waiting", "A");
    world
        .js()
        .await?
        .publish(subject, "{}".into())
        .await?
        .await?;
    let default = json!({"spec": {"alerts": {"workflow": null}}});
    world.merge::<DetectionPipeline>(NAME, default).await?;
    eventually(SOON, "the state is named", async || {
        let condition = crate::operator_fixture::find(&world.status().await?, "NatsReady")?;
        ensure!(condition.reason == "StatesOrphaned", "{condition:?}");
        ensure!(condition.message.contains("waiting (1)"), "{condition:?}");
        Ok(())
    })
    .await?;
    operator.end().await
}

#[tokio::test]
async fn s56_each_pipeline_has_two_streams_with_a_retention_of_their_own() -> Result<()> {
    let world = World::new().await?;
    let operator = world.operator().await?;
    let mut spec = world.spec();
    spec["alerts"] = json!({"maxAge": "2d", "maxBytes": "10Mi"});
    spec["deadLetters"] = json!({"maxAge": "1d", "maxBytes": "5Mi"});
    world.create(spec).await?;
    let mut spec = world.spec();
    spec["alerts"] = json!({"maxAge": "4d", "maxBytes": "20Mi"});
    spec["deadLetters"] = json!({"maxAge": "3d", "maxBytes": "15Mi"});
    world.try_create(OTHER, spec).await?;
    let nats = world.connect().await?;
    let other = PipelineKey::new(&world.namespace, OTHER)?;
    for (name, days, mebibytes) in [
        (world.key().alerts_stream(), 2, 10),
        (world.key().dead_letters_stream(), 1, 5),
        (other.alerts_stream(), 4, 20),
        (other.dead_letters_stream(), 3, 15),
    ] {
        let stream = eventually(SOON, &format!("stream {name}"), async || {
            let found = streams::read(&nats, &name).await?;
            found.context("there is none yet")
        })
        .await?;
        let age = stream.max_age().context("no limit of age")?;
        assert_eq!(age.as_secs(), days * 86_400, "{name}");
        assert_eq!(stream.max_bytes(), Some(mebibytes << 20), "{name}");
        assert_eq!(stream.subjects().count(), 1, "{name}");
    }
    operator.end().await
}

/// Everything of one pipeline in NATS that stands, by name.
async fn standing(nats: &Nats, key: &PipelineKey) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for name in [key.alerts_stream(), key.dead_letters_stream()] {
        found.extend(streams::read(nats, &name).await?.map(|_| name));
    }
    let consumers = lookback::nats::consumers::list(nats, STREAM, key, 0).await?;
    found.extend(consumers.into_keys().map(|epoch| key.consumer(0, epoch)));
    let mut checkpoints = JetStreamCheckpoints::new(nats.clone(), key, 0);
    found.extend(checkpoints.load().await?.map(|_| key.checkpoint_key(0)));
    let defined = definition::read(nats, key).await?;
    found.extend(defined.map(|_| key.definition_key()));
    Ok(found)
}

#[tokio::test]
async fn s56_a_deleted_pipeline_takes_its_stores_along_and_none_of_a_neighbours() -> Result<()> {
    let world = World::new().await?;
    let operator = world.operator().await?;
    let (nats, key) = (world.connect().await?, world.key());
    let other = PipelineKey::new(&world.namespace, OTHER)?;
    let mut spec = world.spec();
    spec["deletionPolicy"] = Value::from("Delete");
    let uid = world.create(spec.clone()).await?.uid().context("no uid")?;
    world.try_create(OTHER, spec).await?;
    for pipeline in [&key, &other] {
        world.appears::<StatefulSet>(pipeline.name()).await?;
        let mut written = world.checkpoint(checkpoint::Phase::Started).await?;
        written.owner = owner(pipeline.clone());
        let mut store = JetStreamCheckpoints::new(nats.clone(), pipeline, 0);
        store.store(&written, None).await?;
        let defined = Definition {
            v: lookback_protocol::workflow::VERSION,
            owner: owner(pipeline.clone()),
            initial: "new".to_owned(),
            workflow: WorkflowSpec::default(),
            former: Vec::new(),
        };
        definition::ensure(&nats, &defined, None).await?;
    }
    assert_eq!(standing(&nats, &key).await?.len(), 5);
    let before = standing(&nats, &other).await?;
    assert_eq!(before.len(), 5);
    let api = world.api::<DetectionPipeline>();
    api.delete(NAME, &DeleteParams::default()).await?;
    world.disappears::<DetectionPipeline>(NAME).await?;
    assert_eq!(standing(&nats, &key).await?, [""; 0]);
    assert_eq!(standing(&nats, &other).await?, before);
    let deleted = (format!("deleted-{uid}"), "CleanedUp".to_owned());
    assert_eq!(told(&nats, &key).await?, [deleted]);
    assert_eq!(told(&nats, &other).await?, []);
    operator.end().await
}

#[tokio::test]
async fn an_approved_replay_is_in_the_audit_once_however_often_the_operator_dies() -> Result<()> {
    let mut stand = applied(&[ALARM, ALARM]).await?;
    let block = json!({
        "id": "again", "fromSequence": 1, "statePolicy": "Clear", "approval": "Manual",
    });
    ask_for(&stand, block).await?;
    let record = begun(&stand, "again", ReplayPhase::AwaitingApproval).await?;
    let hash = record.plan.context("no plan")?.hash;
    stand.annotate("lookback.dev/approve", &hash).await?;
    completed(&stand, "again").await?;
    let (nats, key) = (stand.connect().await?, stand.key());
    let expected = ["ReplayApproved", "ReplayCompleted"];
    let first = eventually(SOON, "both acts", async || {
        let told = told(&nats, &key).await?;
        let reasons: Vec<_> = told.iter().map(|(_, reason)| reason.as_str()).collect();
        ensure!(reasons == expected, "{reasons:?}");
        acts(&nats, &key).await
    })
    .await?;
    for _ in 0..2 {
        stand.kill_operator().await?;
        stand.start_operator().await?;
        stand.reconciles(2).await?;
    }
    assert_eq!(acts(&nats, &key).await?, first);
    Ok(())
}

#[tokio::test]
async fn a_consumer_that_is_deleted_is_in_the_audit() -> Result<()> {
    let forgetful = |world: &World| {
        let mut settings = world.settings();
        settings.limits.keep_consumers = SignedDuration::from_secs(1);
        settings
    };
    let stand = applied_with(&[ALARM, ALARM], forgetful).await?;
    let uid = stand.pipeline().await?.uid().context("no uid")?;
    let block = json!({"id": "again", "fromSequence": 1, "statePolicy": "Clear"});
    ask_for(&stand, block).await?;
    completed(&stand, "again").await?;
    let (nats, key) = (stand.connect().await?, stand.key());
    let deleted = (format!("consumer-{uid}-e1"), "ConsumerDeleted".to_owned());
    eventually(SOON, "the act", async || {
        let told = told(&nats, &key).await?;
        ensure!(told.contains(&deleted), "{told:?}");
        Ok(())
    })
    .await?;
    assert!(stand.consumer(1).await?.is_none());
    Ok(())
}

#[tokio::test]
async fn s13_a_stream_that_cannot_be_repaired_is_a_condition_and_keeps_what_it_holds() -> Result<()>
{
    let world = World::new().await?;
    let (js, key) = (world.js().await?, world.key());
    let config = jetstream::stream::Config {
        name: key.alerts_stream(),
        subjects: vec![key.alert_subjects()],
        storage: jetstream::stream::StorageType::Memory,
        metadata: [(OWNER_KEY.to_owned(), owner(key.clone()).to_string())].into(),
        ..Default::default()
    };
    js.create_stream(config).await?;
    let subject = key.alert_subject("new", "A");
    js.publish(subject, "{}".into()).await?.await?;
    let operator = world.operator().await?;
    world.create(world.spec()).await?;
    let condition = world
        .condition("NatsReady", "False", "StreamImmutable")
        .await?;
    assert!(
        condition.message.contains("storage"),
        "{}",
        condition.message
    );
    operator.reconciles(2).await?;
    let nats = world.connect().await?;
    let found = streams::read(&nats, &key.alerts_stream()).await?;
    assert_eq!(found.context("it is gone")?.state.messages, 1);
    operator.end().await
}

#[tokio::test]
async fn what_is_taken_over_and_what_is_acknowledged_is_in_the_audit() -> Result<()> {
    let world = World::new().await?;
    let operator = world.operator().await?;
    world.create(world.spec()).await?;
    world.appears::<StatefulSet>(NAME).await?;
    let mut written = world.checkpoint(checkpoint::Phase::Started).await?;
    written.gaps.push(checkpoint::Gap {
        from: lookback_protocol::position::StreamSeq(1),
        to: lookback_protocol::position::StreamSeq(9),
        possible: false,
    });
    world.write(&written).await?;
    world
        .condition("RetentionSafe", "False", "EventsExpired")
        .await?;
    let (nats, key) = (world.connect().await?, world.key());
    assert_eq!(told(&nats, &key).await?, []);
    let annotations = json!({"lookback.dev/acknowledge": "9"});
    let patch = json!({"metadata": {"annotations": annotations}});
    world.merge::<DetectionPipeline>(NAME, patch).await?;
    let acknowledged = eventually(SOON, "the act", async || {
        let told = told(&nats, &key).await?;
        ensure!(told.len() == 1, "{told:?}");
        Ok(told)
    })
    .await?;
    assert_eq!(acknowledged[0].1, "LossAcknowledged");
    operator.end().await?;

    // Another cluster's operator takes over, because a person says so.
    let mut settings = world.settings();
    settings.cluster = Some("new-cluster".to_owned());
    let before = owner(key.clone()).to_string();
    let annotations = json!({"lookback.dev/adopt": before});
    let patch = json!({"metadata": {"annotations": annotations}});
    world.merge::<DetectionPipeline>(NAME, patch).await?;
    let operator = world.operator_with(settings).await?;
    eventually(SOON, "the hand-over", async || {
        let told = told(&nats, &key).await?;
        let adopted = told
            .iter()
            .filter(|(_, reason)| reason == "Adopted")
            .count();
        ensure!(adopted == 1, "{told:?}");
        Ok(())
    })
    .await?;
    operator.reconciles(3).await?;
    let adopted = told(&nats, &key).await?;
    let adopted = adopted.iter().filter(|(_, reason)| reason == "Adopted");
    assert_eq!(adopted.count(), 1);
    operator.end().await
}
