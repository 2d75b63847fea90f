//! The stand does what its verbs say, and a pipeline on it does what it does in a cluster.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::DeleteParams;
use lookback::api::status::Phase;
use lookback_dev::support::{TcpProxy, eventually};
use lookback_protocol::position::Epoch;
use lookback_protocol::termination::ExitReason;
use serde_json::json;

use crate::operator_fixture::{NAME, SOON};
use crate::process_fixture::Ended;
use crate::stand::{Hold, Stand};
use crate::worker_fixture::RULES;

const ALARM: &str = r#"{"kind":"alarm"}"#;
const STEP: &str = r#"{"kind":"step","user":"eve"}"#;
const POD: &str = "edr-0";

/// A pipeline that runs, with one alert stored.
async fn running() -> Result<Stand> {
    let mut stand = Stand::new().await?;
    stand.start_operator().await?;
    stand.apply(&stand.spec()).await?;
    stand.publish(ALARM).await?;
    stand.phase(Phase::Running).await?;
    stand.caught_up().await?;
    Ok(stand)
}

/// The pod's uid, once there is a ready pod other than `before`.
async fn replaced(stand: &Stand, before: Option<&str>) -> Result<String> {
    eventually(SOON, "another pod is ready", async || {
        let pod: Pod = stand.api().get(POD).await?;
        let conditions = pod.status.as_ref().and_then(|it| it.conditions.as_ref());
        let mut conditions = conditions.into_iter().flatten();
        ensure!(conditions.any(|it| it.type_ == "Ready" && it.status == "True"));
        let uid = pod.uid().context("no uid")?;
        ensure!(before != Some(uid.as_str()), "it is the same");
        Ok(uid)
    })
    .await
}

#[tokio::test]
async fn a_pipeline_on_the_stand_stores_what_the_oracle_finds() -> Result<()> {
    let mut stand = Stand::with_story_rules().await?;
    stand.start_operator().await?;
    stand.apply(&stand.spec()).await?;
    stand.publish_story(1_000).await?;
    stand.phase(Phase::Running).await?;
    stand.caught_up().await?;
    let digest = stand.equals_oracle().await?;
    assert!(digest.groups > 0);
    Ok(())
}

#[tokio::test]
async fn a_worker_killed_in_the_stream_goes_on_and_stores_the_same() -> Result<()> {
    let mut stand = Stand::with_story_rules().await?;
    stand.start_operator().await?;
    stand.apply(&stand.spec()).await?;
    for round in 1..=3 {
        stand.publish_story(400).await?;
        stand.drained_to(400 * (round - 1) + 1).await?;
        stand.kubelet.kill().await?;
    }
    stand.caught_up().await?;
    stand.equals_oracle().await?;
    let ended = stand.kubelet.terminations().await;
    let codes: Vec<_> = ended.iter().map(Ended::exit_code).collect();
    assert_eq!(codes, [137, 137, 137]);
    eventually(SOON, "the pod says so", async || {
        let pod: Pod = stand.api().get(POD).await?;
        let containers = pod.status.and_then(|status| status.container_statuses);
        let restarts = containers.context("no container")?[0].restart_count;
        ensure!(restarts == 3, "{restarts} restarts");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_killed_operator_leaves_the_worker_alone_and_the_next_one_goes_on() -> Result<()> {
    let mut stand = running().await?;
    stand.kill_operator().await?;
    stand.publish_all(STEP, 3).await?;
    stand.caught_up().await?;
    assert_eq!(stand.stored_alerts().await?.len(), 2);
    let mut spec = stand.spec();
    spec["deadLetters"] = json!({"maxAttempts": 4});
    let generation = stand.apply(&spec).await?.metadata.generation;
    stand.start_operator().await?;
    eventually(SOON, "the next operator has seen it", async || {
        let observed = stand.status().await?.observed_generation;
        ensure!(observed == generation, "{observed:?}");
        Ok(())
    })
    .await?;
    stand.condition("Ready", "True", "Running").await?;
    assert_eq!(stand.claims().await?, []);
    Ok(())
}

#[tokio::test]
async fn a_rule_change_replaces_the_pod_and_keeps_the_windows() -> Result<()> {
    let stand = running().await?;
    let first = replaced(&stand, None).await?;
    stand.publish_all(STEP, 2).await?;
    stand.caught_up().await?;
    stand
        .change_rules(&RULES.replace("title: Alarm", "title: Bell"))
        .await?;
    replaced(&stand, Some(&first)).await?;
    stand.kubelet.terminated(ExitReason::Drained).await?;
    stand.publish(STEP).await?;
    stand.caught_up().await?;
    let alerts = stand.stored_alerts().await?;
    let third = alerts.values().filter(|it| it.rule.title == "Three steps");
    assert_eq!(third.count(), 1);
    assert_eq!(stand.equals_oracle().await?.lineage.len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_lost_volume_stalls_the_pipeline_until_it_is_back() -> Result<()> {
    let stand = running().await?;
    let copy = stand.kubelet.snapshot_volume().await?;
    stand.publish_all(ALARM, 3).await?;
    stand.caught_up().await?;
    stand.kubelet.lose_volume().await?;
    stand.condition("Stalled", "True", "StateLost").await?;
    let message = stand.kubelet.terminated(ExitReason::StateLost).await?;
    assert!(message.contains("volume"), "{message}");
    stand.kubelet.restore_volume(&copy).await?;
    stand.publish(ALARM).await?;
    stand.caught_up().await?;
    stand.equals_oracle().await?;
    Ok(())
}

#[tokio::test]
async fn a_zombie_is_fenced_and_the_next_pod_goes_on_where_it_was() -> Result<()> {
    let stand = running().await?;
    let first = replaced(&stand, None).await?;
    let before = stand.checkpoint().await?.incarnation;
    let zombie = stand.kubelet.zombie().await?;
    replaced(&stand, Some(&first)).await?;
    stand.publish_all(ALARM, 5).await?;
    let (status, message) = zombie.ended().await?;
    assert_eq!(message.reason, ExitReason::Fenced);
    assert_eq!(status.code(), Some(4));
    let checkpoint = stand.caught_up().await?;
    assert_ne!(checkpoint.incarnation, before);
    stand.equals_oracle().await?;
    Ok(())
}

#[tokio::test]
async fn a_pod_of_a_lost_node_stays_until_the_node_is_back() -> Result<()> {
    let stand = running().await?;
    let first = replaced(&stand, None).await?;
    stand.kubelet.hold(Hold::LostNode).await;
    stand
        .api::<Pod>()
        .delete(POD, &DeleteParams::default())
        .await?;
    stand.publish(ALARM).await?;
    stand.caught_up().await?;
    let pod: Pod = stand.api().get(POD).await?;
    assert_eq!(pod.uid().as_ref(), Some(&first));
    assert!(pod.metadata.deletion_timestamp.is_some());
    stand.kubelet.release().await;
    stand.kubelet.terminated(ExitReason::Drained).await?;
    replaced(&stand, Some(&first)).await?;
    Ok(())
}

#[tokio::test]
async fn a_pod_without_node_or_image_does_not_run_and_says_so() -> Result<()> {
    let mut stand = Stand::new().await?;
    stand.kubelet.hold(Hold::Unschedulable).await;
    stand.start_operator().await?;
    stand.apply(&stand.spec()).await?;
    stand.publish(ALARM).await?;
    stand.condition("Ready", "False", "Unschedulable").await?;
    stand.kubelet.hold(Hold::Image).await;
    stand
        .condition("Ready", "False", "ImageUnavailable")
        .await?;
    stand.kubelet.release().await;
    stand.phase(Phase::Running).await?;
    stand.caught_up().await?;
    assert_eq!(stand.kubelet.configured().await.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_frozen_worker_does_nothing_and_goes_on_when_it_is_thawed() -> Result<()> {
    let stand = running().await?;
    let before = stand.digest().await?;
    stand.kubelet.freeze().await?;
    stand.publish_all(ALARM, 5).await?;
    stand.condition("Ready", "False", "WorkerStarting").await?;
    assert_eq!(stand.digest().await?, before);
    stand.kubelet.thaw().await?;
    stand.caught_up().await?;
    stand.equals_oracle().await?;
    Ok(())
}

#[tokio::test]
async fn a_worker_sent_through_a_proxy_can_be_killed_between_two_of_its_messages() -> Result<()> {
    let stand = running().await?;
    let proxy = TcpProxy::start(stand.nats.address()).await?;
    let url = format!("nats://{}", proxy.address());
    stand.kubelet.route(Some(url)).await;
    stand.kubelet.kill().await?;
    stand.condition("Ready", "True", "Running").await?;
    proxy.freeze_at(".alert.new.");
    stand.publish_all(ALARM, 2).await?;
    eventually(SOON, "an alert is on the way", async || {
        ensure!(proxy.is_frozen(), "not yet");
        Ok(())
    })
    .await?;
    stand.kubelet.route(None).await;
    stand.kubelet.kill().await?;
    // Else the server would deliver to the pull of a process that is gone.
    proxy.cut();
    stand.caught_up().await?;
    stand.equals_oracle().await?;
    Ok(())
}

#[tokio::test]
async fn a_set_without_replicas_ends_its_worker_and_removes_the_pod() -> Result<()> {
    let mut stand = running().await?;
    stand.kill_operator().await?;
    let none = json!({"spec": {"replicas": 0}});
    stand.merge::<StatefulSet>(NAME, none).await?;
    stand.disappears::<Pod>(POD).await?;
    stand.kubelet.terminated(ExitReason::Drained).await?;
    eventually(SOON, "no replicas", async || {
        let set: StatefulSet = stand.api().get(NAME).await?;
        let replicas = set.status.map(|status| status.replicas);
        ensure!(replicas == Some(0), "{replicas:?}");
        Ok(())
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_pipeline_deleted_and_applied_again_goes_on_with_its_volume_and_cursor() -> Result<()> {
    let stand = running().await?;
    stand.annotate("lookback.dev/test", "1").await?;
    let volume = stand.kubelet.volume().await?;
    stand.delete().await?;
    stand.publish(ALARM).await?;
    stand.apply(&stand.spec()).await?;
    let checkpoint = stand.caught_up().await?;
    assert_eq!(checkpoint.epoch, Epoch(1));
    assert_eq!(stand.kubelet.volume().await?, volume);
    assert!(stand.consumer(1).await?.is_some());
    assert!(stand.consumer(2).await?.is_none());
    stand.equals_oracle().await?;
    Ok(())
}
