//! What a request did stays done when volume, consumer, stream or checkpoint are lost.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use lookback::state::FileDigest;
use lookback_dev::support::{TcpProxy, eventually};
use lookback_protocol::consumer::ConsumerMetadata;
use lookback_protocol::position::{Epoch, StreamSeq};
use lookback_protocol::replay::record::{ReplayPhase, Windows};
use lookback_protocol::termination::ExitReason;
use serde_json::{Value, json};

use crate::operator_fixture::{SOON, STREAM};
use crate::replay_fixture::{
    ALARM, STEP, answered, applied, ask, begun, carried_out, completed, frozen, in_ledger,
    stopped_at, with_replay,
};
use crate::stand::Stand;

fn again() -> Value {
    json!({"id": "again", "fromSequence": 1, "statePolicy": "Clear"})
}

/// A pipeline that was led back once: two steps in the window, and one alert stored.
async fn replayed() -> Result<Stand> {
    let stand = applied(&[ALARM, STEP, STEP]).await?;
    ask(&stand, again()).await?;
    completed(&stand, "again").await?;
    carried_out(&stand, 2, &[("again", 2)]).await?;
    Ok(stand)
}

async fn alert_ids(stand: &Stand) -> Result<BTreeSet<String>> {
    Ok(stand.stored_alerts().await?.into_keys().collect())
}

#[tokio::test]
async fn r07_a_volume_lost_after_a_replay_waits_for_a_person_and_is_not_replayed() -> Result<()> {
    let stand = replayed().await?;
    let before = alert_ids(&stand).await?;
    stand.kubelet.lose_volume().await?;
    stand.condition("Stalled", "True", "StateLost").await?;
    ask(&stand, again()).await?;
    stand.reconciles(3).await?;
    stand.kubelet.terminated(ExitReason::StateLost).await?;
    assert_eq!(stand.status().await?.epoch, Some(2));
    assert!(stand.consumer(3).await?.is_none());
    assert_eq!(stand.checkpoint().await?.position.sequence, StreamSeq(3));

    // A new request with Clear is one of the verbs that end it.
    stand.publish(ALARM).await?;
    ask(
        &stand,
        json!({"id": "anew", "fromSequence": 4, "statePolicy": "Clear"}),
    )
    .await?;
    completed(&stand, "anew").await?;
    stand.caught_up().await?;
    let digest = stand.digest().await?;
    assert_eq!(in_ledger(&digest), [("anew", 3)]);
    let after = alert_ids(&stand).await?;
    assert!(after.is_superset(&before));
    assert_eq!(after.len(), before.len() + 1);
    ask(&stand, again()).await?;
    answered(&stand, "again", "AlreadyApplied").await?;
    Ok(())
}

#[tokio::test]
async fn r07_a_lost_volume_begins_empty_where_the_checkpoint_ends_if_that_is_wanted() -> Result<()>
{
    let stand = replayed().await?;
    let before = alert_ids(&stand).await?;
    let mut spec = with_replay(&stand, again());
    spec["state"]["onLoss"] = json!("StartEmpty");
    stand.apply(&spec).await?;
    stand.kubelet.lose_volume().await?;
    let record = completed(&stand, "loss-2").await?;
    assert_eq!(record.plan.context("no plan")?.start, StreamSeq(4));
    stand.publish(STEP).await?;
    stand.publish(ALARM).await?;
    stand.caught_up().await?;
    let digest = stand.digest().await?;
    assert_eq!(in_ledger(&digest), [("loss-2", 3)]);
    assert_eq!(digest.ledger[0].windows, Windows::Dropped);
    let after = alert_ids(&stand).await?;
    assert!(after.is_superset(&before));
    assert_eq!(after.len(), before.len() + 1);
    assert_eq!(stand.status().await?.epoch, Some(3));
    answered(&stand, "again", "AlreadyApplied").await?;
    stand.condition("Stalled", "False", "NotStalled").await?;
    Ok(())
}

#[tokio::test]
async fn r07_a_lost_volume_gets_its_windows_again_if_that_is_wanted() -> Result<()> {
    let stand = replayed().await?;
    let whole = stand.digest().await?;
    let mut spec = with_replay(&stand, again());
    spec["state"]["onLoss"] = json!("RebuildWindows");
    stand.apply(&spec).await?;
    stand.kubelet.lose_volume().await?;
    completed(&stand, "loss-2").await?;
    stand.caught_up().await?;
    let digest = stand.digest().await?;
    assert_eq!(in_ledger(&digest), [("loss-2", 3)]);
    assert_eq!(digest.ledger[0].windows, Windows::Rebuilt);
    assert_eq!(digest.state_digest, whole.state_digest);
    assert_eq!(digest.position, whole.position);
    assert_eq!(stand.stored_alerts().await?.len(), 1);
    stand.publish(STEP).await?;
    stand.caught_up().await?;
    assert_eq!(stand.stored_alerts().await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn r07_a_volume_lost_twice_is_two_requests() -> Result<()> {
    let stand = applied(&[ALARM, STEP, STEP]).await?;
    let mut spec = stand.spec();
    spec["state"]["onLoss"] = json!("RebuildWindows");
    stand.apply(&spec).await?;
    let whole = stand.digest().await?;
    for (epoch, id) in [(2, "loss-1"), (3, "loss-2")] {
        stand.kubelet.lose_volume().await?;
        completed(&stand, id).await?;
        stand.caught_up().await?;
        let digest = stand.digest().await?;
        assert_eq!(in_ledger(&digest), [(id, epoch)]);
        assert_eq!(digest.state_digest, whole.state_digest);
    }
    assert_eq!(stand.stored_alerts().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn r07_a_volume_lost_before_the_request_was_applied_to_it_gets_it_then() -> Result<()> {
    let stand = applied(&[ALARM, STEP, STEP]).await?;
    let proxy = stopped_at(&stand, "\"outcome\":\"applied\"").await?;
    ask(&stand, again()).await?;
    frozen(&proxy).await?;
    stand.kubelet.route(None).await;
    stand.kubelet.lose_volume().await?;
    proxy.cut();
    completed(&stand, "again").await?;
    stand.publish(STEP).await?;
    stand.caught_up().await?;
    assert_eq!(in_ledger(&stand.digest().await?), [("again", 2)]);
    assert_eq!(stand.stored_alerts().await?.len(), 2);
    Ok(())
}

/// The worker stands still behind its first reset in `id`, and dies there with its volume.
async fn lost_while_catching_up(stand: &Stand, proxy: &TcpProxy, id: &str) -> Result<()> {
    frozen(proxy).await?;
    begun(stand, id, ReplayPhase::CatchingUp).await?;
    stand.kubelet.route(None).await;
    stand.kubelet.lose_volume().await?;
    proxy.cut();
    Ok(())
}

/// `id` alone moved the file, in epoch 3, to the windows there were, and no alert is stored twice.
async fn made_good(stand: &Stand, whole: &FileDigest, id: &str) -> Result<()> {
    stand.caught_up().await?;
    let digest = stand.digest().await?;
    assert_eq!(in_ledger(&digest), [(id, 3)]);
    assert_eq!(digest.state_digest, whole.state_digest);
    assert_eq!(stand.stored_alerts().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn r07_a_volume_lost_while_it_catches_up_goes_on_by_on_loss() -> Result<()> {
    let stand = applied(&[ALARM, STEP, STEP]).await?;
    let whole = stand.digest().await?;
    let proxy = stopped_at(&stand, "$JS.API.CONSUMER.RESET").await?;
    let mut spec = with_replay(&stand, again());
    spec["state"]["onLoss"] = json!("RebuildWindows");
    stand.apply(&spec).await?;
    lost_while_catching_up(&stand, &proxy, "again").await?;
    completed(&stand, "loss-2").await?;
    made_good(&stand, &whole, "loss-2").await?;
    let history = stand.status().await?.replay_history;
    let first = history.iter().find(|one| one.id.as_str() == "again");
    assert_eq!(first.map(|one| one.phase), Some(ReplayPhase::Superseded));
    Ok(())
}

#[tokio::test]
async fn r07_a_volume_lost_again_while_its_windows_are_made_is_another_loss() -> Result<()> {
    let stand = applied(&[ALARM, STEP, STEP]).await?;
    let whole = stand.digest().await?;
    let proxy = stopped_at(&stand, "$JS.API.CONSUMER.RESET").await?;
    let mut spec = stand.spec();
    spec["state"]["onLoss"] = json!("RebuildWindows");
    stand.apply(&spec).await?;
    stand.kubelet.lose_volume().await?;
    lost_while_catching_up(&stand, &proxy, "loss-1").await?;
    completed(&stand, "loss-2").await?;
    made_good(&stand, &whole, "loss-2").await?;
    Ok(())
}

#[tokio::test]
async fn r07_a_volume_lost_while_it_catches_up_goes_on_when_a_person_begins_anew() -> Result<()> {
    let stand = applied(&[ALARM, STEP, STEP]).await?;
    let whole = stand.digest().await?;
    let proxy = stopped_at(&stand, "$JS.API.CONSUMER.RESET").await?;
    ask(&stand, again()).await?;
    lost_while_catching_up(&stand, &proxy, "again").await?;
    stand.condition("Stalled", "True", "StateLost").await?;
    let block = json!({"id": "anew", "fromSequence": 1, "statePolicy": "Clear"});
    ask(&stand, block).await?;
    completed(&stand, "anew").await?;
    made_good(&stand, &whole, "anew").await?;
    Ok(())
}

#[tokio::test]
async fn r08_a_lost_consumer_is_made_again_behind_the_position() -> Result<()> {
    let stand = replayed().await?;
    let source = stand.js.get_stream_no_info(STREAM).await?;
    let name = stand.key().consumer(0, Epoch(2));
    source.delete_consumer(&name).await?;
    stand.publish(STEP).await?;
    stand.publish(ALARM).await?;
    let info = eventually(SOON, "the consumer is there again", async || {
        let info = stand.consumer(2).await?.context("it is not")?;
        ensure!(info.delivered.stream_sequence >= 5, "nothing is delivered");
        Ok(info)
    })
    .await?;
    // The state was moved in its epoch, and it says so: nobody may do it again.
    let metadata =
        ConsumerMetadata::from_map(|key| info.config.metadata.get(key).map(String::as_str))?;
    assert!(metadata.applied, "{metadata:?}");
    carried_out(&stand, 2, &[("again", 2)]).await?;
    assert_eq!(stand.stored_alerts().await?.len(), 3);
    Ok(())
}

#[tokio::test]
async fn r08_a_consumer_lost_before_the_state_is_moved_is_made_again() -> Result<()> {
    let stand = applied(&[ALARM, STEP, STEP]).await?;
    let proxy = stopped_at(&stand, "\"phase\":\"applying\"").await?;
    ask(&stand, again()).await?;
    frozen(&proxy).await?;
    let source = stand.js.get_stream_no_info(STREAM).await?;
    source
        .delete_consumer(&stand.key().consumer(0, Epoch(2)))
        .await?;
    proxy.thaw();
    completed(&stand, "again").await?;
    stand.publish(STEP).await?;
    carried_out(&stand, 2, &[("again", 2)]).await?;
    Ok(())
}

#[tokio::test]
async fn r09_a_stream_made_again_stalls_until_a_new_request_clears() -> Result<()> {
    let stand = replayed().await?;
    let before = alert_ids(&stand).await?;
    stand.js.delete_stream(STREAM).await?;
    stand.create_source().await?;
    stand.publish_all(ALARM, 2).await?;
    stand.condition("Stalled", "True", "StreamChanged").await?;
    ask(&stand, again()).await?;
    stand.reconciles(3).await?;
    assert_eq!(alert_ids(&stand).await?, before);
    assert_eq!(in_ledger(&stand.digest().await?), [("again", 2)]);

    // What goes on with the windows cannot.
    ask(
        &stand,
        json!({"id": "keep", "fromSequence": 1, "statePolicy": "Keep"}),
    )
    .await?;
    answered(&stand, "keep", "ReplayRejected").await?;
    ask(
        &stand,
        json!({"id": "anew", "fromSequence": 1, "statePolicy": "Clear"}),
    )
    .await?;
    completed(&stand, "anew").await?;
    stand.caught_up().await?;
    let digest = stand.digest().await?;
    assert_eq!(in_ledger(&digest), [("again", 2), ("anew", 3)]);
    assert_eq!(digest.groups, 0);
    let after = alert_ids(&stand).await?;
    assert!(after.is_superset(&before));
    assert_eq!(after.len(), before.len() + 2);
    stand.condition("Stalled", "False", "NotStalled").await?;
    Ok(())
}

#[tokio::test]
async fn r22_a_volume_restored_from_before_a_replay_is_not_replayed_again() -> Result<()> {
    let stand = applied(&[ALARM, STEP, STEP]).await?;
    let old = stand.kubelet.snapshot_volume().await?;
    ask(&stand, again()).await?;
    completed(&stand, "again").await?;
    carried_out(&stand, 2, &[("again", 2)]).await?;
    let good = stand.kubelet.snapshot_volume().await?;
    stand.kubelet.restore_volume(&old).await?;
    stand.condition("Stalled", "True", "StateLost").await?;
    stand.reconciles(3).await?;
    assert_eq!(in_ledger(&stand.digest().await?), []);
    assert_eq!(stand.status().await?.epoch, Some(2));
    let record = stand.status().await?.replay.context("no record")?;
    assert_eq!(record.phase, ReplayPhase::Completed);

    stand.kubelet.restore_volume(&good).await?;
    stand.publish(STEP).await?;
    carried_out(&stand, 2, &[("again", 2)]).await?;
    assert_eq!(stand.stored_alerts().await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn r25_a_target_that_is_gone_is_reached_when_nothing_is_left_to_read() -> Result<()> {
    let stand = applied(&[ALARM, STEP, STEP, ALARM]).await?;
    let block = json!({"id": "again", "fromSequence": 2, "approval": "Manual"});
    ask(&stand, block).await?;
    let waiting = stand.condition("ReplayAccepted", "False", "AwaitingApproval");
    waiting.await?;
    let record = stand.status().await?.replay.context("no record")?;
    let plan = record.plan.context("no plan")?;
    assert_eq!(plan.target, StreamSeq(4));
    let source: jetstream::stream::Stream<()> = stand.js.get_stream_no_info(STREAM).await?;
    source.delete_message(4).await?;
    stand.annotate("lookback.dev/approve", &plan.hash).await?;
    completed(&stand, "again").await?;
    let checkpoint = stand.drained_to(3).await?;
    assert_eq!(checkpoint.position.sequence, StreamSeq(3));
    stand.publish(STEP).await?;
    stand.caught_up().await?;
    let digest = stand.digest().await?;
    assert_eq!(in_ledger(&digest), [("again", 2)]);
    assert_eq!(stand.stored_alerts().await?.len(), 3);
    Ok(())
}

#[tokio::test]
async fn r26_sequences_that_nats_lost_and_gave_to_others_stall_until_a_request_clears() -> Result<()>
{
    let mut stand = applied(&[ALARM, STEP, STEP]).await?;
    let copy = tempfile::tempdir()?;
    let copy = copy.path().join("store");
    stand.world.nats.kill();
    stand.world.nats.copy_store(&copy)?;
    stand.world.nats.restart().await?;
    stand.publish_all(ALARM, 2).await?;
    stand.caught_up().await?;
    stand.world.nats.kill();
    stand.world.nats.restore_copy(&copy)?;
    stand.world.nats.restart().await?;
    stand.publish(STEP).await?;
    stand.publish_all(ALARM, 2).await?;
    stand
        .condition("Stalled", "True", "StreamRegressed")
        .await?;

    ask(
        &stand,
        json!({"id": "anew", "fromSequence": 1, "statePolicy": "Clear"}),
    )
    .await?;
    completed(&stand, "anew").await?;
    carried_out(&stand, 2, &[("anew", 2)]).await?;
    // Three alarms, and the step that was stored under a sequence that had been another's.
    assert_eq!(stand.stored_alerts().await?.len(), 4);
    Ok(())
}
