//! The life of alerts, for people and their programs: everything but their creation.
//!
//! What it guarantees is what [`super::super::entries`] does, and: a step is taken only as the workflow
//! in NATS allows it, checked against the version that it is compared with; what the record has no room
//! for is in the audit before it goes; what was done is in the audit after it is done.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lookback_protocol::alert::AlertRecord;
use lookback_protocol::names::{Owner, PipelineKey};
use lookback_protocol::workflow::{Ask, Refusal, Workflow};

use crate::nats::audit::AuditError;
use crate::nats::connect::Nats;
use crate::nats::entries::{Cursor, Page, ReadError};

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

/// What a step did.
#[derive(Clone, Debug, PartialEq)]
pub struct Stepped {
    /// The alert as it stands now.
    pub alert: StoredAlert,
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
    /// It may have been done, or not.
    #[error("it is not known whether alert {id} was moved: read it before trying again")]
    Unknown {
        /// The alert.
        id: String,
        /// Why not.
        #[source]
        source: crate::nats::api::ApiError,
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

/// The alerts of one pipeline.
#[derive(Clone, Debug)]
pub struct AlertStore {
    nats: Nats,
    owner: Owner,
}

impl AlertStore {
    /// Nothing is asked yet. The cluster in `owner` is what the audit is written for.
    #[must_use]
    pub fn new(nats: Nats, owner: Owner) -> Self {
        Self { nats, owner }
    }

    /// The alert, in whatever state, from the leader.
    ///
    /// # Errors
    /// [`ReadError::NotFound`] when the leader has none of this id; otherwise no answer.
    pub async fn get(&self, id: &str) -> Result<StoredAlert, ReadError> {
        todo!("store: {:?} {id}", self.nats)
    }

    /// The alert whose id begins with `prefix`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn find(&self, prefix: &str) -> Result<StoredAlert, ReadError> {
        todo!("store: {prefix}")
    }

    /// The record of an archived alert, from the audit.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn archived(&self, id: &str) -> Result<AlertRecord, ReadError> {
        todo!("store: {id}")
    }

    /// Alerts in `state`; with `None` all but archived ones.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn list(
        &self,
        state: Option<&str>,
        from: Cursor,
        limit: usize,
    ) -> Result<Page<StoredAlert>, ReadError> {
        todo!("store: {state:?} {from:?} {limit}")
    }

    /// How many alerts there are in each state of the workflow.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn counts(&self) -> Result<BTreeMap<String, u64>, ReadError> {
        todo!("store")
    }

    /// The workflow, as the operator wrote it into NATS; the default when there is none yet.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn workflow(&self) -> Result<Workflow, ReadError> {
        todo!("store")
    }

    /// Takes a step: a move, an update of metadata, or into the archive. `expected` is the sequence of
    /// the version that the asker saw; with `None` the step is tried on whatever stands now, again each
    /// time somebody else only changed metadata.
    ///
    /// # Errors
    /// [`StepError`] says whether anything was done.
    pub async fn step(
        &self,
        id: &str,
        expected: Option<u64>,
        ask: &Ask,
    ) -> Result<Stepped, StepError> {
        todo!("store: {id} {expected:?} {ask:?}")
    }
}

/// The alert of this id in any pipeline of the account.
///
/// # Errors
/// [`ReadError`].
pub async fn anywhere(nats: &Nats, id: &str) -> Result<(PipelineKey, StoredAlert), ReadError> {
    todo!("store: {nats:?} {id}")
}
