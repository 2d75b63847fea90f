//! One step of an alert: read, decide, keep what the record has no more room for, write, record.

mod audit;
mod error;

use bytes::Bytes;
use lookback_protocol::alert::{ARCHIVED, BY, HistoryEntry, OP_ID, PREV_SEQ};
use lookback_protocol::workflow::{Ask, Refusal, Step, sequences};

pub use self::error::StepError;
use super::store::{AlertStore, StoredAlert, Version};
use crate::nats::api::header_text;
use crate::nats::entries::{Move, NewPart, ReadError, Written};

/// How often a step is tried while others write the alert too. On replicated streams a try may only
/// say that another write is in process, several times until that is done.
const TRIES: usize = 64;

/// What a step did.
#[derive(Clone, Debug, PartialEq)]
pub struct Stepped {
    /// The alert as it stands now; others may have gone on from there when the answer to an earlier try
    /// was lost.
    pub alert: StoredAlert,
    /// The sequence of the version that the step made; that of `alert` unless others went on.
    pub sequence: u64,
    /// The state before.
    pub from: String,
    /// The transition.
    pub transition: String,
}

impl AlertStore {
    /// Takes a step: a move, an update of metadata, or into the archive. `expected` is the sequence of
    /// the version that the asker saw; with `None` the step is tried on whatever stands now, again each
    /// time somebody else only changed metadata. Asked again with the same `op_id`, a step that was
    /// taken counts as taken, and is in the audit afterwards.
    ///
    /// # Errors
    /// [`StepError`] says whether anything was done.
    pub async fn step(
        &self,
        id: &str,
        expected: Option<u64>,
        ask: &Ask,
    ) -> Result<Stepped, StepError> {
        let (workflow, mut found) = futures::try_join!(self.workflow(), self.version(id))?;
        let began = found.alert.state.clone();
        let mut tried = expected;
        let mut written_over = None;
        for _ in 0..TRIES {
            if let Some(own) = self.own_step(&found, tried, ask).await? {
                if let Some(before) = &written_over {
                    self.audit_last(before).await;
                }
                return self.taken_before(found, own, ask).await;
            }
            let overtaken = match expected {
                Some(expected) => found.alert.sequence != expected,
                None => found.alert.state != began,
            };
            if overtaken {
                return Err(overtaken_by(found));
            }
            let refused = |source| StepError::Refused {
                id: id.to_owned(),
                source,
            };
            let step = match &found.alert.record {
                Some(current) => workflow.step(current, found.alert.sequence, ask),
                None => Err(Refusal::Archived { id: id.to_owned() }),
            };
            let step = match step {
                Ok(step) => step,
                Err(refusal) => {
                    self.audit_last(&found).await;
                    return Err(refused(refusal));
                }
            };
            self.keep_past(&step, ask)
                .await
                .map_err(|source| StepError::AuditBefore {
                    id: id.to_owned(),
                    source,
                })?;
            let unknown = |source| StepError::Unknown {
                id: id.to_owned(),
                source,
            };
            tried = Some(found.alert.sequence);
            match self.write(&found.alert, &step).await {
                Written::At(sequence) => return self.taken(step, sequence, ask, &found).await,
                Written::Conflict => found = self.version(id).await?,
                Written::Full => {
                    return Err(StepError::Full {
                        stream: self.owner.pipeline.alerts_stream(),
                    });
                }
                Written::Refused(source) => {
                    return Err(StepError::NotWritten {
                        id: id.to_owned(),
                        source,
                    });
                }
                Written::Unknown(source) => match self.version(id).await {
                    Ok(now) if now.alert.sequence != found.alert.sequence => {
                        written_over = Some(std::mem::replace(&mut found, now));
                    }
                    Ok(_) | Err(_) => return Err(unknown(source)),
                },
            }
        }
        Err(StepError::Busy { id: id.to_owned() })
    }

    async fn write(&self, current: &StoredAlert, step: &Step) -> Written {
        let to = step.record.state.as_str();
        let mut headers = async_nats::HeaderMap::new();
        let body = if to == ARCHIVED {
            headers.insert(BY, header_text(&step.record.by));
            headers.insert(OP_ID, header_text(&step.record.op_id));
            headers.insert(PREV_SEQ, step.record.prev_seq.to_string());
            Bytes::new()
        } else {
            let body = serde_json::to_vec(&step.record);
            Bytes::from(body.expect("every key in a record is text"))
        };
        let part = NewPart {
            suffix: String::new(),
            headers,
            body,
        };
        if to == current.state {
            return self
                .entries
                .write_update(&current.subject, current.sequence, part)
                .await;
        }
        self.entries
            .write_move(Move {
                id: &current.id,
                from: &current.state,
                to,
                expected: &[current.sequence],
                parts: vec![part],
            })
            .await
    }

    /// What this very call wrote. The server's time of it is read while the audit is written; when it
    /// cannot be read, perhaps because the alert went on, it is the writer's. Meanwhile the audit is
    /// asked for the step `before`.
    async fn taken(
        &self,
        step: Step,
        sequence: u64,
        ask: &Ask,
        before: &Version,
    ) -> Result<Stepped, StepError> {
        let key = &self.owner.pipeline;
        let id = &step.record.id;
        let state = &step.record.state;
        let stream = key.alerts_stream();
        let (stored, audited, ()) = futures::join!(
            self.nats.at_sequence(&stream, sequence),
            self.audit(id, &step.transition, (&step.from, state), sequence, ask),
            self.audit_last(before)
        );
        audited?;
        let time = match stored {
            Ok(Some(message)) => message.time,
            Ok(None) | Err(_) => ask.time,
        };
        Ok(Stepped {
            alert: StoredAlert {
                id: id.clone(),
                state: state.clone(),
                subject: key.alert_subject(state, id),
                sequence,
                time,
                record: (state != ARCHIVED).then(|| step.record.clone()),
            },
            sequence,
            from: step.from,
            transition: step.transition,
        })
    }

    /// The step that this very ask took, and the sequence of the version it made: an answer that says so
    /// was lost. It made the version that stands, or was taken from the version `tried` and others went
    /// on from there.
    async fn own_step(
        &self,
        found: &Version,
        tried: Option<u64>,
        ask: &Ask,
    ) -> Result<Option<(HistoryEntry, u64)>, ReadError> {
        let stands = found.op_id == ask.op_id;
        if !stands && tried.is_none_or(|tried| tried == found.alert.sequence) {
            return Ok(None);
        }
        let kept;
        let record = match &found.alert.record {
            Some(record) => record,
            None => {
                kept = self.archived(&found.alert.id).await?;
                &kept
            }
        };
        let sequences = sequences(&record.history, Some(found.alert.sequence));
        let mut steps = record.history.iter().zip(sequences);
        let own = if stands {
            steps.next_back()
        } else {
            steps.find(|(entry, _)| tried == Some(entry.prev_seq) && is_of(entry, ask))
        };
        Ok(own.map(|(entry, sequence)| (entry.clone(), sequence.unwrap_or_default())))
    }

    async fn taken_before(
        &self,
        found: Version,
        (entry, sequence): (HistoryEntry, u64),
        ask: &Ask,
    ) -> Result<Stepped, StepError> {
        let from = entry.from.unwrap_or_default();
        let id = &found.alert.id;
        self.audit(id, &entry.transition, (&from, &entry.to), sequence, ask)
            .await?;
        Ok(Stepped {
            alert: found.alert,
            sequence,
            from,
            transition: entry.transition,
        })
    }
}

fn is_of(entry: &HistoryEntry, ask: &Ask) -> bool {
    entry.time == ask.time && entry.by == ask.by && entry.reason == ask.reason
}

fn overtaken_by(winner: Version) -> StepError {
    StepError::Conflict {
        id: winner.alert.id,
        by: winner.by,
        state: winner.alert.state,
        sequence: winner.alert.sequence,
    }
}
