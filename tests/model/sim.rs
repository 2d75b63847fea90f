//! A model of JetStream's delivery rules, of the stores and of the network between them and a worker,
//! behind the worker's ports. It is no mock: what it does was measured on real servers, and
//! `conformance.rs` holds it against one.
//!
//! Everything random comes from the seed of the case; time is tokio's paused clock.

pub(crate) mod checkpoints;
pub(crate) mod consumer;
pub(crate) mod log;
pub(crate) mod outbox;
pub(crate) mod rng;
pub(crate) mod server;
pub(crate) mod store;
pub(crate) mod stream;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use lookback::worker::ports::Unavailable;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use rng::Rng;
use server::{InboxId, Server};
use store::{CheckpointKey, Store};
use stream::Stream;

/// When every case begins.
pub(crate) const EPOCH_SECONDS: i64 = 1_750_000_000;

/// What may go wrong, each in so many of 1000 calls.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// Requests to the log that are lost on their way there.
    pub(crate) log_lost: u64,
    /// Requests to the log that are carried out and whose answer is lost.
    pub(crate) log_unanswered: u64,
    /// Resets that are lost.
    pub(crate) reset_lost: u64,
    /// Resets that are carried out after the client gave up.
    pub(crate) late_reset: u64,
    pub(crate) ack_lost: u64,
    pub(crate) store_lost: u64,
    pub(crate) store_unanswered: u64,
    /// Creates that are carried out and whose answer is lost.
    pub(crate) create_unanswered: u64,
    pub(crate) checkpoint_lost: u64,
    pub(crate) checkpoint_unanswered: u64,
    /// The longest way to the server and back, in milliseconds.
    pub(crate) latency: u64,
}

/// A worker's process in the eyes of the world.
#[derive(Debug)]
pub(crate) struct Process {
    /// The directory that holds its state file.
    pub(crate) volume: PathBuf,
    /// Its open inbox.
    pub(crate) inbox: Option<InboxId>,
    /// Port calls after which it is killed; each call has such a point before and after its effect.
    pub(crate) crash_in: Option<u64>,
    pub(crate) killed: bool,
    /// Told when `crash_in` has come.
    pub(crate) doomed: Arc<Notify>,
    /// The consumer's resets when it last opened a pull.
    pub(crate) resets: u64,
    /// The position of the last checkpoint it stored.
    pub(crate) checkpointed: u64,
}

impl Process {
    /// A process that has done nothing yet.
    pub(crate) fn new(volume: PathBuf) -> Self {
        Self {
            volume,
            inbox: None,
            crash_in: None,
            killed: false,
            doomed: Arc::new(Notify::new()),
            resets: 0,
            checkpointed: 0,
        }
    }
}

/// Everything outside the worker.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) rng: Rng,
    pub(crate) faults: Faults,
    pub(crate) server: Server,
    pub(crate) batch: u64,
    pub(crate) alerts: Store,
    pub(crate) dead_letters: Store,
    pub(crate) checkpoint: CheckpointKey,
    /// The running worker is killed when it asks for an alert to be stored.
    pub(crate) kill_on_create: bool,
    pub(crate) processes: BTreeMap<u64, Process>,
    /// Breaches of the contract seen from outside.
    pub(crate) violations: Vec<String>,
    pub(crate) trace: Vec<String>,
}

/// A handle on everything outside the worker.
#[derive(Clone, Debug)]
pub(crate) struct World {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
    began: Instant,
}

/// How far a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// There and back.
    Fine,
    /// Not there.
    Lost,
    /// There, not back.
    Unanswered,
}

impl World {
    /// A world with an empty source stream and no consumer.
    pub(crate) fn new(seed: u64, stream: &str) -> Self {
        let created = Timestamp::from_second(EPOCH_SECONDS - 3600).expect("a valid time");
        Self {
            state: Arc::new(Mutex::new(State {
                rng: Rng::new(seed),
                faults: Faults::default(),
                server: Server::new(Stream::new(stream, created)),
                batch: 8,
                alerts: Store::new("ALERTS"),
                dead_letters: Store::new("DLQ"),
                checkpoint: CheckpointKey::default(),
                kill_on_create: false,
                processes: BTreeMap::new(),
                violations: Vec::new(),
                trace: Vec::new(),
            })),
            changed: watch::Sender::new(0),
            began: Instant::now(),
        }
    }

    /// The state; a change of it is told to whoever waits for one.
    pub(crate) fn lock(&self) -> Changing<'_> {
        Changing {
            state: self
                .state
                .lock()
                .expect("no test panics while it holds the world"),
            changed: &self.changed,
        }
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Time since the case began.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn instant(&self, at: Duration) -> Instant {
        self.began + at
    }

    /// The server's clock.
    pub(crate) fn clock(&self) -> Timestamp {
        Timestamp::from_second(EPOCH_SECONDS).expect("a valid time") + self.now()
    }

    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        let at = self.now();
        let line = format!("{:>10.4} {}", at.as_secs_f64(), what());
        self.look(|state| state.trace.push(line));
    }

    /// The state, without telling anyone of a change.
    pub(crate) fn look<T>(&self, read: impl FnOnce(&mut State) -> T) -> T {
        read(
            &mut self
                .state
                .lock()
                .expect("no test panics while it holds the world"),
        )
    }

    /// A request on its way there: `process` may be killed here, and the request may be lost.
    pub(crate) async fn travel(&self, process: u64, lost: fn(&Faults) -> (u64, u64)) -> Way {
        let (way, pause) = self.look(|state| {
            let (gone, unanswered) = lost(&state.faults);
            let way = if state.rng.chance(gone) {
                Way::Lost
            } else if state.rng.chance(unanswered) {
                Way::Unanswered
            } else {
                Way::Fine
            };
            let latency = state.faults.latency;
            (way, state.rng.below(latency + 1))
        });
        self.crash_point(process).await;
        if pause > 0 {
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        if way == Way::Lost {
            // What the client takes to give up.
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        self.alive(process).await;
        way
    }

    /// Its answer on its way back.
    pub(crate) async fn travel_back(&self, process: u64, way: Way) {
        self.crash_point(process).await;
        if way == Way::Unanswered {
            tokio::time::sleep(Duration::from_millis(500)).await;
            self.alive(process).await;
        }
    }

    /// Where a process can be killed.
    pub(crate) async fn crash_point(&self, process: u64) {
        self.look(|state| {
            if let Some(process) = state.processes.get_mut(&process)
                && let Some(left) = process.crash_in
            {
                process.crash_in = left.checked_sub(1);
                if left == 0 {
                    process.killed = true;
                    process.doomed.notify_one();
                }
            }
        });
        self.alive(process).await;
    }

    /// The end of `process`.
    pub(crate) async fn kill_here(&self, process: u64) {
        self.look(|state| {
            if let Some(process) = state.processes.get_mut(&process) {
                process.killed = true;
                process.doomed.notify_one();
            }
        });
        self.alive(process).await;
    }

    /// Never returns in a killed process, so that nothing it still does has an effect.
    async fn alive(&self, process: u64) {
        let killed = self.look(|state| {
            let process = state.processes.get(&process);
            process.is_some_and(|process| process.killed)
        });
        if killed {
            std::future::pending::<()>().await;
        }
    }

    pub(crate) fn violation(&self, what: String) {
        self.look(|state| state.violations.push(what));
    }
}

/// The locked state; whoever waits for a change is told when it is dropped.
pub(crate) struct Changing<'a> {
    state: MutexGuard<'a, State>,
    changed: &'a watch::Sender<u64>,
}

impl std::ops::Deref for Changing<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl std::ops::DerefMut for Changing<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.changed.send_modify(|changes| *changes += 1);
    }
}

impl State {
    /// What the server does by itself until `now`.
    pub(crate) fn settle(&mut self, now: Duration) {
        self.server.settle(now, &mut self.rng);
    }
}

pub(crate) fn unavailable(operation: &'static str, object: &str) -> Unavailable {
    Unavailable {
        operation,
        object: object.to_owned(),
        source: "no answer within the time allowed".into(),
    }
}
