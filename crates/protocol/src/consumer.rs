//! The metadata on a consumer: which epoch it serves, for whom, and from where.

use std::collections::BTreeMap;

use crate::names::Owner;
use crate::position::{Epoch, StreamSeq};

/// Metadata key with the owner, on consumers and streams alike.
pub const OWNER_KEY: &str = "lookback.dev/owner";
const EPOCH_KEY: &str = "lookback.dev/epoch";
const START_KEY: &str = "lookback.dev/start";

/// What stands on the consumer of one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerMetadata {
    /// Who it belongs to, as [`Owner`] displays itself.
    pub owner: String,
    /// The epoch it serves.
    pub epoch: Epoch,
    /// The first sequence of a brand-new state file, resolved when the consumer was created.
    pub start: StreamSeq,
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
}

impl ConsumerMetadata {
    /// The metadata for a consumer of `owner`.
    #[must_use]
    pub fn new(owner: &Owner, epoch: Epoch, start: StreamSeq) -> Self {
        Self {
            owner: owner.to_string(),
            epoch,
            start,
        }
    }

    /// As JetStream holds it.
    #[must_use]
    pub fn to_map(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            (OWNER_KEY.to_owned(), self.owner.clone()),
            (EPOCH_KEY.to_owned(), self.epoch.to_string()),
            (START_KEY.to_owned(), self.start.to_string()),
        ])
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
        let mut number = |key: &'static str| {
            let text = get(key).ok_or(MetadataError::Missing(key))?;
            text.parse::<u64>()
                .map_err(|_| MetadataError::NotANumber(key, text.to_owned()))
        };
        Ok(Self {
            owner,
            epoch: Epoch(number(EPOCH_KEY)?),
            start: StreamSeq(number(START_KEY)?),
        })
    }
}
