//! The state machine of a request, pure: from what is written in the status and what was observed to
//! what is written next, or to what the written phase permits to be done.
//!
//! A decision either writes or acts, never both, so that nothing is ever done under a phase that was
//! not written before. Both can be repeated: after a crash at any place the same facts give the same
//! decision again.
//!
//! # Layout
//! - [`Facts`]: what a decision looks at; [`asks`] says which of it costs more than the usual reads.
//! - `phases`: what becomes of a request that is under way, one function a phase.
//! - `accept`: what becomes of a request that is wanted while none is under way.
//! - `next`: both, and the consumers that are left, put into what is written.
//! - `permit`: what a written phase permits. It never sees what would be written next.
//! - `say`: the sentences for people.

mod accept;
mod decision;
mod facts;
mod next;
mod permit;
mod phases;
mod recover;
mod retire;
mod say;
#[cfg(test)]
mod tests;
mod written;

pub use decision::{Accepted, Actions, Decision, Effect, Progress, Step, Workers};
pub use facts::{Asks, Check, Claim, CursorView, Facts, Limits, Planned, Running, Workload};
pub use recover::RECOVERED;
pub use written::Written;

use super::record::ReplayPhase;

/// Decides.
#[must_use]
pub fn decide(facts: &Facts<'_>) -> Decision {
    let next = next::written(facts);
    let step = if next == *facts.written {
        Step::Act(permit::actions(facts))
    } else {
        Step::Write(Box::new(next))
    };
    let (accepted, accepted_because) = say::accepted(facts);
    Decision {
        step,
        accepted,
        accepted_because,
        progress: say::progress(facts),
        look_again: say::look_again(facts),
    }
}

/// What the next decision needs beyond what is always read.
#[must_use]
pub fn asks(written: &Written, suspended: bool) -> Asks {
    match written.unfinished() {
        Some(record) if !suspended && record.way_back.is_none() => match record.phase {
            ReplayPhase::Requested => Asks::Plan,
            ReplayPhase::CursorCreated if !record.is_recovered() => Asks::Check,
            _ => Asks::Nothing,
        },
        _ => Asks::Nothing,
    }
}
