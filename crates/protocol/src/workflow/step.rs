//! One step of an alert, decided and written without I/O: the record that is to be stored, what it
//! has no more room for, and why not.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{GuardError, Workflow};
use crate::alert::{AlertRecord, HistoryEntry};
use crate::audit::PastStep;

/// What somebody asks of an alert.
#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    /// Where to.
    pub to: To,
    /// Who asks: `user/<name>` for people.
    pub by: String,
    /// Why, in their words; may be empty, but not for [`To::Archive`].
    pub reason: String,
    /// Metadata to set, or with `None` to take away.
    pub metadata: BTreeMap<String, Option<String>>,
    /// The id of this write, a UUIDv7; the same for each try of it.
    pub op_id: String,
    /// The writer's clock.
    pub time: Timestamp,
}

/// Where somebody wants an alert to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// To this state, by the one transition that leads there.
    State(String),
    /// By this transition.
    Transition(String),
    /// Nowhere: only its metadata changes.
    Stay,
    /// Into the archive, from wherever it is.
    Archive,
}

/// A step that may be taken.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The state it is taken from.
    pub from: String,
    /// The transition; `update` for [`To::Stay`], `archive` for [`To::Archive`].
    pub transition: String,
    /// The new version. For [`To::Archive`] it goes into the audit, and only the id stays.
    pub record: AlertRecord,
    /// Entries that went out of the history, to be stored in the audit first.
    pub overflow: Vec<PastStep>,
}

/// Why a step is not taken. Each says what could be done instead.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    /// No transition leads there.
    #[error("no transition leads from {from} to {to}; from {from} there is: {possible}")]
    NoTransition {
        /// The state it is in.
        from: String,
        /// What was asked for.
        to: String,
        /// The transitions there are, as `close -> closed`.
        possible: String,
    },
    /// Several do.
    #[error("several transitions lead from {from} to {to}: {ids}; name one")]
    Several {
        /// The state it is in.
        from: String,
        /// What was asked for.
        to: String,
        /// Their ids.
        ids: String,
    },
    /// It is done with.
    #[error("alert {id} is archived")]
    Archived {
        /// The alert.
        id: String,
    },
    /// The guard says no.
    #[error("the guard of transition {transition} does not allow it: {guard}")]
    Forbidden {
        /// The transition.
        transition: String,
        /// Its guard.
        guard: String,
    },
    /// The guard says nothing.
    #[error("transition {transition} is not taken")]
    Guard {
        /// The transition.
        transition: String,
        /// Why.
        #[source]
        source: GuardError,
    },
    /// A reason is needed.
    #[error("give a reason: it is all that is left of why the alert went away")]
    NoReason,
}

impl Workflow {
    /// Decides about a step of `current`, which stands at `sequence` of its stream.
    ///
    /// # Errors
    /// [`Refusal`]; nothing is to be written.
    pub fn step(&self, current: &AlertRecord, sequence: u64, ask: &Ask) -> Result<Step, Refusal> {
        let _: Option<HistoryEntry> = None;
        todo!("flow: {current:?} {sequence} {ask:?}")
    }
}
