//! Letting a dead letter go.

use lookback_protocol::audit::DeadLetterAct;
use lookback_protocol::deadletter::{DISCARDED, PARKED, REDRIVING};
use serde_json::Value;

use super::super::letter::Letter;
use super::redrive::after;
use super::step::{Look, asked};
use super::{DeadLetterStore, LetterAsk, LetterError};
use crate::nats::api::Code;

impl DeadLetterStore {
    /// Lets one dead letter go: its event will not be applied. One that is being redriven can be let go
    /// unless its event is in the source stream already.
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
            reason: ask.reason.clone(),
            redriven: None,
        };
        self.record(act, DISCARDED, ask.by.clone(), ask.time, Value::Null)
            .await
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
