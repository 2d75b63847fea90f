//! One case: a world, the workers in it, and the hands that start, kill and drain them. The case also
//! stands in for the operator (it makes a deleted consumer again) and for the kubelet (it starts a
//! worker that ended again).

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
use tokio::time::{sleep, timeout};

use crate::invariants::{self, End, STATE_FILE, copy_volume, position_in};
use crate::scenario::{self, FILTER, STREAM};
use crate::sim::checkpoints::SimCheckpoints;
use crate::sim::log::SimLog;
use crate::sim::outbox::SimOutbox;
use crate::sim::{Faults, Process, World};

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
        let doomed = Arc::new(Notify::new());
        self.world.look(|state| {
            state.processes.insert(
                process,
                Process {
                    volume: volume.clone(),
                    inbox: None,
                    crash_in: None,
                    killed: false,
                    doomed: Arc::clone(&doomed),
                    resets: 0,
                    checkpointed: 0,
                },
            );
        });
        let (stop, stopped) = oneshot::channel::<()>();
        let clock = self.world.clone();
        let deps = Deps {
            config: self.config.clone(),
            rule_files: scenario::rule_files(),
            state_file: volume.join(STATE_FILE),
            pod: "edr-0".to_owned(),
            incarnation: format!("incarnation-{process}"),
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

    pub(crate) fn process(&self) -> Option<u64> {
        self.current.as_ref().map(|it| it.process)
    }

    /// Kills the worker: its future is dropped where it is, and its state file is what stands on the
    /// disk at that moment. With `noticed` the server sees its connection end at once.
    pub(crate) async fn kill(&mut self, noticed: bool) {
        let Some(worker) = self.current.take() else {
            return;
        };
        self.world.note(|| format!("kill w{}", worker.process));
        let left = self.root.path().join(format!("{}-killed", worker.process));
        std::fs::create_dir(&left).expect("a directory for a volume");
        copy_volume(&worker.volume, &left);
        self.volume = Some(left);
        self.bury(worker.process, noticed);
        worker.task.abort();
        let cancelled = worker.task.await;
        assert!(cancelled.is_ok() || cancelled.is_err_and(|it| it.is_cancelled()));
    }

    /// Kills the worker at its `calls`th port call from now, unless it ends before or lives longer
    /// than `limit`, when it is killed where it is.
    pub(crate) async fn kill_at_call(&mut self, calls: u64, limit: Duration) {
        let Some(worker) = &self.current else {
            return;
        };
        let doomed = Arc::clone(&worker.doomed);
        let process = worker.process;
        self.world.look(|state| {
            let process = state.processes.get_mut(&process);
            process.expect("it runs").crash_in = Some(calls);
        });
        let reached = timeout(limit, doomed.notified()).await.is_ok();
        self.world
            .note(|| format!("w{process} reached its call: {reached}"));
        let noticed = self.world.look(|state| state.rng.chance(300));
        self.kill(noticed).await;
    }

    /// Kills the worker right after it stored its first alert.
    pub(crate) async fn kill_at_first_alert(&mut self) {
        while self.world.look(|state| state.alerts.last() == 0) {
            sleep(Duration::from_micros(100)).await;
        }
        self.kill(true).await;
    }

    /// Kills the worker when it asks for an alert to be stored, before the request is on its way;
    /// gives up after `limit`.
    pub(crate) async fn kill_at_first_alert_request(&mut self, limit: Duration) {
        let Some(worker) = &self.current else {
            return;
        };
        let doomed = Arc::clone(&worker.doomed);
        self.world.lock().kill_on_create = true;
        let _reached = timeout(limit, doomed.notified()).await;
        self.world.lock().kill_on_create = false;
        self.kill(true).await;
    }

    /// A second process on the same file, until it ends.
    pub(crate) async fn run_beside(&mut self) -> Result<TerminationMessage, String> {
        let Some(first) = self.current.take() else {
            return Err("no worker runs".to_owned());
        };
        let second = self.spawn(first.volume.clone());
        self.current = Some(second);
        let ended = self.end_within(Duration::from_secs(30)).await;
        self.current = Some(first);
        ended
    }

    /// Cuts the connection of the running worker.
    pub(crate) fn cut(&self, silent: bool) {
        let now = self.world.now();
        let mut state = self.world.lock();
        let inbox = self.process().and_then(|it| state.processes[&it].inbox);
        if let Some(inbox) = inbox {
            state.settle(now);
            state.server.cut(inbox, silent, now);
        }
    }

    /// What `publish` publishes goes to the running worker's pull and is lost there.
    pub(crate) fn with_next_deliveries_lost(&self, publish: impl FnOnce(&Self) -> u64) -> u64 {
        let last = publish(self);
        self.cut(true);
        last
    }

    /// The worker goes on without knowing that it was replaced by the next one started. One that has
    /// not begun its state file stays: its volume would be an empty one.
    pub(crate) fn leave_as_zombie(&mut self) {
        let begun = |worker: &mut Worker| invariants::has_state(&worker.volume);
        if let Some(worker) = self.current.take_if(begun) {
            let process = worker.process;
            self.world.note(|| format!("w{process} is left behind"));
            let left = self.root.path().join(format!("{process}-copied"));
            std::fs::create_dir(&left).expect("a directory for a volume");
            copy_volume(&worker.volume, &left);
            self.volume = Some(left);
            self.zombies.push(worker);
        }
    }

    /// SIGTERM, and the worker's last words.
    pub(crate) async fn drain(&mut self, limit: Duration) -> Result<TerminationMessage, String> {
        let Some(worker) = &mut self.current else {
            return Err("no worker runs".to_owned());
        };
        let process = worker.process;
        self.world.note(|| format!("drain w{process}"));
        if let Some(stop) = worker.stop.take() {
            let _already_ended = stop.send(());
        }
        self.end_within(limit).await
    }

    /// Waits for the worker to end by itself.
    pub(crate) async fn end_within(
        &mut self,
        limit: Duration,
    ) -> Result<TerminationMessage, String> {
        let Some(worker) = &mut self.current else {
            return Err("no worker runs".to_owned());
        };
        match timeout(limit, &mut worker.task).await {
            Ok(Ok(message)) => {
                let worker = self.current.take().expect("it ran");
                self.world
                    .note(|| format!("w{} ended: {message:?}", worker.process));
                self.bury(worker.process, true);
                self.volume = Some(worker.volume);
                self.ends.push(message.clone());
                Ok(message)
            }
            Ok(Err(panic)) => Err(format!("worker {} panicked: {panic}", worker.process)),
            Err(_) => Err(format!(
                "worker {} did not end in {limit:?}",
                worker.process
            )),
        }
    }

    fn bury(&self, process: u64, noticed: bool) {
        let mut state = self.world.lock();
        let process = state.processes.get_mut(&process).expect("it ran");
        process.killed = true;
        if let Some(inbox) = process.inbox.take() {
            state.server.abandon(inbox, noticed);
        }
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
                // The older one wrote between the newer one's read and its takeover.
                ExitReason::Fenced => !self.zombies.is_empty(),
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

    /// Ends all faults, lets everything be applied and acknowledged, drains, and compares with the
    /// oracle.
    pub(crate) async fn finish(&mut self) -> Result<(), String> {
        self.world.note(|| "quiesce".to_owned());
        {
            let mut state = self.world.lock();
            state.faults = Faults::default();
            state.alerts.make_room();
            state.dead_letters.make_room();
        }
        self.care().await?;
        self.zombies_end().await?;
        let mut last = 0;
        // Two rounds: the second shows that acks still move the floor.
        for _ in 0..2 {
            last = self.publish("ev.win", scenario::logon("ok", "alice", "h1"));
            self.reach(last, Duration::from_secs(180)).await?;
        }
        self.floor_reaches(last).await?;
        let message = self.drain(Duration::from_secs(60)).await?;
        if message.reason != ExitReason::Drained {
            return Err(format!("a drained worker said {message:?}"));
        }
        self.breaches()?;
        self.compare()
    }

    async fn floor_reaches(&mut self, last: u64) -> Result<(), String> {
        let floor = |case: &Self| {
            let server = |state: &mut crate::sim::State| state.server.consumer.clone();
            case.world.look(server).map_or(0, |it| it.floor.stream)
        };
        for _ in 0..500 {
            if floor(self) == last {
                return Ok(());
            }
            self.care().await?;
            sleep(Duration::from_millis(20)).await;
        }
        Err(format!(
            "everything through {last} is applied, but the ack floor stays at {}",
            floor(self)
        ))
    }

    /// A worker that was replaced learns it with its next checkpoint, so it is given something to say.
    async fn zombies_end(&mut self) -> Result<(), String> {
        for _ in 0..120 {
            if self.zombies.is_empty() {
                return Ok(());
            }
            self.publish("ev.win", scenario::logon("idle", "alice", "h1"));
            sleep(Duration::from_millis(500)).await;
            self.care().await?;
        }
        Err("a worker that was replaced still runs after a minute".to_owned())
    }

    /// Compares what is stored with the oracle; nobody runs.
    pub(crate) fn compare(&self) -> Result<(), String> {
        let checkpoint = self.checkpoint().ok_or("no checkpoint was written")?;
        let volume = self.volume.clone().ok_or("no worker ended")?;
        self.world.look(|state| {
            invariants::check_end(&End {
                config: &self.config,
                log: &state.server.stream,
                unread: (!self.trust_gaps).then_some(&self.unread),
                alerts: &state.alerts,
                dead_letters: &state.dead_letters,
                checkpoint: &checkpoint,
                volume: &volume,
            })
        })
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        for worker in self.current.iter().chain(&self.zombies) {
            worker.task.abort();
        }
    }
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
