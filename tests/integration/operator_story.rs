//! What `kubectl describe` tells of a replay: an Event at each phase, and one for a request for which
//! nothing is done.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use lookback::api::status::Phase;
use lookback_dev::support::eventually;
use lookback_protocol::replay::record::ReplayPhase;
use serde_json::json;

use crate::operator_fixture::SOON;
use crate::stand::Stand;

const ALARM: &str = r#"{"kind":"alarm"}"#;

/// Reason and note of the pipeline's Events about replays and consumers, the oldest first.
async fn story(stand: &Stand) -> Result<Vec<(String, String)>> {
    let mut events = stand
        .api::<Event>()
        .list(&ListParams::default())
        .await?
        .items;
    events.sort_by_key(|event| event.event_time.as_ref().map(|time| time.0));
    let told = events.into_iter().filter_map(|event| {
        let about = ["Replay", "Consumer", "Repaired"];
        let reason = event.reason?;
        let told = about.iter().any(|about| reason.starts_with(about));
        told.then(|| (reason, event.note.unwrap_or_default()))
    });
    Ok(told.collect())
}

#[tokio::test]
async fn a_replay_is_told_phase_by_phase_and_a_revert_says_that_nothing_is_done() -> Result<()> {
    let stand = Stand::new().await?;
    let operator = stand.operator().await?;
    let mut spec = stand.spec();
    stand.apply(&spec).await?;
    stand.publish_all(ALARM, 5).await?;
    stand.phase(Phase::Running).await?;
    stand.caught_up().await?;
    spec["replay"] = json!({"id": "first", "fromSequence": 2, "approval": "Manual"});
    stand.apply(&spec).await?;
    let waits = stand
        .condition("ReplayAccepted", "False", "AwaitingApproval")
        .await?;
    stand.condition("Ready", "True", "Running").await?;
    let record = stand.status().await?.replay.context("no record")?;
    let hash = record.plan.context("no plan")?.hash;
    assert!(waits.message.contains(&hash), "{}", waits.message);
    stand.annotate("lookback.dev/approve", &hash).await?;
    stand
        .condition("ReplayInProgress", "False", "Completed")
        .await?;
    stand
        .condition("ReplayAccepted", "True", "Accepted")
        .await?;
    let expected = [
        "ReplayRequested",
        "ReplayPlanned",
        "ReplayAwaitingApproval",
        "ReplayFencing",
        "ReplayCursorCreated",
        "ReplayRollingOut",
        "ReplayStateApplied",
        "ReplayCatchingUp",
        "ReplayCompleted",
    ];
    let told = eventually(SOON, "the whole story", async || {
        let mut told = story(&stand).await?;
        // Before it is looked for the first time, a consumer is missing.
        told.retain(|(reason, _)| reason != "ConsumerMissing");
        let reasons: Vec<&str> = told.iter().map(|(reason, _)| reason.as_str()).collect();
        ensure!(reasons == expected, "{reasons:?}");
        Ok(told)
    })
    .await?;
    for (reason, note) in &told {
        assert!(note.starts_with("request first: "), "{reason}: {note}");
    }
    assert!(told[1].1.contains(&hash), "{}", told[1].1);

    spec["replay"] = json!({"id": "second", "fromSequence": 3});
    stand.apply(&spec).await?;
    eventually(SOON, "the second is completed", async || {
        let record = stand.status().await?.replay;
        let done = record.is_some_and(|it| {
            it.request.id.as_str() == "second" && it.phase == ReplayPhase::Completed
        });
        ensure!(done, "it is not");
        Ok(())
    })
    .await?;
    spec["replay"] = json!({"id": "first", "fromSequence": 2, "approval": "Manual"});
    stand.apply(&spec).await?;
    stand
        .condition("ReplayAccepted", "True", "AlreadyApplied")
        .await?;
    let note = stand.event("ReplayAlreadyApplied").await?;
    assert!(note.contains("request first"), "{note}");
    spec["replay"] = json!({"id": "first", "fromSequence": 4});
    stand.apply(&spec).await?;
    stand
        .condition("ReplayAccepted", "False", "IdReused")
        .await?;
    stand.condition("Stalled", "True", "IdReused").await?;
    stand.condition("Ready", "True", "Running").await?;
    let note = stand.event("ReplayIdReused").await?;
    assert!(note.contains("first"), "{note}");
    assert_eq!(stand.status().await?.epoch, Some(3));
    stand.equals_oracle().await?;
    operator.end().await
}
