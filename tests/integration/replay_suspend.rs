//! A pipeline that is suspended does nothing until it is resumed, and then what was asked for.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use lookback_protocol::replay::record::ReplayPhase;
use serde_json::{Value, json};

use crate::replay_fixture::{
    ALARM, POD, STEP, answered, applied, ask, carried_out, completed, ended, frozen, stopped_at,
    with_replay,
};
use crate::stand::Stand;

fn again() -> Value {
    json!({"id": "again", "fromSequence": 1, "statePolicy": "Clear"})
}

async fn suspend(stand: &Stand, mut spec: Value) -> Result<()> {
    spec["suspend"] = json!(true);
    stand.apply(&spec).await?;
    stand.condition("Suspended", "True", "Suspended").await?;
    stand.disappears::<Pod>(POD).await
}

#[tokio::test]
async fn r15_a_replay_asked_for_while_suspended_is_queued_and_runs_on_resume() -> Result<()> {
    let stand = applied(&[ALARM, STEP, STEP]).await?;
    suspend(&stand, stand.spec()).await?;
    stand.publish_all(STEP, 2).await?;
    let mut spec = with_replay(&stand, again());
    spec["suspend"] = json!(true);
    stand.apply(&spec).await?;
    answered(&stand, "again", "Queued").await?;
    stand.reconciles(3).await?;
    assert!(stand.api::<Pod>().get_opt(POD).await?.is_none());
    assert_eq!(stand.claims().await?, []);
    assert_eq!(stand.checkpoint().await?.position.sequence.0, 3);

    ask(&stand, again()).await?;
    completed(&stand, "again").await?;
    carried_out(&stand, 2, &[("again", 2)]).await?;
    assert_eq!(stand.stored_alerts().await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_replay_that_waits_for_approval_waits_on_while_suspended() -> Result<()> {
    let stand = applied(&[ALARM, STEP, STEP]).await?;
    let block = json!({"id": "again", "fromSequence": 1, "approval": "Manual"});
    ask(&stand, block.clone()).await?;
    let waiting = ended(&stand, "again", ReplayPhase::AwaitingApproval).await?;
    suspend(&stand, with_replay(&stand, block.clone())).await?;
    let hash = waiting.plan.context("no plan")?.hash;
    stand.annotate("lookback.dev/approve", &hash).await?;
    stand.reconciles(3).await?;
    ended(&stand, "again", ReplayPhase::AwaitingApproval).await?;
    assert_eq!(stand.claims().await?, []);
    ask(&stand, block).await?;
    completed(&stand, "again").await?;
    carried_out(&stand, 2, &[("again", 2)]).await?;
    Ok(())
}

#[tokio::test]
async fn a_replay_suspended_at_its_point_of_no_return_goes_on_when_it_is_resumed() -> Result<()> {
    for text in ["\"phase\":\"applying\"", "\"outcome\":\"applied\""] {
        let stand = applied(&[ALARM, STEP, STEP]).await?;
        let proxy = stopped_at(&stand, text).await?;
        ask(&stand, again()).await?;
        frozen(&proxy).await?;
        let mut spec = with_replay(&stand, again());
        spec["suspend"] = json!(true);
        stand.apply(&spec).await?;
        stand.reconciles(2).await?;
        stand.kubelet.route(None).await;
        proxy.thaw();
        stand.condition("Suspended", "True", "Suspended").await?;
        stand.publish(STEP).await?;
        stand.reconciles(2).await?;
        assert!(stand.api::<Pod>().get_opt(POD).await?.is_none());
        ask(&stand, again()).await?;
        completed(&stand, "again").await?;
        carried_out(&stand, 2, &[("again", 2)]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_suspended_pipeline_that_is_resumed_goes_on_at_its_position() -> Result<()> {
    let stand = applied(&[ALARM, STEP, STEP]).await?;
    suspend(&stand, stand.spec()).await?;
    stand.publish(STEP).await?;
    stand.apply(&stand.spec()).await?;
    carried_out(&stand, 1, &[]).await?;
    assert_eq!(stand.stored_alerts().await?.len(), 2);
    Ok(())
}
