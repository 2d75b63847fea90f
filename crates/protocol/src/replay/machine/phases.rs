//! What becomes of a record: one function a phase, each a table whose first match wins.

use super::facts::{Check, Claim, Facts, Planned, Workload};
use crate::checkpoint::RequestOutcome;
use crate::replay::record::{Plan, Record, ReplayPhase, WayBack};
use crate::replay::request::{Approval, RequestId};

/// What becomes of a record.
pub(super) enum Turn {
    /// Nothing.
    Stay,
    /// It gets its plan, its epoch, and the epoch it moves.
    Plan(Box<Plan>),
    /// Its next phase, and what to know about it.
    To(ReplayPhase, String),
    /// It is final, and there is nothing to undo.
    End(ReplayPhase, String),
    /// It is to be undone and then final.
    Back(ReplayPhase, String),
    /// The state it made, or was about to make, is lost; another request is there for that.
    Lost(String),
    /// It is undone.
    TakenBack(WayBack),
    /// It could not be undone: its worker was faster.
    BackLost,
}

/// Said of a request whose `notAfter` has passed.
pub(super) const EXPIRED: &str = "its notAfter passed before it was begun; nothing was done. Remove the block, or set another notAfter";
const NOT_STARTED: &str = "its worker did not start in time";
const TAKEN_OUT: &str = "the spec no longer asks for it";

/// Decides by the phase.
pub(super) fn turn(facts: &Facts<'_>, record: &Record) -> Turn {
    if let Some(way_back) = &record.way_back {
        return going_back(facts, record, way_back);
    }
    match record.phase {
        ReplayPhase::Requested => requested(facts, record),
        ReplayPhase::Planned => planned(facts, record),
        ReplayPhase::AwaitingApproval => awaiting_approval(facts, record),
        ReplayPhase::Fencing => fencing(facts, record),
        ReplayPhase::CursorCreated => cursor_created(facts, record),
        ReplayPhase::RollingOut => rolling_out(facts, record),
        ReplayPhase::StateApplied => state_applied(facts, record),
        ReplayPhase::CatchingUp => catching_up(facts, record),
        ReplayPhase::Completed
        | ReplayPhase::Failed
        | ReplayPhase::Rejected
        | ReplayPhase::Expired
        | ReplayPhase::Superseded => Turn::Stay,
    }
}

fn requested(facts: &Facts<'_>, record: &Record) -> Turn {
    if let Some(end) = closed_before_it_began(facts, record) {
        return end;
    }
    match facts.plan {
        Planned::NotAsked | Planned::Unavailable(_) => Turn::Stay,
        Planned::Rejected(why) => Turn::End(ReplayPhase::Rejected, why.to_owned()),
        Planned::Done(plan) => Turn::Plan(Box::new(plan.clone())),
    }
}

fn planned(facts: &Facts<'_>, record: &Record) -> Turn {
    closed_before_it_began(facts, record).unwrap_or_else(|| match record.request.approval {
        Approval::Automatic => Turn::To(ReplayPhase::Fencing, String::new()),
        Approval::Manual => Turn::To(ReplayPhase::AwaitingApproval, String::new()),
    })
}

fn awaiting_approval(facts: &Facts<'_>, record: &Record) -> Turn {
    if let Some(end) = closed_before_it_began(facts, record) {
        return end;
    }
    let hash = record.plan.as_ref().map(|plan| plan.hash.as_str());
    match record.request.approval {
        Approval::Automatic => Turn::To(ReplayPhase::Fencing, String::new()),
        // Only the hash of this plan: one of an earlier plan may well stand in Git.
        Approval::Manual if facts.approved.is_some() && facts.approved == hash => {
            Turn::To(ReplayPhase::Fencing, "its plan was approved".to_owned())
        }
        Approval::Manual => Turn::Stay,
    }
}

/// Until it is fenced, nothing was done for it, and it may end without a way back.
fn closed_before_it_began(facts: &Facts<'_>, record: &Record) -> Option<Turn> {
    if is_withdrawn(facts, record) {
        return Some(Turn::End(ReplayPhase::Superseded, TAKEN_OUT.to_owned()));
    }
    if record.request.has_expired(facts.now) {
        return Some(Turn::End(ReplayPhase::Expired, EXPIRED.to_owned()));
    }
    used(facts, record)
}

/// The id was begun elsewhere in the meantime: before the claim is ours, no worker was touched.
fn used(facts: &Facts<'_>, record: &Record) -> Option<Turn> {
    match facts.claim {
        Claim::Used { .. } if facts.claimed_for_nothing(&record.request).is_some() => None,
        Claim::Used { epoch, .. } => Some(Turn::End(
            ReplayPhase::Superseded,
            format!("its id was begun in epoch {epoch} already"),
        )),
        Claim::Unknown | Claim::Free | Claim::Ours => None,
    }
}

fn fencing(facts: &Facts<'_>, record: &Record) -> Turn {
    if let Some(done) = seen_in_checkpoint(facts, record) {
        return done;
    }
    if let Some(end) = used(facts, record) {
        return end;
    }
    if is_withdrawn(facts, record) && can_end(record) {
        return back(record, ReplayPhase::Superseded, TAKEN_OUT);
    }
    match &facts.workload {
        // Nobody can say that the old worker is gone, so no time runs.
        Workload::Unknown => Turn::Stay,
        Workload::Seen(running) if running.pods > 0 => Turn::Stay,
        Workload::Seen(running)
            if facts.claim == Claim::Ours && running.observed && running.replicas == 0 =>
        {
            Turn::To(ReplayPhase::CursorCreated, String::new())
        }
        Workload::Seen(_) => unless_late(
            facts,
            record,
            "the worker before it was not stopped in time",
        ),
    }
}

fn cursor_created(facts: &Facts<'_>, record: &Record) -> Turn {
    if let Some(done) = seen_in_checkpoint(facts, record) {
        return done;
    }
    if is_withdrawn(facts, record) && can_end(record) {
        return back(record, ReplayPhase::Superseded, TAKEN_OUT);
    }
    match facts.check {
        Check::Outdated(what) => back(record, ReplayPhase::Failed, what),
        _ if facts.consumer.is_none() => {
            unless_late(facts, record, "its consumer was not made in time")
        }
        Check::Holds => Turn::To(ReplayPhase::RollingOut, String::new()),
        // Of a plan found on its consumer there is too little to check; the worker sees what is gone.
        Check::Unknown if record.is_recovered() => Turn::To(ReplayPhase::RollingOut, String::new()),
        Check::Unknown => unless_late(facts, record, "its plan was not checked again in time"),
    }
}

fn rolling_out(facts: &Facts<'_>, record: &Record) -> Turn {
    match outcome(facts, record) {
        Outcome::Applied => Turn::To(ReplayPhase::StateApplied, String::new()),
        Outcome::Applying if is_lost(facts, record) => lost(record),
        // The point of no return is passed: it is waited for, however long it takes.
        Outcome::Applying => Turn::Stay,
        Outcome::NotSeen if is_withdrawn(facts, record) => {
            back(record, ReplayPhase::Superseded, TAKEN_OUT)
        }
        Outcome::NotSeen => {
            let why = match &facts.workload {
                Workload::Seen(running) => running.trouble.as_deref(),
                Workload::Unknown => None,
            };
            unless_late(facts, record, why.unwrap_or(NOT_STARTED))
        }
    }
}

fn state_applied(facts: &Facts<'_>, record: &Record) -> Turn {
    if is_lost(facts, record) {
        return lost(record);
    }
    Turn::To(ReplayPhase::CatchingUp, String::new())
}

fn catching_up(facts: &Facts<'_>, record: &Record) -> Turn {
    if is_lost(facts, record) {
        return lost(record);
    }
    let Some(checkpoint) = facts.checkpoint.filter(|c| Some(c.epoch) == record.epoch) else {
        return Turn::Stay;
    };
    let target = record.plan.as_ref().map(|plan| plan.target);
    let reached = target.is_some_and(|target| checkpoint.position.sequence >= target);
    // The last message may be gone, or be none of ours. That nothing is pending says something only of
    // a consumer that asks for the right subjects and does not begin beyond the end.
    let drained = facts.consumer.is_some_and(|consumer| {
        consumer.filter_ok
            && consumer.bound_ok
            && consumer.pending == 0
            && consumer.ack_pending == 0
    });
    if reached || drained {
        Turn::End(
            ReplayPhase::Completed,
            "everything up to its target is read".to_owned(),
        )
    } else {
        Turn::Stay
    }
}

fn going_back(facts: &Facts<'_>, record: &Record, way_back: &WayBack) -> Turn {
    match facts.checkpoint.map(|checkpoint| checkpoint.epoch) {
        Some(epoch) if epoch == way_back.epoch => Turn::TakenBack(way_back.clone()),
        Some(epoch) if Some(epoch) == record.epoch => Turn::BackLost,
        Some(_) | None => Turn::Stay,
    }
}

/// Undoes it. A pipeline that begins with this request has no state to go back to: while no worker was
/// started, there is nothing to undo, and afterwards it is waited for.
fn back(record: &Record, to: ReplayPhase, why: &str) -> Turn {
    match record.of {
        Some(_) => Turn::Back(to, why.to_owned()),
        None if record.phase < ReplayPhase::RollingOut => Turn::End(to, why.to_owned()),
        None => Turn::Stay,
    }
}

/// Whether it can be ended before it rolls out. Of a first request that was found on its consumer it is
/// not known whether a worker was started, whose pod may still be there and about to begin it.
fn can_end(record: &Record) -> bool {
    record.of.is_some() || !record.is_recovered()
}

fn unless_late(facts: &Facts<'_>, record: &Record, why: &str) -> Turn {
    let is_late = facts.now.duration_since(record.since) >= facts.limits.step_timeout;
    // Nothing runs that would be better off without the first request of a pipeline.
    if is_late && record.of.is_some() {
        back(record, ReplayPhase::Failed, why)
    } else {
        Turn::Stay
    }
}

/// Whether the spec asks for something else. What the operator asked for itself never stood there.
fn is_withdrawn(facts: &Facts<'_>, record: &Record) -> bool {
    match facts.wanted {
        Some(wanted) => {
            !wanted.is_same(&record.request)
                && (wanted.id.is_loss() || !record.request.id.is_loss())
        }
        None => !record.request.id.is_loss(),
    }
}

/// Whether the state that this request made, or was about to make, is lost.
fn is_lost(facts: &Facts<'_>, record: &Record) -> bool {
    let lost = record.epoch.map(RequestId::of_loss);
    facts
        .wanted
        .is_some_and(|wanted| Some(&wanted.id) == lost.as_ref())
}

fn lost(record: &Record) -> Turn {
    let epoch = record.epoch.unwrap_or_default();
    Turn::Lost(format!(
        "the state of epoch {epoch} was lost before it had caught up"
    ))
}

/// What the worker of the record's epoch has written.
enum Outcome {
    /// Nothing: the request can still be undone.
    NotSeen,
    /// It is about to move the state file, and nobody can stop it.
    Applying,
    /// The state file is moved.
    Applied,
}

fn outcome(facts: &Facts<'_>, record: &Record) -> Outcome {
    let Some(checkpoint) = facts.checkpoint.filter(|c| Some(c.epoch) == record.epoch) else {
        return Outcome::NotSeen;
    };
    let told = checkpoint.request.as_ref().map(|request| request.outcome);
    match told {
        Some(RequestOutcome::Applied | RequestOutcome::AlreadyApplied) => Outcome::Applied,
        Some(RequestOutcome::Applying) | None => Outcome::Applying,
    }
}

/// A status older than the checkpoint, as after a restore, catches up with it.
fn seen_in_checkpoint(facts: &Facts<'_>, record: &Record) -> Option<Turn> {
    match outcome(facts, record) {
        Outcome::NotSeen => None,
        Outcome::Applying | Outcome::Applied => {
            Some(Turn::To(ReplayPhase::RollingOut, String::new()))
        }
    }
}
