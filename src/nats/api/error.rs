//! Why a request was not granted.

use std::fmt;

use async_nats::client::RequestError;
use serde::Deserialize;

/// Why a request was not granted.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The server said no; nothing was done.
    #[error("the server refused it: {description} ({code})")]
    Refused {
        /// JetStream's error code.
        code: Code,
        /// JetStream's words.
        description: String,
    },
    /// No answer: it may have been done, or not.
    #[error("no answer")]
    NoAnswer(#[source] RequestError),
    /// An answer that is none.
    #[error("the answer cannot be read")]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server took a write for a repetition of another and did not store it.
    #[error("the server took it for a duplicate of sequence {0} and did not store it")]
    Swallowed(u64),
    /// A direct get that nobody is there to answer.
    #[error(
        "no copy of the stream answers direct gets: it does not exist, or its allow_direct is off"
    )]
    NoCopies,
}

/// An error code of JetStream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Code(pub u64);

impl Code {
    /// More subjects than a server looks up at once; a status, for want of a code.
    pub const TOO_MANY_RESULTS: Self = Self(413);
    /// No such consumer.
    pub const CONSUMER_NOT_FOUND: Self = Self(10014);
    /// No such message.
    pub const MESSAGE_NOT_FOUND: Self = Self(10037);
    /// No such stream.
    pub const STREAM_NOT_FOUND: Self = Self(10059);

    /// Whether a compare-and-swap lost. On replicated streams 10164 only says that another write of
    /// the subject is in process, not that it will succeed.
    #[must_use]
    pub fn is_conflict(self) -> bool {
        matches!(self.0, 10071 | 10164)
    }

    /// Whether room was lacking: in the stream, the account or the server.
    #[must_use]
    pub fn is_full(self) -> bool {
        matches!(self.0, 10002 | 10023 | 10047 | 10077)
    }

    /// Whether this account has no JetStream.
    #[must_use]
    pub fn is_jetstream_missing(self) -> bool {
        matches!(self.0, 10039 | 10076)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ApiError {
    /// The server's code, when it refused.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::NoAnswer(_) | Self::Unreadable(_) | Self::Swallowed(_) | Self::NoCopies => None,
        }
    }

    /// Whether the client itself refused to send it, as it will each time.
    pub(in crate::nats) fn was_not_sent(&self) -> bool {
        use async_nats::RequestErrorKind::{InvalidSubject, MaxPayloadExceeded};
        let Self::NoAnswer(error) = self else {
            return false;
        };
        matches!(error.kind(), InvalidSubject | MaxPayloadExceeded)
    }
}
