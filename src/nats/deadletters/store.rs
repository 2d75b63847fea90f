//! What becomes of dead letters, for people: looking at them, sending their events to the source stream
//! once more, or letting them go.
//!
//! What it guarantees is what [`super::super::entries`] does, and:
//! - An event is sent once for each redrive: who takes the letter out of `parked` sends it, and one that
//!   was sent by somebody who died before saying so is found in the source stream, not sent again.
//! - No header of the original that the server would obey is sent; the rest, and every byte of the
//!   payload, is as it was.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lookback_protocol::deadletter::Reason;
use lookback_protocol::names::Owner;

use super::StoredDeadLetter;
use crate::nats::api::ApiError;
use crate::nats::audit::AuditError;
use crate::nats::connect::Nats;
use crate::nats::entries::{Cursor, Page, ReadError};

/// A dead letter without its event.
#[derive(Clone, Debug, PartialEq)]
pub struct LetterHead {
    /// Its id.
    pub id: String,
    /// Its state, from the subject.
    pub state: String,
    /// The sequence of its first part.
    pub sequence: u64,
    /// When this version was stored.
    pub stored: Timestamp,
    /// Why it was parked.
    pub reason: Reason,
    /// The error in words.
    pub error: String,
    /// The source stream.
    pub stream: String,
    /// The event's sequence there.
    pub event: u64,
    /// When the event was stored there.
    pub published: Timestamp,
    /// The event's subject.
    pub subject: String,
    /// How often its event was sent again already, in this and in earlier letters.
    pub redrives: u32,
    /// Who wrote this version, when it was a person.
    pub by: Option<String>,
    /// Why, in their words.
    pub note: Option<String>,
}

/// Which dead letters. All that is given must fit.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Selector {
    /// Parked for one of these; empty for any.
    pub reasons: Vec<Reason>,
    /// Whose error names this rule, by id or title.
    pub rule: Option<String>,
    /// Whose event was stored in the source stream at this time or later.
    pub since: Option<Timestamp>,
    /// Whose event was stored before this time.
    pub until: Option<Timestamp>,
}

/// What somebody asks of a dead letter.
#[derive(Clone, Debug, PartialEq)]
pub struct LetterAsk {
    /// Who asks: `user/<name>` for people.
    pub by: String,
    /// Why; may be empty for a redrive.
    pub reason: String,
    /// The id of this operation, a UUIDv7.
    pub op_id: String,
    /// The asker's clock.
    pub time: Timestamp,
    /// Refuse an event that was sent again this often already: its worker parks it each time.
    pub max_redrives: u32,
}

/// What a redrive did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redriven {
    /// The dead letter.
    pub id: String,
    /// Where the event stands in the source stream now.
    pub sequence: u64,
}

/// Why nothing was done, or not all.
#[derive(Debug, thiserror::Error)]
pub enum LetterError {
    /// The dead letter could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is not in a state from which this can be done.
    #[error("dead letter {id} is {state}: it cannot be {verb}")]
    WrongState {
        /// The dead letter.
        id: String,
        /// Its state.
        state: String,
        /// `redriven` or `discarded`.
        verb: &'static str,
    },
    /// Somebody else was faster.
    #[error("dead letter {id} is left as it is: {by} has moved it to {state}")]
    Conflict {
        /// The dead letter.
        id: String,
        /// Who won.
        by: String,
        /// Where it is now.
        state: String,
    },
    /// It goes round in circles.
    #[error(
        "the event of dead letter {id} was redriven {redrives} times already and parked each time: mend the cause, then allow more with --max-redrives"
    )]
    Loop {
        /// The dead letter.
        id: String,
        /// How often.
        redrives: u32,
    },
    /// A reason is needed.
    #[error("give a reason: a discarded event is not applied ever")]
    NoReason,
    /// The event could not be sent; the dead letter stays `redriving` and can be redriven again.
    #[error("cannot send the event of dead letter {id} to {subject}")]
    Send {
        /// The dead letter.
        id: String,
        /// Where to.
        subject: String,
        /// Why.
        #[source]
        source: ApiError,
    },
    /// The dead-letter stream has no room, or does not answer.
    #[error("cannot move dead letter {id} to {state}")]
    Write {
        /// The dead letter.
        id: String,
        /// Where to.
        state: &'static str,
        /// Why.
        #[source]
        source: ApiError,
    },
    /// It was done, but is not in the audit.
    #[error("dead letter {id} is {state}, but the audit does not say so")]
    Audit {
        /// The dead letter.
        id: String,
        /// Where it is now.
        state: &'static str,
        /// Why.
        #[source]
        source: AuditError,
    },
}

/// The dead letters of one pipeline.
#[derive(Clone, Debug)]
pub struct DeadLetterStore {
    nats: Nats,
    owner: Owner,
}

impl DeadLetterStore {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new(nats: Nats, owner: Owner) -> Self {
        Self { nats, owner }
    }

    /// The dead letter whose id is or begins with `id`, whole.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn get(&self, id: &str) -> Result<StoredDeadLetter, ReadError> {
        todo!("dlq: {:?} {} {id}", self.nats, self.owner)
    }

    /// Dead letters in `state`, or in any, that `selector` picks.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn list(
        &self,
        state: Option<&str>,
        selector: &Selector,
        from: Cursor,
        limit: usize,
    ) -> Result<Page<LetterHead>, ReadError> {
        todo!("dlq: {state:?} {selector:?} {from:?} {limit}")
    }

    /// How many dead letters there are in each state.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn counts(&self) -> Result<BTreeMap<String, u64>, ReadError> {
        todo!("dlq")
    }

    /// Sends the event of one dead letter to its subject once more.
    ///
    /// # Errors
    /// [`LetterError`] says what was done.
    pub async fn redrive(&self, id: &str, ask: &LetterAsk) -> Result<Redriven, LetterError> {
        todo!("dlq: {id} {ask:?}")
    }

    /// Lets one dead letter go: its event will not be applied.
    ///
    /// # Errors
    /// [`LetterError`].
    pub async fn discard(&self, id: &str, ask: &LetterAsk) -> Result<(), LetterError> {
        todo!("dlq: {id} {ask:?}")
    }
}

/// What a selector picks, counted by reason, then by hour of the event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// By reason.
    pub reasons: BTreeMap<Reason, u64>,
    /// By the hour in which the event was stored in the source stream.
    pub hours: BTreeMap<Timestamp, u64>,
}

impl Histogram {
    /// Counts one more.
    pub fn add(&mut self, letter: &LetterHead) {
        todo!("dlq: {letter:?}")
    }
}
