//! Why a step was not taken.

use lookback_protocol::workflow::Refusal;

use crate::nats::api::ApiError;
use crate::nats::audit::AuditError;
use crate::nats::entries::ReadError;

/// Why a step was not taken, and whether anything was done.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The alert, the workflow or the stream could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The workflow does not allow it.
    #[error("alert {id} is left as it is")]
    Refused {
        /// The alert.
        id: String,
        /// Why.
        #[source]
        source: Refusal,
    },
    /// Somebody else was faster.
    #[error("alert {id} is left as it is: {by} has moved it to {state} (sequence {sequence})")]
    Conflict {
        /// The alert.
        id: String,
        /// Who won.
        by: String,
        /// Where it is now.
        state: String,
        /// The version that won.
        sequence: u64,
    },
    /// The stream has no room.
    #[error(
        "stream {stream} has no room left: raise spec.alerts.maxBytes, or archive alerts that are done with"
    )]
    Full {
        /// The stream.
        stream: String,
    },
    /// The server, or the client, does not take it.
    #[error("alert {id} is left as it is")]
    NotWritten {
        /// The alert.
        id: String,
        /// Why.
        #[source]
        source: ApiError,
    },
    /// It was overtaken each time.
    #[error("alert {id} is left as it is: others write it all the time, so try again")]
    Busy {
        /// The alert.
        id: String,
    },
    /// It may have been done, or not.
    #[error("it is not known whether alert {id} was moved: read it before trying again")]
    Unknown {
        /// The alert.
        id: String,
        /// Why not.
        #[source]
        source: ApiError,
    },
    /// The audit has no room or does not answer, and the step is not taken without it.
    #[error("alert {id} is left as it is, because its past cannot be kept in the audit")]
    AuditBefore {
        /// The alert.
        id: String,
        /// Why.
        #[source]
        source: AuditError,
    },
    /// It was done, but is not in the audit.
    #[error("alert {id} was moved to {state}, but the audit does not say so")]
    AuditAfter {
        /// The alert.
        id: String,
        /// Where it is now.
        state: String,
        /// Why.
        #[source]
        source: AuditError,
    },
}
