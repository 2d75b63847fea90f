//! Dead letters: an event that cannot be applied, with its bytes, headers, place and reason. The body
//! is the original payload, raw. Original headers never travel under their own names, because the
//! server would obey a copied `Nats-Msg-Id` or `Nats-Expected-*`; they stand base64-encoded in
//! [`HEADERS`], or, when large, raw in a part of their own.

pub mod resend;

use std::fmt;

use serde::{Deserialize, Serialize};

/// Header: the [`Reason`].
pub const REASON: &str = "Lookback-Reason";
/// Header: the error in words.
pub const ERROR: &str = "Lookback-Error";
/// Header: the source stream.
pub const STREAM: &str = "Lookback-Stream";
/// Header: the event's sequence in it.
pub const SEQUENCE: &str = "Lookback-Sequence";
/// Header: the event's subject.
pub const SUBJECT: &str = "Lookback-Subject";
/// Header: when JetStream stored the event, RFC 3339 with nanoseconds.
pub const PUBLISHED: &str = "Lookback-Published";
/// Header: how often it was tried.
pub const ATTEMPTS: &str = "Lookback-Attempts";
/// Header: the epoch that parked it.
pub const EPOCH: &str = "Lookback-Epoch";
/// Header: the original headers, base64 of their NATS wire form.
pub const HEADERS: &str = "Lookback-Headers";
/// Header: the number of this part, from 1.
pub const PART: &str = "Lookback-Part";
/// Header: how many parts the entry has.
pub const PARTS: &str = "Lookback-Parts";
/// Original headers above this many bytes go into a part of their own: all headers of a message share
/// 64 KiB, and base64 makes them a third larger.
pub const MAX_INLINE_HEADERS: usize = 40 * 1024;
/// Header of a letter that a person moved: who.
pub const BY: &str = "Lookback-By";
/// Header of a letter that a person moved: why.
pub const NOTE: &str = "Lookback-Note";
/// Header of a letter that a person moved: the id of the operation.
pub const OP_ID: &str = "Lookback-Op-Id";
/// Header of a redriven event: the dead letter that it was.
pub const REDRIVE_OF: &str = "Lookback-Redrive-Of";
/// Header of a redriven event and of its letters: how often it was sent again.
pub const REDRIVES: &str = "Lookback-Redrives";
/// Header of a letter that is being redriven: the last sequence of the source stream before its event
/// was sent.
pub const REDRIVE_AFTER: &str = "Lookback-Redrive-After";
/// The state in which dead letters are created.
pub const PARKED: &str = "parked";
/// The state of a letter whose event is being sent once more.
pub const REDRIVING: &str = "redriving";
/// The state of a letter whose event was sent once more.
pub const REDRIVEN: &str = "redriven";
/// The state of a letter whose event will not be applied.
pub const DISCARDED: &str = "discarded";
/// Every state.
pub const STATES: [&str; 4] = [PARKED, REDRIVING, REDRIVEN, DISCARDED];

/// Whether a dead letter can have this id: one subject token without a wildcard.
#[must_use]
pub fn is_id(id: &str) -> bool {
    !id.is_empty() && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// Why an event was parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Reason {
    /// No payload, or only white space.
    Empty,
    /// The payload is no JSON, or no UTF-8.
    NotJson,
    /// JSON, but no object.
    NotObject,
    /// Nested deeper than the decoder goes.
    TooDeep,
    /// Larger than the decoder takes.
    TooLarge,
    /// The engine panicked on it twice.
    EnginePanic,
    /// The worker died with exactly this event in flight as often as allowed.
    CrashLoop,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_find_more_than_one_letter_is_no_id() {
        assert!(is_id("0-7-e590fdd3"));
        for other in ["", "*", ">", "0-7-e590fdd3.2", "0-7 e"] {
            assert!(!is_id(other), "{other}");
        }
    }
}
