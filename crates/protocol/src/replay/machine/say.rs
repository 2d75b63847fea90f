//! The sentences for people, and when to look again.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::accept::{self, Acceptance, Known};
use super::decision::{Accepted, Progress};
use super::facts::{Claim, Facts, Planned, Workload};
use super::phases::EXPIRED;
use crate::replay::record::{Record, ReplayPhase};
use crate::replay::request::ReplayRequest;

/// How often something outside is looked at that no watch tells of.
const POLL: SignedDuration = SignedDuration::from_secs(2);
const NEW_ID: &str = "to ask for it again, set a new id";

/// What became of what is wanted.
pub(super) fn accepted(facts: &Facts<'_>) -> (Accepted, String) {
    match (facts.wanted, facts.written.unfinished()) {
        (None, None) => (Accepted::NoReplay, String::new()),
        (None, Some(record)) => (Accepted::Accepted, goes_on(record)),
        (Some(wanted), Some(record)) if wanted.is_same(&record.request) => under_way(record),
        (Some(wanted), Some(record)) => behind(facts, wanted, record),
        (Some(wanted), None) => settled(facts, wanted),
    }
}

fn goes_on(record: &Record) -> String {
    let Record { request, phase, .. } = record;
    format!(
        "request {} is in {phase:?}, although nothing asks for it any more",
        request.id
    )
}

fn under_way(record: &Record) -> (Accepted, String) {
    let Record { request, phase, .. } = record;
    let id = &request.id;
    if let Some(way_back) = &record.way_back {
        let sentence = format!("request {id} is taken back: {}", record.message);
        return (ended(way_back.to), sentence);
    }
    if record.paused {
        let sentence = format!("request {id} waits in {phase:?} until the pipeline is resumed");
        return (Accepted::Queued, sentence);
    }
    match (phase, &record.plan) {
        (ReplayPhase::AwaitingApproval, Some(plan)) => (
            Accepted::AwaitingApproval,
            format!(
                "request {id} waits for its approval; to run it as planned, set the annotation lookback.dev/approve to {}",
                plan.hash
            ),
        ),
        _ => (Accepted::Accepted, format!("request {id} is in {phase:?}")),
    }
}

/// Another request is under way.
fn behind(facts: &Facts<'_>, wanted: &ReplayRequest, record: &Record) -> (Accepted, String) {
    if wanted.id == record.request.id {
        return reused(
            wanted,
            &Known {
                phase: None,
                epoch: record.epoch,
            },
        );
    }
    // The claim is of the record's id and says nothing of this one.
    let facts = Facts {
        claim: Claim::Unknown,
        ..facts.clone()
    };
    match accept::known(&facts, wanted) {
        Some(Acceptance::Known(known)) => begun(wanted, &known),
        Some(Acceptance::IdReused(known)) => reused(wanted, &known),
        _ => (
            Accepted::Queued,
            format!(
                "request {} waits for request {}, which is in {:?}",
                wanted.id, record.request.id, record.phase
            ),
        ),
    }
}

fn settled(facts: &Facts<'_>, wanted: &ReplayRequest) -> (Accepted, String) {
    let id = &wanted.id;
    match accept::acceptance(facts, wanted) {
        Acceptance::Ended(phase) => {
            let message = facts
                .written
                .record
                .as_ref()
                .map_or("", |record| &record.message);
            let advice = match phase {
                ReplayPhase::Rejected | ReplayPhase::Expired => String::new(),
                _ => format!("; {NEW_ID}"),
            };
            (
                ended(phase),
                format!("request {id} is {phase:?}: {message}{advice}"),
            )
        }
        Acceptance::Known(known) => begun(wanted, &known),
        Acceptance::IdReused(known) => reused(wanted, &known),
        Acceptance::Expired => (Accepted::Expired, format!("request {id}: {EXPIRED}")),
        Acceptance::Waits(why) => (Accepted::Queued, format!("request {id} {why}")),
        Acceptance::Throttled(until) => (
            Accepted::Throttled,
            format!(
                "request {id} waits until {until}: the one before began less than {:#} before. Let no id be made from the time or at random",
                facts.limits.min_interval
            ),
        ),
        Acceptance::Begin => (Accepted::Accepted, format!("request {id} is seen")),
    }
}

fn begun(wanted: &ReplayRequest, known: &Known) -> (Accepted, String) {
    let accepted = match known.phase {
        Some(phase @ (ReplayPhase::Failed | ReplayPhase::Superseded)) => ended(phase),
        _ => Accepted::AlreadyApplied,
    };
    let sentence = format!(
        "request {} was begun{} before and is not run twice; {NEW_ID}",
        wanted.id,
        in_epoch(known)
    );
    (accepted, sentence)
}

fn reused(wanted: &ReplayRequest, known: &Known) -> (Accepted, String) {
    let sentence = format!(
        "id {} was used{} for another start or statePolicy; nothing is run, set a new id",
        wanted.id,
        in_epoch(known)
    );
    (Accepted::IdReused, sentence)
}

fn in_epoch(known: &Known) -> String {
    known
        .epoch
        .map(|epoch| format!(" in epoch {epoch}"))
        .unwrap_or_default()
}

fn ended(phase: ReplayPhase) -> Accepted {
    match phase {
        ReplayPhase::Failed => Accepted::Failed,
        ReplayPhase::Rejected => Accepted::Rejected,
        ReplayPhase::Expired => Accepted::Expired,
        ReplayPhase::Superseded => Accepted::Superseded,
        _ => Accepted::Accepted,
    }
}

/// How far the record is.
pub(super) fn progress(facts: &Facts<'_>) -> Progress {
    let Some(record) = facts.written.unfinished() else {
        return Progress::NoReplay;
    };
    if let Some(sentence) = blocked(facts, record) {
        return Progress::FencingBlocked(sentence);
    }
    Progress::Step(
        record.phase,
        format!("request {}: {}", record.request.id, doing(facts, record)),
    )
}

fn blocked(facts: &Facts<'_>, record: &Record) -> Option<String> {
    match &facts.workload {
        Workload::Seen(running)
            if record.phase == ReplayPhase::Fencing && running.stuck && running.pods > 0 =>
        {
            Some(format!(
                "request {} waits for a pod that does not end: its node does not answer. If the node is down for good, taint it node.kubernetes.io/out-of-service=nodeshutdown:NoExecute, and the pod is removed",
                record.request.id
            ))
        }
        Workload::Seen(_) | Workload::Unknown => None,
    }
}

fn doing(facts: &Facts<'_>, record: &Record) -> String {
    if record.paused {
        return "waits until the pipeline is resumed".to_owned();
    }
    if let Some(way_back) = &record.way_back {
        return format!(
            "is taken back in favour of epoch {}: {}",
            way_back.epoch, record.message
        );
    }
    let trouble = match &facts.workload {
        Workload::Seen(running) => running.trouble.as_deref(),
        Workload::Unknown => None,
    };
    let text = match record.phase {
        ReplayPhase::Requested => match facts.plan {
            Planned::Unavailable(why) => return format!("cannot be planned now: {why}"),
            _ => "is planned",
        },
        ReplayPhase::Planned => "is planned",
        ReplayPhase::AwaitingApproval => "waits for the approval of its plan",
        ReplayPhase::Fencing => "the worker before it is stopped",
        ReplayPhase::CursorCreated => "its consumer is made",
        ReplayPhase::RollingOut => trouble.unwrap_or("its worker is started"),
        ReplayPhase::StateApplied => "the state file is moved",
        ReplayPhase::CatchingUp => trouble.unwrap_or("reads up to its target"),
        ReplayPhase::Completed
        | ReplayPhase::Failed
        | ReplayPhase::Rejected
        | ReplayPhase::Expired
        | ReplayPhase::Superseded => "is done",
    };
    text.to_owned()
}

/// When to decide again although nothing was seen to change.
pub(super) fn look_again(facts: &Facts<'_>) -> Option<Duration> {
    let kept = facts.limits.keep_consumers;
    let over = facts
        .written
        .retired
        .iter()
        .map(|one| one.since.saturating_add(kept));
    let over = over.filter_map(Result::ok).map(|at| until(facts, at)).min();
    let request = match (facts.written.unfinished(), facts.wanted) {
        (Some(record), _) if record.paused => None,
        (Some(record), _) => match (record.phase, record.request.not_after) {
            (ReplayPhase::AwaitingApproval, Some(at)) => Some(until(facts, at)),
            (ReplayPhase::AwaitingApproval, None) => None,
            _ => Some(POLL),
        },
        (None, Some(wanted)) => match accept::acceptance(facts, wanted) {
            Acceptance::Throttled(at) => Some(until(facts, at)),
            Acceptance::Waits(_) if !facts.suspended => Some(POLL),
            _ => None,
        },
        (None, None) => None,
    };
    over.into_iter()
        .chain(request)
        .min()
        .map(SignedDuration::unsigned_abs)
}

/// How long it is until then; never so short that nothing else gets its turn.
fn until(facts: &Facts<'_>, at: Timestamp) -> SignedDuration {
    at.duration_since(facts.now)
        .max(SignedDuration::from_secs(1))
}
