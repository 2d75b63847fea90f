//! What a worker's death does to its alerts and windows: nothing.

use anyhow::Result;
use lookback_protocol::position::StreamSeq;

use crate::stage::Stage;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_and_nats_killed_in_mid_stream_equal_one_uninterrupted_pass() -> Result<()> {
    let mut stage = Stage::open("killed").await?;
    stage.publish(20_000, None).await?;
    stage.apply_pipeline("  commit: {interval: 200ms, events: 500}")?;
    for position in [1, 6_000] {
        stage.applied(StreamSeq(position)).await?;
        stage.kill_worker().await?;
    }
    stage.remember_rules()?;
    stage.applied(StreamSeq(12_000)).await?;
    stage.node.nats("kill")?;
    stage.node.nats("start")?;
    stage.applied(stage.published()).await?;
    stage.publish(5_000, None).await?;
    stage.kill_worker().await?;
    stage.equals_one_uninterrupted_pass().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_told_to_end_commits_and_its_successor_goes_on() -> Result<()> {
    let mut stage = Stage::open("drained").await?;
    stage.publish(5_000, None).await?;
    stage.apply_pipeline("")?;
    stage.applied(stage.published()).await?;
    stage.remember_rules()?;
    let before = stage.applied(stage.published()).await?;
    stage
        .node
        .kubectl(&["-n", "detections", "delete", "pod", "edr-0"])?;
    stage.publish(5_000, None).await?;
    let after = stage.applied(stage.published()).await?;
    assert_ne!(before.incarnation, after.incarnation);
    stage.equals_one_uninterrupted_pass().await
}
