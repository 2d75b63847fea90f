//! A request that cannot be begun is taken back, and who moves the checkpoint first has won.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Pod, ResourceQuota};
use kube::api::{DeleteParams, PostParams};
use lookback_dev::support::eventually;
use lookback_protocol::replay::record::{Record, ReplayPhase};
use lookback_protocol::termination::ExitReason;
use serde_json::{Value, json};

use crate::operator_fixture::{NAME, SOON};
use crate::replay_fixture::{
    ALARM, Dice, POD, STEP, answered, applied, ask, begun, carried_out, completed, ended, frozen,
    grow_impatient, grow_patient, stopped_at, with_replay,
};
use crate::stand::{Hold, Stand};
use crate::worker_fixture::RULES;

fn again() -> Value {
    json!({"id": "again", "fromSequence": 1, "statePolicy": "Clear"})
}

/// Shows that the request failed without a trace: one more step is the third, in a later epoch.
async fn went_back(stand: &Stand, reason: &str) -> Result<()> {
    let condition = answered(stand, "again", reason).await?;
    assert_eq!(format!("{:?}", condition.status), "False");
    let note = stand.event("ReplayTakenBack").await?;
    assert!(note.contains("again"), "{note}");
    stand.publish(STEP).await?;
    let epoch = stand.caught_up().await?.epoch.0;
    carried_out(stand, epoch, &[]).await?;
    assert!(epoch > 2, "epoch {epoch}");
    assert_eq!(stand.stored_alerts().await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn r14_an_image_that_cannot_be_pulled_fails_the_request_and_the_old_state_goes_on()
-> Result<()> {
    let mut stand = applied(&[ALARM, STEP, STEP]).await?;
    stand.kubelet.hold(Hold::Image).await;
    ask(&stand, again()).await?;
    eventually(SOON, "the pod waits for its image", async || {
        let pod: Pod = stand.api().get(POD).await?;
        let containers = pod.status.and_then(|status| status.container_statuses);
        let state = containers.context("no container")?.remove(0).state;
        let waiting = state.and_then(|state| state.waiting);
        let reason = waiting.and_then(|waiting| waiting.reason);
        ensure!(reason.as_deref() == Some("ImagePullBackOff"), "{reason:?}");
        Ok(())
    })
    .await?;
    begun(&stand, "again", ReplayPhase::RollingOut).await?;
    grow_impatient(&mut stand).await?;
    let record = ended(&stand, "again", ReplayPhase::Failed).await?;
    assert!(record.message.contains("image"), "{}", record.message);
    grow_patient(&mut stand).await?;
    stand.kubelet.release().await;
    went_back(&stand, "ReplayFailed").await?;

    // It is remembered, and a new id may try again.
    ask(
        &stand,
        json!({"id": "retry", "fromSequence": 1, "statePolicy": "Clear"}),
    )
    .await?;
    completed(&stand, "retry").await?;
    let epoch = stand.checkpoint().await?.epoch.0;
    carried_out(&stand, epoch, &[("retry", epoch)]).await?;
    ask(&stand, again()).await?;
    answered(&stand, "again", "ReplayFailed").await?;
    carried_out(&stand, epoch, &[("retry", epoch)]).await?;
    Ok(())
}

#[tokio::test]
async fn r14_a_quota_fails_the_request_and_the_old_state_goes_on() -> Result<()> {
    let mut stand = applied(&[ALARM, STEP, STEP]).await?;
    let quota: ResourceQuota = serde_json::from_value(json!({
        "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}},
    }))?;
    let quotas = stand.api::<ResourceQuota>();
    quotas.create(&PostParams::default(), &quota).await?;
    ask(&stand, again()).await?;
    begun(&stand, "again", ReplayPhase::RollingOut).await?;
    grow_impatient(&mut stand).await?;
    ended(&stand, "again", ReplayPhase::Failed).await?;
    grow_patient(&mut stand).await?;
    quotas.delete("none", &DeleteParams::default()).await?;
    went_back(&stand, "ReplayFailed").await
}

#[tokio::test]
async fn r14_a_request_that_nats_left_alone_ends_once_nats_is_back() -> Result<()> {
    let mut stand = applied(&[ALARM, STEP, STEP]).await?;
    let proxy = stopped_at(&stand, "\"phase\":\"applying\"").await?;
    ask(&stand, again()).await?;
    frozen(&proxy).await?;
    stand.world.nats.kill();
    stand.kubelet.route(None).await;
    proxy.cut();
    grow_impatient(&mut stand).await?;
    eventually(SOON, "the way back is written", async || {
        let record = stand.status().await?.replay;
        ensure!(record.is_some_and(|record| record.way_back.is_some()));
        Ok(())
    })
    .await?;
    grow_patient(&mut stand).await?;
    stand.world.nats.restart().await?;
    one_has_won(&stand).await
}

/// Either it was taken back and left no trace, or it was carried out; and nothing between.
async fn one_has_won(stand: &Stand) -> Result<()> {
    let record = eventually(SOON, "the request has ended", async || {
        let record = stand.status().await?.replay;
        let record = record.filter(|record| record.phase.is_final());
        record.ok_or_else(|| anyhow::anyhow!("not yet"))
    })
    .await?;
    let Record { phase, epoch, .. } = record;
    // Everything is caught up with once a worker of the epoch that goes on has written a checkpoint.
    stand.publish(ALARM).await?;
    let epoch = epoch.map_or(0, |epoch| epoch.0);
    let now = stand.caught_up().await?.epoch.0;
    match phase {
        ReplayPhase::Completed => {
            ensure!(now == epoch, "epoch {now}, {epoch} was completed");
            carried_out(stand, now, &[("again", now)]).await?;
        }
        ReplayPhase::Failed | ReplayPhase::Superseded => {
            ensure!(epoch < now, "epoch {now}, {epoch} was taken back");
            carried_out(stand, now, &[]).await?;
        }
        other => anyhow::bail!("it is {other:?}"),
    }
    Ok(())
}

#[tokio::test]
async fn r17_a_stale_worker_acks_to_the_consumer_of_its_own_epoch() -> Result<()> {
    let stand = applied(&[ALARM, STEP, STEP]).await?;
    let zombie = stand.kubelet.zombie().await?;
    zombie.freeze().await?;
    ask(&stand, again()).await?;
    completed(&stand, "again").await?;
    carried_out(&stand, 2, &[("again", 2)]).await?;
    zombie.thaw()?;
    stand.publish_all(STEP, 2).await?;
    let (status, message) = zombie.ended().await?;
    assert_eq!(message.reason, ExitReason::Fenced);
    assert_eq!(status.code(), Some(4));
    stand.publish(ALARM).await?;
    carried_out(&stand, 2, &[("again", 2)]).await?;
    assert_eq!(stand.stored_alerts().await?.len(), 3);
    Ok(())
}

#[tokio::test]
async fn r18_an_upgrade_in_the_midst_of_a_replay_waits_until_the_state_is_moved() -> Result<()> {
    let stand = applied(&[ALARM, STEP, STEP, STEP]).await?;
    let proxy = stopped_at(&stand, "\"phase\":\"applying\"").await?;
    ask(&stand, again()).await?;
    frozen(&proxy).await?;
    let template = async || -> Result<_> {
        let set: StatefulSet = stand.api().get(NAME).await?;
        Ok(set.spec.map(|spec| spec.template))
    };
    begun(&stand, "again", ReplayPhase::RollingOut).await?;
    let before = template().await?;
    let bell = RULES.replace("title: Alarm", "title: Bell");
    stand.change_rules(&bell).await?;
    stand.reconciles(4).await?;
    assert_eq!(template().await?, before);
    stand.kubelet.route(None).await;
    proxy.thaw();
    completed(&stand, "again").await?;
    eventually(SOON, "the new rules are rolled out", async || {
        let configured = stand.kubelet.configured().await;
        ensure!(configured.len() == 2, "{} sets of rules", configured.len());
        Ok(())
    })
    .await?;
    stand.publish(ALARM).await?;
    carried_out(&stand, 2, &[("again", 2)]).await?;
    let alerts = stand.stored_alerts().await?;
    let bells = alerts.values().filter(|alert| alert.rule.title == "Bell");
    assert_eq!(bells.count(), 1);
    Ok(())
}

#[tokio::test]
async fn r21_a_request_taken_out_before_the_point_of_no_return_leaves_no_trace() -> Result<()> {
    let stand = applied(&[ALARM, STEP, STEP]).await?;
    let proxy = stopped_at(&stand, "\"phase\":\"applying\"").await?;
    ask(&stand, again()).await?;
    frozen(&proxy).await?;
    stand.apply(&stand.spec()).await?;
    eventually(SOON, "the operator has won", async || {
        let checkpoint = stand.checkpoint().await?;
        ensure!(checkpoint.epoch.0 == 3, "{checkpoint:#?}");
        Ok(())
    })
    .await?;
    stand.kubelet.route(None).await;
    proxy.thaw();
    ended(&stand, "again", ReplayPhase::Superseded).await?;
    stand.publish(STEP).await?;
    carried_out(&stand, 3, &[]).await?;
    assert_eq!(stand.stored_alerts().await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn r21_a_request_taken_out_after_the_point_of_no_return_is_finished() -> Result<()> {
    let stand = applied(&[ALARM, STEP, STEP]).await?;
    let proxy = stopped_at(&stand, "\"outcome\":\"applied\"").await?;
    ask(&stand, again()).await?;
    frozen(&proxy).await?;
    stand.apply(&stand.spec()).await?;
    stand.reconciles(3).await?;
    stand.kubelet.route(None).await;
    proxy.thaw();
    completed(&stand, "again").await?;
    stand.publish(STEP).await?;
    carried_out(&stand, 2, &[("again", 2)]).await?;
    stand
        .condition("ReplayAccepted", "Unknown", "NoReplay")
        .await?;
    Ok(())
}

#[tokio::test]
async fn r21_whenever_a_request_is_taken_out_it_is_carried_out_or_leaves_no_trace() -> Result<()> {
    for seed in 1..=3 {
        let mut dice = Dice::new(seed);
        let stand = applied(&[ALARM, STEP, STEP]).await?;
        ask(&stand, again()).await?;
        begun(&stand, "again", ReplayPhase::Fencing).await?;
        let early = dice.millis(0, 1_500);
        tokio::time::timeout(early, completed(&stand, "again"))
            .await
            .ok();
        stand.apply(&stand.spec()).await?;
        let ended = one_has_won(&stand).await;
        ended.with_context(|| format!("seed {seed}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn another_id_waits_for_one_that_is_past_the_point_of_no_return() -> Result<()> {
    let stand = applied(&[ALARM, STEP, STEP]).await?;
    let proxy = stopped_at(&stand, "\"outcome\":\"applied\"").await?;
    ask(&stand, again()).await?;
    frozen(&proxy).await?;
    ask(&stand, json!({"id": "next", "fromSequence": 2})).await?;
    answered(&stand, "next", "Queued").await?;
    stand.kubelet.route(None).await;
    proxy.thaw();
    completed(&stand, "next").await?;
    carried_out(&stand, 3, &[("again", 2), ("next", 3)]).await?;
    Ok(())
}

#[tokio::test]
async fn another_id_before_the_point_of_no_return_is_run_after_the_way_back() -> Result<()> {
    let stand = applied(&[ALARM, STEP, STEP]).await?;
    let proxy = stopped_at(&stand, "\"phase\":\"applying\"").await?;
    ask(&stand, again()).await?;
    frozen(&proxy).await?;
    stand
        .apply(&with_replay(
            &stand,
            json!({"id": "next", "fromSequence": 2}),
        ))
        .await?;
    stand.kubelet.route(None).await;
    eventually(SOON, "the operator has won", async || {
        let history = stand.status().await?.replay_history;
        let first = history.iter().find(|one| one.id.as_str() == "again");
        ensure!(first.is_some_and(|one| one.phase == ReplayPhase::Superseded));
        Ok(())
    })
    .await?;
    proxy.thaw();
    completed(&stand, "next").await?;
    let epoch = stand.checkpoint().await?.epoch.0;
    carried_out(&stand, epoch, &[("next", epoch)]).await?;
    Ok(())
}
