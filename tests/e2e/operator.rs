//! Two replicas of the operator.

use anyhow::{Context, Result, ensure};
use lookback_dev::support::eventually;

use crate::stage::{DEADLINE, NAMESPACE, Stage};

const SYSTEM: &str = "lookback-system";

#[tokio::test(flavor = "multi_thread")]
async fn when_the_leading_operator_is_killed_the_other_repairs_what_is_broken() -> Result<()> {
    let mut stage = Stage::open("leader").await?;
    stage.publish(1_000, None).await?;
    stage.apply_pipeline("")?;
    stage.applied(stage.published()).await?;
    stage.remember_rules()?;
    let leader = leader(&stage)?;
    let pod = leader.split('_').next().context("a pod's name")?.to_owned();
    stage.node.kubectl(&[
        "-n",
        SYSTEM,
        "delete",
        "pod",
        &pod,
        "--force",
        "--grace-period=0",
    ])?;
    stage
        .node
        .kubectl(&["-n", NAMESPACE, "delete", "service", "edr-worker"])?;
    eventually(DEADLINE, "another replica leads", async || {
        let now = self::leader(&stage)?;
        ensure!(now != leader, "{now} still leads");
        Ok(())
    })
    .await?;
    let service = async || stage.node.get(NAMESPACE, "service", "edr-worker");
    eventually(DEADLINE, "the service is made again", service).await?;
    stage.publish(1_000, None).await?;
    stage.equals_one_uninterrupted_pass().await
}

fn leader(stage: &Stage) -> Result<String> {
    let lease = stage.node.get(SYSTEM, "lease", "lookback-operator")?;
    let holder = lease["spec"]["holderIdentity"].as_str();
    holder.map(str::to_owned).context("nobody leads")
}
