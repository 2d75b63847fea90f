//! What a request back into live output stores: nothing twice, and what `outputs` says.

use anyhow::{Context, Result, ensure};
use lookback_dev::support::eventually;
use lookback_protocol::alert::AlertRecord;
use lookback_protocol::position::StreamSeq;
use lookback_protocol::replay::record::{ReplayPhase, Windows};
use serde_json::{Value, json};

use crate::operator_fixture::SOON;
use crate::replay_fixture::{
    ALARM, NOISE, STEP, applied, ask, begun, carried_out, completed, frozen, stopped_at,
    story_applied,
};
use crate::stand::Stand;
use crate::worker_fixture::RULES;

/// A pipeline that begins behind two alarms, none of which it has stored.
async fn behind_two_alarms() -> Result<Stand> {
    let mut stand = Stand::new().await?;
    stand.publish_all(ALARM, 2).await?;
    stand.start_operator().await?;
    let mut spec = stand.spec();
    spec["source"]["start"] = json!("Latest");
    stand.apply(&spec).await?;
    eventually(SOON, "it has begun", async || {
        let status = stand.status().await?;
        ensure!(status.phase == Some(lookback::api::status::Phase::Running));
        Ok(())
    })
    .await?;
    stand.publish(NOISE).await?;
    stand.caught_up().await?;
    assert_eq!(stand.stored_alerts().await?.len(), 0);
    Ok(stand)
}

async fn ask_behind(stand: &Stand, block: Value) -> Result<()> {
    let mut spec = stand.spec();
    spec["source"]["start"] = json!("Latest");
    spec["replay"] = block;
    stand.apply(&spec).await?;
    Ok(())
}

/// The last sequence of the alerts stream: every alert ever stored raises it.
async fn stored(stand: &Stand) -> Result<u64> {
    let name = stand.key().alerts_stream();
    let mut stream = stand.js.get_stream(name).await?;
    Ok(stream.info().await?.state.last_sequence)
}

fn mark(alert: &AlertRecord) -> Option<(&str, u64)> {
    let mark = alert.replay.as_ref()?;
    Some((mark.id.as_str(), mark.epoch.0))
}

#[tokio::test]
async fn r20_a_rebuild_finds_the_same_alerts_and_stores_nothing_new() -> Result<()> {
    let mut stand = story_applied(800).await?;
    let whole = stand.equals_oracle().await?;
    let (alerts, last) = (stand.stored_alerts().await?, stored(&stand).await?);
    ask(
        &stand,
        json!({"id": "again", "fromSequence": 500, "statePolicy": "Rebuild"}),
    )
    .await?;
    let plan = completed(&stand, "again").await?.plan.context("no plan")?;
    assert_eq!(plan.windows, Windows::Rebuilt);
    let read_back = plan.read_back.context("nothing is read back")?;
    assert!(read_back.exact, "{read_back:?}");
    assert!(read_back.from < StreamSeq(500), "{read_back:?}");
    let digest = carried_out(&stand, 2, &[("again", 2)]).await?;
    assert_eq!(digest.state_digest, whole.state_digest);
    assert_eq!(stand.stored_alerts().await?, alerts);
    assert_eq!(stored(&stand).await?, last);
    stand.publish_story(200).await?;
    carried_out(&stand, 2, &[("again", 2)]).await?;
    Ok(())
}

#[tokio::test]
async fn r20_a_clear_may_find_others_and_stores_none_twice() -> Result<()> {
    let stand = story_applied(800).await?;
    ask(
        &stand,
        json!({"id": "again", "fromSequence": 300, "statePolicy": "Clear"}),
    )
    .await?;
    let plan = completed(&stand, "again").await?.plan.context("no plan")?;
    assert_eq!((plan.windows, plan.double_counted), (Windows::Dropped, 0));
    carried_out(&stand, 2, &[("again", 2)]).await?;
    Ok(())
}

#[tokio::test]
async fn r20_a_keep_counts_twice_as_the_plan_says() -> Result<()> {
    let stand = applied(&[STEP, STEP]).await?;
    ask(
        &stand,
        json!({"id": "again", "fromSequence": 1, "statePolicy": "Keep"}),
    )
    .await?;
    let plan = completed(&stand, "again").await?.plan.context("no plan")?;
    assert_eq!((plan.windows, plan.double_counted), (Windows::Kept, 2));
    carried_out(&stand, 2, &[("again", 2)]).await?;
    // No single pass over two steps finds three.
    assert_eq!(stand.stored_alerts().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn alerts_up_to_the_target_are_tagged_and_later_ones_are_not() -> Result<()> {
    let stand = behind_two_alarms().await?;
    let block = json!({"id": "again", "fromSequence": 1, "outputs": "Tag"});
    ask_behind(&stand, block).await?;
    completed(&stand, "again").await?;
    stand.kubelet.kill().await?;
    stand.publish(ALARM).await?;
    carried_out(&stand, 2, &[("again", 2)]).await?;
    let alerts = stand.stored_alerts().await?;
    let mut marks: Vec<_> = alerts
        .values()
        .map(|alert| (alert.events[0].sequence.0, mark(alert)))
        .collect();
    marks.sort_unstable();
    let tagged = Some(("again", 2));
    assert_eq!(marks, [(1, tagged), (2, tagged), (4, None)]);
    Ok(())
}

#[tokio::test]
async fn alerts_up_to_the_target_are_suppressed_also_after_a_crash() -> Result<()> {
    let stand = behind_two_alarms().await?;
    let proxy = stopped_at(&stand, "\"outcome\":\"applied\"").await?;
    let block = json!({"id": "again", "fromSequence": 1, "outputs": "Suppress"});
    ask_behind(&stand, block).await?;
    frozen(&proxy).await?;
    stand.publish(ALARM).await?;
    stand.kubelet.route(None).await;
    stand.kubelet.kill().await?;
    proxy.cut();
    completed(&stand, "again").await?;
    carried_out(&stand, 2, &[("again", 2)]).await?;
    let alerts = stand.stored_alerts().await?;
    let found: Vec<_> = alerts.values().map(|it| it.events[0].sequence.0).collect();
    assert_eq!(found, [4]);
    Ok(())
}

#[tokio::test]
async fn a_rule_corrected_together_with_a_request_runs_from_its_first_event() -> Result<()> {
    let stand = applied(&[NOISE, NOISE, ALARM]).await?;
    let noisy = RULES.replace("kind: alarm", "kind: [alarm, noise]");
    assert_ne!(noisy, RULES);
    stand.change_rules(&noisy).await?;
    ask(&stand, json!({"id": "again", "fromSequence": 1})).await?;
    completed(&stand, "again").await?;
    let digest = carried_out(&stand, 2, &[("again", 2)]).await?;
    assert_eq!(stand.stored_alerts().await?.len(), 3);
    let last = digest.lineage.last().context("no lineage")?;
    assert_eq!(last.start, StreamSeq(1));
    let rewound = digest.lineage.iter().filter(|it| it.epoch.0 == 2);
    assert_eq!(rewound.count(), 1, "{:#?}", digest.lineage);
    Ok(())
}

#[tokio::test]
async fn a_request_that_is_under_way_says_so() -> Result<()> {
    let stand = applied(&[ALARM, STEP]).await?;
    let proxy = stopped_at(&stand, "\"phase\":\"applying\"").await?;
    ask(&stand, json!({"id": "again", "fromSequence": 1})).await?;
    frozen(&proxy).await?;
    begun(&stand, "again", ReplayPhase::RollingOut).await?;
    let condition = stand
        .condition("ReplayInProgress", "True", "RollingOut")
        .await?;
    assert!(condition.message.contains("again"), "{}", condition.message);
    stand.kubelet.route(None).await;
    proxy.thaw();
    completed(&stand, "again").await?;
    stand
        .condition("ReplayInProgress", "False", "Completed")
        .await?;
    for reason in [
        "ReplayRequested",
        "ReplayPlanned",
        "ReplayFencing",
        "ReplayCursorCreated",
        "ReplayRollingOut",
        "ReplayStateApplied",
        "ReplayCatchingUp",
        "ReplayCompleted",
    ] {
        let note = stand.event(reason).await?;
        assert!(note.starts_with("request again: "), "{reason}: {note}");
    }
    Ok(())
}
