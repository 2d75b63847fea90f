//! Why a request cannot work as it is, and what to change.

use jiff::Timestamp;

use super::Bounds;
use crate::position::{StreamIdentity, StreamSeq};
use crate::replay::request::{ReplayStart, StatePolicy};

/// Why a request cannot work as it is. It is not remembered: a corrected block may run under the same
/// id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The start is more than one beyond the last message.
    #[error(
        "fromSequence {asked} is beyond the end of the stream, whose last message is {last}: set it to \
         {} at most, or use latest: true",
        last.next()
    )]
    BeyondEnd {
        /// The sequence asked for.
        asked: StreamSeq,
        /// The last of the stream.
        last: StreamSeq,
    },
    /// The start is a time that has not come.
    #[error(
        "fromTime {asked} is later than now, {now}: set a time that has passed, or use latest: true"
    )]
    InFuture {
        /// The time asked for.
        asked: Timestamp,
        /// When it was planned.
        now: Timestamp,
    },
    /// The start has left the stream.
    #[error(
        "{asked} has left the stream, which now begins at {first}: set a later start, or onTruncated: \
         Clamp to begin there"
    )]
    Truncated {
        /// The start asked for, with the name of its field.
        asked: String,
        /// Where the stream begins, for people.
        first: String,
    },
    /// The windows were made from another stream.
    #[error(
        "the windows were made from stream {} created {}, and the source is stream {} created {}: \
         statePolicy {policy:?} cannot go on with them, use Clear or Rebuild",
        made_from.name, made_from.created, now.name, now.created
    )]
    StreamChanged {
        /// Where they come from.
        made_from: StreamIdentity,
        /// The source as it is now.
        now: StreamIdentity,
        /// The policy asked for.
        policy: StatePolicy,
    },
    /// The position is beyond the end of the stream.
    #[error(
        "the windows have counted messages through {position}, and the last message of the stream is \
         {last}: statePolicy {policy:?} cannot go on with them, use Clear or Rebuild"
    )]
    StreamRegressed {
        /// What the state has applied.
        position: StreamSeq,
        /// The last of the stream.
        last: StreamSeq,
        /// The policy asked for.
        policy: StatePolicy,
    },
    /// The stream lost messages and gave their sequences to others.
    #[error(
        "message {position} was stored at {found} and is not the one that the windows have counted: the \
         stream lost messages and used their sequences again, statePolicy {policy:?} cannot go on with \
         them, use Clear or Rebuild"
    )]
    SequenceReused {
        /// What the state has applied.
        position: StreamSeq,
        /// When the message that now stands there was stored.
        found: Timestamp,
        /// The policy asked for.
        policy: StatePolicy,
    },
    /// The same events would not give the same windows.
    #[error(
        "statePolicy Rebuild makes windows again from the same events, and with timestampFallback \
         WallClock they would be others: use another statePolicy, or timestampFallback Published"
    )]
    NotDeterministic,
    /// What a person approved, or what was written down, is no longer what would be done.
    #[error("plan {hash} no longer holds: {because}; give the request a new id to plan it again")]
    Outdated {
        /// The plan's hash.
        hash: String,
        /// What has changed.
        because: String,
    },
}

impl Rejection {
    pub(super) fn truncated(asked: ReplayStart, stream: &Bounds) -> Self {
        let asked = match asked {
            ReplayStart::FromSequence(sequence) => format!("fromSequence {sequence}"),
            ReplayStart::FromTime(time) => format!("fromTime {time}"),
            ReplayStart::Latest(_) => "latest".to_owned(),
        };
        let first = match stream.first_time {
            Some(time) => format!("message {}, stored at {time}", stream.first()),
            None => format!("message {}, which is still to come", stream.first()),
        };
        Self::Truncated { asked, first }
    }

    /// A closed set, for conditions, Events and metrics.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::BeyondEnd { .. } => "StartBeyondEnd",
            Self::InFuture { .. } => "StartInFuture",
            Self::Truncated { .. } => "StartTruncated",
            Self::StreamChanged { .. } => "StreamChanged",
            Self::StreamRegressed { .. } | Self::SequenceReused { .. } => "StreamRegressed",
            Self::NotDeterministic => "NotDeterministic",
            Self::Outdated { .. } => "PlanOutdated",
        }
    }
}
