//! Where a pipeline stands, from what three ledgers say: the status, the consumers' metadata, and the
//! checkpoint, which speaks for the state file. Each may be gone; two of them rebuild the third.

use crate::checkpoint::Checkpoint;
use crate::config::Cursor;
use crate::consumer::ConsumerMetadata;
use crate::names::Owner;
use crate::position::Epoch;

use super::machine::Written;

/// What the ledgers say.
#[derive(Clone, Copy, Debug)]
pub struct Ledgers<'a> {
    /// Who asks.
    pub me: &'a Owner,
    /// Whose objects are taken over.
    pub adopt: Option<&'a Owner>,
    /// The status.
    pub written: &'a Written,
    /// What the StatefulSet's pods are told: epoch and cursor of its `config.json`.
    pub running: Option<(Epoch, &'a Cursor)>,
    /// What stands in NATS; absent when it did not answer.
    pub nats: Option<NatsLedgers<'a>>,
}

/// The ledgers in NATS, read from the leaders.
#[derive(Clone, Copy, Debug)]
pub struct NatsLedgers<'a> {
    /// The metadata of all consumers of this pipeline's names.
    pub consumers: &'a [ConsumerMetadata],
    /// The checkpoint.
    pub checkpoint: Option<&'a Checkpoint>,
}

/// Where a pipeline stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It was never begun.
    New,
    /// In this epoch, which is what the status says or should say.
    Stands {
        /// The epoch.
        epoch: Epoch,
        /// What it does to a state file of another epoch; the same for the whole life of the epoch.
        cursor: Cursor,
    },
    /// The status is gone while a request was between its consumer and its application.
    Underway {
        /// The epoch of the request.
        epoch: Epoch,
        /// What it does.
        cursor: Cursor,
    },
    /// The status is gone, and NATS does not answer.
    Unknown,
    /// The state is of an epoch that the rest knows nothing of; a person decides. What to do, in one
    /// sentence.
    EpochAhead(String),
    /// Something belongs to another owner; a person decides. What to do, in one sentence.
    OwnedByOther(String),
}
