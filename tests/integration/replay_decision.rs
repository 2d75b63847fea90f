//! Every row of the state decision, from the block in the spec to the windows in the state file. Whether
//! windows were kept is also told by the alert that the third step gives, or does not give.

use anyhow::{Context, Result};
use lookback_protocol::position::StreamSeq;
use lookback_protocol::replay::record::{Plan, Windows};
use serde_json::{Value, json};

use crate::replay_fixture::{
    ALARM, NOISE, STEP, applied, ask, carried_out, completed, with_replay,
};
use crate::stand::Stand;

/// What a request is to do to the windows, and why.
struct Row {
    block: Value,
    windows: Windows,
    reason: &'static str,
    /// Alerts when one more step is published after it.
    alerts: usize,
}

/// A pipeline that has counted two steps of three, and does not read on.
async fn at_rest() -> Result<Stand> {
    let stand = applied(&[STEP, STEP]).await?;
    let mut spec = stand.spec();
    spec["suspend"] = json!(true);
    stand.apply(&spec).await?;
    stand.condition("Suspended", "True", "Suspended").await?;
    Ok(stand)
}

async fn decides(stand: &Stand, row: Row) -> Result<Plan> {
    let mut block = row.block;
    block["id"] = json!("again");
    ask(stand, block).await?;
    let plan = completed(stand, "again").await?.plan.context("no plan")?;
    assert_eq!(
        (plan.windows, plan.reason.as_str()),
        (row.windows, row.reason)
    );
    let epoch = stand.checkpoint().await?.epoch.0;
    stand.publish(STEP).await?;
    let digest = carried_out(stand, epoch, &[("again", epoch)]).await?;
    let [applied] = digest.ledger.as_slice() else {
        anyhow::bail!("{:?}", digest.ledger);
    };
    assert_eq!(
        (applied.windows, applied.reason.as_str()),
        (row.windows, row.reason)
    );
    assert_eq!(applied.start, plan.start);
    let last = digest.lineage.last().context("no lineage")?;
    assert_eq!(last.dropped, row.windows != Windows::Kept);
    assert_eq!(stand.stored_alerts().await?.len(), row.alerts);
    Ok(plan)
}

#[tokio::test]
async fn auto_keeps_the_windows_when_nothing_is_asked_for() -> Result<()> {
    let stand = at_rest().await?;
    stand.apply(&stand.spec()).await?;
    stand.publish(STEP).await?;
    let digest = carried_out(&stand, 1, &[]).await?;
    assert!(digest.lineage.iter().all(|segment| !segment.dropped));
    assert_eq!(stand.stored_alerts().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn auto_keeps_the_windows_when_the_start_is_after_the_position() -> Result<()> {
    let stand = at_rest().await?;
    stand.publish_all(ALARM, 3).await?;
    let row = Row {
        block: json!({"fromSequence": 5}),
        windows: Windows::Kept,
        reason: "StartAfterPosition",
        alerts: 2,
    };
    let plan = decides(&stand, row).await?;
    assert_eq!((plan.position, plan.gap), (Some(StreamSeq(2)), 2));
    Ok(())
}

#[tokio::test]
async fn auto_keeps_the_windows_when_the_start_is_the_next_event() -> Result<()> {
    let stand = at_rest().await?;
    stand.publish(ALARM).await?;
    let row = Row {
        block: json!({"fromSequence": 3}),
        windows: Windows::Kept,
        reason: "StartAfterPosition",
        alerts: 2,
    };
    let plan = decides(&stand, row).await?;
    assert_eq!(plan.gap, 0);
    Ok(())
}

#[tokio::test]
async fn auto_drops_the_windows_when_the_start_is_the_position() -> Result<()> {
    let stand = at_rest().await?;
    let row = Row {
        block: json!({"fromSequence": 2}),
        windows: Windows::Dropped,
        reason: "StartNotAfterPosition",
        alerts: 0,
    };
    decides(&stand, row).await?;
    Ok(())
}

#[tokio::test]
async fn auto_drops_the_windows_when_the_start_is_before_the_position() -> Result<()> {
    let stand = at_rest().await?;
    let row = Row {
        block: json!({"fromSequence": 1}),
        windows: Windows::Dropped,
        reason: "StartNotAfterPosition",
        alerts: 1,
    };
    decides(&stand, row).await?;
    Ok(())
}

#[tokio::test]
async fn auto_drops_the_windows_for_latest() -> Result<()> {
    let stand = at_rest().await?;
    stand.publish_all(ALARM, 2).await?;
    let row = Row {
        block: json!({"latest": true}),
        windows: Windows::Dropped,
        reason: "Latest",
        alerts: 0,
    };
    let plan = decides(&stand, row).await?;
    assert_eq!((plan.start, plan.gap), (StreamSeq(5), 2));
    Ok(())
}

#[tokio::test]
async fn auto_and_keep_have_nothing_to_keep_in_a_new_pipeline() -> Result<()> {
    for (policy, windows, reason) in [
        ("Auto", Windows::Dropped, "NoPosition"),
        ("Keep", Windows::Kept, "ForceKeep"),
    ] {
        let mut stand = Stand::new().await?;
        for event in [STEP, STEP, NOISE] {
            stand.publish(event).await?;
        }
        stand.start_operator().await?;
        let block = json!({"id": "again", "fromSequence": 2, "statePolicy": policy});
        stand.apply(&with_replay(&stand, block.clone())).await?;
        let plan = completed(&stand, "again").await?.plan.context("no plan")?;
        assert_eq!((plan.windows, plan.reason.as_str()), (windows, reason));
        assert_eq!(plan.position, None);
        stand.publish(STEP).await?;
        let digest = carried_out(&stand, 1, &[("again", 1)]).await?;
        assert_eq!(digest.ledger[0].windows, windows);
        assert_eq!(stand.stored_alerts().await?.len(), 0);
    }
    Ok(())
}

#[tokio::test]
async fn clear_drops_the_windows_even_when_the_start_is_after_the_position() -> Result<()> {
    let stand = at_rest().await?;
    stand.publish_all(ALARM, 2).await?;
    let row = Row {
        block: json!({"fromSequence": 4, "statePolicy": "Clear"}),
        windows: Windows::Dropped,
        reason: "ForceClear",
        alerts: 1,
    };
    let plan = decides(&stand, row).await?;
    assert_eq!(plan.gap, 1);
    Ok(())
}

#[tokio::test]
async fn keep_keeps_the_windows_even_when_the_start_is_before_the_position() -> Result<()> {
    let stand = at_rest().await?;
    let row = Row {
        block: json!({"fromSequence": 2, "statePolicy": "Keep"}),
        windows: Windows::Kept,
        reason: "ForceKeep",
        alerts: 1,
    };
    let plan = decides(&stand, row).await?;
    assert_eq!(plan.double_counted, 1);
    Ok(())
}

#[tokio::test]
async fn keep_keeps_the_windows_even_for_latest() -> Result<()> {
    let stand = at_rest().await?;
    stand.publish_all(ALARM, 2).await?;
    let row = Row {
        block: json!({"latest": true, "statePolicy": "Keep"}),
        windows: Windows::Kept,
        reason: "ForceKeep",
        alerts: 1,
    };
    let plan = decides(&stand, row).await?;
    assert_eq!((plan.start, plan.gap), (StreamSeq(5), 2));
    Ok(())
}
