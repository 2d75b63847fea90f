//! A pipeline comes up, stays as it is, is repaired, and changes.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::consumer::PullConsumer;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use lookback::api::status::Phase;
use lookback::nats::consumers;
use lookback::nats::desired::DesiredConsumer;
use lookback::operator::pipeline::build::mounted;
use lookback_dev::support::eventually;
use lookback_protocol::checkpoint::{self, Hold, HoldReason};
use lookback_protocol::config::WorkerConfig;
use lookback_protocol::names::STATE_STREAM;
use lookback_protocol::position::{Epoch, StreamSeq};
use serde_json::{Value, json};

use crate::operator_fixture::{NAME, RULE, SOON, STREAM, World};

const SECOND_RULE: &str = "\
title: Net user
id: 3f0b5a5c-0000-4000-8000-000000000002
logsource: {product: windows}
detection: {selection: {CommandLine: net user}, condition: selection}
";

/// What the newest template tells the worker, and the name of the ConfigMap it stands in.
async fn config(world: &World) -> Result<(String, WorkerConfig)> {
    let set: StatefulSet = world.api().get(NAME).await?;
    let names = mounted(&set);
    for name in names {
        let config_map: ConfigMap = world.api().get(&name).await?;
        if let Some(text) = config_map
            .data
            .and_then(|mut data| data.remove("config.json"))
        {
            return Ok((name, serde_json::from_str(&text)?));
        }
    }
    anyhow::bail!("no config.json is mounted")
}

async fn consumer(world: &World) -> Result<PullConsumer> {
    let stream = world.js().await?.get_stream(STREAM).await?;
    let name = world.key().consumer(0, Epoch(1));
    stream
        .get_consumer(&name)
        .await
        .map_err(|error| anyhow::anyhow!("no consumer {name}: {error}"))
}

#[tokio::test]
async fn a_pipeline_comes_up_with_everything_it_owns() -> Result<()> {
    let world = World::new().await?;
    let operator = world.operator().await?;
    world.create(world.spec()).await?;
    world.appears::<StatefulSet>(NAME).await?;
    for kind in [
        world.api::<Service>().get("edr-worker").await?.metadata,
        world
            .api::<ServiceAccount>()
            .get("edr-worker")
            .await?
            .metadata,
        world
            .api::<NetworkPolicy>()
            .get("edr-worker")
            .await?
            .metadata,
    ] {
        let owners = kind.owner_references.context("no owner")?;
        assert_eq!(owners[0].kind, "DetectionPipeline");
    }
    for stream in [
        world.key().alerts_stream(),
        world.key().dead_letters_stream(),
        STATE_STREAM.to_owned(),
    ] {
        assert!(world.has_stream(&stream).await?, "no stream {stream}");
    }
    let (_, config) = config(&world).await?;
    assert_eq!(config.source.start, StreamSeq(1));
    assert_eq!(config.rules.files.len(), 1);
    let consumer = consumer(&world).await?;
    let metadata = &consumer.cached_info().config.metadata;
    assert_eq!(
        metadata.get("lookback.dev/start").map(String::as_str),
        Some("1")
    );
    operator.end().await
}

#[tokio::test]
async fn a_pipeline_whose_worker_is_ready_is_current_for_kstatus() -> Result<()> {
    let world = World::new().await?;
    let operator = world.operator().await?;
    world.create(world.spec()).await?;
    let waiting = world.condition("Ready", "False", "VolumePending").await?;
    assert_eq!(waiting.observed_generation, Some(1));
    world
        .condition("Reconciling", "True", "VolumePending")
        .await?;
    world.worker_becomes_ready().await?;
    world.condition("Ready", "True", "Running").await?;
    world.condition("Reconciling", "False", "Settled").await?;
    world.condition("Stalled", "False", "NotStalled").await?;
    let status = world.phase(Phase::Running).await?;
    assert_eq!(status.observed_generation, Some(1));
    assert!(world.event("Running").await?.contains("Running"));
    operator.end().await
}

#[tokio::test]
async fn a_second_reconcile_changes_nothing() -> Result<()> {
    let world = World::new().await?;
    let operator = world.operator().await?;
    world.create(world.spec()).await?;
    world.worker_becomes_ready().await?;
    world.phase(Phase::Running).await?;
    operator.reconciles(2).await?;
    let before = versions(&world).await?;
    operator.reconciles(3).await?;
    assert_eq!(versions(&world).await?, before);
    operator.end().await
}

/// The resourceVersion of the pipeline and of everything it owns.
async fn versions(world: &World) -> Result<BTreeMap<String, String>> {
    let all = ListParams::default();
    let mut versions = BTreeMap::new();
    let mut note = |kind: &str, object: &dyn Fn() -> (String, Option<String>)| {
        let (name, version) = object();
        versions.insert(format!("{kind} {name}"), version.unwrap_or_default());
    };
    let pipeline = world.pipeline().await?;
    note("pipeline", &|| {
        (pipeline.name_any(), pipeline.resource_version())
    });
    for set in world.api::<StatefulSet>().list(&all).await? {
        note("set", &|| (set.name_any(), set.resource_version()));
    }
    for service in world.api::<Service>().list(&all).await? {
        note("service", &|| {
            (service.name_any(), service.resource_version())
        });
    }
    let config_maps = world.api::<ConfigMap>().list(&all).await?;
    // The cluster puts one of its own into every namespace, at some time.
    let ours = |it: &ConfigMap| !it.owner_references().is_empty();
    for config_map in config_maps.into_iter().filter(ours) {
        note("config", &|| {
            (config_map.name_any(), config_map.resource_version())
        });
    }
    for policy in world.api::<NetworkPolicy>().list(&all).await? {
        note("policy", &|| (policy.name_any(), policy.resource_version()));
    }
    Ok(versions)
}

#[tokio::test]
async fn a_deleted_service_is_made_again() -> Result<()> {
    let world = World::new().await?;
    let operator = world.operator().await?;
    world.create(world.spec()).await?;
    let before = world.appears::<Service>("edr-worker").await?.uid();
    world
        .api::<Service>()
        .delete("edr-worker", &DeleteParams::default())
        .await?;
    eventually(SOON, "another Service", async || {
        let now = world.api::<Service>().get("edr-worker").await?.uid();
        ensure!(now != before, "it is the same");
        Ok(())
    })
    .await?;
    operator.end().await
}

#[tokio::test]
async fn a_changed_label_and_a_changed_template_are_set_back() -> Result<()> {
    let world = World::new().await?;
    let operator = world.operator().await?;
    world.create(world.spec()).await?;
    world.appears::<StatefulSet>(NAME).await?;
    let (name, _) = config(&world).await?;
    let label = json!({"metadata": {"labels": {"app.kubernetes.io/component": "other"}}});
    world.merge::<ConfigMap>(&name, label).await?;
    let scaled = json!({"spec": {"replicas": 0}});
    world.merge::<StatefulSet>(NAME, scaled).await?;
    eventually(SOON, "both are set back", async || {
        let config_map: ConfigMap = world.api().get(&name).await?;
        let component = config_map
            .labels()
            .get("app.kubernetes.io/component")
            .cloned();
        ensure!(
            component.as_deref() == Some("worker"),
            "component is {component:?}"
        );
        let set: StatefulSet = world.api().get(NAME).await?;
        let replicas = set.spec.and_then(|spec| spec.replicas);
        ensure!(replicas == Some(1), "replicas is {replicas:?}");
        Ok(())
    })
    .await?;
    operator.end().await
}

#[tokio::test]
async fn drift_of_a_stream_and_of_the_consumer_is_repaired_in_place() -> Result<()> {
    let world = World::new().await?;
    let operator = world.operator().await?;
    let mut spec = world.spec();
    spec["source"]["subjects"] = json!(["events.windows.>"]);
    world.create(spec).await?;
    world.appears::<StatefulSet>(NAME).await?;
    let js = world.js().await?;
    let alerts = world.key().alerts_stream();
    let mut config = js.get_stream(&alerts).await?.cached_info().config.clone();
    let max_age = std::mem::replace(&mut config.max_age, 60 * SOON);
    js.update_stream(&config).await?;
    let metadata = consumer(&world)
        .await?
        .cached_info()
        .config
        .metadata
        .clone();
    let drifted = DesiredConsumer {
        stream: STREAM.to_owned(),
        name: world.key().consumer(0, Epoch(1)),
        filter_subjects: vec!["events.linux.>".to_owned()],
        metadata: metadata.into_iter().collect(),
        adopt: None,
    };
    consumers::ensure(&world.connect().await?, &drifted).await?;
    eventually(SOON, "both are set back", async || {
        let now = js.get_stream(&alerts).await?.cached_info().config.max_age;
        ensure!(now == max_age, "max_age is {now:?}");
        let consumer = consumer(&world).await?;
        let config = &consumer.cached_info().config;
        let filters = config
            .filter_subjects
            .iter()
            .chain([&config.filter_subject]);
        let filters: Vec<&String> = filters.filter(|filter| !filter.is_empty()).collect();
        ensure!(filters == ["events.windows.>"], "filters are {filters:?}");
        Ok(())
    })
    .await?;
    assert!(world.event("Repaired").await?.contains("is set back"));
    operator.end().await
}

#[tokio::test]
async fn a_consumer_deleted_by_hand_comes_back_with_the_start_it_had() -> Result<()> {
    let world = World::new().await?;
    let operator = world.operator().await?;
    world.create(world.spec()).await?;
    world.appears::<StatefulSet>(NAME).await?;
    let js = world.js().await?;
    js.publish("events.a", "{}".into()).await?.await?;
    let stream = js.get_stream(STREAM).await?;
    stream
        .delete_consumer(&world.key().consumer(0, Epoch(1)))
        .await?;
    let consumer = eventually(SOON, "the consumer", async || consumer(&world).await).await?;
    let metadata = &consumer.cached_info().config.metadata;
    assert_eq!(
        metadata.get("lookback.dev/start").map(String::as_str),
        Some("1")
    );
    assert!(
        world
            .event("ConsumerRecreated")
            .await?
            .contains("was deleted")
    );
    operator.end().await
}

#[tokio::test]
async fn earliest_begins_with_the_oldest_event_and_latest_with_the_next() -> Result<()> {
    for (start, expected) in [("Earliest", StreamSeq(1)), ("Latest", StreamSeq(3))] {
        let world = World::new().await?;
        let js = world.js().await?;
        for _ in 0..2 {
            js.publish("events.a", "{}".into()).await?.await?;
        }
        let operator = world.operator().await?;
        let mut spec = world.spec();
        spec["source"]["start"] = Value::from(start);
        world.create(spec).await?;
        world.appears::<StatefulSet>(NAME).await?;
        let (_, config) = config(&world).await?;
        assert_eq!(config.source.start, expected, "{start}");
        operator.end().await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_changed_rule_is_a_rollout_and_the_old_config_maps_go_when_it_is_over() -> Result<()> {
    let world = World::new().await?;
    let operator = world.operator().await?;
    world.create(world.spec()).await?;
    world.worker_becomes_ready().await?;
    world.phase(Phase::Running).await?;
    let (old, before) = config(&world).await?;
    world
        .change_rules("rules", &format!("{RULE}---\n{SECOND_RULE}"))
        .await?;
    let new = eventually(SOON, "a new template", async || {
        let (name, config) = config(&world).await?;
        ensure!(name != old, "it is the old one");
        ensure!(config.rules.engine_digest != before.rules.engine_digest);
        Ok(name)
    })
    .await?;
    eventually(
        SOON,
        "the new pod is ready and the old ConfigMap gone",
        async || {
            world.worker_becomes_ready().await?;
            let found = world.api::<ConfigMap>().get_opt(&old).await?;
            ensure!(found.is_none(), "{old} is still there");
            Ok(())
        },
    )
    .await?;
    world.api::<ConfigMap>().get(&new).await?;
    operator.end().await
}

#[tokio::test]
async fn a_checkpoint_that_says_something_new_is_seen_at_once() -> Result<()> {
    let world = World::new().await?;
    let mut settings = world.settings();
    settings.pace.resync = 100 * SOON;
    settings.pace.waiting = 100 * SOON;
    let operator = world.operator_with(settings).await?;
    world.create(world.spec()).await?;
    world.worker_becomes_ready().await?;
    world.phase(Phase::Running).await?;
    let mut held = world.checkpoint(checkpoint::Phase::Held).await?;
    held.held = Some(Hold {
        reason: HoldReason::AlertsFull,
        message: "no room".to_owned(),
    });
    world.write(&held).await?;
    world.phase(Phase::Held).await?;
    world.condition("NatsReady", "False", "AlertsFull").await?;
    operator.end().await
}

#[tokio::test]
async fn what_a_refused_worker_said_is_the_reason_of_stalled() -> Result<()> {
    let world = World::new().await?;
    let operator = world.operator().await?;
    world.create(world.spec()).await?;
    let said =
        json!({"v": 1, "reason": "StateLost", "message": "the volume is empty", "facts": {}});
    world
        .pod_says(json!({"phase": "Running", "containerStatuses": [{
            "name": "worker", "image": "i", "imageID": "i", "ready": false, "restartCount": 2,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 3, "message": said.to_string()}},
        }]}))
        .await?;
    let stalled = world.condition("Stalled", "True", "StateLost").await?;
    assert!(
        stalled.message.contains("statePolicy Clear or Rebuild"),
        "{}",
        stalled.message
    );
    assert!(
        world
            .event("StateLost")
            .await?
            .contains("the volume is empty")
    );
    operator.end().await
}
