//! What the worker says: its checkpoint while it runs, its termination message when it stopped; and
//! what Kubernetes says about a pod that says nothing.

use lookback_protocol::checkpoint::{Checkpoint, Phase};
use lookback_protocol::termination::ExitReason;

use super::{Observation, health};
use crate::api::conditions::{Effect, Reason};
use crate::operator::pipeline::build::names::CONFIG_ANNOTATION;
use crate::operator::pipeline::facts::{PodFacts, PodWait, Stop};
use crate::operator::pipeline::problem::Problem;

/// Exit codes of a process that someone else ended: SIGKILL and SIGTERM.
const ENDED_BY_OTHERS: [i32; 2] = [137, 143];

/// The checkpoint, when NATS could be asked and there is one.
pub(super) fn checkpoint<'a>(observation: &Observation<'a>) -> Option<&'a Checkpoint> {
    observation.server()?.checkpoint.as_ref().ok()?.as_ref()
}

/// What is wrong with the worker.
pub(super) fn problems(observation: &Observation<'_>) -> Vec<Problem> {
    let mut problems: Vec<Problem> = unreadable_checkpoint(observation).into_iter().collect();
    if !is_to_stop(observation) {
        problems.extend(rollout(observation));
        problems.extend(volumes(observation));
    }
    let pods = observation
        .facts
        .pods
        .iter()
        .filter(|pod| !pod.ready && !pod.terminating);
    problems.extend(pods.filter_map(|pod| of_pod(pod, observation)));
    // A worker that was refused is not waiting any more, whatever its last checkpoint says.
    let refused = problems
        .iter()
        .any(|problem| problem.reason.row().effect == Effect::Stalled);
    problems.extend(hold(observation).filter(|_| !refused));
    problems
}

/// Whether no worker is wanted.
fn is_to_stop(observation: &Observation<'_>) -> bool {
    let existing = observation.facts.stateful_set.as_ref();
    let desired = observation.desired.map(|desired| &desired.stateful_set);
    let set = desired.or(existing).and_then(|set| set.spec.as_ref());
    set.is_some_and(|set| set.replicas == Some(0))
}

/// Whether the StatefulSet's controller knows that no worker is wanted. Until then it may make a pod
/// that is not there yet.
pub(super) fn is_stopped(observation: &Observation<'_>) -> bool {
    let Some(set) = &observation.facts.stateful_set else {
        return observation.desired.is_none() || is_to_stop(observation);
    };
    let status = set.status.as_ref();
    let seen = status.and_then(|it| it.observed_generation) == set.metadata.generation;
    let wanted = set.spec.as_ref().and_then(|spec| spec.replicas);
    seen && wanted == Some(0) && status.is_some_and(|status| status.replicas == 0)
}

/// `StateReady` when nothing is wrong with the worker.
pub(super) fn state(observation: &Observation<'_>) -> Problem {
    let reason = if observation.worker_is_ready() || hold(observation).is_some() {
        Reason::StateOpen
    } else if is_to_stop(observation) {
        Reason::WorkerStopped
    } else if observation.facts.stateful_set.is_some() || observation.desired.is_some() {
        Reason::WorkerStarting
    } else {
        Reason::StateUnknown
    };
    health::as_it_should(reason)
}

/// `ConsumerReady` when nothing is wrong with the consumer.
pub(super) fn consumer(observation: &Observation<'_>) -> Problem {
    let exists = observation.server().map(|server| server.consumer.is_some());
    let reason = match exists {
        Some(true) => Reason::Positioned,
        Some(false) if observation.desired.is_some() => Reason::ConsumerMissing,
        Some(false) | None => Reason::ConsumerUnknown,
    };
    health::as_it_should(reason)
}

fn unreadable_checkpoint(observation: &Observation<'_>) -> Option<Problem> {
    let message = observation.server()?.checkpoint.as_ref().err()?;
    Some(Problem::new(
        Reason::NewerSchema,
        format!("{message}: run the version that wrote it, or a newer one"),
    ))
}

fn rollout(observation: &Observation<'_>) -> Option<Problem> {
    let existing = observation.facts.stateful_set.as_ref()?;
    let config = |set: &k8s_openapi::api::apps::v1::StatefulSet| {
        let metadata = set.spec.as_ref()?.template.metadata.as_ref()?;
        metadata
            .annotations
            .as_ref()?
            .get(CONFIG_ANNOTATION)
            .cloned()
    };
    let changed = observation
        .desired
        .is_some_and(|desired| config(&desired.stateful_set) != config(existing));
    let status = existing.status.as_ref();
    let unseen = status.and_then(|it| it.observed_generation) < existing.metadata.generation;
    let replacing = status.is_some_and(|it| {
        it.update_revision.is_some() && it.update_revision != it.current_revision
    });
    (changed || unseen || replacing).then(|| {
        Problem::new(
            Reason::RolloutInProgress,
            "the worker's pod is being replaced; the windows stay on the volume",
        )
    })
}

fn volumes(observation: &Observation<'_>) -> Option<Problem> {
    let volume = observation
        .facts
        .volumes
        .iter()
        .find(|volume| !volume.bound)?;
    Some(Problem::new(
        Reason::VolumePending,
        format!(
            "volume claim {} is not bound: see its events, and spec.state.storage",
            volume.name
        ),
    ))
}

fn of_pod(pod: &PodFacts, observation: &Observation<'_>) -> Option<Problem> {
    let waiting = pod.waiting.as_ref();
    let kept = waiting.and_then(|waiting| {
        let reason = match waiting {
            PodWait::Unschedulable(_) => Reason::Unschedulable,
            PodWait::Image(_) => Reason::ImageUnavailable,
            PodWait::Other(_) => return None,
        };
        Some(Problem::new(reason, waiting.sentence(&pod.name)))
    });
    if kept.is_some() {
        return kept;
    }
    of_stop(pod, pod.stopped.as_ref()?, observation)
}

fn of_stop(pod: &PodFacts, stop: &Stop, observation: &Observation<'_>) -> Option<Problem> {
    let starting = |how: String| Problem::new(Reason::WorkerStarting, how);
    let Some(said) = &stop.message else {
        if stop.exit_code == 0 {
            return None;
        }
        let by_others = ENDED_BY_OTHERS.contains(&stop.exit_code);
        let how = format!(
            "the worker in pod {} ended with exit code {}",
            pod.name, stop.exit_code
        );
        return Some(if by_others {
            starting(format!("{how} and is started again"))
        } else {
            Problem::new(
                Reason::Internal,
                format!("{how} and without a message: see its log"),
            )
        });
    };
    let exists = observation
        .server()
        .is_some_and(|server| server.consumer.is_some());
    if said.reason == ExitReason::ConsumerMissing && exists {
        return Some(starting(
            "the consumer is there again; the worker is started again".to_owned(),
        ));
    }
    Some(Problem::new(
        Reason::of_exit(said.reason)?,
        said.message.clone(),
    ))
}

fn hold(observation: &Observation<'_>) -> Option<Problem> {
    let checkpoint = checkpoint(observation)?;
    let held = checkpoint.held.as_ref()?;
    let speaks = !is_to_stop(observation) || !observation.facts.pods.is_empty();
    (checkpoint.phase == Phase::Held && speaks)
        .then(|| Problem::new(Reason::of_hold(held.reason), held.message.clone()))
}
