//! What a written phase permits. Nothing here knows what would be written next.

use super::decision::{Actions, Effect, Workers};
use super::facts::{Claim, Facts, Workload};
use super::retire;
use crate::config::Cursor;
use crate::position::Epoch;
use crate::replay::ledger::Standing;
use crate::replay::record::{Record, ReplayPhase};

/// What may be done now.
pub(super) fn actions(facts: &Facts<'_>) -> Actions {
    match facts.standing {
        Standing::Unknown
        | Standing::EpochAhead(_)
        | Standing::OwnedByOther(_)
        | Standing::Underway { .. } => Actions {
            effects: Vec::new(),
            workers: Workers::Unchanged,
        },
        Standing::New | Standing::Stands { .. } => Actions {
            effects: effects(facts),
            workers: workers(facts),
        },
    }
}

fn effects(facts: &Facts<'_>) -> Vec<Effect> {
    let mut effects = retire::deletions(facts);
    if let Some(record) = facts.written.unfinished().filter(|record| !record.paused) {
        effects.extend(effect(facts, record));
    }
    effects
}

fn effect(facts: &Facts<'_>, record: &Record) -> Option<Effect> {
    let from = record.epoch?;
    if let Some(way_back) = &record.way_back {
        return Some(Effect::TakeBack {
            from,
            to: way_back.epoch,
            resumes: record.of?,
        });
    }
    match (record.phase, facts.claim) {
        (ReplayPhase::Fencing, Claim::Free) => Some(Effect::Claim {
            id: record.request.id.clone(),
            fingerprint: record.request.fingerprint.clone(),
            epoch: from,
            plan_hash: record.plan.as_ref()?.hash.clone(),
        }),
        _ => None,
    }
}

fn workers(facts: &Facts<'_>) -> Workers {
    let record = facts.written.unfinished();
    let Some((epoch, cursor)) = place(facts, record) else {
        return Workers::Unchanged;
    };
    let hold_template = record.is_some_and(|record| holds_template(facts, record));
    let stop = Workers::Stop {
        epoch,
        cursor: cursor.clone(),
        hold_template,
    };
    let run = Workers::Run {
        epoch,
        cursor,
        hold_template,
    };
    let Some(record) = record else {
        return if facts.suspended { stop } else { run };
    };
    match record.phase {
        _ if record.paused => stop,
        // Until it is clear which epoch goes on, what runs is left alone: it fences itself.
        _ if record.way_back.is_some() => Workers::Unchanged,
        // The claim decides whether this request runs at all.
        ReplayPhase::Fencing if facts.claim != Claim::Ours => Workers::Unchanged,
        ReplayPhase::Fencing | ReplayPhase::CursorCreated => stop,
        _ => run,
    }
}

/// The epoch of the StatefulSet; none while a pipeline is not begun.
fn place(facts: &Facts<'_>, record: Option<&Record>) -> Option<(Epoch, Cursor)> {
    match record {
        Some(record) if record.phase >= ReplayPhase::CursorCreated => {
            Some((record.epoch?, record.cursor()?))
        }
        _ => match &facts.standing {
            Standing::Stands { epoch, cursor } => Some((*epoch, cursor.clone())),
            _ => None,
        },
    }
}

/// Other rollouts wait while a worker that is about to move its state file would be replaced by them,
/// unless one of them is what a pod that does not run needs. Before that no pod runs, and what came into
/// the spec together with the request begins with it.
fn holds_template(facts: &Facts<'_>, record: &Record) -> bool {
    let trouble = match &facts.workload {
        Workload::Seen(running) => running.trouble.is_some(),
        Workload::Unknown => false,
    };
    record.phase == ReplayPhase::RollingOut && record.of.is_some() && !trouble
}
