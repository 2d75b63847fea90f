//! How a worker says why it stopped. It writes one JSON object to its termination log; the operator
//! reads it from the pod's status and turns it into a condition.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The version of [`TerminationMessage`] written by this build.
pub const VERSION: u32 = 1;
/// Kubernetes keeps at most this many bytes of a termination message.
pub const MAX_BYTES: usize = 4096;

/// Why a worker stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TerminationMessage {
    /// Format version, [`VERSION`].
    pub v: u32,
    /// A closed set; also the reason of the pipeline's condition.
    pub reason: ExitReason,
    /// One sentence: what happened, and what to do.
    pub message: String,
    /// What the sentence is about, for example `position` and `lastSequence`.
    pub facts: BTreeMap<String, String>,
}

/// Why a worker stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ExitReason {
    /// SIGTERM; everything applied is committed.
    Drained,
    /// A bug: an error that no other reason describes.
    Internal,
    /// The configuration, the rules or the credentials cannot be used.
    BadConfig,
    /// The state file cannot be read.
    Corrupt,
    /// The state file was written by a newer version.
    NewerSchema,
    /// Another process holds the state file.
    StateLocked,
    /// The state file belongs to another pipeline, partition or cluster.
    OwnedByOther,
    /// Another incarnation or a later epoch took the partition over.
    Fenced,
    /// The source stream is another incarnation than the one the state was made from.
    StreamChanged,
    /// The source stream lost messages that were applied.
    StreamRegressed,
    /// The alerts or dead-letter stream lost messages that were stored.
    StoreRegressed,
    /// There is a checkpoint, but the volume came back empty.
    StateLost,
    /// The volume has no room.
    VolumeFull,
    /// NATS cannot be reached.
    NatsUnavailable,
    /// The consumer is gone; the operator makes it again.
    ConsumerMissing,
}

impl ExitReason {
    /// The exit code: 0 drained, 1 bug, 2 bad configuration, 3 refused, 4 fenced, 75 try again.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Drained => 0,
            Self::Internal => 1,
            Self::BadConfig => 2,
            Self::Corrupt
            | Self::NewerSchema
            | Self::StateLocked
            | Self::OwnedByOther
            | Self::StreamChanged
            | Self::StreamRegressed
            | Self::StoreRegressed
            | Self::StateLost
            | Self::VolumeFull => 3,
            Self::Fenced => 4,
            Self::NatsUnavailable | Self::ConsumerMissing => 75,
        }
    }
}

impl TerminationMessage {
    /// A message with facts.
    pub fn new<K: Into<String>, V: Into<String>>(
        reason: ExitReason,
        message: impl Into<String>,
        facts: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let facts = facts
            .into_iter()
            .map(|(k, v)| (k.into(), v.into()))
            .collect();
        Self {
            v: VERSION,
            reason,
            message: message.into(),
            facts,
        }
    }
}
