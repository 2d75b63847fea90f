//! The worker's state file: the windows and the position they stand at, moved together.
//!
//! SQLite in WAL mode with `synchronous=FULL`: a commit that returned survives a power failure, one
//! that did not is wholly there or wholly absent. `locking_mode=EXCLUSIVE` makes the process that
//! opened the file its only user until it ends: a second process is refused at once, before it has
//! written anything. The lock is a POSIX one on the file itself, so it holds between containers of a
//! node and ends with the process, however that ends. POSIX locks of a process end when it closes any
//! descriptor of the file: nothing here opens the file other than through SQLite, which knows.
//!
//! # Layout
//! - `schema`: the tables with their invariants, how a file is opened, what is refused.
//! - `identity`: whose file it is, and how a start takes it over.
//! - `meta`: position, what is published beyond it, counters, gaps, PubAcks.
//! - `windows`: one row for each group; only changed groups are written.
//! - `ledger`: every request that moved the file.
//! - `lineage`: which rules and filter were applied to which sequences.
//! - `attempts`: starts without progress, and events in flight when the process died.
//! - `digest`: the digest of a file that no worker has open.
//!
//! Everything blocks. The caller runs it on one thread of its own.

mod attempts;
mod digest;
mod error;
mod identity;
mod ledger;
mod lineage;
mod meta;
#[cfg(test)]
mod properties;
mod schema;
#[cfg(test)]
mod tests;
mod windows;

use std::collections::BTreeMap;
use std::path::Path;

use lookback_engine::{Changes, GroupRow};
use lookback_protocol::checkpoint::{Counters, Gap};
use lookback_protocol::names::Owner;
use lookback_protocol::position::{Epoch, Position, StreamIdentity, StreamSeq};
use lookback_protocol::replay::record::Windows;
use lookback_protocol::start::{Apply, Begin, FileFacts};
use rusqlite::{Connection, Transaction, TransactionBehavior};

pub use digest::{DigestError, FileDigest, digest};
pub use error::{OpenError, StateError};
pub use ledger::LedgerRow;
pub use lineage::Segment;

use error::During;
use lineage::Entry;

/// An open state file, and the only writer of it.
///
/// A failed write has changed nothing. After [`StateError::Full`] the same write may be tried again;
/// after any other error drop the file and open it anew, because what SQLite holds in memory is no
/// longer evidence of what is on the disk.
#[derive(Debug)]
pub struct StateFile {
    connection: Connection,
}

/// What a worker is told about itself, and the rules it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Whose file it is.
    pub owner: Owner,
    /// Whose file may become `owner`'s.
    pub adopt: Option<Owner>,
    /// Which partition's.
    pub partition: u32,
    /// The source stream, and which incarnation of it.
    pub stream: StreamIdentity,
    /// The epoch the worker works in.
    pub epoch: Epoch,
    /// Over the rules and settings it runs.
    pub engine_digest: String,
    /// The subjects it reads, in any order; empty for the whole stream.
    pub filter: Vec<String>,
}

/// One batch of applied events.
#[derive(Clone, Copy, Debug)]
pub struct Commit<'a> {
    /// The groups that changed.
    pub changes: &'a Changes,
    /// The last event applied, with its published time.
    pub position: Position,
    /// Up to here alerts may be stored; raises what the file holds, never lowers it.
    pub published_through: StreamSeq,
    /// The totals after this batch, not the difference to the one before.
    pub counters: Counters,
    /// The last sequence that each of the pipeline's own streams acknowledged, by stream name.
    pub acknowledged: &'a [(String, u64)],
}

impl StateFile {
    /// Opens the state file at `path`, or makes one where there is none, and locks it.
    ///
    /// A file that is there is never replaced or deleted, and one that is refused is not written to.
    /// Opening reads the whole file once to find damage, about as long as reading its groups takes.
    ///
    /// # Errors
    /// [`OpenError`] says why the file cannot be used.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let connection = schema::open_or_create(path)?;
        Ok(Self { connection })
    }

    /// What the start decision looks at: [`FileFacts::Empty`] until the first [`Self::begin`], then
    /// [`FileFacts::State`].
    ///
    /// # Errors
    /// [`StateError`] when the file cannot be read.
    pub fn facts(&self) -> Result<FileFacts, StateError> {
        identity::facts(&self.connection)
    }

    /// Writes down what a start decided, in one transaction: the identity (the first time) or the
    /// owner and epoch, `published_through` raised, the gap added to those known, and a new segment of
    /// the lineage when epoch, filter or engine digest are not those of the last one. Doing it again
    /// changes nothing.
    ///
    /// # Errors
    /// [`StateError::Refused`] when the file is another owner's, partition's or stream's, of a later
    /// epoch, or at another position than `begin` says.
    pub fn begin(&mut self, identity: &Identity, begin: &Begin) -> Result<(), StateError> {
        let position = begin.position.sequence;
        self.write(|transaction| {
            identity::begin(transaction, identity, begin)?;
            let entry = Entry {
                before: Some(position),
                start: position.next(),
                dropped: false,
            };
            lineage::enter(transaction, identity, entry)?;
            windows::forget_empty_correlations(transaction)
        })
    }

    /// Moves the file as a request asks, in one transaction: windows kept or dropped, its row in the
    /// ledger, owner, epoch, stream and position, a new segment of the lineage. Counters stay, PubAcks
    /// too unless it begins anew. When it returns, all of it is on the disk.
    ///
    /// # Errors
    /// [`StateError::Refused`] when the file is another owner's or partition's, or of this epoch or a
    /// later one; [`StateError::Io`] when its ledger holds the request.
    pub fn apply(&mut self, identity: &Identity, apply: &Apply) -> Result<(), StateError> {
        self.write(|transaction| {
            let before = identity::rewind(transaction, identity, apply)?;
            let dropped = match apply.windows {
                Windows::Kept => false,
                Windows::Dropped | Windows::Rebuilt => {
                    windows::drop_all(transaction)?;
                    meta::forget_gaps(transaction)?;
                    before.is_some()
                }
            };
            if apply.begins_anew() {
                meta::forget_acknowledged(transaction)?;
            }
            if let Some(gap) = &apply.begin.gap {
                meta::append_gap(transaction, gap)?;
            }
            attempts::forget(transaction)?;
            ledger::append(transaction, identity.epoch, apply)?;
            let start = apply.begin.position.sequence.next();
            let entry = Entry {
                before,
                start,
                dropped,
            };
            lineage::enter(transaction, identity, entry)?;
            windows::forget_empty_correlations(transaction)
        })
    }

    /// Every group, in no particular order.
    ///
    /// # Errors
    /// [`StateError`] when the file cannot be read.
    pub fn groups(&self) -> Result<Vec<GroupRow>, StateError> {
        windows::read(&self.connection)
    }

    /// Moves windows, position, counters and PubAcks in one transaction, and forgets attempts at
    /// events up to the new position. When it returns, all of it is on the disk.
    ///
    /// # Errors
    /// [`StateError::Refused`] when the position does not move forward, has no published time, or
    /// nothing was begun.
    pub fn commit(&mut self, commit: &Commit<'_>) -> Result<(), StateError> {
        self.write(|transaction| {
            windows::write(transaction, commit.changes)?;
            meta::advance(transaction, commit)?;
            attempts::settle(transaction, commit.position.sequence)
        })
    }

    /// What the file has applied.
    ///
    /// # Errors
    /// [`StateError::Refused`] when nothing was begun.
    pub fn position(&self) -> Result<Position, StateError> {
        meta::position(&self.connection)
    }

    /// Totals since the file was made.
    ///
    /// # Errors
    /// [`StateError::Refused`] when nothing was begun.
    pub fn counters(&self) -> Result<Counters, StateError> {
        meta::counters(&self.connection)
    }

    /// Ranges reported as expired unread, oldest first.
    ///
    /// # Errors
    /// [`StateError`] when the file cannot be read.
    pub fn gaps(&self) -> Result<Vec<Gap>, StateError> {
        meta::gaps(&self.connection)
    }

    /// The highest sequence that each of the pipeline's own streams acknowledged, by stream name.
    ///
    /// # Errors
    /// [`StateError`] when the file cannot be read.
    pub fn acknowledged(&self) -> Result<BTreeMap<String, u64>, StateError> {
        meta::acknowledged(&self.connection)
    }

    /// What was applied under which rules, oldest first.
    ///
    /// # Errors
    /// [`StateError`] when the file cannot be read.
    pub fn lineage(&self) -> Result<Vec<Segment>, StateError> {
        lineage::read(&self.connection)
    }

    /// Every request that moved the file, oldest first.
    ///
    /// # Errors
    /// [`StateError`] when the file cannot be read.
    pub fn ledger(&self) -> Result<Vec<LedgerRow>, StateError> {
        ledger::read(&self.connection)
    }

    /// Counts this start, and, when the last process died with an event in flight, that death. Call
    /// it once in the life of a process. Gives the starts in a row, this one included, that found
    /// the file at this position.
    ///
    /// # Errors
    /// [`StateError`] when it cannot be written.
    pub fn note_start(&mut self) -> Result<u32, StateError> {
        self.write(attempts::note_start)
    }

    /// Notes, on the disk, that `sequence` is about to be applied, in place of any other. Gives how
    /// many processes died with exactly this event in flight.
    ///
    /// # Errors
    /// [`StateError`] when it cannot be written.
    pub fn set_in_flight(&mut self, sequence: StreamSeq) -> Result<u32, StateError> {
        self.write(|transaction| attempts::set_in_flight(transaction, sequence))
    }

    /// Notes that no event is in flight, so that an orderly end is no death. A commit that covers
    /// the event does it by itself.
    ///
    /// # Errors
    /// [`StateError`] when it cannot be written.
    pub fn clear_in_flight(&mut self) -> Result<(), StateError> {
        attempts::clear_in_flight(&self.connection)
    }

    fn write<T>(
        &mut self,
        body: impl FnOnce(&Transaction<'_>) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .during("begin a transaction")?;
        let value = body(&transaction)?;
        transaction.commit().during("commit a transaction")?;
        Ok(value)
    }
}
