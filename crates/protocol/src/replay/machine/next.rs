//! What is written next: what the phases and the gates decide, put into the fields of the status.

use super::accept::{self, Acceptance};
use super::facts::Facts;
use super::phases::{self, EXPIRED, Turn};
use super::written::Written;
use crate::checkpoint::Phase;
use crate::config::Rewind;
use crate::position::Epoch;
use crate::replay::ledger::Standing;
use crate::replay::record::{MAX_HISTORY, Record, ReplayPhase, WayBack};
use crate::replay::request::ReplayRequest;

/// What the status should say before anything else is done.
pub(super) fn written(facts: &Facts<'_>) -> Written {
    let mut next = facts.written.clone();
    match &facts.standing {
        Standing::Unknown | Standing::EpochAhead(_) | Standing::OwnedByOther(_) => return next,
        Standing::Underway { epoch, rewind } => {
            next.epoch = rewind.of;
            next.record = Some(recovered(facts, *epoch, rewind));
            return next;
        }
        Standing::Stands { epoch, .. } => next.epoch = Some(*epoch),
        Standing::New => {}
    }
    match next.unfinished().cloned() {
        Some(record) => advance(&mut next, facts, record),
        None => begin(&mut next, facts),
    }
    next.retired = super::retire::retired(&next, facts);
    next
}

fn begin(next: &mut Written, facts: &Facts<'_>) {
    let Some(wanted) = facts.wanted else {
        return begin_without(next, facts);
    };
    match accept::acceptance(facts, wanted) {
        Acceptance::Begin => next.record = Some(seen(facts, wanted.clone())),
        Acceptance::Expired => {
            let record = seen(facts, wanted.clone());
            finish(
                next,
                facts,
                record,
                ReplayPhase::Expired,
                EXPIRED.to_owned(),
            );
        }
        // A pipeline does not begin elsewhere while it is open where it should.
        Acceptance::Waits(_)
        | Acceptance::Throttled(_)
        | Acceptance::IdReused(_)
        | Acceptance::Ended(ReplayPhase::Rejected) => {}
        Acceptance::Ended(_) | Acceptance::Known(_) => begin_without(next, facts),
    }
}

/// The first epoch of a pipeline that no request begins.
fn begin_without(next: &mut Written, facts: &Facts<'_>) {
    if facts.standing == Standing::New {
        next.epoch = Some(facts.unused_epoch());
    }
}

fn seen(facts: &Facts<'_>, request: ReplayRequest) -> Record {
    Record {
        request,
        phase: ReplayPhase::Requested,
        message: String::new(),
        requested_at: facts.now,
        since: facts.now,
        epoch: None,
        of: None,
        plan: None,
        way_back: None,
        paused: false,
    }
}

/// The record of a request that only its consumer knows of. It begins again with the fencing: the pod
/// of a pipeline that was just deleted may still be there.
fn recovered(facts: &Facts<'_>, epoch: Epoch, rewind: &Rewind) -> Record {
    let mut request = rewind.request();
    if let Some(wanted) = facts.wanted.filter(|wanted| wanted.is_same(&request)) {
        request = ReplayRequest {
            outputs: rewind.outputs,
            ..wanted.clone()
        };
    }
    Record {
        phase: ReplayPhase::Fencing,
        message: "found under way on its consumer".to_owned(),
        epoch: Some(epoch),
        of: rewind.of,
        plan: Some(
            rewind.plan(
                facts
                    .checkpoint
                    .map(|checkpoint| checkpoint.position.sequence),
            ),
        ),
        ..seen(facts, request)
    }
}

fn advance(next: &mut Written, facts: &Facts<'_>, mut record: Record) {
    if facts.suspended || record.paused {
        if !facts.suspended {
            record.since = facts.now;
        }
        record.paused = facts.suspended;
        next.record = Some(record);
        return;
    }
    let wanted = facts
        .wanted
        .filter(|wanted| wanted.is_same(&record.request));
    if let (true, Some(wanted)) = (record.phase < ReplayPhase::Fencing, wanted) {
        // What opens the gates is read from the spec until they are passed.
        record.request.approval = wanted.approval;
        record.request.not_after = wanted.not_after;
    }
    match phases::turn(facts, &record) {
        Turn::Stay => next.record = Some(record),
        Turn::Plan(plan) => {
            let claimed = facts.claimed_for_nothing(&record.request);
            record.epoch = Some(claimed.unwrap_or_else(|| facts.unused_epoch()));
            record.of = next.epoch.map(|epoch| state_of(facts, epoch));
            record.plan = Some(*plan);
            enter(next, facts, record, ReplayPhase::Planned, String::new());
        }
        Turn::To(phase, message) => enter(next, facts, record, phase, message),
        Turn::End(phase, message) => {
            // A consumer of its epoch may be there, so that the pipeline begins in the one after it.
            if record.phase >= ReplayPhase::Fencing && next.epoch.is_none() {
                next.epoch = Some(facts.unused_epoch());
            }
            finish(next, facts, record, phase, message);
        }
        Turn::Back(to, message) => {
            let epoch = facts.unused_epoch();
            record.way_back = Some(WayBack { epoch, to });
            record.message = message;
            next.record = Some(record);
        }
        Turn::Lost(message) => {
            next.epoch = record.epoch;
            finish(next, facts, record, ReplayPhase::Superseded, message);
        }
        Turn::TakenBack(WayBack { epoch, to }) => {
            next.epoch = Some(epoch);
            let message = record.message.clone();
            finish(next, facts, record, to, message);
        }
        Turn::BackLost => {
            record.way_back = None;
            let message = "its worker had begun it before it could be taken back, so it goes on";
            enter(
                next,
                facts,
                record,
                ReplayPhase::RollingOut,
                message.to_owned(),
            );
        }
    }
}

/// The epoch that the state file is at least of. While an epoch that came by a way back has not begun on
/// it, that is the one it resumes; nobody can see when exactly that ends.
fn state_of(facts: &Facts<'_>, epoch: Epoch) -> Epoch {
    let taken_back = facts
        .checkpoint
        .filter(|seen| seen.epoch == epoch && seen.phase == Phase::TakenBack);
    taken_back.and_then(|seen| seen.resumes).unwrap_or(epoch)
}

fn enter(
    next: &mut Written,
    facts: &Facts<'_>,
    record: Record,
    phase: ReplayPhase,
    message: String,
) {
    if phase == ReplayPhase::StateApplied {
        next.epoch = record.epoch;
    }
    next.record = Some(Record {
        phase,
        message,
        since: facts.now,
        ..record
    });
}

fn finish(
    next: &mut Written,
    facts: &Facts<'_>,
    record: Record,
    phase: ReplayPhase,
    message: String,
) {
    enter(next, facts, record, phase, message);
    let finished = next.record.as_ref().map(Record::finished);
    next.history.splice(0..0, finished);
    next.history.truncate(MAX_HISTORY);
}
