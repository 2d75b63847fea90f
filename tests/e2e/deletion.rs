//! What deleting a pipeline leaves.

use anyhow::{Result, ensure};
use lookback_dev::support::eventually;
use lookback_dev::wait::checkpoint;

use crate::stage::{DEADLINE, NAME, NAMESPACE, Stage};

#[tokio::test(flavor = "multi_thread")]
async fn deleted_with_delete_nothing_is_left_and_it_can_begin_anew() -> Result<()> {
    let mut stage = Stage::open("deleted").await?;
    stage.publish(3_000, None).await?;
    stage.apply_pipeline("  deletionPolicy: Delete")?;
    stage.applied(stage.published()).await?;
    stage.node.kubectl(&[
        "-n",
        NAMESPACE,
        "delete",
        "detectionpipeline",
        NAME,
        "--wait",
    ])?;
    let gone = async || {
        let streams = [stage.key.alerts_stream(), stage.key.dead_letters_stream()];
        for stream in streams {
            let found = stage.jetstream.get_stream(&stream).await.is_ok();
            ensure!(!found, "stream {stream} is left");
        }
        ensure!(
            checkpoint(&stage.jetstream, &stage.key).await?.is_none(),
            "a checkpoint is left"
        );
        let claims = stage
            .node
            .kubectl(&["-n", NAMESPACE, "get", "pvc", "-o", "name"])?;
        ensure!(claims.trim().is_empty(), "{claims} is left");
        Ok(())
    };
    eventually(DEADLINE, "nothing is left", gone).await?;
    stage.apply_pipeline("")?;
    stage.applied(stage.published()).await?;
    stage.remember_rules()?;
    stage.equals_one_uninterrupted_pass().await
}
