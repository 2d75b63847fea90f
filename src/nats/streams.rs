//! Streams, for the operator: reading the user's source stream, keeping our own as they must be.
//!
//! What is read comes from the leader. A stream that does not exist is an exact answer (`None`), never
//! guessed from silence. The source stream is only ever read.

use std::time::Duration;

use jiff::Timestamp;
use lookback_protocol::position::{StreamIdentity, StreamSeq};
use lookback_protocol::start::StreamFacts;
use serde::Deserialize;
use serde_json::Value;

use super::api::ApiError;
use super::connect::Nats;
use super::desired::{Config, DesiredStream, owner_of};
use super::ensure::{Deleted, Ensured, Object, ObjectError};

/// A stream as its leader describes it.
#[derive(Clone, Debug, Deserialize)]
pub struct ObservedStream {
    /// When it was created.
    pub created: Timestamp,
    /// Its configuration.
    pub config: Config,
    /// What it holds.
    pub state: StreamState,
}

/// What a stream holds.
#[derive(Clone, Debug, Deserialize)]
pub struct StreamState {
    /// Messages in it.
    pub messages: u64,
    /// Bytes in it.
    pub bytes: u64,
    /// The first sequence still in it; without messages, last + 1 or 0. See [`ObservedStream::facts`].
    pub first_seq: u64,
    /// When that was stored; meaningless without messages.
    pub first_ts: Timestamp,
    /// The last sequence ever stored.
    pub last_seq: u64,
    /// When that was stored; meaningless when there never was a message.
    pub last_ts: Timestamp,
}

impl ObservedStream {
    /// Its identity and bounds.
    #[must_use]
    pub fn facts(&self, name: &str) -> StreamFacts {
        let last = StreamSeq(self.state.last_seq);
        StreamFacts {
            identity: StreamIdentity {
                name: name.to_owned(),
                created: self.created,
            },
            first: match self.state.messages {
                0 => last.next(),
                _ => StreamSeq(self.state.first_seq),
            },
            last,
        }
    }

    /// `limits`, `interest` or `workqueue`.
    #[must_use]
    pub fn retention(&self) -> &str {
        self.config
            .get("retention")
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// What it takes; empty for a mirror.
    pub fn subjects(&self) -> impl Iterator<Item = &str> {
        self.config
            .get("subjects")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
    }

    /// How long it keeps a message; `None` for ever.
    #[must_use]
    pub fn max_age(&self) -> Option<Duration> {
        let nanoseconds = self.config.get("max_age").and_then(Value::as_u64)?;
        (nanoseconds > 0).then(|| Duration::from_nanos(nanoseconds))
    }

    /// Bytes it may hold; `None` for no limit.
    #[must_use]
    pub fn max_bytes(&self) -> Option<u64> {
        self.config.get("max_bytes").and_then(Value::as_u64)
    }

    /// How many copies of it there are to be.
    #[must_use]
    pub fn replicas(&self) -> Option<u8> {
        let replicas = self.config.get("num_replicas").and_then(Value::as_u64)?;
        u8::try_from(replicas).ok()
    }

    /// Messages it may hold; `None` for no limit.
    #[must_use]
    pub fn max_messages(&self) -> Option<u64> {
        self.config.get("max_msgs").and_then(Value::as_u64)
    }

    /// Messages of one subject that it may hold, the oldest of which it drops; `None` for no limit.
    #[must_use]
    pub fn max_messages_per_subject(&self) -> Option<u64> {
        let limit = self.config.get("max_msgs_per_subject");
        limit.and_then(Value::as_u64).filter(|&limit| limit > 0)
    }

    /// How long it remembers message ids.
    #[must_use]
    pub fn duplicate_window(&self) -> Duration {
        let nanoseconds = self.config.get("duplicate_window").and_then(Value::as_u64);
        Duration::from_nanos(nanoseconds.unwrap_or_default())
    }

    /// Whether it stores messages under other subjects than they were sent to.
    #[must_use]
    pub fn transforms(&self) -> bool {
        let transform = self.config.get("subject_transform");
        transform.is_some_and(|transform| !transform.is_null())
    }

    /// Whether a full stream drops its oldest messages, rather than to refuse new ones.
    #[must_use]
    pub fn drops_oldest(&self) -> bool {
        self.config.get("discard").and_then(Value::as_str) != Some("new")
    }

    /// The owner in its metadata.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        owner_of(&self.config)
    }
}

/// Reads a stream; `None` when it does not exist.
///
/// # Errors
/// [`ObjectError::Api`] when there is no answer.
pub async fn read(nats: &Nats, name: &str) -> Result<Option<ObservedStream>, ObjectError> {
    object(name).read(nats).await
}

/// Creates one of our streams or updates it in place, and compares what the server then holds. One of
/// the owner to adopt becomes ours.
///
/// # Errors
/// [`ObjectError`]: it is another's, or cannot be repaired in place, or the server did not do it.
pub async fn ensure(nats: &Nats, desired: &DesiredStream) -> Result<Ensured, ObjectError> {
    object(&desired.name)
        .ensure(
            nats,
            &desired.config(),
            desired.adopt.as_deref(),
            &|observed| desired.drift(observed),
        )
        .await
}

/// As [`ensure`], for what one account holds once, for every pipeline in it. Its copies were decided by
/// the pipeline that created it: those that want different numbers must not take turns.
///
/// # Errors
/// As [`ensure`].
pub async fn ensure_shared(nats: &Nats, desired: &DesiredStream) -> Result<Ensured, ObjectError> {
    let mut desired = desired.clone();
    if let Some(observed) = read(nats, &desired.name).await? {
        desired.replicas = observed.replicas().unwrap_or(desired.replicas);
    }
    ensure(nats, &desired).await
}

/// Deletes a stream with everything in it, if its metadata says that it is `owner`'s.
///
/// # Errors
/// [`ObjectError`]: it is another's, or the server did not do it.
pub async fn delete(nats: &Nats, name: &str, owner: &str) -> Result<Deleted, ObjectError> {
    object(name).delete(nats, owner).await
}

pub(super) async fn info(nats: &Nats, name: &str) -> Result<ObservedStream, ApiError> {
    nats.api(&format!("STREAM.INFO.{name}"), &Value::Null).await
}

fn object(name: &str) -> Object<'_> {
    Object {
        kind: "stream",
        name,
        info: format!("STREAM.INFO.{name}"),
        create: format!("STREAM.CREATE.{name}"),
        update: format!("STREAM.UPDATE.{name}"),
        delete: format!("STREAM.DELETE.{name}"),
        request: &|config, _| Value::Object(config),
    }
}
