//! Entries whose state stands in their subject, `<prefix>.<state>.<id>`: alerts and dead letters. One
//! message holds an entry, or the first of its parts; it is moved by one atomic batch, so it never is in
//! two states and never in none.
//!
//! What it guarantees:
//! - A read changes nothing on the server: it is a message get or a stream info, never a consumer.
//! - [`get`](Entries::get) is answered by the leader, so it sees every write that was acknowledged.
//! - A list holds every entry that was in the state when it began and still is when it ends; one that
//!   was written meanwhile may come once more, in its newer version. On replicated streams its pages
//!   may come from any copy, which is then proven to be recent enough.
//! - Counts are exact when nothing is written meanwhile; on replicated streams they may be off while
//!   tombstones expire, which each copy does by itself.
//! - A move compares the entry's own subject with the sequence it was read at: of several movers one
//!   wins, and the others are told who. After an answer was lost the leader is asked whose move stands.
//! - Only [`ReadError::NotFound`] means that there is none; silence is an error.
//!
//! A move leaves a tombstone on the old subject, and a mark of it under `left`; both go after
//! [`TOMBSTONE_TTL`]. Counts subtract what is marked and still a tombstone, so they cost as much as
//! entries were moved within that time, however many there are.

mod counts;
mod gathering;
mod list;
mod newest;
mod write;

use std::time::Duration;

use lookback_protocol::alert::{LEFT, MOVED_TO};

pub(super) use self::write::{Move, NewPart, Written};
use super::api::{ApiError, StoredMessage};
use super::connect::Nats;
use super::ensure::ObjectError;
use super::streams::{self, ObservedStream};

/// How long a tombstone stays, unless told otherwise.
pub const TOMBSTONE_TTL: Duration = Duration::from_secs(24 * 3600);
/// Entries of a page at most.
pub const MAX_PAGE: usize = 1000;
/// Characters of an id that must be given at least.
pub const MIN_PREFIX: usize = 6;
/// Ids that an ambiguous beginning is answered with at most.
const MAX_CANDIDATES: usize = 5;

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
    /// The subjects below the prefix that are no entries: marks and, where entries have several, parts.
    beside: &'static str,
    tombstone_ttl: Duration,
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
        /// `alert` or `dead letter`, or for example `state`.
        noun: &'static str,
        /// Its id, or the beginning of it.
        id: String,
    },
    /// Several ids begin like this.
    #[error("{noun} {prefix} could be any of {}: give more of the id", ids.join(", "))]
    Ambiguous {
        /// `alert` or `dead letter`, or for example `state`.
        noun: &'static str,
        /// What was given.
        prefix: String,
        /// Some that begin with it.
        ids: Vec<String>,
    },
    /// Too little to look for.
    #[error("give at least {MIN_PREFIX} characters of the id of the {noun}, not only {prefix:?}")]
    TooShort {
        /// `alert` or `dead letter`, or for example `state`.
        noun: &'static str,
        /// What was given.
        prefix: String,
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
    /// A consumer cannot be as it must be.
    #[error(transparent)]
    Object(#[from] ObjectError),
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

impl Entries {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new(nats: Nats, stream: String, prefix: String, noun: &'static str) -> Self {
        Self {
            nats,
            stream,
            prefix,
            noun,
            beside: "left.*.*",
            tombstone_ttl: TOMBSTONE_TTL,
        }
    }

    /// With entries of several parts. To count them the server looks at every subject.
    #[must_use]
    pub fn in_parts(self) -> Self {
        Self {
            beside: "*.*.*",
            ..self
        }
    }

    /// With tombstones that stay for another time, in whole seconds, at least one. The time must be
    /// longer than any program may go on with what it read: the entry's old subject is free afterwards.
    #[must_use]
    pub fn with_tombstone_ttl(self, tombstone_ttl: Duration) -> Self {
        Self {
            tombstone_ttl,
            ..self
        }
    }

    /// The entry in whatever state, from the leader. A tombstone is never it, because the entry has the
    /// higher sequence.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn get(&self, id: &str) -> Result<StoredMessage, ReadError> {
        if !is_token(id) {
            return Err(self.not_found(id));
        }
        let found = self
            .nats
            .last_of_subject(&self.stream, &self.subject("*", id))
            .await
            .map_err(|source| self.failed("read", id, source))?;
        found
            .filter(|message| !is_tombstone(message))
            .ok_or_else(|| self.not_found(id))
    }

    /// The one id that begins with `prefix`, which has at least [`MIN_PREFIX`] characters. A whole id
    /// costs one get; less than that, a list of all names from the leader.
    ///
    /// # Errors
    /// [`ReadError::NotFound`], [`ReadError::Ambiguous`], [`ReadError::TooShort`], or no answer.
    pub async fn resolve(&self, prefix: &str) -> Result<String, ReadError> {
        if prefix.len() < MIN_PREFIX {
            return Err(ReadError::TooShort {
                noun: self.noun,
                prefix: prefix.to_owned(),
            });
        }
        match self.get(prefix).await {
            Ok(_) => return Ok(prefix.to_owned()),
            Err(ReadError::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let names = self.names(&self.subject("*", "*")).await?;
        let ids = names
            .iter()
            .filter_map(|name| self.split(name))
            .map(|(_, id)| id);
        let mut candidates = beginning_with(prefix, ids);
        match candidates.len() {
            0 => Err(self.not_found(prefix)),
            1 => Ok(candidates.remove(0)),
            _ => {
                candidates.truncate(MAX_CANDIDATES);
                Err(ReadError::Ambiguous {
                    noun: self.noun,
                    prefix: prefix.to_owned(),
                    ids: candidates,
                })
            }
        }
    }

    /// The state and id in the subject of an entry's first part.
    #[must_use]
    pub fn split<'a>(&self, subject: &'a str) -> Option<(&'a str, &'a str)> {
        split(&self.prefix, subject)
    }

    fn subject(&self, state: &str, id: &str) -> String {
        format!("{}.{state}.{id}", self.prefix)
    }

    /// Where an entry marks that it left `state`, for as long as its tombstone there lives; `*` stands
    /// for any. So tombstones can be told from entries without reading either.
    fn left_subject(&self, state: &str, id: &str) -> String {
        format!("{}.{LEFT}.{state}.{id}", self.prefix)
    }

    /// Whether `state` can be one.
    pub(super) fn check_state(&self, state: Option<&str>) -> Result<(), ReadError> {
        match state {
            Some(state) if !is_token(state) => Err(ReadError::NotFound {
                noun: "state",
                id: state.to_owned(),
            }),
            Some(_) | None => Ok(()),
        }
    }

    /// What the leader says of the stream.
    pub(super) async fn observed(&self) -> Result<ObservedStream, ReadError> {
        streams::info(&self.nats, &self.stream)
            .await
            .map_err(|source| self.stream_failed("read", source))
    }

    fn not_found(&self, id: &str) -> ReadError {
        ReadError::NotFound {
            noun: self.noun,
            id: id.to_owned(),
        }
    }

    pub(super) fn failed(&self, operation: &'static str, id: &str, source: ApiError) -> ReadError {
        ReadError::Api {
            operation,
            object: format!("{} {id}", self.noun),
            source,
        }
    }

    pub(super) fn stream_failed(&self, operation: &'static str, source: ApiError) -> ReadError {
        ReadError::Api {
            operation,
            object: format!("stream {}", self.stream),
            source,
        }
    }
}

/// As [`Entries::split`], for whoever has none of these.
pub(super) fn split<'a>(prefix: &str, subject: &'a str) -> Option<(&'a str, &'a str)> {
    let rest = subject.strip_prefix(prefix)?.strip_prefix('.')?;
    let (state, id) = rest.split_once('.')?;
    (!id.contains('.')).then_some((state, id))
}

/// Whether a message only says that its entry went elsewhere.
pub(super) fn is_tombstone(message: &StoredMessage) -> bool {
    message.header(MOVED_TO).is_some()
}

/// Whether there is more than one copy of a stream, so that one may be behind. Unknown is yes.
fn is_replicated(observed: &ObservedStream) -> bool {
    observed.replicas() != Some(1)
}

/// Whether text can be one token of a subject and stands for nothing but itself.
fn is_token(text: &str) -> bool {
    let stands_for_itself =
        |c: char| !matches!(c, '.' | '*' | '>') && !c.is_whitespace() && !c.is_control();
    !text.is_empty() && text.chars().all(stands_for_itself)
}

/// The different ids that begin like this, in order.
fn beginning_with<'a>(prefix: &str, ids: impl Iterator<Item = &'a str>) -> Vec<String> {
    let matching: std::collections::BTreeSet<_> = ids.filter(|id| id.starts_with(prefix)).collect();
    matching.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tombstone_and_its_entry_are_one_id() {
        let ids = ["ABCDEF2", "ABCDEF1", "ABCDEF2", "ABCDE"];
        assert_eq!(
            beginning_with("ABCDEF", ids.into_iter()),
            ["ABCDEF1", "ABCDEF2"]
        );
    }

    #[test]
    fn an_id_that_stands_for_others_is_none() {
        for text in ["", "*", ">", "a.b", "a b", "a\r\nb"] {
            assert!(!is_token(text), "{text:?}");
        }
        assert!(is_token("0-7-e590fdd3"));
    }
}
