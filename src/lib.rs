//! Lookback: a Kubernetes operator for stateful, replayable Sigma detections on NATS JetStream.
//!
//! ```text
//! events stream --consumer--> intake -> decode -> detect -> correlate
//!   -> publish alerts and dead letters -> commit to SQLite -> checkpoint to NATS -> acknowledge
//! ```
//!
//! The operator turns a DetectionPipeline into a StatefulSet with a volume, immutable ConfigMaps and
//! JetStream objects. A worker reads one partition through one durable consumer and keeps its windows
//! in one SQLite file. It is told which consumer and which epoch; it decides nothing else about where
//! to begin. The two never call each other: the operator speaks through `config.json`, the worker
//! through its checkpoint in NATS and its termination message.
//!
//! # Layout
//! - [`api`]: the DetectionPipeline resource, its status and its conditions.
//! - [`operator`]: one controller; a reconcile is a few steps, a file each, and what it decides about replays is
//!   written before it is done.
//! - [`worker`]: events -> alerts, dead letters and windows. The loop runs over three ports, so the
//!   model tests run it over a model of JetStream.
//! - [`state`]: the worker's SQLite file: windows and position in one transaction.
//! - [`nats`]: the adapters that speak JetStream, with what each guarantees.
//! - [`runtime`]: telemetry, metrics, admin HTTP and shutdown of both programs.
//! - [`cli`]: the command line; [`ctl`]: that of the plugin, `kubectl lookback`.
//!
//! Two crates beside this one are pure by their Cargo.toml, with no client, database, runtime or
//! clock: `lookback-protocol` (everything that two programs or two versions read, and the decisions
//! over it) and `lookback-engine` (rules, detection, correlation).
//!
//! # What holds
//! A *position* is a stream sequence and the time at which JetStream stored that message. The *engine
//! digest* is a hash over rules and every setting that decides an alert. A *lineage* is the list of
//! stretches of the stream that a state file was made from, each with its filter and engine digest.
//! The *oracle* makes one uninterrupted pass over the same lineage in one process.
//!
//! 1. **State.** The state file equals the oracle's state at its position, after any crash,
//!    redelivery or restart. So the engine is a function of the engine digest and the events alone: no
//!    wall clock, timer, batch border or hash order decides anything.
//! 2. **Order.** Publish, then commit (windows and position in one transaction), then checkpoint, then
//!    acknowledge. The consumer's ack floor is never ahead of the state file.
//! 3. **Alerts.** Every alert of the lineage is stored exactly once under a deterministic id, and none
//!    that the oracle does not find, for as long as ids are kept. One alert at most for a rule, a group
//!    key and an event. What a process published and did not commit is found again by its id, also
//!    when a person has moved it meanwhile.
//! 4. **Replay.** A request to move the cursor is applied at most once, and exactly once if it is
//!    completed, whichever process dies at whatever moment, also when a volume comes back empty or from
//!    an old copy. What the operator is about to do stands in the status first; the worker announces in
//!    its checkpoint that it is about to move the file, which is the point of no return, and then moves
//!    it in one transaction. `lookback_protocol::replay` is the map of it.
//! 5. **Nothing silent.** An event that cannot be applied is in the dead-letter stream, whole, before
//!    it is acknowledged. Events that left the stream unread are reported as a range. A store that is
//!    full or unreachable holds the pipeline; nothing is dropped.
//! 6. **Identity.** A state file belongs to one owner, one incarnation of one stream and one epoch. NATS
//!    can lose acknowledged writes and use their sequences again, so the message at the position must
//!    still have the time it had. On a mismatch the worker stops and says so; it never guesses.
//!
//! Workers of one partition are fenced by compare-and-swap on its checkpoint: the older one learns with
//! its next write, before its next acknowledgement, that it was replaced.

pub mod api;
pub mod cli;
pub mod ctl;
pub mod nats;
pub mod operator;
pub mod runtime;
pub mod state;
pub mod worker;
