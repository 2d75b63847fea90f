//! One step of a dead letter from a state to another, its record in the audit, and what the source
//! stream knows of its event.

use std::ops::Range;
use std::time::Duration;

use async_nats::HeaderMap;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use lookback_protocol::audit::{self, Act, AuditRecord, DeadLetterAct};
use lookback_protocol::deadletter::resend::{MESSAGE_ID, message_id};
use lookback_protocol::deadletter::{BY, NOTE, OP_ID};
use serde_json::Value;

use super::super::letter::{self, Letter};
use super::super::parts::{cut_up, one_line};
use super::{DeadLetterStore, LetterAsk, LetterError};
use crate::nats::api::ApiError;
use crate::nats::audit as audit_stream;
use crate::nats::entries::{Move, ReadError, Written};
use crate::nats::streams;

/// On replicated streams a move is refused while another write of the letter is in process; the letter
/// then still is what was read, and the move is tried again. So often at most.
const TRIES: usize = 16;
/// Parts of a source stream that are looked through at once.
const LOOKS: u64 = 32;
/// Sequences that such a part has at least.
const SHARE: u64 = 64;

/// What the source stream says of the event of a letter that is being redriven.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// It stands there, at this sequence.
    Sent(u64),
    /// It was not sent when the stream ended at `through`.
    NotSent {
        through: u64,
        /// How long the stream remembers message ids.
        window: Duration,
    },
    /// What was stored since the letter was taken is not all there any more.
    Unproven,
}

impl DeadLetterStore {
    /// Moves `letter` to `to`, described by `described`, and reads it back. Done is what the leader holds:
    /// a letter that was moved by the operation `op_id`, perhaps by an earlier try whose answer was lost.
    /// Somebody else may have gone on with it since, under the same operation; so it may be beyond `to`.
    pub(super) async fn step(
        &self,
        letter: &Letter,
        to: &'static str,
        described: &HeaderMap,
        op_id: &str,
    ) -> Result<Letter, LetterError> {
        let id = &letter.stored.id;
        let failed = |source| LetterError::Write {
            id: id.clone(),
            state: to,
            source,
        };
        let event = &letter.stored.event;
        for _ in 0..TRIES {
            let parts = cut_up(
                described.clone(),
                &event.headers,
                &event.payload,
                self.nats.max_payload(),
            );
            let step = Move {
                id,
                from: &letter.stored.state,
                to,
                expected: &letter.sequences,
                parts,
            };
            let unanswered = match self.entries.write_move(step).await {
                Written::At(_) | Written::Conflict => None,
                Written::Unknown(error) => Some(error),
                Written::Refused(error) => return Err(failed(error)),
                Written::Full => {
                    return Err(LetterError::Full {
                        id: id.clone(),
                        state: to,
                    });
                }
            };
            let now = self.reread(id).await?;
            if now.stored.sequence != letter.stored.sequence {
                return match now.op_id.as_deref() == Some(op_id) {
                    true => Ok(now),
                    false => Err(conflict(&now)),
                };
            }
            if let Some(error) = unanswered {
                return Err(failed(error));
            }
        }
        Err(LetterError::Busy { id: id.clone() })
    }

    /// Records what was done to a letter that is `state` now.
    pub(super) async fn record(
        &self,
        act: DeadLetterAct,
        state: &'static str,
        by: String,
        time: Timestamp,
        details: Value,
    ) -> Result<(), LetterError> {
        let id = act.letter.clone();
        let record = AuditRecord {
            v: audit::VERSION,
            act: Act::DeadLetter(act),
            owner: self.owner.clone(),
            by,
            time,
            details,
        };
        audit_stream::record(&self.nats, &record)
            .await
            .map_err(|source| LetterError::Audit { id, state, source })
    }

    pub(super) async fn reread(&self, id: &str) -> Result<Letter, ReadError> {
        let found = letter::read(&self.nats, self.key(), id).await?;
        found.ok_or_else(|| ReadError::NotFound {
            noun: "dead letter",
            id: id.to_owned(),
        })
    }

    /// Looks for the event of a letter that is being redriven among what was stored behind `after`. The
    /// source stream's leader is asked for each message of the event's subject.
    pub(super) async fn look(&self, letter: &Letter, after: u64) -> Result<Look, ApiError> {
        let event = &letter.stored.event;
        let stream = &event.stream;
        let observed = streams::info(&self.nats, stream).await?;
        let facts = observed.facts(stream);
        // Made anew, or an older copy of itself.
        if observed.created > letter.stored.stored || facts.last.0 < after {
            return Ok(Look::Unproven);
        }
        let id = message_id(&letter.stored.id, letter.stored.redrives);
        // A stream may store a message under another subject than it was sent to.
        let subject = match observed.transforms() {
            true => ">",
            false => event.subject.as_str(),
        };
        let through = facts.last.0;
        let share = (through - after).div_ceil(LOOKS).max(SHARE);
        // Not `map` of the stream: then the compiler cannot tell that this may move between threads.
        let looks: Vec<_> = (0..LOOKS)
            .map(|at| after.saturating_add(at * share))
            .take_while(|&begin| begin < through)
            .map(|begin| self.look_at(stream, subject, begin..through.min(begin + share), &id))
            .collect();
        let mut looks = stream::iter(looks).buffer_unordered(LOOKS as usize);
        let mut passed = 0;
        while let Some(seen) = looks.next().await {
            match seen? {
                Seen::Event(sequence) => return Ok(Look::Sent(sequence)),
                Seen::Others(others) => passed += others,
            }
        }
        let dropped = observed
            .max_messages_per_subject()
            .is_some_and(|max| passed >= max);
        if facts.first.0 > after + 1 || dropped {
            return Ok(Look::Unproven);
        }
        Ok(Look::NotSent {
            through,
            window: observed.duplicate_window(),
        })
    }

    /// Looks at each message of `subject` behind the start of `range`, up to its end.
    async fn look_at(
        &self,
        stream: &str,
        subject: &str,
        range: Range<u64>,
        message_id: &str,
    ) -> Result<Seen, ApiError> {
        let mut others = 0;
        let mut from = range.start + 1;
        while from <= range.end {
            let found = self.nats.next_of_subject(stream, from, subject).await?;
            let Some(message) = found.filter(|found| found.sequence <= range.end) else {
                break;
            };
            if message.header(MESSAGE_ID) == Some(message_id) {
                return Ok(Seen::Event(message.sequence));
            }
            others += 1;
            from = message.sequence + 1;
        }
        Ok(Seen::Others(others))
    }
}

/// What stands in a part of the source stream.
enum Seen {
    Event(u64),
    /// So many others of its subject.
    Others(u64),
}

/// `described`, with who asks and why instead of who asked before.
pub(super) fn asked(described: &HeaderMap, ask: &LetterAsk) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, values) in described.iter() {
        if [BY, NOTE, OP_ID].contains(&name.as_ref()) {
            continue;
        }
        for value in values {
            headers.append(name.clone(), value.clone());
        }
    }
    headers.insert(BY, one_line(&ask.by).as_str());
    headers.insert(OP_ID, one_line(&ask.op_id).as_str());
    if !ask.reason.is_empty() {
        headers.insert(NOTE, one_line(&ask.reason).as_str());
    }
    headers
}

/// Where somebody else has moved the letter.
pub(super) fn conflict(now: &Letter) -> LetterError {
    LetterError::Conflict {
        id: now.stored.id.clone(),
        by: mover(now),
        state: now.stored.state.clone(),
    }
}

pub(super) fn mover(now: &Letter) -> String {
    let by = now.stored.by.clone();
    by.unwrap_or_else(|| "somebody".to_owned())
}
