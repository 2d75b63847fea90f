//! What a person breaks, and what heals by itself.

use anyhow::Result;
use async_nats::jetstream::stream::Config;
use lookback_protocol::position::Epoch;

use crate::stage::{NAMESPACE, STREAM, Stage};

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_deleted_by_hand_is_made_again_and_nothing_is_lost() -> Result<()> {
    let mut stage = Stage::open("consumer").await?;
    stage.publish(5_000, None).await?;
    stage.apply_pipeline("")?;
    stage.applied(stage.published()).await?;
    stage.remember_rules()?;
    let source = stage.jetstream.get_stream(STREAM).await?;
    source
        .delete_consumer(&stage.key.consumer(0, Epoch(1)))
        .await?;
    stage.publish(5_000, None).await?;
    stage.equals_one_uninterrupted_pass().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_alerts_stream_holds_the_worker_until_there_is_room() -> Result<()> {
    let mut stage = Stage::open("full").await?;
    stage.publish(20_000, None).await?;
    stage.apply_pipeline("  alerts: {maxBytes: 64Ki}")?;
    let message = stage.condition("Ready", "False", "AlertsFull").await?;
    assert!(
        message.contains("maxBytes"),
        "it says how to make room: {message}"
    );
    stage.remember_rules()?;
    stage.apply_pipeline("  alerts: {maxBytes: 1Gi}")?;
    stage.equals_one_uninterrupted_pass().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_stream_made_again_stalls_the_pipeline() -> Result<()> {
    let mut stage = Stage::open("recreated").await?;
    stage.publish(2_000, None).await?;
    stage.apply_pipeline("")?;
    stage.applied(stage.published()).await?;
    stage.jetstream.delete_stream(STREAM).await?;
    let config = Config {
        name: STREAM.to_owned(),
        subjects: vec!["events.>".to_owned()],
        ..Config::default()
    };
    stage.jetstream.create_stream(config).await?;
    let message = stage.condition("Stalled", "True", "StreamChanged").await?;
    assert!(
        message.contains("statePolicy Clear or Rebuild"),
        "it says what ends it: {message}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_comes_back_empty_stalls_the_pipeline() -> Result<()> {
    let mut stage = Stage::open("lost").await?;
    stage.publish(2_000, None).await?;
    stage.apply_pipeline("")?;
    stage.applied(stage.published()).await?;
    stage.empty_the_volume()?;
    stage
        .node
        .kubectl(&["-n", NAMESPACE, "delete", "pod", "edr-0"])?;
    stage
        .condition("Stalled", "True", "StateLost")
        .await
        .map(drop)
}
