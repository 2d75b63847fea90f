//! What a plan is made from: what is read once, and the questions that follow from it.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Rejection;
use crate::config::CorrelationConfig;
use crate::position::{Position, StreamIdentity, StreamSeq};

/// Everything that is read before the first question.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// When it is planned.
    pub now: Timestamp,
    /// The source stream.
    pub stream: &'a Bounds,
    /// What the checkpoint says of the state file; absent when there is no checkpoint.
    pub state: Option<&'a StoredState>,
    /// How the engine treats time and windows.
    pub correlation: &'a CorrelationConfig,
    /// The longest sum of timespans along a chain of correlations, in seconds.
    pub longest_chain_seconds: u64,
    /// Whether a correlation has session windows: where one begins depends on everything before it.
    pub session_windows: bool,
    /// Messages a second that the pipeline was seen to read when it was not waiting for them.
    pub rate: Option<u64>,
    /// Alerts stored already in the range, when that was cheap to find out.
    pub known_alerts: Option<u64>,
}

/// The source stream at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Which incarnation of it.
    pub identity: StreamIdentity,
    /// The first sequence in it, last + 1 when it is empty. 0 is read as 1.
    pub first: StreamSeq,
    /// The last sequence ever stored; 0 for none.
    pub last: StreamSeq,
    /// When the first was stored; absent when it is empty.
    pub first_time: Option<Timestamp>,
    /// When the last was stored; absent when there never was one.
    pub last_time: Option<Timestamp>,
    /// Messages in it.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Bounds {
    pub(super) fn first(&self) -> StreamSeq {
        self.first.max(StreamSeq(1))
    }

    /// Whether it holds everything that was ever stored at its beginning.
    pub(super) fn is_whole(&self) -> bool {
        self.first() == StreamSeq(1)
    }
}

/// What the checkpoint says of the state file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredState {
    /// The stream it was made from.
    pub stream: StreamIdentity,
    /// What it has applied.
    pub position: Position,
    /// Groups that hold a window.
    pub groups: u64,
    /// Events older than their group allowed, since the state file was made.
    pub late: u64,
}

/// One message of the source stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its sequence.
    pub sequence: StreamSeq,
    /// When JetStream stored it.
    pub published: Timestamp,
}

/// A question for one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Find {
    /// The message with this sequence, of any subject.
    At(StreamSeq),
    /// The first message stored at or after this time, of any subject.
    Since(Timestamp),
    /// The first message under the filter with this sequence or a later one.
    FirstUnderFilter(StreamSeq),
    /// The last message under the filter.
    LastUnderFilter,
}

/// Messages under the filter with these sequences, both included. A message under the filter ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// The first.
    pub from: StreamSeq,
    /// The last.
    pub through: StreamSeq,
}

/// What the stream answered so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Messages; absent when there is none.
    pub found: BTreeMap<Find, Option<Message>>,
    /// Numbers of messages.
    pub counts: BTreeMap<Range, u64>,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Not yet: one message is to be found.
    Find(Find),
    /// Not yet: messages are to be counted.
    Count(Range),
    /// The request cannot work as it is.
    Rejected(Rejection),
}

impl From<Rejection> for Stop {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl Answers {
    pub(super) fn find(&self, find: Find) -> Result<Option<Message>, Stop> {
        self.found.get(&find).copied().ok_or(Stop::Find(find))
    }

    pub(super) fn count(&self, from: StreamSeq, through: StreamSeq) -> Result<u64, Stop> {
        if from > through {
            return Ok(0);
        }
        let range = Range { from, through };
        self.counts.get(&range).copied().ok_or(Stop::Count(range))
    }
}
