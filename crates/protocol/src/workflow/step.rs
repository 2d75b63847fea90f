//! One step of an alert, decided and written without I/O: the record that is to be stored, what it
//! has no more room for, and why not.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{ARCHIVE, GuardError, Transition, UPDATE, Workflow};
use crate::alert::{ARCHIVED, AlertRecord, HistoryEntry, MAX_HISTORY};
use crate::audit::PastStep;

/// Keys of an alert's metadata at most.
pub const MAX_METADATA: usize = 64;
/// Characters of a metadata key at most.
pub const MAX_METADATA_KEY: usize = 63;
/// Bytes of a metadata value at most.
pub const MAX_METADATA_VALUE: usize = 1024;
/// Characters of a reason at most. A record keeps many of them, and must fit into one message.
pub const MAX_REASON: usize = 1024;
/// Characters of the name of who asks at most.
pub const MAX_BY: usize = 256;

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
    /// The transition that was named is none, or begins elsewhere.
    #[error(
        "transition {transition} cannot be taken from {from}; from {from} there is: {possible}"
    )]
    NotFromHere {
        /// The state it is in.
        from: String,
        /// What was asked for.
        transition: String,
        /// The transitions there are, as `close -> closed`.
        possible: String,
    },
    /// It would go nowhere.
    #[error("the alert is in state {state} already")]
    AlreadyThere {
        /// The state.
        state: String,
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
    /// The workflow was changed since it came there.
    #[error(
        "the workflow has no state {state} any more, so no transition leads from it: archive the alert, or give the workflow that state back"
    )]
    UnknownState {
        /// The state it is in.
        state: String,
    },
    /// It is done with.
    #[error("alert {id} is archived, and nothing leads from there")]
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
    /// It would stay in every later version.
    #[error("{what} may have {max} characters: shorten it")]
    TooLong {
        /// The reason, or who asks.
        what: &'static str,
        /// How many it may have.
        max: usize,
    },
    /// A key is none.
    #[error("metadata key {key:?} must have 1 to {MAX_METADATA_KEY} characters")]
    MetadataKey {
        /// The key.
        key: String,
    },
    /// A value is too long.
    #[error("metadata {key} may have {MAX_METADATA_VALUE} bytes, not {bytes}")]
    MetadataValue {
        /// The key.
        key: String,
        /// How long it is.
        bytes: usize,
    },
    /// There would be too many keys.
    #[error(
        "metadata may have {MAX_METADATA} keys, and there would be {count}: take some away first"
    )]
    MetadataCount {
        /// How many there would be.
        count: usize,
    },
}

impl Workflow {
    /// Decides about a step of `current`, which stands at `sequence` of its stream.
    ///
    /// # Errors
    /// [`Refusal`]; nothing is to be written.
    pub fn step(&self, current: &AlertRecord, sequence: u64, ask: &Ask) -> Result<Step, Refusal> {
        if current.state == ARCHIVED {
            return Err(Refusal::Archived {
                id: current.id.clone(),
            });
        }
        check_length("a reason", &ask.reason, MAX_REASON)?;
        check_length("the name of who asks", &ask.by, MAX_BY)?;
        let metadata = patched(&current.metadata, &ask.metadata)?;
        let (transition, to) = self.way(current, ask)?;
        let mut record = AlertRecord {
            state: to.to_owned(),
            metadata,
            op_id: ask.op_id.clone(),
            prev_seq: sequence,
            by: ask.by.clone(),
            ..current.clone()
        };
        record.history.push(HistoryEntry {
            time: ask.time,
            transition: transition.to_owned(),
            from: Some(current.state.clone()),
            to: to.to_owned(),
            by: ask.by.clone(),
            reason: ask.reason.clone(),
            prev_seq: sequence,
        });
        let excess = record.history.len().saturating_sub(MAX_HISTORY);
        let mut overflow = Vec::with_capacity(excess);
        for entry in record.history.drain(..excess) {
            overflow.push(PastStep {
                alert: current.id.clone(),
                number: record.earlier,
                entry,
            });
            record.earlier += 1;
        }
        Ok(Step {
            from: current.state.clone(),
            transition: transition.to_owned(),
            record,
            overflow,
        })
    }

    /// The transition that is asked for, and where it leads.
    fn way<'a>(
        &'a self,
        current: &'a AlertRecord,
        ask: &Ask,
    ) -> Result<(&'a str, &'a str), Refusal> {
        let from = current.state.as_str();
        let transition = match &ask.to {
            To::Stay => return Ok((UPDATE, from)),
            To::Archive => return archive(ask),
            To::State(state) if state == ARCHIVED => return archive(ask),
            To::Transition(id) if id == ARCHIVE => return archive(ask),
            To::State(state) if state == from => {
                return Err(Refusal::AlreadyThere {
                    state: state.clone(),
                });
            }
            To::State(_) | To::Transition(_) if !self.has_state(from) => {
                return Err(Refusal::UnknownState {
                    state: from.to_owned(),
                });
            }
            To::State(state) => self.leading_to(from, state)?,
            To::Transition(id) => self.named(from, id)?,
        };
        if let Some(guard) = transition.guard {
            let refused = |source| Refusal::Guard {
                transition: transition.spec.id.clone(),
                source,
            };
            if !guard
                .allows(current, &ask.by, &ask.reason)
                .map_err(refused)?
            {
                return Err(Refusal::Forbidden {
                    transition: transition.spec.id.clone(),
                    guard: guard.text().to_owned(),
                });
            }
        }
        Ok((&transition.spec.id, &transition.spec.to))
    }

    fn leading_to<'a>(&'a self, from: &'a str, to: &str) -> Result<Transition<'a>, Refusal> {
        let mut found: Vec<Transition<'a>> = self
            .from_state(from)
            .filter(|transition| transition.spec.to == to)
            .collect();
        match (found.pop(), found.is_empty()) {
            (Some(transition), true) => Ok(transition),
            (Some(last), false) => {
                found.push(last);
                let ids: Vec<&str> = found.iter().map(|found| found.spec.id.as_str()).collect();
                Err(Refusal::Several {
                    from: from.to_owned(),
                    to: to.to_owned(),
                    ids: ids.join(", "),
                })
            }
            (None, _) => Err(Refusal::NoTransition {
                from: from.to_owned(),
                to: to.to_owned(),
                possible: self.possible(from),
            }),
        }
    }

    fn named<'a>(&'a self, from: &'a str, id: &str) -> Result<Transition<'a>, Refusal> {
        self.from_state(from)
            .find(|transition| transition.spec.id == id)
            .ok_or_else(|| Refusal::NotFromHere {
                from: from.to_owned(),
                transition: id.to_owned(),
                possible: self.possible(from),
            })
    }

    fn possible(&self, from: &str) -> String {
        let archive = format!("{ARCHIVE} -> {ARCHIVED}");
        let steps: Vec<String> = self
            .from_state(from)
            .map(|transition| format!("{} -> {}", transition.spec.id, transition.spec.to))
            .chain([archive])
            .collect();
        steps.join(", ")
    }
}

/// Where each step of a `history` stands in its stream: the sequence of all but the last is what the
/// one after it began from, and the last is what is `stored`, when it is known. `None` where the record
/// does not say, as before sequences were kept.
#[must_use]
pub fn sequences(history: &[HistoryEntry], stored: Option<u64>) -> Vec<Option<u64>> {
    let later = history.iter().skip(1).map(|entry| match entry.prev_seq {
        0 => None,
        sequence => Some(sequence),
    });
    later.chain([stored]).take(history.len()).collect()
}

/// Every alert can be archived, but not silently.
fn archive<'a>(ask: &Ask) -> Result<(&'a str, &'a str), Refusal> {
    if ask.reason.trim().is_empty() {
        return Err(Refusal::NoReason);
    }
    Ok((ARCHIVE, ARCHIVED))
}

fn check_length(what: &'static str, text: &str, max: usize) -> Result<(), Refusal> {
    if text.chars().count() > max {
        return Err(Refusal::TooLong { what, max });
    }
    Ok(())
}

/// What is taken away never exceeds a bound, so it is always allowed.
fn patched(
    current: &BTreeMap<String, String>,
    patch: &BTreeMap<String, Option<String>>,
) -> Result<BTreeMap<String, String>, Refusal> {
    let mut metadata = current.clone();
    for (key, value) in patch {
        let Some(value) = value else {
            metadata.remove(key);
            continue;
        };
        if !(1..=MAX_METADATA_KEY).contains(&key.chars().count()) {
            return Err(Refusal::MetadataKey { key: key.clone() });
        }
        if value.len() > MAX_METADATA_VALUE {
            return Err(Refusal::MetadataValue {
                key: key.clone(),
                bytes: value.len(),
            });
        }
        metadata.insert(key.clone(), value.clone());
    }
    let count = metadata.len();
    if count > MAX_METADATA && count > current.len() {
        return Err(Refusal::MetadataCount { count });
    }
    Ok(metadata)
}
