//! Deliveries and heartbeats -> accepted events. The batch ends when it is large or old enough, or at
//! the first sign that a delivery went to someone else.

use std::time::Duration;

use lookback_protocol::config::CommitConfig;
use lookback_protocol::continuity::{Continuity, Verdict};
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use crate::runtime::telemetry::chain;

use super::metrics::Cause;
use super::patience::Shutdown;
use super::ports::{Delivery, Log, Pulled, Unavailable};

/// Bounds memory: thousands of events of a megabyte must not be one batch.
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// When a batch is complete.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    events: usize,
    bytes: usize,
    interval: Duration,
}

/// What came in.
#[derive(Debug)]
pub(super) struct Intake {
    /// Accepted events in the order of the stream.
    pub(super) batch: Vec<Delivery>,
    /// What ended it.
    pub(super) end: End,
}

/// What ended a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It is large or old enough, or something else is due.
    Complete,
    /// The process is to end.
    Shutdown,
    /// The pull cannot be used any more.
    Broken(Cause),
}

impl Bounds {
    pub(super) fn new(config: &CommitConfig) -> Self {
        Self {
            events: usize::try_from(config.events).unwrap_or(usize::MAX).max(1),
            bytes: MAX_BYTES,
            interval: Duration::from_millis(config.interval_ms),
        }
    }
}

/// Pulls one batch; empty when nothing came until `wake`. Every event in it counts as accepted.
pub(super) async fn collect<L: Log>(
    log: &mut L,
    continuity: &mut Continuity,
    bounds: &Bounds,
    wake: Option<Instant>,
    shutdown: &mut Shutdown,
) -> Intake {
    let mut batch = Vec::new();
    let mut bytes = 0;
    let mut armed = wake.is_some();
    let timer = sleep_until(wake.unwrap_or_else(Instant::now));
    tokio::pin!(timer);
    let end = loop {
        let pulled = tokio::select! {
            biased;
            () = shutdown.requested() => break End::Shutdown,
            () = &mut timer, if armed => break End::Complete,
            pulled = log.next() => pulled,
        };
        match judge(continuity, pulled) {
            Judged::Accepted(delivery) => {
                if batch.is_empty() {
                    timer.as_mut().reset(Instant::now() + bounds.interval);
                    armed = true;
                }
                bytes += delivery.payload.len() + delivery.headers.len();
                batch.push(delivery);
                if batch.len() >= bounds.events || bytes >= bounds.bytes {
                    break End::Complete;
                }
            }
            Judged::Ignored => {}
            Judged::Broken(cause) => break End::Broken(cause),
        }
    };
    Intake { batch, end }
}

enum Judged {
    Accepted(Delivery),
    Ignored,
    Broken(Cause),
}

fn judge(continuity: &mut Continuity, pulled: Result<Pulled, Unavailable>) -> Judged {
    match pulled {
        Ok(Pulled::Delivery(delivery)) => {
            match continuity.on_delivery(delivery.consumer_sequence, delivery.sequence) {
                Verdict::Accept => Judged::Accepted(delivery),
                Verdict::Ignore => Judged::Ignored,
                Verdict::Hole => Judged::Broken(Cause::Hole),
            }
        }
        Ok(Pulled::Heartbeat { last_consumer }) => match continuity.on_heartbeat(last_consumer) {
            Verdict::Accept | Verdict::Ignore => Judged::Ignored,
            Verdict::Hole => Judged::Broken(Cause::HoleAtTail),
        },
        Ok(Pulled::Dead) => Judged::Broken(Cause::PullDead),
        Ok(Pulled::Gone) => Judged::Broken(Cause::ConsumerGone),
        Err(error) => {
            debug!(error = chain(&error), "Pull failed");
            Judged::Broken(Cause::PullDead)
        }
    }
}
