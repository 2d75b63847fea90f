//! A pipeline comes up, and stays as it is.

use anyhow::Result;
use k8s_openapi::api::apps::v1::StatefulSet;
use lookback_dev::support::eventually;

use crate::operator_fixture::{NAME, SOON, World};

#[tokio::test]
async fn a_pipeline_comes_up_with_everything_it_owns() -> Result<()> {
    let world = World::new().await?;
    let operator = world.operator().await?;
    world.create(world.spec()).await?;
    eventually(SOON, "the StatefulSet", async || {
        Ok(world.api::<StatefulSet>().get(NAME).await?)
    })
    .await?;
    let status = world
        .condition("StateReady", "False", "VolumePending")
        .await;
    println!("{:#?}", world.pipeline().await?);
    status?;
    operator.end().await
}
