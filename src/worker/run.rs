//! The worker's loop.

use std::convert::Infallible;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use lookback_engine::RuleFile;
use lookback_protocol::checkpoint::Phase;
use lookback_protocol::config::WorkerConfig;
use lookback_protocol::continuity::Continuity;
use lookback_protocol::position::StreamSeq;
use lookback_protocol::termination::{ExitReason, TerminationMessage};

use crate::runtime::admin::{Gate, Readiness};
use crate::state::{Identity, StateFile};

use super::batch::Engine;
use super::fence::Fence;
use super::intake::{Bounds, End, Intake, collect};
use super::metrics::{Cause, Metrics};
use super::output::Output;
use super::patience::Shutdown;
use super::ports::{AckToken, Checkpoints, Log, Outbox};
use super::stop::{Ending, Stop};

const NO_FACTS: [(&str, &str); 0] = [];

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
    /// What readiness waits for.
    pub gates: Gates,
}

/// What a worker's readiness waits for.
#[derive(Clone, Debug)]
pub struct Gates {
    /// Open once the state file is open and its identity checked.
    pub state: Gate,
    /// Open while events can come in.
    pub consumer: Gate,
}

impl Gates {
    /// Both gates, closed.
    #[must_use]
    pub fn new(readiness: &Readiness) -> Self {
        Self {
            state: readiness.gate("state", "the state file to be opened and checked"),
            consumer: readiness.gate("consumer", "the consumer to be positioned"),
        }
    }
}

/// Runs until `shutdown` completes or the worker must stop, and says why it stopped.
///
/// The future may be dropped at any await, which is what a kill of the process is: everything that
/// was begun is either done or will be done again. It spawns nothing that could outlive it.
pub async fn run<L: Log, O: Outbox, C: Checkpoints>(
    deps: Deps<L, O, C>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> TerminationMessage {
    let mut worker = match Worker::start(deps, Shutdown::new(shutdown)).await {
        Ok(worker) => worker,
        Err(Ending::Drain) => return drained("nothing was read"),
        Err(Ending::Stop(stop)) => return stop.into_message(),
    };
    match worker.work().await {
        Ok(never) => match never {},
        Err(Ending::Drain) => worker.drain().await,
        Err(Ending::Stop(stop)) => stop.into_message(),
    }
}

/// A worker that owns its partition.
pub(super) struct Worker<L, O, C> {
    pub(super) log: L,
    pub(super) output: Output<O>,
    pub(super) fence: Fence<C>,
    pub(super) file: StateFile,
    pub(super) engine: Engine,
    pub(super) config: WorkerConfig,
    pub(super) identity: Identity,
    pub(super) bounds: Bounds,
    pub(super) continuity: Continuity,
    /// The last sequence read, or reported as expired.
    pub(super) read: StreamSeq,
    /// Whether the pull is open and everything it brought is in order.
    pub(super) pulling: bool,
    /// Acknowledges what is committed and not yet covered by a checkpoint.
    pub(super) unsaid: Option<AckToken>,
    /// How many events still to apply alone, because a process before this one died here.
    pub(super) one_at_a_time: u64,
    pub(super) metrics: Metrics,
    pub(super) clock: Clock,
    pub(super) gates: Gates,
    pub(super) shutdown: Shutdown,
}

impl<L: Log, O: Outbox, C: Checkpoints> Worker<L, O, C> {
    async fn work(&mut self) -> Result<Infallible, Ending> {
        self.position(Cause::Start).await?;
        self.count_start()?;
        loop {
            let Intake { batch, end } = self.collect().await;
            self.process_and_report(batch).await?;
            self.tell_if_due().await?;
            match end {
                End::Complete if self.pulling => {}
                End::Complete => self.position(Cause::HoldEnded).await?,
                End::Broken(cause) => self.position(cause).await?,
                End::Shutdown => return Err(Ending::Drain),
            }
        }
    }

    async fn collect(&mut self) -> Intake {
        let wake = self.unsaid.is_some().then(|| self.fence.due());
        collect(
            &mut self.log,
            &mut self.continuity,
            &self.bounds,
            wake,
            &mut self.shutdown,
        )
        .await
    }

    /// SIGTERM: everything committed is said and acknowledged; what is not is read again.
    async fn drain(mut self) -> TerminationMessage {
        self.stop_pulling("the process has ended").await;
        if let Err(stop) = self.say_drained().await {
            return stop.into_message();
        }
        drained("everything applied is committed")
    }

    async fn say_drained(&mut self) -> Result<(), Stop> {
        self.file.clear_in_flight()?;
        self.tell(Phase::Drained, None).await
    }
}

/// The message of an orderly end.
pub(super) fn drained(what: &str) -> TerminationMessage {
    let message = format!("ended by SIGTERM, {what}");
    TerminationMessage::new(ExitReason::Drained, message, NO_FACTS)
}
