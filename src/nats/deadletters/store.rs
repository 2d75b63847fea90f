//! What becomes of dead letters, for people: looking at them, sending their events to the source stream
//! once more, or letting them go.
//!
//! What it guarantees is what [`super::super::entries`] does, and:
//! - An event is sent once for each redrive: who takes the letter out of `parked` sends it, and one that
//!   was sent by somebody who died before saying so is found in the source stream, not sent again. Each
//!   carries a message id of its own, so that of two who send at once the server stores one; and nobody
//!   sends who has not looked for the event within half the time for which the stream remembers message
//!   ids, or within a second where that is shorter. Only an event that was on its way for longer than that, because its sender lost the server and
//!   found it again, while another went on in their place, would be there twice.
//! - No header of the original that the server would obey is sent; the rest, and every byte of the
//!   payload, is as it was.
//! - A letter is `redriven` only once its event is in the source stream and the audit says so.

mod discard;
mod list;
mod moment;
mod redrive;
mod step;

use std::collections::BTreeMap;

use jiff::Timestamp;
use lookback_protocol::deadletter::Reason;
use lookback_protocol::deadletter::resend::ResendError;
use lookback_protocol::names::{Owner, PipelineKey};

use super::StoredDeadLetter;
use super::letter::{self, Letter};
use crate::nats::api::ApiError;
use crate::nats::audit::AuditError;
use crate::nats::connect::Nats;
use crate::nats::entries::{Entries, ReadError};

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
    /// Whose error holds this text, in whatever case: the id or title of a rule, say. What an engine
    /// says when it panics is all that is known of the rule.
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
    /// Somebody else is at it, and it is not known yet what becomes of it.
    #[error("another write of dead letter {id} is still in process: look at it, then try again")]
    Busy {
        /// The dead letter.
        id: String,
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
    /// It would not be the same event; the dead letter stays where it is.
    #[error(
        "the event of dead letter {id} cannot be sent again as it was: publish it by hand, or discard it"
    )]
    NotResendable {
        /// The dead letter.
        id: String,
        /// Why.
        #[source]
        source: ResendError,
    },
    /// The source stream could not be asked; the dead letter stays where it is.
    #[error("cannot read source stream {stream} of dead letter {id}")]
    Source {
        /// The dead letter.
        id: String,
        /// The source stream.
        stream: String,
        /// Why.
        #[source]
        source: ApiError,
    },
    /// Its mover died, and what could tell whether they had sent the event is gone.
    #[error(
        "whether the event of dead letter {id} was sent cannot be told any more, because stream {stream} does not hold everything after {after}: discard the dead letter, and publish the event by hand if it is missing"
    )]
    Unproven {
        /// The dead letter.
        id: String,
        /// The source stream.
        stream: String,
        /// The last sequence before the event was to be sent.
        after: u64,
    },
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
    /// Its event was sent by somebody who died before saying so, so it cannot be taken back.
    #[error(
        "the event of dead letter {id} was sent already, as {sequence}: redrive it once more to have that said"
    )]
    Sent {
        /// The dead letter.
        id: String,
        /// Where the event stands in the source stream.
        sequence: u64,
    },
    /// Its event was sent, and the letter does not say so.
    #[error(
        "the event of dead letter {id} was sent and stands at sequence {sequence}, but the letter is still redriving: redrive it again, the event is not sent twice"
    )]
    Unfinished {
        /// The dead letter.
        id: String,
        /// Where the event stands in the source stream now.
        sequence: u64,
        /// Why the letter was not moved.
        #[source]
        source: Box<Self>,
    },
    /// The event was sent, but somebody else moved the dead letter meanwhile.
    #[error(
        "the event of dead letter {id} was sent, as {sequence}, but {by} has moved the dead letter to {state}"
    )]
    Overtaken {
        /// The dead letter.
        id: String,
        /// Where the event stands in the source stream.
        sequence: u64,
        /// Who moved it.
        by: String,
        /// Where it is now.
        state: String,
    },
    /// The dead-letter stream has no room for the move.
    #[error(
        "cannot move dead letter {id} to {state}: its stream is full, raise spec.deadLetters.maxBytes"
    )]
    Full {
        /// The dead letter.
        id: String,
        /// Where to.
        state: &'static str,
    },
    /// The dead-letter stream refused the move, or does not answer.
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
        /// Where it is now; one that is `redriving` is sent and can be redriven again to have it said.
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
    entries: Entries,
}

impl DeadLetterStore {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new(nats: Nats, owner: Owner) -> Self {
        let key = &owner.pipeline;
        let (stream, prefix) = (key.dead_letters_stream(), key.dead_letter_prefix());
        Self {
            entries: Entries::new(nats.clone(), stream, prefix, "dead letter").in_parts(),
            nats,
            owner,
        }
    }

    /// The dead letter whose id is or begins with `id`, whole, from the leader.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn get(&self, id: &str) -> Result<StoredDeadLetter, ReadError> {
        Ok(self.letter(id).await?.stored)
    }

    async fn letter(&self, id: &str) -> Result<Letter, ReadError> {
        if let Some(letter) = letter::read(&self.nats, self.key(), id).await? {
            return Ok(letter);
        }
        let id = self.entries.resolve(id).await?;
        self.reread(&id).await
    }

    fn key(&self) -> &PipelineKey {
        &self.owner.pipeline
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
