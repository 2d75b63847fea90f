//! The audit: what was done once, one record a subject, and so also the claim to do it. Whatever is not
//! raced for is only recorded.
//!
//! What it guarantees:
//! - Of all who claim a subject, ever, one gets it: each write expects an empty subject, and the stream
//!   takes no second message of one even without that.
//! - [`Claim::Taken`] is a PubAck, or what the leader holds after an answer was lost: our record, byte
//!   for byte. [`Claim::Found`] is what the leader holds, never an error code: on replicated streams the
//!   code of a lost race only says that another write is in process.
//! - [`AuditError::Unavailable`] proves nothing: the claim may be ours already, or become ours when the
//!   client's late write arrives. Claim again; one's own earlier claim is then found, and
//!   [`AuditRecord::is_same_claim`] recognises it.

use bytes::Bytes;
use jiff::Timestamp;
use lookback_protocol::audit::{AuditKind, AuditRecord};
use lookback_protocol::names::{AUDIT_STREAM, PipelineKey};

use super::api::{ApiError, Code, Copied, StoredMessage, unavailable};
use super::connect::Nats;
use super::entries::{Cursor, MAX_PAGE, Page, ReadError};
use super::outbox::expecting;
use crate::worker::ports::Unavailable;

/// What became of a claim.
#[derive(Clone, Debug, PartialEq)]
pub enum Claim {
    /// It is ours, by this very call.
    Taken,
    /// Somebody was first, perhaps ourselves before a restart.
    Found(Box<AuditRecord>),
}

/// Why it is not known whose a claim is.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// No answer, or a refusal that says nothing about the claim.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The subject is taken by something this version cannot read.
    #[error("audit record {subject} cannot be read")]
    Unreadable {
        /// Its subject.
        subject: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Another act stands under this key.
    #[error(
        "audit record {subject} records another act already, by {by} at {time}; nothing is overwritten"
    )]
    Taken {
        /// Its subject.
        subject: String,
        /// Whose act stands there.
        by: String,
        /// When that was written.
        time: Timestamp,
    },
    /// Ours can never be written: it is no JSON, or larger than a message may be.
    #[error("audit record {subject} cannot be written")]
    Unwritable {
        /// Its subject.
        subject: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Where the act of a record is recorded, and the only place where it may stand.
#[must_use]
pub fn subject(record: &AuditRecord) -> String {
    let key: &PipelineKey = &record.owner.pipeline;
    key.audit_subject(record.act.kind(), &record.act.key())
}

/// Claims the act of `record` by storing it.
///
/// # Errors
/// [`AuditError`]: whose it is could not be found out; see the [module](self).
pub async fn claim(nats: &Nats, record: &AuditRecord) -> Result<Claim, AuditError> {
    let subject = subject(record);
    let body = match serde_json::to_vec(record) {
        Ok(body) => Bytes::from(body),
        Err(error) => {
            let source = error.into();
            return Err(AuditError::Unwritable { subject, source });
        }
    };
    let written = nats.publish(subject.clone(), expecting(0), body).await;
    let Err(error) = written else {
        return Ok(Claim::Taken);
    };
    let answered = error.code().is_some();
    match read(nats, &subject).await? {
        Some(found) if !answered && found == *record => Ok(Claim::Taken),
        Some(found) => Ok(Claim::Found(Box::new(found))),
        None if error.was_not_sent() => {
            let source = error.into();
            Err(AuditError::Unwritable { subject, source })
        }
        None => Err(unavailable("claim", subject)(error).into()),
    }
}

/// The record on `subject`, from the leader; `None` when there is none.
///
/// # Errors
/// [`AuditError`]: no answer, or a record that cannot be read.
pub async fn read(nats: &Nats, subject: &str) -> Result<Option<AuditRecord>, AuditError> {
    let found = nats
        .last_of_subject(AUDIT_STREAM, subject)
        .await
        .map_err(unavailable("read", subject))?;
    let Some(message) = found else {
        return Ok(None);
    };
    match serde_json::from_slice(&message.payload) {
        Ok(record) => Ok(Some(record)),
        Err(source) => Err(AuditError::Unreadable {
            subject: subject.to_owned(),
            source,
        }),
    }
}

/// Records an act that is not raced for: one's own earlier try of it counts as done.
///
/// # Errors
/// [`AuditError`]; unless it is [`AuditError::Taken`], the act may stand there or not, and can be
/// recorded again.
pub async fn record(nats: &Nats, record: &AuditRecord) -> Result<(), AuditError> {
    match claim(nats, record).await? {
        Claim::Taken => Ok(()),
        Claim::Found(found) if found.is_same_claim(record) => Ok(()),
        Claim::Found(found) => Err(AuditError::Taken {
            subject: subject(record),
            by: found.by,
            time: found.time,
        }),
    }
}

/// A record as it was read.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRecord {
    /// Its sequence in the audit stream.
    pub sequence: u64,
    /// Its subject.
    pub subject: String,
    /// When the server stored it.
    pub stored: Timestamp,
    /// The record, or why this version cannot read it.
    pub record: Result<AuditRecord, String>,
}

/// What was done to `key`, of one kind or of any, the oldest first; nothing when there is no audit yet.
/// Every record is in it that was acknowledged before the page was asked for. `limit` is between 1 and
/// [`MAX_PAGE`].
///
/// # Errors
/// [`ReadError`]: no answer. A record that cannot be read is none, it is a line of the page.
pub async fn page(
    nats: &Nats,
    key: &PipelineKey,
    kind: Option<AuditKind>,
    from: Cursor,
    limit: usize,
) -> Result<Page<StoredRecord>, ReadError> {
    let subjects = match kind {
        Some(kind) => key.audit_subject(kind, "*"),
        None => key.every_audit_subject(),
    };
    let failed = |source| ReadError::Api {
        operation: "list",
        object: format!("the audit of {key}"),
        source,
    };
    let limit = limit.clamp(1, MAX_PAGE);
    let mut items = Vec::new();
    let mut at = from.0.max(1);
    let mut more = true;
    while more && items.len() < limit {
        let wanted = limit - items.len();
        let (messages, pending) = next(nats, at, &subjects, wanted).await.map_err(failed)?;
        if let Some(last) = messages.last() {
            at = last.sequence + 1;
        }
        more = pending;
        items.extend(messages.into_iter().map(stored));
    }
    Ok(Page {
        items,
        next: more.then_some(Cursor(at)),
    })
}

/// Some messages from `at` on, and whether there are more. Any copy of the stream may give them: one
/// that is behind lacks only what is last, so that there is nothing more is what the leader says.
async fn next(
    nats: &Nats,
    at: u64,
    subjects: &str,
    wanted: usize,
) -> Result<(Vec<StoredMessage>, bool), ApiError> {
    let copied = match nats
        .copies_of_next(AUDIT_STREAM, at, Some(subjects), wanted)
        .await
    {
        Err(ApiError::NoCopies) => Copied::default(),
        copied => copied?,
    };
    if copied.pending > 0 {
        return Ok((copied.messages, true));
    }
    let behind = copied.messages.last().map_or(at, |last| last.sequence + 1);
    let following = match nats.next_of_subject(AUDIT_STREAM, behind, subjects).await {
        Err(error) if error.code() == Some(Code::STREAM_NOT_FOUND) => None,
        following => following?,
    };
    let more = following.is_some();
    let room = wanted.saturating_sub(copied.messages.len());
    let messages = copied
        .messages
        .into_iter()
        .chain(following.into_iter().take(room));
    Ok((messages.collect(), more))
}

fn stored(message: StoredMessage) -> StoredRecord {
    let record = serde_json::from_slice(&message.payload);
    StoredRecord {
        sequence: message.sequence,
        subject: message.subject,
        stored: message.time,
        record: record.map_err(|error| error.to_string()),
    }
}
