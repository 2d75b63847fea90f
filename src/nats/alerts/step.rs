//! One step of an alert: read, decide, keep what the record has no more room for, write, record.

use bytes::Bytes;
use lookback_protocol::alert::{ARCHIVED, BY, HistoryEntry, OP_ID, PREV_SEQ};
use lookback_protocol::audit::{self, Act, AlertAct, Archived, AuditRecord};
use lookback_protocol::workflow::{Ask, Refusal, Step, sequences};
use serde_json::json;
use tracing::warn;

use super::store::{AlertStore, StoredAlert, Version};
use crate::nats::api::{ApiError, header_text};
use crate::nats::audit::{AuditError, read, record, subject};
use crate::nats::entries::{Move, NewPart, ReadError, Written};
use crate::runtime::telemetry::chain;

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

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The alert, the workflow or the stream could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The workflow does not allow it.
    #[error("alert {id} is left as it is")]
    Refused {
        /// The alert.
        id: String,
        /// Why.
        #[source]
        source: Refusal,
    },
    /// Somebody else was faster.
    #[error("alert {id} is left as it is: {by} has moved it to {state} (sequence {sequence})")]
    Conflict {
        /// The alert.
        id: String,
        /// Who won.
        by: String,
        /// Where it is now.
        state: String,
        /// The version that won.
        sequence: u64,
    },
    /// The stream has no room.
    #[error(
        "stream {stream} has no room left: raise spec.alerts.maxBytes, or archive alerts that are done with"
    )]
    Full {
        /// The stream.
        stream: String,
    },
    /// The server, or the client, does not take it.
    #[error("alert {id} is left as it is")]
    NotWritten {
        /// The alert.
        id: String,
        /// Why.
        #[source]
        source: ApiError,
    },
    /// It was overtaken each time.
    #[error("alert {id} is left as it is: others write it all the time, so try again")]
    Busy {
        /// The alert.
        id: String,
    },
    /// It may have been done, or not.
    #[error("it is not known whether alert {id} was moved: read it before trying again")]
    Unknown {
        /// The alert.
        id: String,
        /// Why not.
        #[source]
        source: ApiError,
    },
    /// The audit has no room or does not answer, and the step is not taken without it.
    #[error("alert {id} is left as it is, because its past cannot be kept in the audit")]
    AuditBefore {
        /// The alert.
        id: String,
        /// Why.
        #[source]
        source: AuditError,
    },
    /// It was done, but is not in the audit.
    #[error("alert {id} was moved to {state}, but the audit does not say so")]
    AuditAfter {
        /// The alert.
        id: String,
        /// Where it is now.
        state: String,
        /// Why.
        #[source]
        source: AuditError,
    },
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
        for _ in 0..TRIES {
            if let Some(own) = self.own_step(&found, tried, ask).await? {
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
                    Ok(now) if now.alert.sequence != found.alert.sequence => found = now,
                    Ok(_) | Err(_) => return Err(unknown(source)),
                },
            }
        }
        Err(StepError::Busy { id: id.to_owned() })
    }

    /// Puts into the audit what is not in the stream any more once the step is taken.
    async fn keep_past(&self, step: &Step, ask: &Ask) -> Result<(), AuditError> {
        for past in &step.overflow {
            let past = self.audit_record(Act::History(past.clone()), ask);
            record(&self.nats, &past).await?;
        }
        if step.record.state == ARCHIVED {
            let archived = Archived {
                alert: Box::new(step.record.clone()),
            };
            let archived = self.audit_record(Act::Archive(archived), ask);
            record(&self.nats, &archived).await?;
        }
        Ok(())
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

    /// Puts into the audit what was done.
    async fn audit(
        &self,
        id: &str,
        transition: &str,
        (from, to): (&str, &str),
        sequence: u64,
        ask: &Ask,
    ) -> Result<(), StepError> {
        let act = Act::Alert(AlertAct {
            alert: id.to_owned(),
            op_id: ask.op_id.clone(),
            transition: transition.to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
            reason: ask.reason.clone(),
            sequence,
        });
        record(&self.nats, &self.audit_record(act, ask))
            .await
            .map_err(|source| StepError::AuditAfter {
                id: id.to_owned(),
                state: to.to_owned(),
                source,
            })
    }

    /// Puts into the audit the step that made the version `found`, unless it is there: who took it may
    /// have died before. That this fails is nothing to whoever takes another step; it is only logged.
    async fn audit_last(&self, found: &Version) {
        if let Err(error) = self.try_audit_last(found).await {
            let alert = &found.alert.id;
            warn!(alert, error = %chain(&*error), "Cannot see to it that the audit has an earlier step");
        }
    }

    async fn try_audit_last(
        &self,
        found: &Version,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let kept;
        let record = match &found.alert.record {
            Some(record) => record,
            None => {
                kept = self.archived(&found.alert.id).await?;
                &kept
            }
        };
        // What a worker created was no step.
        let Some((entry, from)) = record
            .history
            .last()
            .and_then(|entry| Some((entry, entry.from.as_ref()?)))
        else {
            return Ok(());
        };
        let act = AlertAct {
            alert: found.alert.id.clone(),
            op_id: found.op_id.clone(),
            transition: entry.transition.clone(),
            from: from.clone(),
            to: entry.to.clone(),
            reason: entry.reason.clone(),
            sequence: found.alert.sequence,
        };
        let past = AuditRecord {
            v: audit::VERSION,
            act: Act::Alert(act),
            owner: self.owner.clone(),
            by: entry.by.clone(),
            time: entry.time,
            details: json!({}),
        };
        if read(&self.nats, &subject(&past)).await?.is_none() {
            crate::nats::audit::record(&self.nats, &past).await?;
        }
        Ok(())
    }

    fn audit_record(&self, act: Act, ask: &Ask) -> AuditRecord {
        AuditRecord {
            v: audit::VERSION,
            act,
            owner: self.owner.clone(),
            by: ask.by.clone(),
            time: ask.time,
            details: json!({}),
        }
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
