//! Guards: CEL over the alert and who moves it, compiled once.

use crate::alert::AlertRecord;

/// A compiled guard.
#[derive(Clone, Debug)]
pub struct Guard(String);

/// Why a guard is none, or gave no answer.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GuardError {
    /// It is no CEL.
    #[error("guard {guard:?} is no CEL expression: {problem}")]
    Syntax {
        /// The guard.
        guard: String,
        /// What the parser says.
        problem: String,
    },
    /// It could not be evaluated, for example because the alert lacks what it names.
    #[error("guard {guard:?} cannot be evaluated: {problem}")]
    Evaluation {
        /// The guard.
        guard: String,
        /// What the evaluator says.
        problem: String,
    },
    /// It is neither true nor false.
    #[error("guard {guard:?} gave no boolean")]
    NotBoolean {
        /// The guard.
        guard: String,
    },
}

impl Guard {
    /// Compiles it.
    ///
    /// # Errors
    /// [`GuardError::Syntax`].
    pub fn new(text: &str) -> Result<Self, GuardError> {
        todo!("flow: {text}")
    }

    /// Whether it lets `by` take the step with `alert` as it is now.
    ///
    /// # Errors
    /// [`GuardError`]; the step is not taken then.
    pub fn allows(&self, alert: &AlertRecord, by: &str, reason: &str) -> Result<bool, GuardError> {
        todo!("flow: {self:?} {alert:?} {by} {reason}")
    }
}
