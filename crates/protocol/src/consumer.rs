//! The metadata on a consumer: which epoch it serves, for whom, and from where.

use std::collections::BTreeMap;

use crate::config::Cursor;
use crate::names::Owner;
use crate::position::{Epoch, StreamSeq};

/// Metadata key with the owner, on consumers and streams alike.
pub const OWNER_KEY: &str = "lookback.dev/owner";
const EPOCH_KEY: &str = "lookback.dev/epoch";
const START_KEY: &str = "lookback.dev/start";
/// What the epoch does, as JSON: from it a pipeline that was deleted and created again knows.
const CURSOR_KEY: &str = "lookback.dev/cursor";
/// For people: the request of the epoch.
const REQUEST_KEY: &str = "lookback.dev/request";
/// For people: the plan of the request.
const PLAN_KEY: &str = "lookback.dev/plan-hash";
/// Metadata key that says whether the epoch has begun on a state file.
pub const APPLIED_KEY: &str = "lookback.dev/applied";

/// What stands on the consumer of one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerMetadata {
    /// Who it belongs to, as [`Owner`] displays itself.
    pub owner: String,
    /// The epoch it serves.
    pub epoch: Epoch,
    /// The first sequence of a brand-new state file, resolved when the consumer was created.
    pub start: StreamSeq,
    /// What becomes of the state file when the epoch begins on it.
    pub cursor: Cursor,
    /// Whether that has happened, as the checkpoint said: a file that knows nothing of it is then an
    /// older one.
    pub applied: bool,
}

/// Metadata that is not ours, or that an incompatible version wrote.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MetadataError {
    /// A key is absent.
    #[error("consumer metadata has no {0}")]
    Missing(&'static str),
    /// A key holds no number.
    #[error("consumer metadata {0} is {1:?}, not a number")]
    NotANumber(&'static str, String),
    /// What the epoch does cannot be read.
    #[error("consumer metadata {CURSOR_KEY} cannot be read: {0}")]
    Cursor(String),
}

impl ConsumerMetadata {
    /// The metadata for a consumer of `owner`.
    #[must_use]
    pub fn new(owner: &Owner, epoch: Epoch, start: StreamSeq) -> Self {
        Self {
            owner: owner.to_string(),
            epoch,
            start,
            cursor: Cursor::default(),
            applied: false,
        }
    }

    /// As JetStream holds it.
    #[must_use]
    pub fn to_map(&self) -> BTreeMap<String, String> {
        let Self {
            owner,
            epoch,
            start,
            cursor,
            applied,
        } = self;
        let mut map = BTreeMap::from([
            (OWNER_KEY.to_owned(), owner.clone()),
            (EPOCH_KEY.to_owned(), epoch.to_string()),
            (START_KEY.to_owned(), start.to_string()),
        ]);
        if *applied {
            map.insert(APPLIED_KEY.to_owned(), true.to_string());
        }
        if *cursor != Cursor::default() {
            let json = serde_json::to_string(cursor).expect("strings and numbers are JSON");
            map.insert(CURSOR_KEY.to_owned(), json);
        }
        if let Cursor::Rewind(rewind) = cursor {
            map.insert(REQUEST_KEY.to_owned(), rewind.request_id.to_string());
            map.insert(PLAN_KEY.to_owned(), rewind.plan_hash.clone());
        }
        map
    }

    /// Reads it back; keys of others are left alone.
    ///
    /// # Errors
    /// [`MetadataError`] names the key that is missing or no number.
    pub fn from_map<'a>(
        mut get: impl FnMut(&str) -> Option<&'a str>,
    ) -> Result<Self, MetadataError> {
        let owner = get(OWNER_KEY)
            .ok_or(MetadataError::Missing(OWNER_KEY))?
            .to_owned();
        let cursor = match get(CURSOR_KEY) {
            Some(json) => serde_json::from_str(json)
                .map_err(|error| MetadataError::Cursor(error.to_string()))?,
            None => Cursor::default(),
        };
        let applied = get(APPLIED_KEY) == Some("true");
        let mut number = |key: &'static str| {
            let text = get(key).ok_or(MetadataError::Missing(key))?;
            text.parse::<u64>()
                .map_err(|_| MetadataError::NotANumber(key, text.to_owned()))
        };
        Ok(Self {
            owner,
            epoch: Epoch(number(EPOCH_KEY)?),
            start: StreamSeq(number(START_KEY)?),
            cursor,
            applied,
        })
    }
}
