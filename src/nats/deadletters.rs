//! Dead letters: the original bytes of an event that cannot be applied, raw, with its headers, place
//! and reason beside them.
//!
//! An entry is one message on `dlq.parked.<id>`, or, when it is larger than a message may be, one
//! atomic batch: part 1 on `dlq.parked.<id>`, part k on `dlq.parked.<id>.<k>`, each a subject of its
//! own because a subject holds one message. Part 1 carries what is known of the event; the others only
//! their number. The payload comes first, in order. Original headers stand base64-encoded in part 1 up
//! to [`MAX_INLINE_HEADERS`], else raw in the parts after the payload, whose `Lookback-Headers` is
//! [`RAW`]. Either all parts are stored or none. A move cuts the entry anew: part 1 then also says who
//! moved it and why.

mod letter;
mod parts;
mod store;

use bytes::Bytes;
use jiff::Timestamp;
#[cfg(doc)]
use lookback_protocol::deadletter::MAX_INLINE_HEADERS;
use lookback_protocol::deadletter::Reason;
use lookback_protocol::names::PipelineKey;
use lookback_protocol::position::{Epoch, StreamSeq};
use tokio::sync::Semaphore;

pub use self::parts::RAW;
use self::parts::parts;
pub use self::store::{
    DeadLetterStore, Histogram, LetterAsk, LetterError, LetterHead, Redriven, Selector,
};
use super::connect::Nats;
use super::entries::ReadError;
use super::outbox::Place;
use crate::worker::ports::{DeadLetter, StoreError, Stored};

/// A dead letter as it was read back.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredDeadLetter {
    /// Its id.
    pub id: String,
    /// Its state, from the subject.
    pub state: String,
    /// Where it stands.
    pub subject: String,
    /// The sequence of its first part.
    pub sequence: u64,
    /// When this version was stored.
    pub stored: Timestamp,
    /// Why it was parked.
    pub reason: Reason,
    /// The error in words, cut and on one line.
    pub error: String,
    /// Which event it was.
    pub event: ParkedEvent,
    /// How often it was tried.
    pub attempts: u32,
    /// The epoch that parked it.
    pub epoch: Epoch,
    /// How often its event was sent again already, in this and in earlier letters.
    pub redrives: u32,
    /// Who moved it here, when it was a person.
    pub by: Option<String>,
    /// Why, in their words, cut and on one line.
    pub note: Option<String>,
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
    let mut parts = parts(key, letter, nats.max_payload());
    let written = if parts.len() > 1 {
        let _permit = batches.acquire().await.expect("it is never closed");
        nats.publish_batch(parts).await
    } else {
        let only = parts.remove(0);
        nats.publish(only.subject, only.headers, only.body).await
    };
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
    let found = letter::read(nats, key, id).await?;
    Ok(found.map(|letter| letter.stored))
}
