//! The workflow of a pipeline's alerts: which states there are and which steps lead from one to the
//! next. A workflow is parsed once into [`Workflow`]; the store takes every step through
//! [`Workflow::step`], so no program can take one that the definition does not have.
//!
//! Every alert begins in [`NEW`] and every alert can be archived; both stand in no definition. Cycles
//! are allowed.

mod check;
mod fault;
pub mod guard;
mod step;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::alert::{ARCHIVED, NEW};
use crate::names::Owner;
use crate::version;

pub use self::fault::{Fault, sentences};
pub use self::guard::{Guard, GuardError};
pub use self::step::{
    Ask, MAX_BY, MAX_METADATA, MAX_METADATA_KEY, MAX_METADATA_VALUE, MAX_REASON, Refusal, Step, To,
    sequences,
};

/// The version of [`Definition`] written by this build.
pub const VERSION: u32 = 1;
/// States of a workflow at most, [`NEW`] and [`ARCHIVED`] among them.
pub const MAX_STATES: usize = 32;
/// Transitions of a workflow at most.
pub const MAX_TRANSITIONS: usize = 64;
/// Characters of a state's or transition's name at most.
pub const MAX_NAME: usize = 40;
/// Characters of a guard at most.
pub const MAX_GUARD: usize = 1024;
/// The transition by which every alert begins.
pub const CREATE: &str = "create";
/// The transition of a change that leaves an alert where it is.
pub const UPDATE: &str = "update";
/// The transition of every alert into [`ARCHIVED`].
pub const ARCHIVE: &str = "archive";

/// A workflow as people write it, not checked yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowSpec {
    /// The states beside `new` and `archived`, in the order in which they are shown.
    #[schemars(
        length(max = 30),
        inner(length(max = 40), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))
    )]
    pub states: Vec<String>,
    /// The steps.
    #[schemars(length(min = 1, max = 64))]
    pub transitions: Vec<TransitionSpec>,
}

/// A step as people write it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TransitionSpec {
    /// Its name, once in the workflow.
    #[schemars(length(max = 40), regex(pattern = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"))]
    pub id: String,
    /// The states it may be taken from.
    #[schemars(length(min = 1, max = 32), inner(length(max = 40)))]
    pub from: Vec<String>,
    /// The state it leads to.
    #[schemars(length(max = 40))]
    pub to: String,
    /// A CEL expression over `alert`, `by` and `reason` that must be true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub guard: Option<String>,
}

impl Default for WorkflowSpec {
    /// new -> triage -> escalated | closed, escalated -> closed, closed -> triage.
    fn default() -> Self {
        let step = |id: &str, from: &[&str], to: &str| TransitionSpec {
            id: id.to_owned(),
            from: from.iter().map(|&state| state.to_owned()).collect(),
            to: to.to_owned(),
            guard: None,
        };
        Self {
            states: ["triage", "escalated", "closed"]
                .map(str::to_owned)
                .to_vec(),
            transitions: vec![
                step("triage", &[NEW], "triage"),
                step("escalate", &["triage"], "escalated"),
                step("close", &["triage", "escalated"], "closed"),
                step("reopen", &["closed"], "triage"),
            ],
        }
    }
}

/// The workflow as it stands in NATS under [`crate::names::PipelineKey::definition_key`], for everyone
/// who moves alerts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Definition {
    /// Format version, [`VERSION`]; another one is not read.
    #[serde(deserialize_with = "version::exactly::<VERSION, _>")]
    pub v: u32,
    /// Whose it is.
    #[serde(flatten)]
    pub owner: Owner,
    /// The state in which every alert begins.
    pub initial: String,
    /// The workflow.
    #[serde(flatten)]
    pub workflow: WorkflowSpec,
    /// States that only earlier workflows of this pipeline had: alerts may still be in them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former: Vec<String>,
}

impl Definition {
    /// The definition of `owner`'s workflow.
    #[must_use]
    pub fn new(owner: Owner, workflow: &Workflow) -> Self {
        Self {
            v: VERSION,
            owner,
            initial: NEW.to_owned(),
            workflow: workflow.spec.clone(),
            former: Vec::new(),
        }
    }

    /// This one in the place of `earlier`: what only that one had are former states now.
    #[must_use]
    pub fn after(self, earlier: Self) -> Self {
        let mut former: Vec<_> = earlier.workflow.states;
        former.extend(earlier.former);
        former.extend(self.former);
        former.retain(|state| !self.workflow.states.contains(state));
        former.sort();
        former.dedup();
        Self { former, ..self }
    }

    /// Every state in which alerts can be: `new`, those of the workflow, former ones, `archived`.
    pub fn states(&self) -> impl Iterator<Item = &str> {
        std::iter::once(NEW)
            .chain(self.workflow.states.iter().map(String::as_str))
            .chain(self.former.iter().map(String::as_str))
            .chain(std::iter::once(ARCHIVED))
    }
}

/// A workflow that can be followed: names are subject tokens, every state can be reached, and guards
/// are CEL.
#[derive(Clone, Debug)]
pub struct Workflow {
    spec: WorkflowSpec,
    /// In the order of `spec.transitions`.
    guards: Vec<Option<Guard>>,
}

/// A step of a [`Workflow`].
#[derive(Clone, Copy, Debug)]
pub struct Transition<'a> {
    /// As it was written.
    pub spec: &'a TransitionSpec,
    /// Its guard, compiled.
    pub guard: Option<&'a Guard>,
}

impl Workflow {
    /// Checks a workflow.
    ///
    /// # Errors
    /// Every [`Fault`] there is.
    pub fn new(spec: WorkflowSpec) -> Result<Self, Vec<Fault>> {
        let mut faults = fault::of(&spec);
        let mut guards = Vec::with_capacity(spec.transitions.len());
        for transition in &spec.transitions {
            guards.push(match transition.guard.as_deref().map(Guard::new) {
                None => None,
                Some(Ok(guard)) => Some(guard),
                Some(Err(problem)) => {
                    faults.push(Fault::Guard {
                        transition: transition.id.clone(),
                        problem,
                    });
                    None
                }
            });
        }
        if faults.is_empty() {
            Ok(Self { spec, guards })
        } else {
            Err(faults)
        }
    }

    /// As it was written.
    #[must_use]
    pub fn spec(&self) -> &WorkflowSpec {
        &self.spec
    }

    /// `new`, then the states of the definition, then `archived`.
    pub fn states(&self) -> impl Iterator<Item = &str> {
        std::iter::once(NEW)
            .chain(self.spec.states.iter().map(String::as_str))
            .chain(std::iter::once(ARCHIVED))
    }

    /// Whether `state` is one of [`Self::states`].
    #[must_use]
    pub fn has_state(&self, state: &str) -> bool {
        self.states().any(|known| known == state)
    }

    /// The steps that lead from `state`, guards unasked.
    pub fn from_state<'a>(&'a self, state: &'a str) -> impl Iterator<Item = Transition<'a>> {
        self.spec
            .transitions
            .iter()
            .zip(&self.guards)
            .filter(move |(spec, _)| spec.from.iter().any(|from| from == state))
            .map(|(spec, guard)| Transition {
                spec,
                guard: guard.as_ref(),
            })
    }
}

impl Default for Workflow {
    fn default() -> Self {
        Self::new(WorkflowSpec::default()).expect("the default workflow is sound; a test says so")
    }
}

#[cfg(test)]
mod tests;
