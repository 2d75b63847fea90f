//! The worker: one partition, one state file, one consumer. It is told which consumer and epoch; it
//! never decides a replay.
//!
//! # Layout
//! - [`mod@run`]: what a worker is made of, and its loop.
//! - [`process`]: files, connection, signals and termination message around it.
//! - [`ports`]: everything the loop knows of the outside.
//! - [`metrics`]: what is counted.
//! - [`trial`]: the engine alone, over events that come from no stream.
//! - `start`: rules, state file, decision, taking the partition over.
//! - `apply`: moving the state file as a request asks.
//! - `observe`: what the start decision looks at, also each time the consumer is positioned.
//! - `fence`: the checkpoint by compare-and-swap.
//! - `rewind`: positioning the consumer behind the file, and proving it.
//! - `intake`: deliveries and heartbeats -> accepted events.
//! - `batch`: events -> alerts, dead letters and changed windows; `record` writes them out.
//! - `output`: storing them; `hold`: waiting for a store that does not take them.
//! - `commit`: one transaction, the checkpoint, the ack.
//! - `expired`: events that leave the stream before they are read.
//! - `poison`: events that break the engine.
//! - `patience`, `stop`: waiting for NATS, and the ways to end.
//!
//! # One way through
//! ```text
//! position -> collect -> apply -> publish -> commit -> checkpoint -> ack
//!    ^  (intake)   (batch)   (output)   (commit)                      |
//!    +------ a hole, a dead pull, a hold that ended <-----------------+
//! ```
//! One batch is in the engine at a time, and everything accepted is committed before the consumer is
//! positioned again, so the file's position, the engine's windows and the last accepted event agree
//! whenever the loop is at its top. Everything runs in one task and nothing is spawned: a dropped
//! future leaves no write behind that could reach a file opened after it. The pull's own buffer
//! fills while a batch is applied; what is given up is the overlap of detection with the commit.
//!
//! # Which alerts may be stored already
//! A create refuses an id that stands in the state `new`, but a person may have moved the alert on,
//! so an event that an earlier process may have published must be looked up first. Those are the
//! events up to `published_through`, the highest of
//! 1. what the file says,
//! 2. what the checkpoint says, its position included: the volume may be an older copy,
//! 3. what the consumer has delivered, read while no pull is open.
//!
//! No published event lies above all three. A process publishes only what the consumer delivered to
//! it, so 3 covers it until the next reset, which forgets it; that reset comes only after the file
//! (1) and then the checkpoint (2) were raised to what the consumer said. Neither is ever lowered,
//! and of a file and a checkpoint at most the file is ever replaced by an older copy. A consumer
//! that was deleted and made again is known by having delivered less than the file holds, or
//! nothing; then everything the stream held at that start counts as published. Of a process that
//! was replaced and does not know it yet, only the batch in flight can be missed, which the create
//! itself refuses for as long as the alert or the mark of its move stands in `new`.

pub mod metrics;
pub mod ports;
pub mod process;
pub mod run;
pub mod trial;

mod apply;
mod batch;
mod commit;
mod expired;
mod fence;
mod hold;
mod intake;
mod observe;
mod output;
mod patience;
mod poison;
mod record;
mod rewind;
mod start;
mod stop;

#[cfg(test)]
mod fakes;
#[cfg(test)]
mod tests;

pub use run::{Clock, Deps, Gates, run};
