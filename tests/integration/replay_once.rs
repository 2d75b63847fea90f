//! What was asked for under one id is done once, whatever is applied, restarted or made again.

use anyhow::{Result, ensure};
use jiff::{SignedDuration, Timestamp};
use lookback::api::DetectionPipeline;
use lookback_dev::support::eventually;
use lookback_protocol::position::Epoch;
use lookback_protocol::replay::record::ReplayPhase;
use serde_json::{Value, json};

use crate::operator_fixture::{NAME, SOON};
use crate::replay_fixture::{
    ALARM, NOISE, STEP, answered, applied, applied_with, ask, begun, carried_out, completed, ended,
    in_ledger, pod_uid, with_replay,
};
use crate::stand::{Hold, Stand};

/// Back to the first event.
fn again() -> Value {
    json!({"id": "again", "fromSequence": 1, "statePolicy": "Clear"})
}

#[tokio::test]
async fn r03_the_same_manifest_applied_again_and_again_does_nothing() -> Result<()> {
    let mut stand = applied(&[ALARM, STEP, STEP, STEP]).await?;
    let spec = with_replay(&stand, again());
    for _ in 0..5 {
        stand.apply(&spec).await?;
    }
    begun(&stand, "again", ReplayPhase::RollingOut).await?;
    stand.apply(&spec).await?;
    completed(&stand, "again").await?;
    carried_out(&stand, 2, &[("again", 2)]).await?;
    let worker = stand.checkpoint().await?.incarnation;
    for round in 0..10 {
        stand.annotate("test/heals", &round.to_string()).await?;
        stand.apply(&spec).await?;
        stand.reconciles(1).await?;
    }
    stand.kill_operator().await?;
    stand.apply(&spec).await?;
    stand.start_operator().await?;
    stand.reconciles(2).await?;
    stand.publish(ALARM).await?;
    carried_out(&stand, 2, &[("again", 2)]).await?;
    assert_eq!(stand.checkpoint().await?.incarnation, worker);
    answered(&stand, "again", "Accepted").await?;
    assert_eq!(stand.stored_alerts().await?.len(), 3);
    Ok(())
}

#[tokio::test]
async fn r03_a_derived_id_is_done_once_too() -> Result<()> {
    let stand = applied(&[ALARM, ALARM]).await?;
    ask(&stand, json!({"fromSequence": 2})).await?;
    let record = eventually(SOON, "the request is done", async || {
        let record = stand.status().await?.replay;
        let done = record.filter(|record| record.phase == ReplayPhase::Completed);
        done.ok_or_else(|| anyhow::anyhow!("not yet"))
    })
    .await?;
    let id = record.request.id.as_str();
    assert!(id.starts_with("h-"), "{id}");
    ask(&stand, json!({"fromSequence": 2, "statePolicy": "Auto"})).await?;
    stand.reconciles(2).await?;
    carried_out(&stand, 2, &[(id, 2)]).await?;
    Ok(())
}

#[tokio::test]
async fn r04_a_revert_to_an_older_block_and_a_block_taken_out_do_nothing() -> Result<()> {
    let stand = applied(&[ALARM, STEP, STEP, STEP]).await?;
    ask(&stand, again()).await?;
    completed(&stand, "again").await?;
    ask(&stand, json!({"id": "later", "fromSequence": 3})).await?;
    completed(&stand, "later").await?;
    let both = [("again", 2), ("later", 3)];
    carried_out(&stand, 3, &both).await?;
    let worker = stand.checkpoint().await?.incarnation;

    ask(&stand, again()).await?;
    let condition = answered(&stand, "again", "AlreadyApplied").await?;
    assert_eq!(format!("{:?}", condition.status), "True");
    let note = stand.event("ReplayAlreadyApplied").await?;
    assert!(note.contains("again"), "{note}");
    stand.apply(&stand.spec()).await?;
    stand
        .condition("ReplayAccepted", "Unknown", "NoReplay")
        .await?;
    ask(&stand, json!({"id": "later", "fromSequence": 3})).await?;
    answered(&stand, "later", "Accepted").await?;

    stand.publish(ALARM).await?;
    carried_out(&stand, 3, &both).await?;
    assert_eq!(stand.checkpoint().await?.incarnation, worker);
    assert_eq!(stand.claims().await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn r05_the_same_id_with_other_numbers_is_not_run() -> Result<()> {
    let stand = applied(&[ALARM, STEP, STEP, STEP]).await?;
    ask(&stand, again()).await?;
    completed(&stand, "again").await?;
    ask(
        &stand,
        json!({"id": "again", "fromSequence": 2, "statePolicy": "Clear"}),
    )
    .await?;
    let condition = answered(&stand, "again", "IdReused").await?;
    assert_eq!(format!("{:?}", condition.status), "False");
    let note = stand.event("ReplayIdReused").await?;
    assert!(note.contains("again"), "{note}");
    stand.publish(ALARM).await?;
    carried_out(&stand, 2, &[("again", 2)]).await?;
    ask(&stand, again()).await?;
    answered(&stand, "again", "Accepted").await?;
    carried_out(&stand, 2, &[("again", 2)]).await?;
    Ok(())
}

#[tokio::test]
async fn r06_a_pipeline_made_again_with_its_block_adopts_and_does_not_replay() -> Result<()> {
    let stand = applied(&[ALARM, STEP, STEP]).await?;
    ask(&stand, again()).await?;
    completed(&stand, "again").await?;
    carried_out(&stand, 2, &[("again", 2)]).await?;
    stand.delete().await?;
    stand.publish(STEP).await?;
    ask(&stand, again()).await?;
    answered(&stand, "again", "AlreadyApplied").await?;
    carried_out(&stand, 2, &[("again", 2)]).await?;
    assert_eq!(stand.stored_alerts().await?.len(), 2);

    // Without its consumer it is known from the checkpoint, also beside the one it had left.
    stand.delete().await?;
    let source = stand.js.get_stream_no_info("EVENTS").await?;
    let name = stand.key().consumer(0, Epoch(2));
    source.delete_consumer(&name).await?;
    assert!(stand.consumer(1).await?.is_some());
    stand.publish(ALARM).await?;
    ask(&stand, again()).await?;
    answered(&stand, "again", "AlreadyApplied").await?;
    carried_out(&stand, 2, &[("again", 2)]).await?;
    assert_eq!(stand.stored_alerts().await?.len(), 3);
    assert!(stand.consumer(3).await?.is_none());
    Ok(())
}

#[tokio::test]
async fn r06_a_pipeline_made_again_in_the_midst_of_its_replay_goes_on_with_it() -> Result<()> {
    let stand = applied(&[ALARM, STEP, STEP]).await?;
    stand.kubelet.hold(Hold::Image).await;
    ask(&stand, again()).await?;
    begun(&stand, "again", ReplayPhase::RollingOut).await?;
    stand.delete().await?;
    stand.kubelet.release().await;
    stand.publish(STEP).await?;
    ask(&stand, again()).await?;
    completed(&stand, "again").await?;
    carried_out(&stand, 2, &[("again", 2)]).await?;
    assert_eq!(stand.stored_alerts().await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn r16_ids_that_change_at_every_apply_are_throttled() -> Result<()> {
    let hourly = |world: &crate::operator_fixture::World| {
        let mut settings = world.settings();
        settings.limits.min_interval = SignedDuration::from_hours(1);
        settings
    };
    let mut stand = applied_with(&[ALARM, STEP, STEP, STEP], hourly).await?;
    let at = |round: u32| json!({"id": format!("at-{round}"), "fromSequence": 1});
    ask(&stand, at(0)).await?;
    completed(&stand, "at-0").await?;
    carried_out(&stand, 2, &[("at-0", 2)]).await?;
    let worker = stand.checkpoint().await?.incarnation;
    for round in 1..=5 {
        ask(&stand, at(round)).await?;
        answered(&stand, &format!("at-{round}"), "Throttled").await?;
    }
    let note = stand.event("ReplayThrottled").await?;
    assert!(note.contains("at-"), "{note}");
    carried_out(&stand, 2, &[("at-0", 2)]).await?;
    assert_eq!(stand.checkpoint().await?.incarnation, worker);

    stand.kill_operator().await?;
    stand.start_operator().await?;
    completed(&stand, "at-5").await?;
    carried_out(&stand, 3, &[("at-0", 2), ("at-5", 3)]).await?;
    Ok(())
}

#[tokio::test]
async fn r19_in_a_new_cluster_a_block_that_is_too_old_is_not_run() -> Result<()> {
    let mut stand = Stand::new().await?;
    stand.publish_all(ALARM, 3).await?;
    stand.start_operator().await?;
    let long_ago = Timestamp::now() - SignedDuration::from_hours(1);
    let block = json!({"id": "old", "fromSequence": 3, "notAfter": long_ago});
    ask(&stand, block).await?;
    ended(&stand, "old", ReplayPhase::Expired).await?;
    let note = stand.event("ReplayExpired").await?;
    assert!(note.contains("old"), "{note}");
    let condition = answered(&stand, "old", "ReplayExpired").await?;
    assert_eq!(format!("{:?}", condition.status), "False");
    carried_out(&stand, 1, &[]).await?;
    assert_eq!(stand.stored_alerts().await?.len(), 3);
    assert_eq!(stand.claims().await?, []);
    Ok(())
}

#[tokio::test]
async fn r19_in_a_new_cluster_a_block_is_where_the_pipeline_begins() -> Result<()> {
    let mut stand = Stand::new().await?;
    stand.publish_all(ALARM, 3).await?;
    stand.start_operator().await?;
    ask(&stand, json!({"id": "begin", "fromSequence": 3})).await?;
    let record = completed(&stand, "begin").await?;
    assert_eq!(record.of, None);
    carried_out(&stand, 1, &[("begin", 1)]).await?;
    assert_eq!(stand.stored_alerts().await?.len(), 1);
    ask(
        &stand,
        json!({"id": "begin", "fromSequence": 3, "outputs": "Tag"}),
    )
    .await?;
    stand.reconciles(2).await?;
    stand.publish(NOISE).await?;
    carried_out(&stand, 1, &[("begin", 1)]).await?;
    Ok(())
}

#[tokio::test]
async fn ids_are_compared_with_all_that_were_ever_applied_not_with_the_last() -> Result<()> {
    let stand = applied(&[ALARM, STEP, STEP, STEP]).await?;
    for (id, start) in [("a", 1), ("b", 2), ("c", 3)] {
        ask(&stand, json!({"id": id, "fromSequence": start})).await?;
        completed(&stand, id).await?;
    }
    // Not even when the status has forgotten.
    let forgotten = json!({"status": {"replay": null, "replayHistory": []}});
    stand
        .api::<DetectionPipeline>()
        .patch_status(
            NAME,
            &kube::api::PatchParams::default(),
            &kube::api::Patch::Merge(forgotten),
        )
        .await?;
    for (id, start) in [("a", 1), ("b", 2), ("c", 3)] {
        ask(&stand, json!({"id": id, "fromSequence": start})).await?;
        answered(&stand, id, "AlreadyApplied").await?;
    }
    let digest = carried_out(&stand, 4, &[("a", 2), ("b", 3), ("c", 4)]).await?;
    ensure!(in_ledger(&digest).len() == 3);
    Ok(())
}

#[tokio::test]
async fn a_pod_that_is_replaced_after_a_replay_goes_on_in_its_epoch() -> Result<()> {
    let stand = applied(&[STEP, STEP]).await?;
    ask(&stand, again()).await?;
    completed(&stand, "again").await?;
    let before = pod_uid(&stand).await?;
    let mut spec = with_replay(&stand, again());
    spec["restartNonce"] = json!("once more");
    stand.apply(&spec).await?;
    eventually(SOON, "another pod", async || {
        ensure!(pod_uid(&stand).await? != before, "it is the same");
        Ok(())
    })
    .await?;
    stand.publish(STEP).await?;
    carried_out(&stand, 2, &[("again", 2)]).await?;
    assert_eq!(stand.stored_alerts().await?.len(), 1);
    Ok(())
}
