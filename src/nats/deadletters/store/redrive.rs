//! Sending the event of a dead letter once more.
//!
//! In four steps, each of which leaves what the next one needs in the letter or the source stream, so
//! that anybody can go on where somebody died: the letter is taken out of `parked`, and says the last
//! sequence of the source stream before; the event is sent; the audit says so; the letter is `redriven`.

use std::time::Duration;

use lookback_protocol::audit::DeadLetterAct;
use lookback_protocol::deadletter::resend::next;
use lookback_protocol::deadletter::{OP_ID, PARKED, REDRIVE_AFTER, REDRIVEN, REDRIVES, REDRIVING};
use serde_json::{Value, json};

use super::super::letter::{Letter, malformed, resent};
use super::moment::Moment;
use super::step::{Look, asked, conflict, mover};
use super::{DeadLetterStore, LetterAsk, LetterError, Redriven};
use crate::nats::api::ApiError;
use crate::nats::streams;

/// How long is trusted at least what was seen of a source stream, so that a slow way to it is not
/// waited for without end. Few streams remember message ids for less than twice this.
const TRUSTED: Duration = Duration::from_secs(1);

/// That an event was not in its source stream.
#[derive(Clone, Copy)]
struct Unsent {
    at: Moment,
    /// How long the stream remembers message ids.
    window: Duration,
}

impl Unsent {
    /// Whether the event may be sent for all that: what another has sent since, the stream remembers.
    fn still_holds(self) -> bool {
        self.at.elapsed() < (self.window / 2).max(TRUSTED)
    }
}

impl DeadLetterStore {
    /// Sends the event of one dead letter to its subject once more. One that somebody began to redrive
    /// is gone on with, as theirs.
    ///
    /// # Errors
    /// [`LetterError`] says what was done.
    pub async fn redrive(&self, id: &str, ask: &LetterAsk) -> Result<Redriven, LetterError> {
        let mut letter = self.letter(id).await?;
        let mut unsent = None;
        if letter.stored.state == PARKED {
            let (taken, seen) = self.take(&letter, ask).await?;
            (letter, unsent) = (taken, Some(seen));
        }
        let ours = letter.op_id.as_deref() == Some(&ask.op_id);
        let sequence = match letter.stored.state.as_str() {
            REDRIVING => self.find_or_send(&letter, unsent).await?,
            // The answer to an earlier step was lost, and somebody else has done the rest.
            REDRIVEN if ours => return self.find(letter).await,
            state => {
                return Err(LetterError::WrongState {
                    id: letter.stored.id.clone(),
                    state: state.to_owned(),
                    verb: REDRIVEN,
                });
            }
        };
        self.say(&letter, sequence, ask).await?;
        self.finish(&letter, sequence).await?;
        Ok(Redriven {
            id: letter.stored.id,
            sequence,
        })
    }

    /// Takes a letter that is parked; of several who try one gets it, and knows that its event was not
    /// sent before.
    async fn take(
        &self,
        letter: &Letter,
        ask: &LetterAsk,
    ) -> Result<(Letter, Unsent), LetterError> {
        let stored = &letter.stored;
        let id = || stored.id.clone();
        resent(stored).map_err(|source| LetterError::NotResendable { id: id(), source })?;
        let number = next(stored.redrives, ask.max_redrives).ok_or_else(|| LetterError::Loop {
            id: id(),
            redrives: stored.redrives,
        })?;
        let source = streams::info(&self.nats, &stored.event.stream)
            .await
            .map_err(|source| self.source_failed(letter, source))?;
        let mut described = asked(&letter.described, ask);
        described.insert(REDRIVES, number.to_string().as_str());
        described.insert(REDRIVE_AFTER, source.state.last_seq.to_string().as_str());
        let unsent = Unsent {
            at: Moment::now(),
            window: source.duplicate_window(),
        };
        let taken = self.step(letter, REDRIVING, &described, &ask.op_id).await?;
        Ok((taken, unsent))
    }

    /// Where the event of a letter that is redriven stands.
    async fn find(&self, letter: Letter) -> Result<Redriven, LetterError> {
        let after = after(&letter)?;
        let look = self.look(&letter, after).await;
        match look.map_err(|source| self.source_failed(&letter, source))? {
            Look::Sent(sequence) => Ok(Redriven {
                id: letter.stored.id,
                sequence,
            }),
            Look::NotSent { .. } | Look::Unproven => Err(unproven(&letter, after)),
        }
    }

    /// Sends the event unless it is in the source stream. It is looked for until that is known which was
    /// known a moment ago: who was held up since may have been taken for dead, and another has sent it.
    /// Each look begins where the one before ended.
    async fn find_or_send(
        &self,
        letter: &Letter,
        mut unsent: Option<Unsent>,
    ) -> Result<u64, LetterError> {
        let mut after = after(letter)?;
        loop {
            if unsent.is_some_and(Unsent::still_holds) {
                return self.send(letter).await;
            }
            let at = Moment::now();
            let look = self.look(letter, after).await;
            match look.map_err(|source| self.source_failed(letter, source))? {
                Look::Sent(sequence) => return Ok(sequence),
                Look::Unproven => return Err(unproven(letter, after)),
                Look::NotSent { through, window } => {
                    after = through;
                    unsent = Some(Unsent { at, window });
                }
            }
            let now = self.reread(&letter.stored.id).await?;
            if now.stored.sequence == letter.stored.sequence {
                continue;
            }
            if now.op_id != letter.op_id {
                return Err(conflict(&now));
            }
            // Somebody else has done the rest for us, so the event stands behind where the look ended.
            unsent = None;
        }
    }

    /// Sends the event; where it stands then. The server knows the message id of one that was sent a
    /// moment ago by somebody else, and names that one.
    async fn send(&self, letter: &Letter) -> Result<u64, LetterError> {
        let stored = &letter.stored;
        let event = &stored.event;
        let headers = resent(stored).map_err(|source| LetterError::NotResendable {
            id: stored.id.clone(),
            source,
        })?;
        let sent = self
            .nats
            .publish_into(
                &event.stream,
                event.subject.clone(),
                headers,
                event.payload.clone(),
            )
            .await;
        match sent {
            Ok(sequence) | Err(ApiError::Swallowed(sequence)) => Ok(sequence),
            Err(source) => Err(LetterError::Send {
                id: stored.id.clone(),
                subject: event.subject.clone(),
                source,
            }),
        }
    }

    /// Records the redrive as the act of who took the letter, so that it is the same record whoever goes
    /// on with it.
    async fn say(
        &self,
        letter: &Letter,
        sequence: u64,
        ask: &LetterAsk,
    ) -> Result<(), LetterError> {
        let stored = &letter.stored;
        let op_id = letter.op_id.clone();
        let op_id = op_id.ok_or_else(|| malformed(&stored.id, OP_ID))?;
        let by = mover(letter);
        let details = match by == ask.by {
            true => Value::Null,
            false => json!({ "finishedBy": ask.by }),
        };
        let act = DeadLetterAct {
            letter: stored.id.clone(),
            op_id,
            from: PARKED.to_owned(),
            to: REDRIVEN.to_owned(),
            reason: stored.note.clone().unwrap_or_default(),
            redriven: Some(sequence),
        };
        self.record(act, REDRIVING, by, ask.time, details).await
    }

    /// Says of the letter itself that it is redriven, unless somebody else has.
    async fn finish(&self, letter: &Letter, sequence: u64) -> Result<(), LetterError> {
        let op_id = letter.op_id.as_deref().unwrap_or_default();
        let done = self.step(letter, REDRIVEN, &letter.described, op_id).await;
        match done {
            Ok(_) => Ok(()),
            Err(LetterError::Conflict { id, by, state }) => Err(LetterError::Overtaken {
                id,
                sequence,
                by,
                state,
            }),
            Err(error) => Err(LetterError::Unfinished {
                id: letter.stored.id.clone(),
                sequence,
                source: Box::new(error),
            }),
        }
    }

    pub(super) fn source_failed(&self, letter: &Letter, source: ApiError) -> LetterError {
        LetterError::Source {
            id: letter.stored.id.clone(),
            stream: letter.stored.event.stream.clone(),
            source,
        }
    }
}

fn unproven(letter: &Letter, after: u64) -> LetterError {
    LetterError::Unproven {
        id: letter.stored.id.clone(),
        stream: letter.stored.event.stream.clone(),
        after,
    }
}

/// The last sequence of the source stream before the letter was taken.
pub(super) fn after(letter: &Letter) -> Result<u64, LetterError> {
    let after = letter.after;
    Ok(after.ok_or_else(|| malformed(&letter.stored.id, REDRIVE_AFTER))?)
}
