//! What stands between a pipeline and its spec: a reason of the one table, and a sentence.

use crate::api::conditions::Reason;

/// Something to say in a condition. The reason fixes the condition, and whether someone must act.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    /// Why.
    pub reason: Reason,
    /// What happened, with the names of the objects, and what to do; never a secret.
    pub message: String,
}

impl Problem {
    /// A problem.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}
