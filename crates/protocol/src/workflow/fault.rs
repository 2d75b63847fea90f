//! What can be wrong with a workflow as it was written.

use std::collections::BTreeSet;

use super::{
    ARCHIVE, CREATE, GuardError, MAX_NAME, MAX_STATES, MAX_TRANSITIONS, TransitionSpec, UPDATE,
    WorkflowSpec,
};
use crate::alert::{ARCHIVED, LEFT, NEW};

/// Why a workflow cannot be followed, and what to do about it; every fault is named, not only the
/// first.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Fault {
    /// It could not be a token of a subject.
    #[error(
        "{what} {name:?} must match ^[a-z]([-a-z0-9]*[a-z0-9])?$ and have at most {MAX_NAME} characters"
    )]
    Name {
        /// `state` or `transition`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// It would not be known which is meant.
    #[error("{what} {name} stands there twice: take one away, or give it another name")]
    Duplicate {
        /// `state` or `transition`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// Every workflow has it, or the store uses it.
    #[error("{what} {name} is built in: leave it out, or give it another name")]
    Reserved {
        /// `state` or `transition`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// It begins nowhere.
    #[error("transition {transition} can be taken from no state: give it one in from")]
    NoFrom {
        /// The transition.
        transition: String,
    },
    /// One of its ends is no state.
    #[error(
        "transition {transition} names {state:?} in {end}, which is no state: add it to states, or name another"
    )]
    Unknown {
        /// The transition.
        transition: String,
        /// `from` or `to`.
        end: &'static str,
        /// What is no state.
        state: String,
    },
    /// It begins or ends in the archive.
    #[error(
        "transition {transition} names {ARCHIVED} in {end}: take it away, as every alert can be archived without a transition, and none comes back"
    )]
    Archived {
        /// The transition.
        transition: String,
        /// `from` or `to`.
        end: &'static str,
    },
    /// It leads nowhere else.
    #[error(
        "transition {transition} leads from {state} to itself: take {state} out of its from, as metadata can be changed without a transition"
    )]
    Itself {
        /// The transition.
        transition: String,
        /// The state.
        state: String,
    },
    /// No alert could ever be there.
    #[error(
        "no way leads from {NEW} to {}: add a transition, or take the state away",
        states.join(", ")
    )]
    Unreachable {
        /// In the order of the workflow.
        states: Vec<String>,
    },
    /// There are more than a program should have to show.
    #[error("there are {count} {what}, and {max} at most can be: take some away")]
    TooMany {
        /// `states` or `transitions`.
        what: &'static str,
        /// How many there are.
        count: usize,
        /// How many there can be.
        max: usize,
    },
    /// Its guard is none.
    #[error("correct the guard of transition {transition}: {problem}")]
    Guard {
        /// The transition.
        transition: String,
        /// What is wrong with it.
        problem: GuardError,
    },
}

/// All of them in one line.
#[must_use]
pub fn sentences(faults: &[Fault]) -> String {
    let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
    faults.join("; ")
}

/// Every fault but those of guards.
pub(super) fn of(spec: &WorkflowSpec) -> Vec<Fault> {
    let ids: Vec<&str> = spec
        .transitions
        .iter()
        .map(|step| step.id.as_str())
        .collect();
    let states: Vec<&str> = spec.states.iter().map(String::as_str).collect();
    let mut faults = Vec::new();
    // New and archived stand in no list.
    faults.extend(too_many("states", states.len(), MAX_STATES - 2));
    faults.extend(too_many("transitions", ids.len(), MAX_TRANSITIONS));
    faults.extend(of_names("state", &states, &[NEW, ARCHIVED, LEFT]));
    faults.extend(of_names("transition", &ids, &[CREATE, UPDATE, ARCHIVE]));
    for transition in &spec.transitions {
        faults.extend(of_transition(transition, &states));
    }
    faults.extend(unreachable(spec));
    faults
}

fn too_many(what: &'static str, count: usize, max: usize) -> Option<Fault> {
    (count > max).then_some(Fault::TooMany { what, count, max })
}

fn of_names(what: &'static str, names: &[&str], reserved: &[&str]) -> Vec<Fault> {
    let mut seen = BTreeSet::new();
    let mut twice = BTreeSet::new();
    let mut faults = Vec::new();
    for &text in names {
        let name = text.to_owned();
        if !seen.insert(text) {
            if twice.insert(text) {
                faults.push(Fault::Duplicate { what, name });
            }
        } else if reserved.contains(&text) {
            faults.push(Fault::Reserved { what, name });
        } else if !is_name(text) {
            faults.push(Fault::Name { what, name });
        }
    }
    faults
}

fn is_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    text.len() <= MAX_NAME
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(inner)
        && !text.ends_with('-')
}

fn of_transition(step: &TransitionSpec, states: &[&str]) -> Vec<Fault> {
    let transition = || step.id.clone();
    let mut faults = Vec::new();
    if step.from.is_empty() {
        faults.push(Fault::NoFrom {
            transition: transition(),
        });
    }
    let from: BTreeSet<&str> = step.from.iter().map(String::as_str).collect();
    let ends = from.iter().map(|&state| ("from", state));
    for (end, state) in ends.chain([("to", step.to.as_str())]) {
        if state == ARCHIVED {
            faults.push(Fault::Archived {
                transition: transition(),
                end,
            });
        } else if state != NEW && !states.contains(&state) {
            faults.push(Fault::Unknown {
                transition: transition(),
                end,
                state: state.to_owned(),
            });
        }
    }
    if from.contains(step.to.as_str()) && step.to != ARCHIVED {
        faults.push(Fault::Itself {
            transition: transition(),
            state: step.to.clone(),
        });
    }
    faults
}

fn unreachable(spec: &WorkflowSpec) -> Option<Fault> {
    let mut reached = BTreeSet::from([NEW]);
    loop {
        let before = reached.len();
        for step in &spec.transitions {
            if step.from.iter().any(|from| reached.contains(from.as_str())) {
                reached.insert(&step.to);
            }
        }
        if reached.len() == before {
            break;
        }
    }
    let missed: Vec<String> = spec
        .states
        .iter()
        .filter(|state| !reached.contains(state.as_str()))
        .cloned()
        .collect();
    (!missed.is_empty()).then_some(Fault::Unreachable { states: missed })
}
