//! Checkpoints as triggers. A worker writes its checkpoint every second, and most of them say only
//! that it moved on, which the next resync shows early enough. A reconcile follows at once when a
//! worker says something else: that it began, holds, was replaced, or lost events.

use std::collections::HashMap;
use std::time::Duration;

use lookback_protocol::checkpoint::{Checkpoint, Hold, Phase};
use lookback_protocol::names::PipelineKey;
use lookback_protocol::position::{Epoch, StreamSeq};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::debug;

use crate::nats::checkpoint::{CheckpointWatch, JetStreamCheckpoints};
use crate::nats::connect::Nats;
use crate::runtime::telemetry::chain;
use crate::worker::ports::Checkpoints;

/// Between two tries to watch: the bucket comes with the first pipeline of the account.
const RETRY: Duration = Duration::from_secs(5);

/// The part of a checkpoint whose change people wait for.
#[derive(Debug, PartialEq, Eq)]
struct News {
    incarnation: String,
    epoch: Epoch,
    phase: Phase,
    held: Option<Hold>,
    engine_digest: String,
    expired_through: Option<StreamSeq>,
    parked: bool,
}

/// Sends the pipelines of `cluster` whose checkpoint says something new, for as long as it is polled.
pub(super) async fn run(nats: Nats, cluster: String, changed: mpsc::Sender<PipelineKey>) {
    let mut known = HashMap::new();
    loop {
        match CheckpointWatch::open(&nats).await {
            Ok(watch) => follow(watch, &nats, &cluster, &mut known, &changed).await,
            Err(error) => debug!(error = %chain(&error), "Not watching checkpoints yet"),
        }
        sleep(RETRY).await;
    }
}

async fn follow(
    mut watch: CheckpointWatch,
    nats: &Nats,
    cluster: &str,
    known: &mut HashMap<(PipelineKey, u32), Option<News>>,
    changed: &mpsc::Sender<PipelineKey>,
) {
    while let Some((pipeline, partition)) = watch.next().await {
        let loaded = JetStreamCheckpoints::new(nats.clone(), &pipeline, partition)
            .load()
            .await;
        let news = match loaded {
            Ok(Some((checkpoint, _))) if checkpoint.owner.cluster != cluster => continue,
            Ok(checkpoint) => checkpoint.map(|(checkpoint, _)| news(checkpoint)),
            // The reconcile says what is wrong with it.
            Err(_) => None,
        };
        let place = (pipeline.clone(), partition);
        if known.get(&place) == Some(&news) {
            continue;
        }
        known.insert(place, news);
        if changed.send(pipeline).await.is_err() {
            return;
        }
    }
}

fn news(checkpoint: Checkpoint) -> News {
    News {
        incarnation: checkpoint.incarnation,
        epoch: checkpoint.epoch,
        phase: checkpoint.phase,
        held: checkpoint.held,
        engine_digest: checkpoint.engine_digest,
        expired_through: checkpoint.gaps.last().map(|gap| gap.to),
        parked: checkpoint.counters.dead_letters > 0,
    }
}
