//! The status step: what was found, built and refused -> what a person reads. Pure: the time is an
//! argument, and nothing here ticks with it. Numbers that move with every event are written at most
//! every [`NUMBERS_EVERY`] and when the phase changes, so that an idle pipeline writes nothing.

mod conditions;
mod health;
mod numbers;
mod replay;
mod retention;
mod worker;

use jiff::{SignedDuration, Timestamp};
use lookback_protocol::replay::machine::Decision;

use super::build::Desired;
use super::facts::{Dereferenced, NatsFacts, ServerFacts};
use super::problem::Problem;
use super::validate::Validation;
use crate::api::DetectionPipeline;
use crate::api::conditions::{ConditionType, Effect, Reason};
use crate::api::status::{
    DetectionPipelineStatus, MAX_PROBLEMS, Phase, RuleProblemStatus, RulesStatus,
};
use crate::operator::metrics::Horizon;
use conditions::Finding;

/// How often position, lag and counts are written while they move.
pub const NUMBERS_EVERY: SignedDuration = SignedDuration::from_secs(30);

/// Everything a status is computed from.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// The pipeline, with the status it has.
    pub pipeline: &'a DetectionPipeline,
    /// What dereference found, before anything was applied.
    pub facts: &'a Dereferenced,
    /// What validate said.
    pub validation: &'a Validation,
    /// What build made of it.
    pub desired: Option<&'a Desired>,
    /// What apply could not do.
    pub refused: &'a [Problem],
    /// What was decided about epoch and replay; `None` while the pipeline is deleted.
    pub decision: Option<&'a Decision>,
    /// Now.
    pub now: Timestamp,
}

/// The status to write when it differs from the one the pipeline has.
#[must_use]
pub fn status(observation: &Observation<'_>) -> DetectionPipelineStatus {
    let previous = observation.pipeline.status.clone().unwrap_or_default();
    let findings = findings(observation);
    let phase = phase(observation, &findings);
    let numbers = numbers::write(observation, &previous, phase);
    DetectionPipelineStatus {
        observed_generation: observation.pipeline.metadata.generation,
        phase: Some(phase),
        epoch: previous.epoch,
        replay: previous.replay,
        replay_history: previous.replay_history,
        retired_consumers: previous.retired_consumers,
        source: numbers.source,
        conditions: conditions::write(observation, &previous.conditions, &findings),
        rules: Some(rules(observation, previous.rules.as_ref())),
        partitions: numbers.partitions,
        alerts: numbers.alerts,
        dead_letters: numbers.dead_letters,
    }
}

/// How far back the source stream goes; unknown while it is empty or not looked at.
#[must_use]
pub fn horizon(observation: &Observation<'_>) -> Option<Horizon> {
    let source = observation.server()?.source.as_ref()?;
    let age = observation.now.duration_since(source.first_time?);
    let above = worker::checkpoint(observation).and_then(|checkpoint| {
        let next = i64::try_from(checkpoint.position.sequence.next().0).ok()?;
        Some(next - i64::try_from(source.first.0).ok()?)
    });
    Some(Horizon {
        seconds: age.as_secs_f64(),
        above,
    })
}

impl<'a> Observation<'a> {
    fn server(&self) -> Option<&'a ServerFacts> {
        match &self.facts.nats {
            NatsFacts::Reached(server) => Some(server),
            NatsFacts::NotAsked
            | NatsFacts::Unavailable(_)
            | NatsFacts::Refused(_)
            | NatsFacts::JetStreamDisabled(_) => None,
        }
    }

    fn is_deleting(&self) -> bool {
        self.pipeline.metadata.deletion_timestamp.is_some()
    }

    fn worker_is_ready(&self) -> bool {
        let pods = &self.facts.pods;
        pods.iter().any(|pod| pod.ready && !pod.terminating)
    }
}

/// One finding for every condition but `Stalled`, which no reason has for its home.
fn findings(observation: &Observation<'_>) -> Vec<Finding> {
    let problems: Vec<Problem> = observation
        .validation
        .problems
        .iter()
        .chain(observation.refused)
        .cloned()
        .chain(worker::problems(observation))
        .chain(health::problems(observation))
        .chain(replay::problems(observation))
        .collect();
    ConditionType::ALL
        .into_iter()
        .filter(|condition| *condition != ConditionType::Stalled)
        .map(|condition| Finding::new(condition, &problems, || fine(condition, observation)))
        .collect()
}

/// What to say of a condition on which nothing is wrong.
fn fine(condition: ConditionType, observation: &Observation<'_>) -> Problem {
    match condition {
        ConditionType::Ready => health::as_it_should(Reason::Running),
        ConditionType::Reconciling | ConditionType::Stalled => {
            health::as_it_should(Reason::Settled)
        }
        ConditionType::StateReady => worker::state(observation),
        ConditionType::ConsumerReady => worker::consumer(observation),
        _ => health::fine(condition, observation),
    }
}

fn phase(observation: &Observation<'_>, findings: &[Finding]) -> Phase {
    if observation.is_deleting() {
        return Phase::Deleting;
    }
    let Some(blocker) = conditions::blocker(findings) else {
        return Phase::Running;
    };
    let reason = blocker.reason;
    match reason {
        _ if reason.row().effect < Effect::Stalled && observation.pipeline.spec.suspend => {
            Phase::Suspended
        }
        Reason::AlertsFull | Reason::DeadLettersFull | Reason::StoreUnavailable => Phase::Held,
        _ if reason.row().effect == Effect::Stalled => Phase::Stalled,
        Reason::RolloutInProgress => Phase::Starting,
        _ if is_of_worker(reason.row().condition) => Phase::Starting,
        _ => Phase::Pending,
    }
}

fn is_of_worker(condition: ConditionType) -> bool {
    matches!(
        condition,
        ConditionType::StateReady | ConditionType::ReplayInProgress
    )
}

fn rules(observation: &Observation<'_>, previous: Option<&RulesStatus>) -> RulesStatus {
    let report = &observation.validation.rules;
    let checkpoint = worker::checkpoint(observation);
    let loaded = match checkpoint {
        Some(checkpoint) => Some(checkpoint.engine_digest.clone()),
        None => previous.and_then(|rules| rules.loaded.clone()),
    };
    let running = observation.validation.pipeline.as_ref();
    let count = |now: Option<usize>, before: fn(&RulesStatus) -> i64| match now {
        Some(count) => i64::try_from(count).unwrap_or(i64::MAX),
        None => previous.map_or(0, before),
    };
    RulesStatus {
        desired: report.desired.clone(),
        loaded,
        detections: count(running.map(|it| it.rules.detections), |rules| {
            rules.detections
        }),
        correlations: count(running.map(|it| it.rules.correlations), |rules| {
            rules.correlations
        }),
        problems: report
            .problems
            .iter()
            .take(MAX_PROBLEMS)
            .map(|problem| RuleProblemStatus {
                file: conditions::cut(&problem.file, 1024),
                document: problem.document.and_then(|at| i64::try_from(at).ok()),
                rule: problem
                    .rule
                    .as_deref()
                    .map(|rule| conditions::cut(rule, 512)),
                message: conditions::cut(&problem.message, 2048),
            })
            .collect(),
        problem_count: i64::try_from(report.problems.len()).unwrap_or(i64::MAX),
    }
}

#[cfg(test)]
mod tests;
