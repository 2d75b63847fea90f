//! The three ports of the worker's loop. Everything the loop knows of the outside comes through them,
//! so the same loop runs over JetStream and over the model of JetStream in `tests/model`.
//!
//! Futures are dropped at any await when the process dies; an implementation may have done the
//! operation, or not, and the loop must be right in both cases.

use std::error::Error as StdError;
use std::future::Future;

use bytes::Bytes;
use jiff::Timestamp;
use lookback_protocol::alert::AlertRecord;
use lookback_protocol::checkpoint::Checkpoint;
use lookback_protocol::position::{Epoch, StreamSeq};
use lookback_protocol::start::{MessageAt, StoreFacts, StreamFacts};

/// An operation that got no usable answer: it may or may not have happened.
#[derive(Debug, thiserror::Error)]
#[error("{operation} of {object} got no usable answer")]
pub struct Unavailable {
    /// For example `CONSUMER.RESET`.
    pub operation: &'static str,
    /// For example the consumer's name.
    pub object: String,
    /// What the client said.
    #[source]
    pub source: Box<dyn StdError + Send + Sync>,
}

/// The source stream and the consumer of this partition and epoch.
pub trait Log: Send {
    /// The stream's identity and bounds, from its leader.
    fn stream(&mut self) -> impl Future<Output = Result<StreamFacts, Unavailable>> + Send;

    /// What the stream's leader holds at `sequence`.
    fn message_at(
        &mut self,
        sequence: StreamSeq,
    ) -> impl Future<Output = Result<MessageAt, Unavailable>> + Send;

    /// What the consumer has delivered; `None` when it does not exist, which is known at once.
    fn consumer(
        &mut self,
    ) -> impl Future<Output = Result<Option<ConsumerFacts>, Unavailable>> + Send;

    /// Ends the pull that is open, if any, at the server too: a pull that outlives a reset is served.
    fn close(&mut self) -> impl Future<Output = Result<(), Unavailable>> + Send;

    /// Asks once for `CONSUMER.RESET` so that `next` is delivered next. An error proves nothing; ask
    /// [`Log::consumer`].
    fn reset(&mut self, next: StreamSeq) -> impl Future<Output = Result<(), Unavailable>> + Send;

    /// Starts pulling on a new inbox. Pulls are renewed until [`Log::close`].
    fn open(&mut self) -> impl Future<Output = Result<(), Unavailable>> + Send;

    /// What the pull brings next. Cancel-safe: nothing is lost when the future is dropped.
    fn next(&mut self) -> impl Future<Output = Result<Pulled, Unavailable>> + Send;

    /// Acknowledges `delivery` and everything before it. No answer is waited for, and none would be
    /// evidence of anything.
    fn ack(&mut self, delivery: &AckToken) -> impl Future<Output = Result<(), Unavailable>> + Send;
}

/// The stores of alerts and dead letters.
pub trait Outbox: Send + Sync {
    /// Stores an alert unless its id is known. With [`Lookup::First`] a leader get of the id in any
    /// state comes before the write; the write itself never overwrites.
    fn create_alert(
        &self,
        record: &AlertRecord,
        lookup: Lookup,
    ) -> impl Future<Output = Result<Stored, StoreError>> + Send;

    /// Stores a dead letter unless its id is known.
    fn park(&self, letter: &DeadLetter) -> impl Future<Output = Result<Stored, StoreError>> + Send;

    /// The streams behind this port, their last sequences and how full they are, from their leaders.
    fn rooms(&self) -> impl Future<Output = Result<Rooms, Unavailable>> + Send;
}

/// The partition's checkpoint.
pub trait Checkpoints: Send {
    /// The checkpoint and its revision, from the leader; `None` when there never was one.
    fn load(
        &mut self,
    ) -> impl Future<Output = Result<Option<(Checkpoint, Revision)>, CheckpointError>> + Send;

    /// Writes by compare-and-swap on the subject's own last sequence; `None` expects no checkpoint.
    fn store(
        &mut self,
        checkpoint: &Checkpoint,
        expected: Option<Revision>,
    ) -> impl Future<Output = Result<Revision, CheckpointError>> + Send;
}

/// What a consumer has delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerFacts {
    /// The consumer sequence of its last delivery since the last reset; 0 for none.
    pub delivered_consumer: u64,
    /// The stream sequence of its last delivery; after a reset, the one before the reset's.
    pub delivered: StreamSeq,
    /// Messages under its filter not yet delivered.
    pub pending: u64,
    /// Its metadata says that its epoch has begun on a state file.
    pub applied: bool,
}

/// What a pull brings.
#[derive(Clone, Debug, PartialEq)]
pub enum Pulled {
    /// An event.
    Delivery(Delivery),
    /// No event for a while; the server's last delivery to anyone had this consumer sequence.
    Heartbeat {
        /// `Nats-Last-Consumer`.
        last_consumer: u64,
    },
    /// Two heartbeats were missed, or the connection was cut: the pull is dead.
    Dead,
    /// The consumer was deleted.
    Gone,
}

/// One delivered event.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// Counts the consumer's deliveries since its last reset, from 1.
    pub consumer_sequence: u64,
    /// The event's sequence.
    pub sequence: StreamSeq,
    /// When JetStream stored it.
    pub published: Timestamp,
    /// Its subject.
    pub subject: String,
    /// Its headers in NATS wire form; empty for none.
    pub headers: Bytes,
    /// Its payload.
    pub payload: Bytes,
    /// Messages under the filter not yet delivered.
    pub pending: u64,
    /// For [`Log::ack`]; worthless after a reset.
    pub ack: AckToken,
}

/// The reply subject of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AckToken(pub String);

/// Whether a create looks for the id first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It cannot be there: only the compare-and-swap of the create.
    No,
    /// It may be there, in any state: a leader get first.
    First,
}

/// What a store answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// Stored now, at this sequence of its stream.
    New(u64),
    /// A leader get returned it: it was stored before.
    Known,
}

/// Why nothing was stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The server refused it for want of room.
    #[error("stream {stream} has no room left")]
    Full {
        /// The stream.
        stream: String,
    },
    /// It is not known whether it was stored; asking again is safe.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// An event to park.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// See [`lookback_protocol::ids::dead_letter_id`].
    pub id: String,
    /// Why.
    pub reason: lookback_protocol::deadletter::Reason,
    /// The error in words; it may quote the event, and the store cuts it.
    pub error: String,
    /// The source stream's name.
    pub stream: String,
    /// The event, whole.
    pub delivery: Delivery,
    /// How often it was tried.
    pub attempts: u32,
    /// The epoch that parks it.
    pub epoch: Epoch,
}

/// The pipeline's own streams.
#[derive(Clone, Debug, PartialEq)]
pub struct Rooms {
    /// The alerts stream.
    pub alerts: Room,
    /// The dead-letter stream.
    pub dead_letters: Room,
}

/// How full a stream is.
#[derive(Clone, Debug, PartialEq)]
pub struct Room {
    /// Its name.
    pub stream: String,
    /// Its last sequence.
    pub last: u64,
    /// Bytes it holds.
    pub bytes: u64,
    /// Bytes it may hold; `None` for no limit.
    pub max_bytes: Option<u64>,
}

impl Room {
    /// Whether creates must wait: at 95 % of the limit, so that people can still move and archive.
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.max_bytes
            .is_some_and(|max| self.bytes >= max / 100 * 95)
    }

    /// What the start decision compares.
    #[must_use]
    pub fn facts(&self, acknowledged: u64) -> StoreFacts {
        StoreFacts {
            stream: self.stream.clone(),
            acknowledged,
            last: self.last,
        }
    }
}

/// The revision of a checkpoint: the sequence of its message. A later write has a higher one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Revision(pub u64);

/// Why a checkpoint was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// Another write came first, or ours did and its answer was lost: load and compare.
    #[error("the checkpoint has changed since it was read")]
    Conflict,
    /// It holds something this version cannot read.
    #[error("the checkpoint cannot be read")]
    Unreadable(#[source] serde_json::Error),
    /// No answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}
