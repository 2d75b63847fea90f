//! A pipeline is suspended, resumed, restarted and taken over, and its source stream is watched
//! meanwhile.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use lookback::api::status::Phase;
use lookback_dev::support::eventually;
use lookback_protocol::checkpoint;
use lookback_protocol::position::Epoch;
use lookback_protocol::termination::ExitReason;
use serde_json::{Value, json};

use crate::operator_fixture::{CLUSTER, NAME, Operator, SOON, STREAM, find};
use crate::stand::{Hold, Stand};

const ALARM: &str = r#"{"kind":"alarm"}"#;
const STEP: &str = r#"{"kind":"step","user":"eve"}"#;
const POD: &str = "edr-0";

/// A pipeline that runs and has stored one alert, and the operator of it.
async fn running() -> Result<(Stand, Operator)> {
    let stand = Stand::new().await?;
    let operator = stand.operator().await?;
    stand.apply(&stand.spec()).await?;
    stand.publish(ALARM).await?;
    stand.phase(Phase::Running).await?;
    stand.caught_up().await?;
    Ok((stand, operator))
}

fn suspended(stand: &Stand) -> Value {
    let mut spec = stand.spec();
    spec["suspend"] = json!(true);
    spec
}

/// Changes a limit of the source stream, as its owner may at any time.
async fn keep(stand: &Stand, messages: i64) -> Result<()> {
    let mut stream = stand.js.get_stream(STREAM).await?;
    let mut config = stream.info().await?.config.clone();
    config.max_messages = messages;
    stand.js.update_stream(config).await?;
    Ok(())
}

#[tokio::test]
async fn a_suspended_worker_commits_everything_and_goes_on_with_its_windows() -> Result<()> {
    let (stand, operator) = running().await?;
    stand.publish_all(STEP, 2).await?;
    stand.apply(&suspended(&stand)).await?;
    let said = stand.condition("Suspended", "True", "Suspended").await?;
    let position = stand.checkpoint().await?.position.sequence;
    let expected = format!("committed everything up to {position}");
    assert!(said.message.contains(&expected), "{}", said.message);
    assert!(stand.api::<Pod>().get_opt(POD).await?.is_none());
    stand.kubelet.terminated(ExitReason::Drained).await?;
    let phase = stand.checkpoint().await?.phase;
    assert_eq!(phase, checkpoint::Phase::Drained);
    let status = stand.phase(Phase::Suspended).await?;
    assert_eq!(find(&status, "Ready")?.reason, "Suspended");
    assert_eq!(find(&status, "Reconciling")?.reason, "Settled");
    assert_eq!(find(&status, "StateReady")?.reason, "WorkerStopped");
    stand.event("Suspended").await?;

    stand.publish(STEP).await?;
    stand.apply(&stand.spec()).await?;
    stand
        .condition("Suspended", "False", "NotSuspended")
        .await?;
    let after = stand.caught_up().await?;
    assert_eq!(after.epoch, Epoch(1));
    let alerts = stand.stored_alerts().await?;
    let third = alerts.values().filter(|it| it.rule.title == "Three steps");
    assert_eq!(third.count(), 1);
    stand.equals_oracle().await?;
    operator.end().await
}

#[tokio::test]
async fn a_pipeline_on_a_lost_node_is_not_suspended_before_its_pod_is_gone() -> Result<()> {
    let (stand, operator) = running().await?;
    stand.kubelet.hold(Hold::LostNode).await;
    stand.apply(&suspended(&stand)).await?;
    eventually(SOON, "the pod is deleted", async || {
        let pod: Pod = stand.api().get(POD).await?;
        ensure!(pod.metadata.deletion_timestamp.is_some(), "it is not");
        Ok(())
    })
    .await?;
    operator.reconciles(3).await?;
    let status = stand.status().await?;
    assert_eq!(find(&status, "Suspended")?.reason, "Suspending");
    assert_eq!(find(&status, "Reconciling")?.reason, "Suspending");
    stand.kubelet.release().await;
    stand.condition("Suspended", "True", "Suspended").await?;
    operator.end().await
}

#[tokio::test]
async fn another_restart_nonce_replaces_the_pod_once_and_moves_nothing() -> Result<()> {
    let (stand, operator) = running().await?;
    let before: Pod = stand.api().get(POD).await?;
    stand.publish_all(STEP, 2).await?;
    stand.caught_up().await?;
    let mut spec = stand.spec();
    spec["restartNonce"] = json!("monday");
    stand.apply(&spec).await?;
    let after = eventually(SOON, "another pod", async || {
        let pod: Pod = stand.api().get(POD).await?;
        ensure!(pod.uid() != before.uid(), "it is the same");
        Ok(pod)
    })
    .await?;
    let annotation = after.annotations().get("lookback.dev/restart");
    assert_eq!(annotation.map(String::as_str), Some("monday"));
    stand.apply(&spec).await?;
    stand.publish(STEP).await?;
    assert_eq!(stand.caught_up().await?.epoch, Epoch(1));
    stand.condition("Ready", "True", "Running").await?;
    operator.reconciles(3).await?;
    let same: Pod = stand.api().get(POD).await?;
    assert_eq!(same.uid(), after.uid());
    stand.equals_oracle().await?;
    operator.end().await
}

#[tokio::test]
async fn what_a_cluster_that_is_gone_left_is_taken_over_by_name_only() -> Result<()> {
    let (stand, operator) = running().await?;
    stand.publish_all(STEP, 2).await?;
    stand.caught_up().await?;
    operator.end().await?;
    let mut settings = stand.settings();
    settings.cluster = Some("new-cluster".to_owned());
    let operator = stand.operator_with(settings).await?;
    let stalled = stand.condition("Stalled", "True", "OwnedByOther").await?;
    let gone = format!("{CLUSTER}/{}/{NAME}", stand.namespace);
    assert!(stalled.message.contains(&gone), "{}", stalled.message);
    assert!(
        stalled.message.contains("lookback.dev/adopt"),
        "{}",
        stalled.message
    );
    stand
        .annotate("lookback.dev/adopt", "other/detections/edr")
        .await?;
    operator.reconciles(3).await?;
    assert_eq!(stand.checkpoint().await?.owner.cluster, CLUSTER);

    stand.annotate("lookback.dev/adopt", &gone).await?;
    eventually(SOON, "the checkpoint is of the new cluster", async || {
        let owner = stand.checkpoint().await?.owner.cluster;
        ensure!(owner == "new-cluster", "it is of {owner}");
        Ok(())
    })
    .await?;
    stand.publish(STEP).await?;
    assert_eq!(stand.caught_up().await?.epoch, Epoch(1));
    stand.condition("Ready", "True", "Running").await?;
    assert!(stand.event("Adopted").await?.contains(&gone));
    let consumer = stand.consumer(1).await?.context("no consumer")?;
    let owner = consumer.config.metadata.get("lookback.dev/owner");
    assert!(
        owner.is_some_and(|owner| owner.starts_with("new-cluster/")),
        "{owner:?}"
    );
    let alerts = stand.stored_alerts().await?;
    let third = alerts.values().filter(|it| it.rule.title == "Three steps");
    assert_eq!(third.count(), 1);
    stand.equals_oracle().await?;
    operator.end().await
}

#[tokio::test]
async fn events_that_a_suspended_pipeline_is_about_to_lose_are_a_warning() -> Result<()> {
    let (stand, operator) = running().await?;
    stand.apply(&suspended(&stand)).await?;
    stand.condition("Suspended", "True", "Suspended").await?;
    stand
        .condition("RetentionSafe", "True", "EventsRetained")
        .await?;
    keep(&stand, 10).await?;
    stand.publish_all(ALARM, 9).await?;
    let low = stand
        .condition("RetentionSafe", "False", "RetentionLow")
        .await?;
    assert!(low.message.contains("max_msgs"), "{}", low.message);
    assert!(
        low.message.contains("spec.suspend: false"),
        "{}",
        low.message
    );
    assert!(stand.event("RetentionLow").await?.contains("max_msgs"));
    stand.apply(&stand.spec()).await?;
    stand.caught_up().await?;
    stand
        .condition("RetentionSafe", "True", "EventsRetained")
        .await?;
    stand.equals_oracle().await?;
    operator.end().await
}

/// The value of a gauge of the pipeline.
async fn gauge(stand: &Stand, operator: &Operator, name: &str) -> Result<Option<f64>> {
    let page = operator.get("/metrics").await?;
    let line = format!(
        "lookback_pipeline_{name}{{namespace=\"{}\",name=\"{NAME}\"}} ",
        stand.namespace
    );
    let value = page.lines().find_map(|found| found.strip_prefix(&line));
    Ok(value.map(str::parse).transpose()?)
}

#[tokio::test]
async fn how_far_back_a_replay_can_go_is_shown_until_the_pipeline_goes() -> Result<()> {
    let (stand, operator) = running().await?;
    stand.publish_all(ALARM, 11).await?;
    stand.caught_up().await?;
    keep(&stand, 5).await?;
    eventually(SOON, "the gauges", async || {
        let above = gauge(&stand, &operator, "position_above_horizon_events").await?;
        ensure!(above == Some(5.0), "{above:?} events");
        let seconds = gauge(&stand, &operator, "replay_horizon_seconds").await?;
        ensure!(seconds.is_some_and(|it| it > 0.0), "{seconds:?} s");
        Ok(())
    })
    .await?;
    let mut stream = stand.js.get_stream(STREAM).await?;
    let first = stream.info().await?.state.first_sequence;
    assert_eq!(first, 8);
    // The numbers of a status are written every 30 s and when the phase changes.
    stand.apply(&suspended(&stand)).await?;
    let status = stand.phase(Phase::Suspended).await?;
    let source = status.source.context("no source")?;
    assert_eq!((source.first_sequence, source.last_sequence), (8, 12));
    assert!(source.first_time.is_some());
    stand.delete().await?;
    eventually(SOON, "no gauge", async || {
        let seconds = gauge(&stand, &operator, "replay_horizon_seconds").await?;
        ensure!(seconds.is_none(), "{seconds:?} s");
        Ok(())
    })
    .await?;
    operator.end().await
}
