//! Dead letters: the original bytes of an event that cannot be applied, raw, with its headers, place
//! and reason beside them.
//!
//! An entry is one message on `dlq.parked.<id>`, or, when it is larger than a message may be, one
//! atomic batch: part 1 on `dlq.parked.<id>`, part k on `dlq.parked.<id>.<k>`, each a subject of its
//! own because a subject holds one message. Part 1 carries what is known of the event; the others only
//! their number. The payload comes first, in order. Original headers stand base64-encoded in part 1 up
//! to [`MAX_INLINE_HEADERS`], else raw in the parts after the payload, whose `Lookback-Headers` is
//! [`RAW`]. Either all parts are stored or none.

mod parts;
mod store;

use async_nats::header::{NATS_BATCH_COMMIT, NATS_BATCH_ID, NATS_BATCH_SEQUENCE};
use bytes::Bytes;
use data_encoding::BASE64;
use jiff::Timestamp;
#[cfg(doc)]
use lookback_protocol::deadletter::MAX_INLINE_HEADERS;
use lookback_protocol::deadletter::{
    ATTEMPTS, EPOCH, ERROR, HEADERS, PARTS, PUBLISHED, REASON, Reason, SEQUENCE, STREAM, SUBJECT,
};
use lookback_protocol::names::PipelineKey;
use lookback_protocol::position::{Epoch, StreamSeq};
use tokio::sync::Semaphore;

pub use self::parts::RAW;
use self::parts::{Part, parts};
pub use self::store::{
    DeadLetterStore, Histogram, LetterAsk, LetterError, LetterHead, Redriven, Selector,
};
use super::api::{ApiError, StoredMessage};
use super::connect::Nats;
use super::outbox::Place;
use crate::worker::ports::{DeadLetter, StoreError, Stored};

/// A dead letter as it was read back.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredDeadLetter {
    /// Where it stands; its state is the last but one token.
    pub subject: String,
    /// The sequence of its first part.
    pub sequence: u64,
    /// When it was parked.
    pub stored: Timestamp,
    /// Why.
    pub reason: Reason,
    /// The error in words, cut and on one line.
    pub error: String,
    /// Which event it was.
    pub event: ParkedEvent,
    /// How often it was tried.
    pub attempts: u32,
    /// The epoch that parked it.
    pub epoch: Epoch,
}

/// The event in a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParkedEvent {
    /// The source stream.
    pub stream: String,
    /// Its sequence there.
    pub sequence: StreamSeq,
    /// When JetStream stored it there.
    pub published: Timestamp,
    /// Its subject.
    pub subject: String,
    /// Its headers, byte for byte as the delivery had them.
    pub headers: Bytes,
    /// Its payload, byte for byte.
    pub payload: Bytes,
}

/// Why a dead letter could not be read back.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No answer, or a refusal.
    #[error("cannot read dead letter {id}")]
    Api {
        /// Its id.
        id: String,
        /// Why.
        #[source]
        source: ApiError,
    },
    /// A part is not there; people can delete single messages only where `deny_delete` is off.
    #[error("part {part} of dead letter {id} is missing")]
    MissingPart {
        /// Its id.
        id: String,
        /// From 1.
        part: usize,
    },
    /// A header is missing or not what it must be.
    #[error("dead letter {id} has no valid header {header}")]
    Header {
        /// Its id.
        id: String,
        /// Its name.
        header: &'static str,
    },
}

/// Stores a dead letter unless its id is known in any state. One in parts waits for its turn among
/// `batches`.
pub(super) async fn park(
    nats: &Nats,
    key: &PipelineKey,
    batches: &Semaphore,
    letter: &DeadLetter,
) -> Result<Stored, StoreError> {
    let place = Place {
        nats,
        stream: key.dead_letters_stream(),
        anywhere: key.dead_letter_subject("*", &letter.id),
        object: format!("dead letter {}", letter.id),
    };
    if place.is_known().await? {
        return Ok(Stored::Known);
    }
    let parts = parts(key, letter, nats.max_payload());
    let _permit = match parts.len() {
        1 => None,
        _ => Some(batches.acquire().await.expect("it is never closed")),
    };
    let written = write(nats, parts).await;
    place.settle(written).await
}

/// Reads a dead letter back from the leader, whole; `None` when there is none under this id.
///
/// # Errors
/// [`ReadError`] names what is missing or unreadable.
pub async fn read(
    nats: &Nats,
    key: &PipelineKey,
    id: &str,
) -> Result<Option<StoredDeadLetter>, ReadError> {
    let stream = key.dead_letters_stream();
    let get = async |subject: String| {
        nats.last_of_subject(&stream, &subject)
            .await
            .map_err(|source| ReadError::Api {
                id: id.to_owned(),
                source,
            })
    };
    let Some(first) = get(key.dead_letter_subject("*", id)).await? else {
        return Ok(None);
    };
    let mut payload = first.payload.to_vec();
    let mut headers = match first.header(HEADERS) {
        Some(encoded) => BASE64
            .decode(encoded.as_bytes())
            .map_err(|_| invalid(id, HEADERS))?,
        None => Vec::new(),
    };
    for part in 2..=parsed::<usize>(&first, id, PARTS)? {
        let message = get(format!("{}.{part}", first.subject))
            .await?
            .ok_or_else(|| ReadError::MissingPart {
                id: id.to_owned(),
                part,
            })?;
        match message.header(HEADERS) {
            Some(_) => headers.extend_from_slice(&message.payload),
            None => payload.extend_from_slice(&message.payload),
        }
    }
    stored(&first, id, headers.into(), payload.into()).map(Some)
}

async fn write(nats: &Nats, parts: Vec<Part>) -> Result<u64, ApiError> {
    let count = parts.len();
    let batch = uuid::Uuid::now_v7().simple().to_string();
    for (at, part) in parts.into_iter().enumerate() {
        let Part {
            subject,
            mut headers,
            body,
        } = part;
        let last = at + 1 == count;
        if count > 1 {
            headers.insert(NATS_BATCH_ID, batch.as_str());
            headers.insert(NATS_BATCH_SEQUENCE, (at + 1).to_string().as_str());
        }
        if count > 1 && last {
            headers.insert(NATS_BATCH_COMMIT, "1");
        }
        if last {
            return nats.publish(subject, headers, body).await;
        }
        nats.publish_part(subject, headers, body).await?;
    }
    Err(ApiError::Unreadable("a dead letter without parts".into()))
}

fn stored(
    first: &StoredMessage,
    id: &str,
    headers: Bytes,
    payload: Bytes,
) -> Result<StoredDeadLetter, ReadError> {
    let text = |name| {
        first
            .header(name)
            .map(str::to_owned)
            .ok_or_else(|| invalid(id, name))
    };
    Ok(StoredDeadLetter {
        subject: first.subject.clone(),
        sequence: first.sequence,
        stored: first.time,
        reason: serde_json::from_value(text(REASON)?.into()).map_err(|_| invalid(id, REASON))?,
        error: text(ERROR)?,
        event: ParkedEvent {
            stream: text(STREAM)?,
            sequence: StreamSeq(parsed(first, id, SEQUENCE)?),
            published: parsed(first, id, PUBLISHED)?,
            subject: text(SUBJECT)?,
            headers,
            payload,
        },
        attempts: parsed(first, id, ATTEMPTS)?,
        epoch: Epoch(parsed(first, id, EPOCH)?),
    })
}

fn parsed<T: std::str::FromStr>(
    message: &StoredMessage,
    id: &str,
    header: &'static str,
) -> Result<T, ReadError> {
    message
        .header(header)
        .and_then(|value| value.parse().ok())
        .ok_or_else(|| invalid(id, header))
}

fn invalid(id: &str, header: &'static str) -> ReadError {
    ReadError::Header {
        id: id.to_owned(),
        header,
    }
}
