//! The pipeline's own streams behind the worker's [`Outbox`].
//!
//! What it guarantees:
//! - Every write carries a compare-and-swap on its own subject, so nothing is ever overwritten, and a
//!   write sent late, by a client that was disconnected, changes nothing.
//! - [`Stored::New`] is a PubAck; [`Stored::Known`] is what a leader get returned, never an error code:
//!   on replicated streams the code of a lost race only says that another write is in process.
//! - No answer is [`StoreError::Unavailable`]; asking again is safe, because ids are deterministic and
//!   no message carries a `Nats-Msg-Id`, whose window would swallow a later copy.

use std::sync::Arc;

use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use lookback_protocol::alert::AlertRecord;
use lookback_protocol::names::PipelineKey;
use tokio::sync::Semaphore;

use super::api::{ApiError, unavailable};
use super::connect::Nats;
use super::{alerts, deadletters, streams};
use crate::worker::ports::{
    DeadLetter, Lookup, Outbox, Room, Rooms, StoreError, Stored, Unavailable,
};

/// Atomic batches in flight at once: a server refuses the 51st of a stream.
const BATCHES: usize = 16;

/// See the [module](self).
#[derive(Clone, Debug)]
pub struct JetStreamOutbox {
    nats: Nats,
    key: PipelineKey,
    batches: Arc<Semaphore>,
}

impl JetStreamOutbox {
    /// The streams of `key`. Nothing is asked yet.
    #[must_use]
    pub fn new(nats: Nats, key: PipelineKey) -> Self {
        Self {
            nats,
            key,
            batches: Arc::new(Semaphore::new(BATCHES)),
        }
    }

    async fn room(&self, stream: String) -> Result<Room, Unavailable> {
        let observed = streams::info(&self.nats, &stream)
            .await
            .map_err(unavailable("STREAM.INFO", &stream))?;
        Ok(Room {
            last: observed.state.last_seq,
            bytes: observed.state.bytes,
            max_bytes: observed.max_bytes(),
            stream,
        })
    }
}

impl Outbox for JetStreamOutbox {
    async fn create_alert(
        &self,
        record: &AlertRecord,
        lookup: Lookup,
    ) -> Result<Stored, StoreError> {
        alerts::create(&self.nats, &self.key, record, lookup).await
    }

    async fn park(&self, letter: &DeadLetter) -> Result<Stored, StoreError> {
        deadletters::park(&self.nats, &self.key, &self.batches, letter).await
    }

    async fn rooms(&self) -> Result<Rooms, Unavailable> {
        let (alerts, dead_letters) = futures::try_join!(
            self.room(self.key.alerts_stream()),
            self.room(self.key.dead_letters_stream()),
        )?;
        Ok(Rooms {
            alerts,
            dead_letters,
        })
    }
}

/// Where an entry stands, and how it is found in whatever state.
pub(super) struct Place<'a> {
    pub(super) nats: &'a Nats,
    pub(super) stream: String,
    /// The entry's subject in any state.
    pub(super) anywhere: String,
    /// For errors.
    pub(super) object: String,
}

impl Place<'_> {
    /// Whether the leader holds the entry, in whatever state.
    pub(super) async fn is_known(&self) -> Result<bool, StoreError> {
        let found = self
            .nats
            .last_of_subject(&self.stream, &self.anywhere)
            .await
            .map_err(unavailable("STREAM.MSG.GET", &self.object))?;
        Ok(found.is_some())
    }

    /// What the answer to a create means.
    pub(super) async fn settle(
        &self,
        written: Result<u64, ApiError>,
    ) -> Result<Stored, StoreError> {
        let error = match written {
            Ok(sequence) => return Ok(Stored::New(sequence)),
            Err(error) => error,
        };
        match error.code() {
            Some(code) if code.is_conflict() && self.is_known().await? => Ok(Stored::Known),
            Some(code) if code.is_full() => Err(StoreError::Full {
                stream: self.stream.clone(),
            }),
            _ => Err(unavailable("create", &self.object)(error).into()),
        }
    }
}

/// The header of a write that expects `revision` as its subject's last sequence; 0 for none.
pub(super) fn expecting(revision: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(
        NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
        revision.to_string().as_str(),
    );
    headers
}
