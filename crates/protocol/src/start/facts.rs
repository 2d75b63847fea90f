//! What a start decision looks at.

use jiff::Timestamp;

use crate::checkpoint::{AppliedRequest, Checkpoint, Gap, RequestOutcome, RequestProgress};
use crate::config::Cursor;
use crate::names::Owner;
use crate::position::{Epoch, Position, StreamIdentity, StreamSeq};

use super::OutputRule;

/// Everything the decision looks at.
#[derive(Clone, Debug)]
pub struct StartFacts<'a> {
    /// What the operator told this worker.
    pub told: Told<'a>,
    /// What the volume holds.
    pub file: FileFacts,
    /// The partition's checkpoint, read from the leader.
    pub checkpoint: Option<&'a Checkpoint>,
    /// The source stream, read from the leader.
    pub stream: StreamFacts,
    /// The message at the file's position, read from the leader.
    pub at_position: MessageAt,
    /// The highest stream sequence the consumer ever delivered; lost by a reset, so read before it.
    pub consumer_delivered: Option<StreamSeq>,
    /// Whether the consumer's metadata says that its epoch has begun on a state file.
    pub consumer_applied: bool,
    /// The pipeline's own streams.
    pub stores: Vec<StoreFacts>,
}

/// The part of the configuration that the decision needs.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// Whose worker this is.
    pub owner: &'a Owner,
    /// Its partition.
    pub partition: u32,
    /// Its epoch.
    pub epoch: Epoch,
    /// What becomes of the state file when that epoch begins on it.
    pub cursor: &'a Cursor,
    /// An owner whose state it takes over.
    pub adopt: Option<&'a Owner>,
    /// The source stream as the operator saw it.
    pub stream: &'a StreamIdentity,
    /// Where a brand-new state file begins.
    pub start: StreamSeq,
    /// Whether only some subjects are read.
    pub filtered: bool,
}

/// What the volume holds.
#[derive(Clone, Debug)]
pub enum FileFacts {
    /// No state file, or one in which nothing was ever written.
    Empty,
    /// A file that SQLite or our checks refuse.
    Corrupt(String),
    /// A file of a newer version.
    NewerSchema {
        /// Its schema version.
        found: u32,
        /// The newest this build knows.
        supported: u32,
    },
    /// A state file.
    State(Box<FileState>),
}

/// The identity and position of a state file.
#[derive(Clone, Debug)]
pub struct FileState {
    /// Whose it is.
    pub owner: Owner,
    /// Which partition's.
    pub partition: u32,
    /// The stream it was made from.
    pub stream: StreamIdentity,
    /// The epoch it was last used in.
    pub epoch: Epoch,
    /// What it has applied.
    pub position: Position,
    /// The highest sequence whose alerts may be stored although no commit covers it.
    pub published_through: StreamSeq,
    /// Ranges already reported as expired unread, oldest first.
    pub gaps: Vec<Gap>,
    /// Every request that ever moved it, oldest first.
    pub ledger: Vec<AppliedRequest>,
    /// What the last of them says about what is found.
    pub output: OutputRule,
}

impl FileState {
    /// How far the request of `cursor` has come in `epoch`; nothing for a cursor without one.
    #[must_use]
    pub fn progress(&self, cursor: &Cursor, epoch: Epoch) -> Option<RequestProgress> {
        let Cursor::Rewind(rewind) = cursor else {
            return None;
        };
        let id = &rewind.request_id;
        let applied = self.ledger.iter().find(|row| row.id == *id)?;
        Some(RequestProgress {
            id: id.clone(),
            outcome: if applied.epoch == epoch {
                RequestOutcome::Applied
            } else {
                RequestOutcome::AlreadyApplied
            },
        })
    }
}

/// The source stream now.
#[derive(Clone, Debug)]
pub struct StreamFacts {
    /// Name and creation time.
    pub identity: StreamIdentity,
    /// The first sequence still in it; last + 1 when empty.
    pub first: StreamSeq,
    /// The last sequence ever stored.
    pub last: StreamSeq,
}

/// What the leader answered for one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageAt {
    /// Stored at that time.
    Published(Timestamp),
    /// No such message: expired, deleted, or never stored; the stream's bounds tell which.
    Absent,
}

/// One of the pipeline's own streams.
#[derive(Clone, Debug)]
pub struct StoreFacts {
    /// Its name.
    pub stream: String,
    /// The last sequence it acknowledged to this state file; 0 for none.
    pub acknowledged: u64,
    /// The last sequence it holds or held.
    pub last: u64,
}
