//! Letting a dead letter go.

use lookback_protocol::audit::{self, Act, AuditRecord, DeadLetterAct};
use lookback_protocol::deadletter::{DISCARDED, OP_ID, PARKED, REDRIVING};
use serde_json::{Value, json};

use super::super::letter::{Letter, malformed};
use super::redrive::after;
use super::step::{Look, asked, mover};
use super::{DeadLetterStore, LetterAsk, LetterError};
use crate::nats::api::Code;
use crate::nats::audit as audit_stream;

impl DeadLetterStore {
    /// Lets one dead letter go: its event will not be applied. One that is being redriven can be let go
    /// unless its event is in the source stream already. One that is discarded is refused, and is in the
    /// audit afterwards.
    ///
    /// # Errors
    /// [`LetterError`].
    pub async fn discard(&self, id: &str, ask: &LetterAsk) -> Result<(), LetterError> {
        if ask.reason.trim().is_empty() {
            return Err(LetterError::NoReason);
        }
        let letter = self.letter(id).await?;
        match letter.stored.state.as_str() {
            PARKED => {}
            REDRIVING => self.ensure_not_sent(&letter).await?,
            state => {
                if state == DISCARDED {
                    self.say_again(&letter, ask).await?;
                }
                return Err(LetterError::WrongState {
                    id: letter.stored.id.clone(),
                    state: state.to_owned(),
                    verb: DISCARDED,
                });
            }
        }
        let described = asked(&letter.described, ask);
        let gone = self
            .step(&letter, DISCARDED, &described, &ask.op_id)
            .await?;
        let act = DeadLetterAct {
            letter: gone.stored.id,
            op_id: ask.op_id.clone(),
            from: letter.stored.state,
            to: DISCARDED.to_owned(),
            // As the letter has it: whoever records it in our place knows no more.
            reason: gone.stored.note.unwrap_or_default(),
            redriven: None,
        };
        self.record(act, DISCARDED, ask.by.clone(), ask.time, Value::Null)
            .await
    }

    /// Puts into the audit who discarded the letter, unless it is there: they may have died before.
    async fn say_again(&self, letter: &Letter, ask: &LetterAsk) -> Result<(), LetterError> {
        let stored = &letter.stored;
        let op_id = letter.op_id.clone();
        let act = DeadLetterAct {
            letter: stored.id.clone(),
            op_id: op_id.ok_or_else(|| malformed(&stored.id, OP_ID))?,
            from: match letter.after {
                Some(_) => REDRIVING.to_owned(),
                None => PARKED.to_owned(),
            },
            to: DISCARDED.to_owned(),
            reason: stored.note.clone().unwrap_or_default(),
            redriven: None,
        };
        let record = AuditRecord {
            v: audit::VERSION,
            act: Act::DeadLetter(act),
            owner: self.owner.clone(),
            by: mover(letter),
            time: stored.stored,
            details: json!({ "finishedBy": ask.by }),
        };
        let said = audit_stream::claim(&self.nats, &record).await;
        said.map(drop).map_err(|source| LetterError::Audit {
            id: stored.id.clone(),
            state: DISCARDED,
            source,
        })
    }

    /// What cannot be found because its stream is gone or has dropped it does not keep the letter.
    async fn ensure_not_sent(&self, letter: &Letter) -> Result<(), LetterError> {
        match self.look(letter, after(letter)?).await {
            Ok(Look::NotSent { .. } | Look::Unproven) => Ok(()),
            Ok(Look::Sent(sequence)) => Err(LetterError::Sent {
                id: letter.stored.id.clone(),
                sequence,
            }),
            Err(error) if error.code() == Some(Code::STREAM_NOT_FOUND) => Ok(()),
            Err(error) => Err(self.source_failed(letter, error)),
        }
    }
}
