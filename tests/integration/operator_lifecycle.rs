//! What the API server refuses, who leads, and how a pipeline ends.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams};
use lookback::api::DetectionPipeline;
use lookback::api::pipeline::FINALIZER;
use lookback::api::status::Phase;
use lookback::operator::OperatorError;
use lookback::operator::lease::Timing;
use lookback_dev::support::eventually;
use lookback_protocol::checkpoint;
use lookback_protocol::names::STATE_STREAM;
use lookback_protocol::position::Epoch;
use serde_json::{Value, json};

use crate::api_gate::{Stop, gated};
use crate::operator_fixture::{NAME, Operator, SOON, STREAM, World};

const LEASE: &str = "lookback-operator";
const FAST: Timing = Timing {
    duration: Duration::from_secs(15),
    renew_deadline: Duration::from_secs(10),
    retry: Duration::from_millis(500),
};

/// The API server's answer to a spec it must refuse.
async fn refusal(world: &World, name: &str, path: &str, value: Value) -> Result<String> {
    let mut spec = world.spec();
    let (parents, key) = path.rsplit_once('/').unwrap_or(("", path));
    let pointer = if parents.is_empty() {
        String::new()
    } else {
        format!("/{parents}")
    };
    let parent = spec.pointer_mut(&pointer);
    if let Some(Value::Object(parent)) = parent {
        parent.insert(key.to_owned(), value);
    }
    match world.try_create(name, spec).await {
        Ok(_) => anyhow::bail!("{path} was accepted"),
        Err(kube::Error::Api(status)) => Ok(status.message),
        Err(error) => Ok(error.to_string()),
    }
}

#[tokio::test]
async fn the_api_server_refuses_names_and_values_that_cannot_work() -> Result<()> {
    let world = World::new().await?;
    for (name, path, value, expected) in [
        ("9lives", "commit", json!({}), "the name must match"),
        (
            "a-name-that-is-longer-than-forty-characters",
            "commit",
            json!({}),
            "at most 40",
        ),
        (NAME, "alerts", json!({"replicas": 2}), "2 replicas"),
        (NAME, "nats/urls", json!(["http://nats:4222"]), "nats.urls"),
        (
            NAME,
            "nats/urls",
            json!(["nats://user:secret@nats:4222"]),
            "nats.urls",
        ),
        (NAME, "nats/urls", json!([]), "nats.urls"),
        (NAME, "rules/configMaps", json!([]), "rules.configMaps"),
        (NAME, "source/logsource", json!({}), "product"),
    ] {
        let message = refusal(&world, name, path, value.clone()).await?;
        assert!(message.contains(expected), "{path}={value}: {message}");
    }
    Ok(())
}

#[tokio::test]
async fn the_api_server_accepts_what_the_documentation_shows() -> Result<()> {
    let world = World::new().await?;
    let readme = include_str!("../../README.md");
    let shown = readme
        .split("```")
        .filter_map(|block| block.strip_prefix("yaml\n"))
        .flat_map(|block| block.split("---\n"))
        .filter(|document| document.contains("kind: DetectionPipeline"));
    let examples = [
        include_str!("../../deploy/examples/pipeline.yaml"),
        include_str!("../../deploy/examples/pipeline-full.yaml"),
    ];
    let parameters = PatchParams::apply("test").dry_run().validation_strict();
    let mut accepted = 0;
    for document in shown.chain(examples) {
        let mut pipeline: Value = serde_saphyr::from_str(document)?;
        pipeline["metadata"]["namespace"] = Value::from(world.namespace.clone());
        let name = format!("shown-{accepted}");
        pipeline["metadata"]["name"] = Value::from(name.clone());
        world
            .api::<DetectionPipeline>()
            .patch(&name, &parameters, &Patch::Apply(&pipeline))
            .await
            .with_context(|| document.to_owned())?;
        accepted += 1;
    }
    ensure!(accepted == 3, "{accepted} pipelines are shown");
    Ok(())
}

#[tokio::test]
async fn the_api_server_accepts_the_replays_that_the_documentation_shows() -> Result<()> {
    let world = World::new().await?;
    world.create(world.spec()).await?;
    let shown = include_str!("../../docs/replay.md")
        .split("```")
        .filter_map(|block| block.strip_prefix("yaml\n"));
    let parameters = PatchParams {
        dry_run: true,
        ..PatchParams::default()
    };
    let mut replays = 0;
    for fragment in shown {
        let change: Value = serde_saphyr::from_str(fragment)?;
        let patched = world
            .api::<DetectionPipeline>()
            .patch(
                NAME,
                &parameters.clone().validation_strict(),
                &Patch::Merge(&change),
            )
            .await
            .with_context(|| fragment.to_owned())?;
        if let Some(replay) = patched.spec.replay {
            replay.request().with_context(|| fragment.to_owned())?;
            replays += 1;
        }
    }
    ensure!(replays == 5, "{replays} replays are shown");
    Ok(())
}

#[tokio::test]
async fn the_api_server_refuses_changes_of_what_position_and_windows_belong_to() -> Result<()> {
    let world = World::new().await?;
    let mut spec = world.spec();
    spec["state"]["storage"]["storageClassName"] = Value::from("fast");
    world.create(spec).await?;
    for (patch, expected) in [
        (
            json!({"source": {"stream": "OTHER"}}),
            "source.stream cannot be changed",
        ),
        (
            json!({"state": {"storage": {"size": "500Mi"}}}),
            "can only grow",
        ),
        (
            json!({"state": {"storage": {"storageClassName": "slow"}}}),
            "cannot be changed",
        ),
        (
            json!({"state": {"storage": {"storageClassName": null}}}),
            "cannot be changed",
        ),
        (
            json!({"state": {"storage": {"accessMode": "ReadWriteOncePod"}}}),
            "cannot be changed",
        ),
    ] {
        let changed = world
            .merge::<DetectionPipeline>(NAME, json!({"spec": patch}))
            .await;
        let error = changed
            .err()
            .map(|error| format!("{error:#}"))
            .unwrap_or_default();
        assert!(error.contains(expected), "{patch}: {error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_fresh_object_is_not_current_before_an_operator_saw_it() -> Result<()> {
    let world = World::new().await?;
    let pipeline = world.create(world.spec()).await?;
    let status = pipeline.status.unwrap_or_default();
    assert_eq!(status.observed_generation, Some(-1));
    Ok(())
}

#[tokio::test]
async fn a_pipeline_that_retains_leaves_its_streams_and_needs_no_operator_to_go() -> Result<()> {
    let world = World::new().await?;
    let operator = world.operator().await?;
    let pipeline = world.create(world.spec()).await?;
    assert_eq!(pipeline.finalizers(), Vec::<String>::new());
    world.appears::<StatefulSet>(NAME).await?;
    operator.end().await?;
    world
        .api::<DetectionPipeline>()
        .delete(NAME, &DeleteParams::default())
        .await?;
    world.disappears::<DetectionPipeline>(NAME).await?;
    world.disappears::<StatefulSet>(NAME).await?;
    assert!(world.has_stream(&world.key().alerts_stream()).await?);
    Ok(())
}

#[tokio::test]
async fn a_pipeline_created_again_adopts_what_it_left() -> Result<()> {
    let world = World::new().await?;
    let operator = world.operator().await?;
    world.create(world.spec()).await?;
    world.appears::<StatefulSet>(NAME).await?;
    let js = world.js().await?;
    let alerts = world.key().alerts_stream();
    let before = js.get_stream(&alerts).await?.cached_info().created;
    world
        .api::<DetectionPipeline>()
        .delete(NAME, &DeleteParams::default())
        .await?;
    world.disappears::<StatefulSet>(NAME).await?;
    world.create(world.spec()).await?;
    world.appears::<StatefulSet>(NAME).await?;
    assert_eq!(js.get_stream(&alerts).await?.cached_info().created, before);
    world.condition("NatsReady", "True", "Connected").await?;
    operator.end().await
}

#[tokio::test]
async fn a_pipeline_that_deletes_takes_its_streams_all_its_consumers_and_its_checkpoint_along()
-> Result<()> {
    let world = World::new().await?;
    let operator = world.operator().await?;
    let mut spec = world.spec();
    spec["deletionPolicy"] = Value::from("Delete");
    world.create(spec).await?;
    world.appears::<StatefulSet>(NAME).await?;
    assert_eq!(world.pipeline().await?.finalizers(), [FINALIZER]);
    world
        .write(&world.checkpoint(checkpoint::Phase::Started).await?)
        .await?;
    operator.end().await?;
    for epoch in [Epoch(2), Epoch(12)] {
        world.create_consumer(epoch).await?;
    }
    let operator = world.operator().await?;
    world
        .api::<DetectionPipeline>()
        .delete(NAME, &DeleteParams::default())
        .await?;
    world.disappears::<DetectionPipeline>(NAME).await?;
    let key = world.key();
    for stream in [key.alerts_stream(), key.dead_letters_stream()] {
        assert!(!world.has_stream(&stream).await?, "{stream} is still there");
    }
    let js = world.js().await?;
    let source = js.get_stream(STREAM).await?;
    assert_eq!(source.cached_info().state.consumer_count, 0);
    assert_eq!(
        js.get_stream(STATE_STREAM)
            .await?
            .cached_info()
            .state
            .messages,
        0
    );
    operator.end().await
}

#[tokio::test]
async fn a_policy_changed_just_before_the_deletion_takes_the_volume_along() -> Result<()> {
    let world = World::new().await?;
    let operator = world.operator().await?;
    world.create(world.spec()).await?;
    world
        .appears::<PersistentVolumeClaim>("state-edr-0")
        .await?;
    operator.end().await?;
    let delete = json!({
        "metadata": {"finalizers": [FINALIZER]}, "spec": {"deletionPolicy": "Delete"},
    });
    world.merge::<DetectionPipeline>(NAME, delete).await?;
    world
        .api::<DetectionPipeline>()
        .delete(NAME, &DeleteParams::default())
        .await?;
    let operator = world.operator().await?;
    world.disappears::<DetectionPipeline>(NAME).await?;
    world
        .disappears::<PersistentVolumeClaim>("state-edr-0")
        .await?;
    operator.end().await
}

#[tokio::test]
async fn a_dead_nats_holds_a_deletion_only_until_the_deadline() -> Result<()> {
    let mut world = World::new().await?;
    let mut settings = world.settings();
    settings.pace.cleanup_deadline = Duration::from_secs(30);
    let operator = world.operator_with(settings).await?;
    let mut spec = world.spec();
    spec["deletionPolicy"] = Value::from("Delete");
    world.create(spec).await?;
    world.appears::<StatefulSet>(NAME).await?;
    world.nats.kill();
    world
        .api::<DetectionPipeline>()
        .delete(NAME, &DeleteParams::default())
        .await?;
    let status = world.phase(Phase::Deleting).await?;
    assert_eq!(status.observed_generation, Some(2));
    world.disappears::<DetectionPipeline>(NAME).await?;
    let note = world.event("CleanupIncomplete").await?;
    assert!(note.contains(&world.key().alerts_stream()), "{note}");
    operator.end().await
}

#[tokio::test]
async fn a_change_to_retain_takes_the_finalizer_away() -> Result<()> {
    let world = World::new().await?;
    let operator = world.operator().await?;
    let mut spec = world.spec();
    spec["deletionPolicy"] = Value::from("Delete");
    world.create(spec).await?;
    world.appears::<StatefulSet>(NAME).await?;
    let retain = json!({"spec": {"deletionPolicy": "Retain"}});
    world.merge::<DetectionPipeline>(NAME, retain).await?;
    eventually(SOON, "no finalizer", async || {
        let finalizers = world.pipeline().await?.finalizers().to_vec();
        ensure!(finalizers.is_empty(), "{finalizers:?}");
        Ok(())
    })
    .await?;
    operator.end().await
}

async fn leader(world: &World) -> Result<String> {
    let lease: Lease = world.api().get(LEASE).await?;
    let holder = lease.spec.and_then(|spec| spec.holder_identity);
    holder.ok_or_else(|| anyhow::anyhow!("nobody leads"))
}

async fn leads(world: &World, instance: &str) -> Result<()> {
    eventually(SOON, &format!("{instance} leads"), async || {
        let leader = leader(world).await?;
        ensure!(leader.starts_with(instance), "{leader} leads");
        Ok(())
    })
    .await
}

async fn replica(world: &World, name: &str) -> Result<Operator> {
    let mut settings = world.settings();
    settings.election = Some(FAST);
    settings.instance = name.to_owned();
    world.operator_with(settings).await
}

#[tokio::test]
async fn when_the_leader_is_killed_the_other_replica_takes_over() -> Result<()> {
    let world = World::new().await?;
    let first = replica(&world, "first").await?;
    leads(&world, "first").await?;
    let second = replica(&world, "second").await?;
    eventually(SOON, "the second stands by", async || {
        ensure!(second.get("/ready").await?.contains("200"), "not ready");
        Ok(())
    })
    .await?;
    assert!(
        second
            .get("/metrics")
            .await?
            .contains("lookback_operator_leader 0")
    );
    first.kill().await;
    leads(&world, "second").await?;
    world.create(world.spec()).await?;
    world.appears::<StatefulSet>(NAME).await?;
    assert!(
        second
            .get("/metrics")
            .await?
            .contains("lookback_operator_leader 1")
    );
    second.end().await
}

#[tokio::test]
async fn a_leader_that_ends_on_request_hands_over_without_a_wait() -> Result<()> {
    let world = World::new().await?;
    let first = replica(&world, "first").await?;
    leads(&world, "first").await?;
    first.end().await?;
    let lease: Lease = world.api().get(LEASE).await?;
    assert_eq!(lease.spec.and_then(|spec| spec.holder_identity), None);
    Ok(())
}

/// Nothing is reconciled before everything was looked at once, so there is nothing to wait for.
#[tokio::test]
async fn an_operator_ends_on_request_also_before_its_first_look_is_answered() -> Result<()> {
    let world = World::new().await?;
    let (client, gate) = gated(world.client.clone(), &world.namespace);
    gate.close_at(Stop::Before, |parts, _| {
        parts.uri.path().ends_with("/detectionpipelines")
    });
    let operator = world.operator_as(client, world.settings()).await?;
    gate.is_closed().await?;
    let ended = tokio::time::timeout(SOON, operator.end()).await;
    ended.context("it goes on")?
}

#[tokio::test]
async fn a_replica_that_loses_the_lease_ends() -> Result<()> {
    let world = World::new().await?;
    let first = replica(&world, "first").await?;
    leads(&world, "first").await?;
    let stolen = json!({"spec": {"holderIdentity": "thief", "leaseDurationSeconds": 60}});
    world.merge::<Lease>(LEASE, stolen).await?;
    let ended = first.ended().await?;
    assert!(matches!(ended, Err(OperatorError::Lease(_))), "{ended:?}");
    Ok(())
}
