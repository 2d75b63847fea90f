//! Why a worker ends, and what it tells the operator then.

use lookback_protocol::termination::{ExitReason, TerminationMessage};

use crate::runtime::telemetry::chain;
use crate::state::{OpenError, StateError};

use super::ports::{CheckpointError, Unavailable};
use super::process::SetupError;

/// How the loop ends.
#[derive(Debug)]
pub(super) enum Ending {
    /// SIGTERM.
    Drain,
    /// It cannot or must not go on.
    Stop(Box<Stop>),
}

/// Why a worker cannot or must not go on. The kubelet starts it again, so what heals, heals.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stop {
    #[error("{}", .0.message)]
    Refused(TerminationMessage),
    #[error(transparent)]
    Setup(#[from] SetupError),
    #[error("{0}")]
    BadConfig(String),
    #[error(transparent)]
    Open(OpenError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("state file is damaged: {0}")]
    Windows(String),
    #[error("NATS cannot be used; the worker tries again by itself")]
    Unavailable(#[from] Unavailable),
    #[error(
        "the checkpoint cannot be read, a newer version may have written it; run that version again"
    )]
    UnreadableCheckpoint(#[source] serde_json::Error),
    #[error("incarnation {other} has taken this partition over from {mine}")]
    Fenced { mine: String, other: String },
    #[error(
        "the checkpoint of this partition is one of incarnation {other}, from before {mine} took over: NATS was restored from an older copy; the worker starts again and checks what is left"
    )]
    CheckpointRegressed { mine: String, other: String },
    #[error("the checkpoint of this partition was deleted while incarnation {mine} worked")]
    CheckpointDeleted { mine: String },
    #[error("consumer {consumer} of stream {stream} does not exist; the operator makes it again")]
    ConsumerMissing { consumer: String, stream: String },
}

impl Stop {
    pub(super) fn into_message(self) -> TerminationMessage {
        match self {
            Self::Refused(message) => message,
            stop => TerminationMessage::new(stop.reason(), chain(&stop), stop.facts()),
        }
    }

    fn reason(&self) -> ExitReason {
        match self {
            Self::Refused(message) => message.reason,
            Self::Setup(error) => error.reason(),
            Self::BadConfig(_) => ExitReason::BadConfig,
            Self::Open(OpenError::Locked { .. }) => ExitReason::StateLocked,
            Self::Open(OpenError::Full { .. }) | Self::State(StateError::Full { .. }) => {
                ExitReason::VolumeFull
            }
            Self::Open(OpenError::NewerSchema { .. }) | Self::UnreadableCheckpoint(_) => {
                ExitReason::NewerSchema
            }
            Self::Open(OpenError::Corrupt(_))
            | Self::State(StateError::Corrupt { .. })
            | Self::Windows(_) => ExitReason::Corrupt,
            Self::Open(OpenError::Io { .. })
            | Self::State(StateError::Io { .. } | StateError::Refused { .. }) => {
                ExitReason::Internal
            }
            Self::Unavailable(_) | Self::CheckpointRegressed { .. } => ExitReason::NatsUnavailable,
            Self::Fenced { .. } | Self::CheckpointDeleted { .. } => ExitReason::Fenced,
            Self::ConsumerMissing { .. } => ExitReason::ConsumerMissing,
        }
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Fenced { mine, other } => {
                vec![
                    ("incarnation", mine.clone()),
                    ("takenOverBy", other.clone()),
                ]
            }
            Self::CheckpointRegressed { mine, other } => {
                vec![("incarnation", mine.clone()), ("found", other.clone())]
            }
            Self::ConsumerMissing { consumer, stream } => {
                vec![("consumer", consumer.clone()), ("stream", stream.clone())]
            }
            _ => Vec::new(),
        }
    }
}

impl<E: Into<Stop>> From<E> for Ending {
    fn from(stop: E) -> Self {
        Self::Stop(Box::new(stop.into()))
    }
}

/// A conflict is for [`super::fence`] to resolve; what is left is an answer that cannot be used.
impl From<CheckpointError> for Stop {
    fn from(error: CheckpointError) -> Self {
        match error {
            CheckpointError::Unavailable(unavailable) => Self::Unavailable(unavailable),
            CheckpointError::Unreadable(source) => Self::UnreadableCheckpoint(source),
            CheckpointError::Conflict => Self::Unavailable(Unavailable {
                operation: "compare-and-swap",
                object: "the checkpoint".to_owned(),
                source: Box::new(error),
            }),
        }
    }
}
