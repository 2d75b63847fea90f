//! The worker's loop.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use lookback_engine::RuleFile;
use lookback_protocol::config::WorkerConfig;
use lookback_protocol::termination::{ExitReason, TerminationMessage};

use super::metrics::Metrics;
use super::ports::{Checkpoints, Log, Outbox};

/// The wall clock, for the time in checkpoints and for latencies: it decides nothing.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Everything a worker is made of.
pub struct Deps<L, O, C> {
    /// What the operator told this worker.
    pub config: WorkerConfig,
    /// The files that `config.rules` names, in its order.
    pub rule_files: Vec<RuleFile>,
    /// The state file's path; its directory exists.
    pub state_file: PathBuf,
    /// The pod's name, for `by` in alerts.
    pub pod: String,
    /// This process, a UUIDv7.
    pub incarnation: String,
    /// The source stream and the consumer.
    pub log: L,
    /// Where alerts and dead letters go.
    pub outbox: O,
    /// The partition's checkpoint.
    pub checkpoints: C,
    /// What is counted.
    pub metrics: Metrics,
    /// See [`Clock`].
    pub clock: Clock,
}

/// Runs until `shutdown` completes or the worker must stop, and says why it stopped.
///
/// The future may be dropped at any await, which is what a kill of the process is: everything that
/// was begun is either done or will be done again.
pub async fn run<L: Log, O: Outbox, C: Checkpoints>(
    _deps: Deps<L, O, C>,
    shutdown: impl Future<Output = ()> + Send,
) -> TerminationMessage {
    shutdown.await;
    TerminationMessage::new(ExitReason::Drained, "stopped by SIGTERM", [("", ""); 0])
}
