//! One case: a world, the workers in it, and the hands that start, kill and drain them. The case also
//! stands in for the operator (it makes a deleted consumer again) and for the kubelet (it starts a
//! worker that ended again).

mod ends;
mod finish;

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lookback::runtime::admin::Readiness;
use lookback::worker::metrics::Metrics;
use lookback::worker::run::{Deps, Gates, run};
use lookback_protocol::checkpoint::Checkpoint;
use lookback_protocol::config::{CommitConfig, WorkerConfig};
use lookback_protocol::termination::{ExitReason, TerminationMessage};
use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::invariants::{STATE_FILE, copy_volume, position_in};
use crate::scenario::{self, FILTER, STREAM};
use crate::sim::checkpoints::SimCheckpoints;
use crate::sim::log::SimLog;
use crate::sim::outbox::SimOutbox;
use crate::sim::{Process, World};

/// How a case is set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) commit: CommitConfig,
    pub(crate) filtered: bool,
    pub(crate) ack_wait: Duration,
    /// Messages one pull asks for.
    pub(crate) batch: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            seed: 1,
            commit: CommitConfig {
                interval_ms: 200,
                events: 4,
            },
            filtered: false,
            ack_wait: Duration::from_secs(600),
            batch: 8,
        }
    }
}

/// A world with workers in it.
pub(crate) struct Case {
    pub(crate) world: World,
    pub(crate) config: WorkerConfig,
    setup: Setup,
    root: TempDir,
    started: u64,
    current: Option<Worker>,
    /// Older workers that do not know yet that they were replaced.
    pub(crate) zombies: Vec<Worker>,
    /// The incarnations of all zombies there ever were.
    left_behind: BTreeSet<String>,
    /// Where the next worker finds its state file.
    pub(crate) volume: Option<PathBuf>,
    /// Sequences that expired before they were read.
    pub(crate) unread: Vec<RangeInclusive<u64>>,
    /// Retention overtook a running worker: only the worker can tell which events it did not read.
    /// What it says must then fit everything else.
    pub(crate) trust_gaps: bool,
    /// Why workers ended, oldest first.
    pub(crate) ends: Vec<TerminationMessage>,
}

/// A running worker.
pub(crate) struct Worker {
    pub(crate) process: u64,
    volume: PathBuf,
    task: JoinHandle<TerminationMessage>,
    stop: Option<oneshot::Sender<()>>,
    doomed: Arc<Notify>,
}

impl Case {
    pub(crate) fn new(setup: Setup) -> Self {
        let world = World::new(setup.seed, STREAM);
        let identity = {
            let mut state = world.lock();
            state.batch = setup.batch;
            let filter = if setup.filtered { FILTER } else { "" };
            state.server.create_consumer(filter, setup.ack_wait);
            state.server.stream.identity().clone()
        };
        Self {
            config: scenario::config(&identity, setup.commit, setup.filtered),
            world,
            setup,
            root: case_directory(),
            started: 0,
            current: None,
            zombies: Vec::new(),
            left_behind: BTreeSet::new(),
            volume: None,
            unread: Vec::new(),
            trust_gaps: false,
            ends: Vec::new(),
        }
    }

    /// Starts a worker on a copy of what the last one left, as it would be after a kill.
    pub(crate) fn start(&mut self) {
        assert!(
            self.current.is_none(),
            "one worker at a time, but for zombies"
        );
        let volume = self.root.path().join((self.started + 1).to_string());
        std::fs::create_dir(&volume).expect("a directory for a volume");
        if let Some(last) = &self.volume {
            copy_volume(last, &volume);
        }
        let worker = self.spawn(volume);
        self.current = Some(worker);
    }

    fn spawn(&mut self, volume: PathBuf) -> Worker {
        self.started += 1;
        let process = self.started;
        let process_state = Process::new(volume.clone());
        let doomed = Arc::clone(&process_state.doomed);
        self.world
            .look(|state| state.processes.insert(process, process_state));
        let (stop, stopped) = oneshot::channel::<()>();
        let clock = self.world.clone();
        let deps = Deps {
            config: self.config.clone(),
            rule_files: scenario::rule_files(),
            state_file: volume.join(STATE_FILE),
            pod: "edr-0".to_owned(),
            incarnation: incarnation(process),
            log: SimLog::new(&self.world, process),
            outbox: SimOutbox::new(&self.world, process),
            checkpoints: SimCheckpoints::new(&self.world, process),
            metrics: Metrics::register(&mut Registry::default()),
            clock: Arc::new(move || clock.clock()),
            gates: Gates::new(&Readiness::default()),
        };
        let shutdown = async move {
            if stopped.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        self.world.note(|| format!("start w{process}"));
        Worker {
            process,
            volume,
            task: tokio::task::spawn_local(run(deps, shutdown)),
            stop: Some(stop),
            doomed,
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.current.is_some()
    }

    /// The worker that was running has ended by itself.
    pub(crate) fn has_ended(&self) -> bool {
        let worker = self.current.as_ref();
        worker.is_some_and(|it| it.task.is_finished())
    }

    pub(crate) fn process(&self) -> Option<u64> {
        self.current.as_ref().map(|it| it.process)
    }

    /// What operator and kubelet do: a worker that ended is started again, a consumer that is missing
    /// is made again. Gives the reason of a worker that must not be started again.
    pub(crate) async fn care(&mut self) -> Result<(), String> {
        let ended = self
            .current
            .as_ref()
            .is_some_and(|it| it.task.is_finished());
        if ended {
            let message = self.end_within(Duration::from_secs(1)).await?;
            let heals = match message.reason {
                ExitReason::NatsUnavailable | ExitReason::ConsumerMissing => true,
                // The older one took over, or wrote, after the newer one had read.
                ExitReason::Fenced => message
                    .facts
                    .get("takenOverBy")
                    .is_some_and(|other| self.left_behind.contains(other)),
                _ => false,
            };
            if !heals {
                return Err(format!("worker ended: {message:?}"));
            }
        }
        for index in (0..self.zombies.len()).rev() {
            if self.zombies[index].task.is_finished() {
                let zombie = self.zombies.remove(index);
                let process = zombie.process;
                let message = zombie.task.await.map_err(|panic| panic.to_string())?;
                self.world
                    .note(|| format!("zombie w{process} ended: {message:?}"));
                self.bury(process, true);
                let expected = [
                    ExitReason::Fenced,
                    ExitReason::NatsUnavailable,
                    ExitReason::ConsumerMissing,
                ];
                if !expected.contains(&message.reason) {
                    return Err(format!("zombie {process} ended: {message:?}"));
                }
            }
        }
        if self.current.is_none() {
            let filter = if self.setup.filtered { FILTER } else { "" };
            {
                let mut state = self.world.lock();
                if state.server.consumer.is_none() {
                    state.server.create_consumer(filter, self.setup.ack_wait);
                }
            }
            self.start();
        }
        self.breaches()
    }

    /// The first breach seen from outside.
    pub(crate) fn breaches(&self) -> Result<(), String> {
        self.world.look(|state| match state.violations.first() {
            Some(violation) => Err(violation.clone()),
            None => Ok(()),
        })
    }

    pub(crate) fn publish(&self, subject: &str, payload: Bytes) -> u64 {
        let now = self.world.clock();
        let mut state = self.world.lock();
        let sequence = state.server.stream.publish(subject, payload, now);
        drop(state);
        self.world.note(|| format!("publish s{sequence} {subject}"));
        sequence
    }

    pub(crate) fn checkpoint(&self) -> Option<Checkpoint> {
        self.world.look(|state| {
            let (body, _) = state.checkpoint.value.as_ref()?;
            Some(serde_json::from_slice(body).expect("only workers write it"))
        })
    }

    /// The position of the last checkpoint; 0 for none.
    pub(crate) fn position(&self) -> u64 {
        self.checkpoint().map_or(0, |it| it.position.sequence.0)
    }

    /// What the running or next worker has applied for good, whatever is restored or left behind.
    pub(crate) fn applied(&self) -> u64 {
        let volume = match &self.current {
            Some(worker) => Some(worker.volume.as_path()),
            None => self.volume.as_deref(),
        };
        volume.map_or(0, position_in).min(self.position())
    }

    /// The position in the state file that the next worker finds.
    pub(crate) fn position_on_volume(&self) -> u64 {
        self.volume.as_deref().map_or(0, position_in)
    }

    /// Waits, caring for the worker, until the checkpoint says `position`.
    pub(crate) async fn reach(&mut self, position: u64, limit: Duration) -> Result<(), String> {
        let deadline = self.world.now() + limit;
        while self.position() < position {
            if self.world.now() > deadline {
                return Err(format!(
                    "the checkpoint stands at {} and not at {position} after {limit:?}",
                    self.position()
                ));
            }
            self.care().await?;
            sleep(Duration::from_millis(20)).await;
        }
        self.care().await
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        for worker in self.current.iter().chain(&self.zombies) {
            worker.task.abort();
        }
    }
}

fn incarnation(process: u64) -> String {
    format!("incarnation-{process}")
}

/// On tmpfs where there is one: the model asks the disk for nothing but order.
fn case_directory() -> TempDir {
    let shm = std::path::Path::new("/dev/shm");
    let directory = if shm.is_dir() {
        tempfile::tempdir_in(shm)
    } else {
        tempfile::tempdir()
    };
    directory.expect("a directory for a case")
}
