//! Entries whose state stands in their subject, `<prefix>.<state>.<id>`: alerts and dead letters. One
//! message holds an entry, or the first of its parts; it is moved by one atomic batch, so it never is in
//! two states and never in none.
//!
//! What it guarantees:
//! - A read changes nothing on the server: it is a message get or a stream info, never a consumer.
//! - [`get`](Entries::get) is answered by the leader, so it sees every write that was acknowledged.
//! - A list holds every entry that was in the state when it began and still is when it ends, once. On
//!   replicated streams its pages may come from any copy, which is then proven to be recent enough.
//! - A move compares the entry's own subject with the sequence it was read at: of several movers one
//!   wins, and the others are told who. After an answer was lost the leader is asked whose move stands.
//! - Only [`ReadError::NotFound`] means that there is none; silence is an error.
//!
//! A move leaves a tombstone on the old subject, and a mark of it under `left`; both go after
//! [`TOMBSTONE_TTL`]. Counts subtract what is marked and still a tombstone, so they cost as much as
//! entries were moved within that time, however many there are.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::api::{ApiError, StoredMessage};
use super::connect::Nats;

/// How long a tombstone stays.
pub const TOMBSTONE_TTL: Duration = Duration::from_secs(24 * 3600);
/// Entries of a page at most.
pub const MAX_PAGE: usize = 1000;

/// One family of entries of one pipeline.
#[derive(Clone, Debug)]
pub struct Entries {
    nats: Nats,
    /// The stream.
    stream: String,
    /// Everything before the state: `lookback.v1.<ns>.<name>.alert`.
    prefix: String,
    /// For errors: `alert`.
    noun: &'static str,
}

/// Where a page begins. Opaque; written as text it can be handed out and taken back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor(pub u64);

/// Some entries, the oldest version first.
#[derive(Clone, Debug, PartialEq)]
pub struct Page<T> {
    /// At most as many as were asked for.
    pub items: Vec<T>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Cursor>,
}

/// Why something could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// There is none: the leader says so.
    #[error("there is no {noun} {id}")]
    NotFound {
        /// `alert` or `dead letter`.
        noun: &'static str,
        /// Its id, or the beginning of it.
        id: String,
    },
    /// Several ids begin like this.
    #[error("{noun} {prefix} could be any of {}: give more of the id", ids.join(", "))]
    Ambiguous {
        /// `alert` or `dead letter`.
        noun: &'static str,
        /// What was given.
        prefix: String,
        /// Some that begin with it.
        ids: Vec<String>,
    },
    /// What stands there cannot be read by this version.
    #[error("{object} cannot be read")]
    Unreadable {
        /// The subject or id.
        object: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer, or a refusal. Never "not found".
    #[error("cannot {operation} {object}")]
    Api {
        /// For example `read`.
        operation: &'static str,
        /// The entry or stream.
        object: String,
        /// Why.
        #[source]
        source: ApiError,
    },
}

/// One message of the new version of an entry.
pub(super) struct NewPart {
    /// What follows `<prefix>.<state>.<id>`: nothing for the first part, `.2` for the second.
    pub(super) suffix: String,
    pub(super) headers: async_nats::HeaderMap,
    pub(super) body: bytes::Bytes,
}

/// An entry's move.
pub(super) struct Move<'a> {
    pub(super) id: &'a str,
    pub(super) from: &'a str,
    pub(super) to: &'a str,
    /// The sequences at which its parts were read.
    pub(super) expected: &'a [u64],
    pub(super) parts: Vec<NewPart>,
}

/// What became of a move or update.
#[derive(Debug)]
pub(super) enum Written {
    /// Done; the first part of the new version stands at this sequence.
    At(u64),
    /// Another write came first, or an answer was lost: compare what the leader holds.
    Conflict,
    /// The stream has no room.
    Full,
    /// It may have been done, or not, and the leader could not be asked.
    Unknown(ApiError),
}

impl Entries {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new(nats: Nats, stream: String, prefix: String, noun: &'static str) -> Self {
        Self {
            nats,
            stream,
            prefix,
            noun,
        }
    }

    /// The entry in whatever state, from the leader. A tombstone is never it, because the entry has the
    /// higher sequence.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn get(&self, id: &str) -> Result<StoredMessage, ReadError> {
        todo!("store: {id}")
    }

    /// The one id that begins with `prefix`, which has at least 6 characters.
    ///
    /// # Errors
    /// [`ReadError::NotFound`], [`ReadError::Ambiguous`], or no answer.
    pub async fn resolve(&self, prefix: &str) -> Result<String, ReadError> {
        todo!("store: {prefix}")
    }

    /// Entries in `state`, or in any with `None`; only their first parts.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn page(
        &self,
        state: Option<&str>,
        from: Cursor,
        limit: usize,
    ) -> Result<Page<StoredMessage>, ReadError> {
        todo!("store: {state:?} {from:?} {limit}")
    }

    /// How many entries are in each of `states`.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn counts(&self, states: &[&str]) -> Result<BTreeMap<String, u64>, ReadError> {
        todo!("store: {states:?}")
    }

    pub(super) async fn write_move(&self, entry: Move<'_>) -> Written {
        todo!("store: {}", entry.id)
    }

    pub(super) async fn write_update(
        &self,
        subject: &str,
        expected: u64,
        part: NewPart,
    ) -> Written {
        todo!("store: {subject} {expected} {}", part.suffix)
    }
}

/// What a message that is published again says of the one that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Republished {
    /// The subject it was stored under.
    pub subject: String,
    /// Its sequence.
    pub sequence: u64,
    /// When it was stored.
    pub time: Timestamp,
}
