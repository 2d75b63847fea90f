//! What the decision over the replay says, and whether the worker is stopped because the spec says so.

use lookback_protocol::checkpoint::{Checkpoint, Phase};
use lookback_protocol::replay::machine::{Accepted, Decision, Progress};
use lookback_protocol::replay::record::{Record, ReplayPhase};

use super::{Observation, worker};
use crate::api::conditions::Reason;
use crate::operator::pipeline::problem::Problem;
use crate::runtime::telemetry::chain;

/// What is to be said of the replay and of a suspension, also when nothing is wrong with them.
pub(super) fn problems(observation: &Observation<'_>) -> Vec<Problem> {
    let mut problems: Vec<Problem> = malformed(observation).into_iter().collect();
    if let Some(decision) = observation.decision {
        problems.push(accepted(decision));
        problems.push(progress(decision, record(observation)));
    }
    problems.push(suspended(observation));
    problems
}

fn record<'a>(observation: &Observation<'a>) -> Option<&'a Record> {
    observation.pipeline.status.as_ref()?.replay.as_ref()
}

/// The definition refuses such a block; one from before it may be there.
fn malformed(observation: &Observation<'_>) -> Option<Problem> {
    let refused = observation.pipeline.spec.replay.as_ref()?.request().err()?;
    Some(Problem::new(Reason::ReplayRejected, chain(&refused)))
}

fn accepted(decision: &Decision) -> Problem {
    let reason = match decision.accepted {
        Accepted::NoReplay => Reason::NoReplay,
        Accepted::Accepted => Reason::Accepted,
        Accepted::AwaitingApproval => Reason::AwaitingApproval,
        Accepted::Queued => Reason::Queued,
        Accepted::Throttled => Reason::Throttled,
        Accepted::AlreadyApplied => Reason::AlreadyApplied,
        Accepted::IdReused => Reason::IdReused,
        Accepted::Rejected => Reason::ReplayRejected,
        Accepted::Expired => Reason::ReplayExpired,
        Accepted::Failed => Reason::ReplayFailed,
        Accepted::Superseded => Reason::ReplaySuperseded,
    };
    said(reason, &decision.accepted_because)
}

fn progress(decision: &Decision, record: Option<&Record>) -> Problem {
    match (&decision.progress, record) {
        (Progress::FencingBlocked(sentence), _) => Problem::new(Reason::FencingBlocked, sentence),
        (Progress::Step(_, sentence), Some(record)) if record.way_back.is_some() => {
            said(Reason::TakingBack, sentence)
        }
        (Progress::Step(phase, sentence), _) => said(Reason::of_phase(*phase), sentence),
        (Progress::NoReplay, Some(record)) if record.phase == ReplayPhase::Completed => {
            let message = format!("request {}: {}", record.request.id, record.message);
            Problem::new(Reason::Completed, message)
        }
        (Progress::NoReplay, _) => said(Reason::Idle, ""),
    }
}

/// A pod object that is left may still write, so nothing is stopped before it is gone.
fn suspended(observation: &Observation<'_>) -> Problem {
    if !observation.pipeline.spec.suspend {
        return said(Reason::NotSuspended, "");
    }
    let pods = &observation.facts.pods;
    if let Some(pod) = pods.first() {
        let message = format!("pod {} commits what it has applied and ends", pod.name);
        return Problem::new(Reason::Suspending, message);
    }
    if !worker::is_stopped(observation) {
        return said(Reason::Suspending, "");
    }
    let left = match observation.server().map(|server| &server.checkpoint) {
        Some(Ok(Some(checkpoint))) => position(checkpoint),
        Some(Ok(None)) => "it never committed anything".to_owned(),
        Some(Err(_)) => "its checkpoint cannot be read".to_owned(),
        None => "NATS does not say how far it was".to_owned(),
    };
    let message = format!("no worker is left; {left}. Set spec.suspend: false to go on");
    Problem::new(Reason::Suspended, message)
}

fn position(checkpoint: &Checkpoint) -> String {
    let position = checkpoint.position.sequence;
    match checkpoint.phase {
        Phase::Drained | Phase::TakenBack => format!("it committed everything up to {position}"),
        Phase::Started | Phase::Held | Phase::Applying => format!(
            "it ended without its last checkpoint, so its state file may be ahead of {position}; nothing is lost"
        ),
    }
}

/// `sentence`, or what the table says when there is none.
fn said(reason: Reason, sentence: &str) -> Problem {
    match sentence {
        "" => Problem::new(reason, reason.row().meaning),
        sentence => Problem::new(reason, sentence),
    }
}

#[cfg(test)]
mod tests;
