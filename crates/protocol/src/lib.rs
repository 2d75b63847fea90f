//! Everything that two programs, or two versions of one program, read: names, ids, wire formats and
//! the decisions taken over them. Nothing here does I/O or reads a clock; time is an argument.
//!
//! # Layout
//! - [`names`]: the names of everything a pipeline owns, in Kubernetes and in JetStream.
//! - [`position`]: sequences, epochs, positions and the identity of a stream.
//! - [`ids`]: deterministic ids of alerts and dead letters.
//! - [`config`]: `config.json`, what the operator tells a worker.
//! - [`checkpoint`]: what a worker says in NATS about its state file, and the fence between workers.
//! - [`consumer`]: the metadata that stands on the consumer of one epoch.
//! - [`termination`]: how a worker says why it stopped, and the exit codes.
//! - [`alert`], [`deadletter`]: what is stored for people.
//! - [`workflow`]: the states of alerts and the steps between them.
//! - [`audit`]: what was done once and by whom.
//! - [`continuity`]: proof that no delivery went to someone who lost it.
//! - [`replay`]: requests to move the cursor: identity, plan, state machine, ledgers.
//! - [`start`]: what a worker does when it opens its state file, as one ordered table.
//!
//! Each wire format has a golden JSON file in `tests/golden/`; a change of one is a new version.

pub mod alert;
pub mod audit;
pub mod checkpoint;
pub mod config;
pub mod consumer;
pub mod continuity;
pub mod deadletter;
pub mod ids;
pub mod names;
pub mod position;
pub mod replay;
pub mod start;
pub mod termination;
mod version;
pub mod workflow;
