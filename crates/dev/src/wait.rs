//! Waiting for a pipeline, by the checkpoints it writes.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use async_nats::jetstream;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use lookback_protocol::checkpoint::Checkpoint;
use lookback_protocol::names::{PipelineKey, STATE_STREAM};
use lookback_protocol::position::StreamSeq;

/// How often the checkpoint is read; a worker writes it at most once a second.
const INTERVAL: Duration = Duration::from_millis(250);

/// The checkpoint of partition 0, from the leader; `None` before the first.
///
/// # Errors
/// When the bucket cannot be read or holds something else.
pub async fn checkpoint(
    jetstream: &jetstream::Context,
    pipeline: &PipelineKey,
) -> Result<Option<Checkpoint>> {
    let bucket = jetstream
        .get_stream_no_info(STATE_STREAM)
        .await
        .context("find the bucket")?;
    match bucket
        .get_last_raw_message_by_subject(&pipeline.checkpoint_subject(0))
        .await
    {
        Ok(message) => serde_json::from_slice(&message.payload)
            .map(Some)
            .context("read the checkpoint"),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(error).context("get the checkpoint"),
    }
}

/// Waits until the pipeline has applied `through`, and tells `progress` each position on the way.
///
/// # Errors
/// After `deadline`, with the last that was seen.
pub async fn until_applied(
    jetstream: &jetstream::Context,
    pipeline: &PipelineKey,
    through: StreamSeq,
    deadline: Duration,
    mut progress: impl FnMut(&Checkpoint),
) -> Result<Checkpoint> {
    let begin = Instant::now();
    let mut ticks = tokio::time::interval(INTERVAL);
    let mut seen = String::from("there is no checkpoint");
    while begin.elapsed() < deadline {
        ticks.tick().await;
        match checkpoint(jetstream, pipeline).await {
            Ok(Some(checkpoint)) if checkpoint.position.sequence >= through => {
                return Ok(checkpoint);
            }
            Ok(Some(checkpoint)) => {
                progress(&checkpoint);
                seen = format!("its position is {}", checkpoint.position.sequence);
            }
            Ok(None) => {}
            Err(error) => seen = format!("{error:#}"),
        }
    }
    bail!("{pipeline} did not reach sequence {through} in {deadline:?}: {seen}")
}
