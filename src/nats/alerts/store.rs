//! The life of alerts, for people and their programs: everything but their creation.
//!
//! What it guarantees is what [`super::super::entries`] does, and: a step is taken only as the workflow
//! in NATS allows it, checked against the version that it is compared with; what the record has no room
//! for is in the audit before it goes; what was done is in the audit after it is done.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use lookback_protocol::alert::{ARCHIVED, AlertRecord, BY, OP_ID, PREV_SEQ};
use lookback_protocol::audit::{Act, Archived, AuditKind, AuditRecord};
use lookback_protocol::names::{AUDIT_STREAM, Owner, PipelineKey};
use lookback_protocol::workflow::{Definition, Workflow, sentences};

use crate::nats::api::StoredMessage;
use crate::nats::connect::Nats;
use crate::nats::definition;
use crate::nats::entries::{Cursor, Entries, Page, ReadError};

/// For errors.
const NOUN: &str = "alert";

/// An alert as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredAlert {
    /// The record. An archived alert has none here: it stands in the audit, see [`AlertStore::archived`].
    pub record: Option<AlertRecord>,
    /// Its id.
    pub id: String,
    /// Its state, from the subject.
    pub state: String,
    /// Where it stands.
    pub subject: String,
    /// The sequence of this version.
    pub sequence: u64,
    /// When the server stored this version.
    pub time: Timestamp,
}

/// The alerts of one pipeline.
#[derive(Clone, Debug)]
pub struct AlertStore {
    pub(super) nats: Nats,
    pub(super) owner: Owner,
    pub(super) entries: Entries,
}

/// An alert and the write that made this version of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Version {
    pub(super) alert: StoredAlert,
    pub(super) by: String,
    pub(super) op_id: String,
    /// The sequence of the version before.
    pub(super) prev_seq: u64,
}

impl AlertStore {
    /// Nothing is asked yet. The cluster in `owner` is what the audit is written for.
    #[must_use]
    pub fn new(nats: Nats, owner: Owner) -> Self {
        Self {
            entries: entries(&nats, &owner.pipeline),
            nats,
            owner,
        }
    }

    /// With tombstones that stay for another time; see [`Entries::with_tombstone_ttl`].
    #[must_use]
    pub fn with_tombstone_ttl(self, tombstone_ttl: Duration) -> Self {
        Self {
            entries: self.entries.with_tombstone_ttl(tombstone_ttl),
            ..self
        }
    }

    /// The alert, in whatever state, from the leader.
    ///
    /// # Errors
    /// [`ReadError::NotFound`] when the leader has none of this id; otherwise no answer.
    pub async fn get(&self, id: &str) -> Result<StoredAlert, ReadError> {
        Ok(self.version(id).await?.alert)
    }

    /// The alert whose id begins with `prefix`; see [`Entries::resolve`].
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn find(&self, prefix: &str) -> Result<StoredAlert, ReadError> {
        let id = self.entries.resolve(prefix).await?;
        self.get(&id).await
    }

    /// The record of an archived alert, from the audit.
    ///
    /// # Errors
    /// [`ReadError::NotFound`] when there is no such alert or it is not archived, or the audit has let
    /// go of it.
    pub async fn archived(&self, id: &str) -> Result<AlertRecord, ReadError> {
        let not_found = || ReadError::NotFound {
            noun: "archived alert",
            id: id.to_owned(),
        };
        let version = self.version(id).await?;
        if version.alert.state != ARCHIVED {
            return Err(not_found());
        }
        let key = Archived::key_of(id, version.prev_seq, &version.op_id);
        let subject = self.owner.pipeline.audit_subject(AuditKind::Archive, &key);
        let message = self
            .nats
            .last_of_subject(AUDIT_STREAM, &subject)
            .await
            .map_err(|source| ReadError::Api {
                operation: "read",
                object: format!("audit record {subject}"),
                source,
            })?
            .ok_or_else(not_found)?;
        let record: AuditRecord = parsed(&message)?;
        match record.act {
            Act::Archive(archived) => Ok(*archived.alert),
            _ => Err(not_found()),
        }
    }

    /// Alerts in `state`; with `None` all but archived ones. Fewer than `limit` does not mean that
    /// these are the last: [`Page::next`] says so.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn list(
        &self,
        state: Option<&str>,
        from: Cursor,
        limit: usize,
    ) -> Result<Page<StoredAlert>, ReadError> {
        let page = self.entries.page(state, from, limit).await?;
        let mut items = Vec::with_capacity(page.items.len());
        for message in page.items {
            let alert = Version::read(&self.entries, message)?.alert;
            if state.is_some() || alert.state != ARCHIVED {
                items.push(alert);
            }
        }
        Ok(Page {
            items,
            next: page.next,
        })
    }

    /// How many alerts there are in each state of the workflow and in former ones, zero included; see
    /// [`Entries::counts`].
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn counts(&self) -> Result<BTreeMap<String, u64>, ReadError> {
        self.counts_by(&self.definition().await?).await
    }

    /// As [`Self::counts`], by a definition that was read already.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn counts_by(
        &self,
        definition: &Definition,
    ) -> Result<BTreeMap<String, u64>, ReadError> {
        let states: Vec<_> = definition.states().collect();
        self.entries.counts(&states).await
    }

    /// The workflow, as the operator wrote it into NATS; the default when there is none yet.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn workflow(&self) -> Result<Workflow, ReadError> {
        let definition = self.definition().await?;
        Workflow::new(definition.workflow).map_err(|faults| ReadError::Unreadable {
            object: format!("the workflow of {}", self.owner.pipeline),
            source: sentences(&faults).into(),
        })
    }

    /// As [`Self::workflow`], with the states of former ones, and unchecked.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn definition(&self) -> Result<Definition, ReadError> {
        let found = definition::read(&self.nats, &self.owner.pipeline).await?;
        Ok(definition::or_default(found, &self.owner))
    }

    pub(super) async fn version(&self, id: &str) -> Result<Version, ReadError> {
        let message = self.entries.get(id).await?;
        Version::read(&self.entries, message)
    }
}

impl Version {
    pub(super) fn read(entries: &Entries, message: StoredMessage) -> Result<Self, ReadError> {
        let Some((state, id)) = entries.split(&message.subject) else {
            return Err(unreadable(&message, "its subject is none of an alert"));
        };
        let (state, id) = (state.to_owned(), id.to_owned());
        let (record, by, op_id, prev_seq) = if state == ARCHIVED {
            let header = |name| message.header(name).unwrap_or_default().to_owned();
            let prev_seq = header(PREV_SEQ)
                .parse()
                .map_err(|error| unreadable(&message, error))?;
            (None, header(BY), header(OP_ID), prev_seq)
        } else {
            let record: AlertRecord = parsed(&message)?;
            let (by, op_id) = (record.by.clone(), record.op_id.clone());
            let prev_seq = record.prev_seq;
            (Some(record), by, op_id, prev_seq)
        };
        Ok(Self {
            alert: StoredAlert {
                record,
                id,
                state,
                subject: message.subject,
                sequence: message.sequence,
                time: message.time,
            },
            by,
            op_id,
            prev_seq,
        })
    }
}

/// The entries that are the alerts of `key`.
pub(super) fn entries(nats: &Nats, key: &PipelineKey) -> Entries {
    Entries::new(nats.clone(), key.alerts_stream(), key.alert_prefix(), NOUN)
}

fn parsed<T: serde::de::DeserializeOwned>(message: &StoredMessage) -> Result<T, ReadError> {
    serde_json::from_slice(&message.payload).map_err(|error| unreadable(message, error))
}

fn unreadable(
    message: &StoredMessage,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> ReadError {
    ReadError::Unreadable {
        object: format!("{} (sequence {})", message.subject, message.sequence),
        source: source.into(),
    }
}
