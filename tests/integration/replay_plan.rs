//! What is asked for is planned first, and runs as planned or not at all.

use anyhow::{Context, Result};
use async_nats::jetstream;
use async_nats::jetstream::stream::RetentionPolicy;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::StatefulSet;
use lookback_dev::support::eventually;
use lookback_protocol::position::StreamSeq;
use lookback_protocol::replay::record::{Plan, ReplayPhase, Windows};
use serde_json::{Value, json};

use crate::operator_fixture::{NAME, SOON, STREAM};
use crate::replay_fixture::{
    ALARM, STEP, answered, applied, ask, carried_out, completed, ended, with_replay,
};
use crate::stand::Stand;

/// A pipeline over a stream whose first four of ten alarms are gone.
async fn truncated() -> Result<Stand> {
    let mut stand = Stand::new().await?;
    stand.publish_all(ALARM, 10).await?;
    let source = stand.js.get_stream_no_info(STREAM).await?;
    source.purge().sequence(5).await?;
    stand.start_operator().await?;
    stand.apply(&stand.spec()).await?;
    stand.caught_up().await?;
    Ok(stand)
}

/// Waits until the request is rejected, and shows that nothing was done for it.
async fn rejected(stand: &Stand, block: Value, because: &str) -> Result<()> {
    let id = block["id"]
        .as_str()
        .context("a block without id")?
        .to_owned();
    ask(stand, block).await?;
    let record = ended(stand, &id, ReplayPhase::Rejected).await?;
    assert!(record.message.contains(because), "{}", record.message);
    let condition = answered(stand, &id, "ReplayRejected").await?;
    assert!(condition.message.contains(because), "{}", condition.message);
    let note = stand.event("ReplayRejected").await?;
    assert!(note.starts_with("request "), "{note}");
    stand.condition("Ready", "True", "Running").await?;
    carried_out(stand, 1, &[]).await?;
    assert_eq!(stand.claims().await?, []);
    assert!(stand.consumer(2).await?.is_none());
    Ok(())
}

async fn planned(stand: &Stand, block: Value) -> Result<Plan> {
    let id = block["id"]
        .as_str()
        .context("a block without id")?
        .to_owned();
    ask(stand, block).await?;
    let record = ended(stand, &id, ReplayPhase::AwaitingApproval).await?;
    record.plan.context("no plan")
}

#[tokio::test]
async fn r10_a_start_that_left_the_stream_is_rejected_and_may_be_corrected() -> Result<()> {
    let stand = truncated().await?;
    let block = json!({"id": "early", "fromSequence": 2});
    rejected(&stand, block, "has left the stream").await?;
    ask(&stand, json!({"id": "early", "fromSequence": 5})).await?;
    completed(&stand, "early").await?;
    carried_out(&stand, 2, &[("early", 2)]).await?;
    assert_eq!(stand.stored_alerts().await?.len(), 6);
    Ok(())
}

#[tokio::test]
async fn r10_a_start_that_left_the_stream_is_clamped_if_that_is_wanted() -> Result<()> {
    let stand = truncated().await?;
    let block = json!({"id": "early", "fromSequence": 2, "onTruncated": "Clamp"});
    ask(&stand, block).await?;
    let plan = completed(&stand, "early").await?.plan.context("no plan")?;
    assert!(plan.truncated);
    assert_eq!(plan.start, StreamSeq(5));
    assert_eq!(plan.messages, 6);
    let digest = carried_out(&stand, 2, &[("early", 2)]).await?;
    assert_eq!(digest.ledger[0].start, StreamSeq(5));
    Ok(())
}

#[tokio::test]
async fn r10_a_start_that_leaves_the_stream_while_it_waits_is_taken_back() -> Result<()> {
    let stand = applied(&[STEP, STEP, ALARM, ALARM]).await?;
    let block = json!({"id": "again", "fromSequence": 2, "approval": "Manual"});
    let plan = planned(&stand, block).await?;
    let source = stand.js.get_stream_no_info(STREAM).await?;
    source.purge().sequence(4).await?;
    stand.annotate("lookback.dev/approve", &plan.hash).await?;
    let record = ended(&stand, "again", ReplayPhase::Failed).await?;
    assert!(record.message.contains("left the stream"), "{record:#?}");
    // The windows are as they were: one more step is the third.
    stand.publish(STEP).await?;
    let checkpoint = stand.caught_up().await?;
    assert_eq!(checkpoint.epoch.0, 3);
    assert_eq!(stand.digest().await?.ledger, []);
    assert_eq!(stand.stored_alerts().await?.len(), 3);
    Ok(())
}

#[tokio::test]
async fn r11_a_start_beyond_the_end_or_in_the_future_is_rejected() -> Result<()> {
    let stand = applied(&[ALARM, ALARM]).await?;
    let beyond = json!({"id": "beyond", "fromSequence": 99});
    rejected(&stand, beyond, "beyond the end").await?;
    let tomorrow = Timestamp::now() + SignedDuration::from_hours(24);
    let future = json!({"id": "future", "fromTime": tomorrow});
    rejected(&stand, future, "later than now").await?;
    Ok(())
}

#[tokio::test]
async fn r11_a_time_with_nothing_after_it_is_the_next_message() -> Result<()> {
    let stand = applied(&[STEP, STEP]).await?;
    ask(&stand, json!({"id": "now", "fromTime": Timestamp::now()})).await?;
    let plan = completed(&stand, "now").await?.plan.context("no plan")?;
    assert_eq!(plan.start, StreamSeq(3));
    assert_eq!(plan.windows, Windows::Kept);
    stand.publish(STEP).await?;
    carried_out(&stand, 2, &[("now", 2)]).await?;
    assert_eq!(stand.stored_alerts().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_time_is_the_first_message_stored_at_it_or_after() -> Result<()> {
    let stand = applied(&[ALARM, ALARM, ALARM]).await?;
    let source = stand.js.get_stream_no_info(STREAM).await?;
    let second = source.get_raw_message(2).await?.time.unix_timestamp_nanos();
    let time = Timestamp::from_nanosecond(second)?;
    ask(&stand, json!({"id": "at", "fromTime": time})).await?;
    let plan = completed(&stand, "at").await?.plan.context("no plan")?;
    assert_eq!(plan.start, StreamSeq(2));
    assert_eq!(plan.start_time, Some(time));
    carried_out(&stand, 2, &[("at", 2)]).await?;
    Ok(())
}

#[tokio::test]
async fn r13_a_source_from_which_reading_would_take_events_is_refused() -> Result<()> {
    for (name, retention) in [
        ("WORK", RetentionPolicy::WorkQueue),
        ("INTEREST", RetentionPolicy::Interest),
    ] {
        let mut stand = Stand::new().await?;
        let config = jetstream::stream::Config {
            name: name.to_owned(),
            subjects: vec![format!("{name}.>")],
            retention,
            ..Default::default()
        };
        let mut source = stand.js.create_stream(config).await?;
        stand.start_operator().await?;
        let mut spec = with_replay(&stand, json!({"id": "again", "fromSequence": 1}));
        spec["source"]["stream"] = json!(name);
        stand.apply(&spec).await?;
        stand
            .condition("Stalled", "True", "SourceUnsupported")
            .await?;
        stand.reconciles(3).await?;
        assert_eq!(source.info().await?.state.consumer_count, 0);
        assert!(stand.api::<StatefulSet>().get_opt(NAME).await?.is_none());
        assert_eq!(stand.claims().await?, []);
    }
    Ok(())
}

#[tokio::test]
async fn a_plan_runs_when_a_person_approved_it_and_not_for_the_hash_of_another() -> Result<()> {
    let stand = applied(&[ALARM, STEP, STEP, STEP]).await?;
    stand
        .annotate("lookback.dev/approve", "p-000000000000")
        .await?;
    let block = json!({"id": "again", "fromSequence": 2, "approval": "Manual"});
    let plan = planned(&stand, block.clone()).await?;
    let condition = answered(&stand, "again", "AwaitingApproval").await?;
    assert!(
        condition.message.contains(&plan.hash),
        "{}",
        condition.message
    );
    stand.reconciles(3).await?;
    carried_out(&stand, 1, &[]).await?;
    assert_eq!(stand.claims().await?, []);
    stand.annotate("lookback.dev/approve", &plan.hash).await?;
    completed(&stand, "again").await?;
    let digest = carried_out(&stand, 2, &[("again", 2)]).await?;
    assert_eq!(digest.ledger[0].plan_hash, plan.hash);

    // Left in Git, it approves nothing else.
    let next = json!({"id": "next", "fromSequence": 2, "approval": "Manual"});
    let other = planned(&stand, next).await?;
    assert_ne!(other.hash, plan.hash);
    stand.reconciles(3).await?;
    carried_out(&stand, 2, &[("again", 2)]).await?;
    Ok(())
}

#[tokio::test]
async fn another_id_before_the_approval_supersedes_and_runs() -> Result<()> {
    let stand = applied(&[ALARM, STEP, STEP, STEP]).await?;
    let block = json!({"id": "first", "fromSequence": 1, "approval": "Manual"});
    planned(&stand, block).await?;
    ask(&stand, json!({"id": "second", "fromSequence": 2})).await?;
    completed(&stand, "second").await?;
    let history = stand.status().await?.replay_history;
    let first = history.iter().find(|one| one.id.as_str() == "first");
    assert_eq!(first.map(|one| one.phase), Some(ReplayPhase::Superseded));
    let epoch = stand.checkpoint().await?.epoch.0;
    carried_out(&stand, epoch, &[("second", epoch)]).await?;
    Ok(())
}

#[tokio::test]
async fn a_request_that_was_not_begun_in_time_expires() -> Result<()> {
    let stand = applied(&[ALARM, STEP, STEP]).await?;
    // Late enough to be planned before it on a slow machine.
    let soon = Timestamp::now() + SignedDuration::from_secs(20);
    let block = json!({
        "id": "again", "fromSequence": 1, "approval": "Manual", "notAfter": soon,
    });
    let plan = planned(&stand, block).await?;
    ended(&stand, "again", ReplayPhase::Expired).await?;
    stand.annotate("lookback.dev/approve", &plan.hash).await?;
    stand.reconciles(2).await?;
    answered(&stand, "again", "ReplayExpired").await?;
    carried_out(&stand, 1, &[]).await?;
    assert_eq!(stand.claims().await?, []);

    // It was never begun, so with a later time it may run.
    let later = Timestamp::now() + SignedDuration::from_hours(1);
    ask(
        &stand,
        json!({"id": "again", "fromSequence": 1, "notAfter": later}),
    )
    .await?;
    completed(&stand, "again").await?;
    let epoch = stand.checkpoint().await?.epoch.0;
    carried_out(&stand, epoch, &[("again", epoch)]).await?;
    Ok(())
}

#[tokio::test]
async fn a_worker_that_passes_a_start_ahead_of_it_fails_the_plan_and_keeps_its_windows()
-> Result<()> {
    let stand = applied(&[STEP, STEP]).await?;
    let block = json!({"id": "ahead", "fromSequence": 3, "approval": "Manual"});
    let plan = planned(&stand, block).await?;
    assert_eq!(plan.windows, Windows::Kept);
    stand.publish_all(ALARM, 2).await?;
    stand.caught_up().await?;
    stand.annotate("lookback.dev/approve", &plan.hash).await?;
    let record = ended(&stand, "ahead", ReplayPhase::Failed).await?;
    assert!(record.message.contains("Kept"), "{}", record.message);
    stand.publish(STEP).await?;
    carried_out(&stand, 3, &[]).await?;
    assert_eq!(stand.stored_alerts().await?.len(), 3);
    Ok(())
}

#[tokio::test]
async fn a_block_that_is_rejected_begins_no_pipeline_until_it_is_corrected() -> Result<()> {
    let mut stand = Stand::new().await?;
    stand.publish_all(ALARM, 3).await?;
    stand.start_operator().await?;
    ask(&stand, json!({"id": "begin", "fromSequence": 99})).await?;
    ended(&stand, "begin", ReplayPhase::Rejected).await?;
    eventually(SOON, "nothing runs", async || {
        let set: Option<StatefulSet> = stand.api().get_opt(NAME).await?;
        anyhow::ensure!(set.is_none(), "there is a StatefulSet");
        Ok(())
    })
    .await?;
    ask(&stand, json!({"id": "begin", "fromSequence": 2})).await?;
    completed(&stand, "begin").await?;
    let epoch = stand.checkpoint().await?.epoch.0;
    carried_out(&stand, epoch, &[("begin", epoch)]).await?;
    assert_eq!(stand.stored_alerts().await?.len(), 2);
    Ok(())
}
