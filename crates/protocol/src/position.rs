//! Sequences, epochs and positions: the coordinates in which everything else is said.

use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A sequence of the source stream. JetStream numbers messages from 1; 0 is "before the first".
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(transparent)]
pub struct StreamSeq(pub u64);

impl StreamSeq {
    /// The sequence after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The sequence before this one; 0 stays 0.
    #[must_use]
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl fmt::Display for StreamSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts the cursors a pipeline had. Everything that could be confused between two of them carries it.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How far a state file has applied the source stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Position {
    /// The last sequence applied; 0 before the first message of a stream.
    pub sequence: StreamSeq,
    /// When JetStream stored that message, in nanoseconds; absent until the first commit, when
    /// `sequence` is only the place before the start.
    pub published: Option<Timestamp>,
}

impl Position {
    /// The position from which `start` is the next message: nothing is applied yet.
    #[must_use]
    pub fn before(start: StreamSeq) -> Self {
        Self {
            sequence: start.previous(),
            published: None,
        }
    }
}

/// One incarnation of a stream: a stream deleted and created again has the same name and another
/// creation time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamIdentity {
    /// The stream's name.
    pub name: String,
    /// When the server created it.
    pub created: Timestamp,
}
