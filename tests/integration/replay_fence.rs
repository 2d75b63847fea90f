//! Nothing is begun while a worker of the epoch before may still run.

use anyhow::Result;
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use lookback_protocol::replay::record::ReplayPhase;
use serde_json::json;

use crate::replay_fixture::{ALARM, POD, STEP, ask, begun, carried_out, completed};
use crate::stand::Stand;

#[tokio::test]
async fn a_worker_whose_pod_lost_its_labels_is_waited_for() -> Result<()> {
    let stand = Stand::new().await?;
    let operator = stand.operator().await?;
    stand.publish_all(STEP, 3).await?;
    stand.publish(ALARM).await?;
    stand.apply(&stand.spec()).await?;
    stand.caught_up().await?;
    let labels = json!({
        "app.kubernetes.io/name": null, "app.kubernetes.io/component": null,
        "app.kubernetes.io/instance": null, "app.kubernetes.io/managed-by": null,
    });
    let patch = json!({"metadata": {"labels": labels}});
    stand.merge::<Pod>(POD, patch).await?;

    let block = json!({"id": "again", "fromSequence": 1, "statePolicy": "Clear"});
    ask(&stand, block).await?;
    begun(&stand, "again", ReplayPhase::Fencing).await?;
    operator.reconciles(5).await?;
    let record = begun(&stand, "again", ReplayPhase::Fencing).await?;
    assert_eq!(record.phase, ReplayPhase::Fencing);
    assert!(stand.consumer(2).await?.is_none());

    let delete = DeleteParams::default();
    stand.api::<Pod>().delete(POD, &delete).await?;
    completed(&stand, "again").await?;
    carried_out(&stand, 2, &[("again", 2)]).await?;
    operator.end().await
}
