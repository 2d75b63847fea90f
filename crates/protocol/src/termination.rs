//! How a worker says why it stopped. It writes one JSON object to its termination log; the operator
//! reads it from the pod's status and turns it into a condition.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::version;

/// The version of [`TerminationMessage`] written by this build.
pub const VERSION: u32 = 1;
/// Kubernetes keeps at most this many bytes of a termination message.
pub const MAX_BYTES: usize = 4096;
const CUT: &str = "...";

/// Why a worker stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TerminationMessage {
    /// Format version, [`VERSION`]; another one is not read.
    #[serde(deserialize_with = "version::exactly::<VERSION, _>")]
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

    /// As it is written to the termination log: at most [`MAX_BYTES`]. What does not fit is cut from
    /// the end of the message; facts that leave no room for one are left out.
    #[must_use]
    pub fn to_json(&self) -> String {
        let whole = json(self);
        if whole.len() <= MAX_BYTES {
            return whole;
        }
        let mut short = self.clone();
        CUT.clone_into(&mut short.message);
        if json(&short).len() > MAX_BYTES {
            short.facts.clear();
            short.message.clone_from(&self.message);
            let without_facts = json(&short);
            if without_facts.len() <= MAX_BYTES {
                return without_facts;
            }
        }
        let mut cut_at = |end: usize| {
            short.message = format!("{}{CUT}", &self.message[..end]);
            json(&short)
        };
        let ends: Vec<usize> = self.message.char_indices().map(|(at, _)| at).collect();
        let fitting = ends.partition_point(|&end| cut_at(end).len() <= MAX_BYTES);
        cut_at(fitting.checked_sub(1).map_or(0, |last| ends[last]))
    }
}

fn json(message: &TerminationMessage) -> String {
    serde_json::to_string(message).expect("strings, a number and a map of strings are JSON")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(text: &str) -> TerminationMessage {
        TerminationMessage::new(ExitReason::BadConfig, text, [("file", "a/b.yml")])
    }

    fn read(json: &str) -> TerminationMessage {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_message_that_fits_is_written_whole() {
        let message = message("x");
        assert_eq!(read(&message.to_json()), message);
    }

    #[test]
    fn a_message_that_does_not_fit_loses_its_end_and_keeps_its_facts() {
        let long = message(&"x".repeat(2 * MAX_BYTES));
        let json = long.to_json();
        assert_eq!(json.len(), MAX_BYTES);
        assert!(read(&json).message.ends_with("xxx..."));
        assert_eq!(read(&json).facts, long.facts);
    }

    #[test]
    fn facts_that_do_not_fit_are_left_out() {
        let mut large = message("x");
        large
            .facts
            .insert("large".to_owned(), "y".repeat(MAX_BYTES));
        let json = large.to_json();
        assert!(json.len() <= MAX_BYTES);
        assert!(read(&json).facts.is_empty());
        assert_eq!(read(&json).message, "x");
    }

    proptest! {
        #[test]
        fn every_message_fits_and_is_a_prefix_of_the_whole(text in "(\\PC|[\x00-\x1f\"]|\u{1F600}){0,40}", times in 1..200usize) {
            let whole = message(&text.repeat(times));
            let json = whole.to_json();
            prop_assert!(json.len() <= MAX_BYTES);
            let found = read(&json).message;
            prop_assert!(whole.message == found || whole.message.starts_with(found.strip_suffix("...").unwrap()));
        }
    }
}
