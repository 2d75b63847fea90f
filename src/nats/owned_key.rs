//! A key of the KV bucket that says in its value whose it is, for the operator, which writes over and
//! deletes only what is its own.

use lookback_protocol::names::{Owner, STATE_STREAM};
use serde_json::{Value, json};

use super::api::{ApiError, Code, StoredMessage};
use super::connect::Nats;
use super::ensure::{Deleted, ObjectError};

/// One key, and who it should belong to.
pub(super) struct OwnedKey<'a> {
    /// For errors: `checkpoint`.
    pub(super) kind: &'static str,
    pub(super) name: String,
    /// The subject behind it.
    pub(super) subject: String,
    pub(super) owner: &'a Owner,
}

impl OwnedKey<'_> {
    /// What stands there, from the leader: also the marker of what a person deleted.
    pub(super) async fn read(&self, nats: &Nats) -> Result<Option<StoredMessage>, ObjectError> {
        let found = nats.last_of_subject(STATE_STREAM, &self.subject).await;
        found.map_err(self.failed("read"))
    }

    /// Deletes it, unless it is another's, up to what was read: a write that comes between survives.
    pub(super) async fn delete(&self, nats: &Nats) -> Result<Deleted, ObjectError> {
        let found = match nats.last_of_subject(STATE_STREAM, &self.subject).await {
            Err(error) if error.code() == Some(Code::STREAM_NOT_FOUND) => None,
            found => found.map_err(self.failed("read"))?,
        };
        let Some(message) = found else {
            return Ok(Deleted::Absent);
        };
        let theirs: Option<Owner> = serde_json::from_slice(&message.payload).ok();
        if !message.is_marker() && theirs.as_ref() != Some(self.owner) {
            return Err(self.foreign(theirs));
        }
        let purge = json!({ "filter": self.subject, "seq": message.sequence + 1 });
        nats.api::<Value>(&format!("STREAM.PURGE.{STATE_STREAM}"), &purge)
            .await
            .map_err(self.failed("delete"))?;
        Ok(Deleted::Now)
    }

    pub(super) fn foreign(&self, theirs: Option<Owner>) -> ObjectError {
        ObjectError::Foreign {
            kind: self.kind,
            name: self.name.clone(),
            owner: theirs.map(|owner| owner.to_string()),
            ours: self.owner.to_string(),
        }
    }

    pub(super) fn failed(&self, operation: &'static str) -> impl FnOnce(ApiError) -> ObjectError {
        let (kind, name) = (self.kind, self.name.clone());
        move |source| ObjectError::Api {
            operation,
            kind,
            name,
            source,
        }
    }
}
