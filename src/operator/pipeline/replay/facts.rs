//! What was found outside, as the decision wants it. Pure.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::StatefulSet;
use lookback_protocol::checkpoint::Checkpoint;
use lookback_protocol::config::Cursor;
use lookback_protocol::consumer::ConsumerMetadata;
use lookback_protocol::position::Epoch;
use lookback_protocol::replay::machine::{CursorView, Running, Workload, Written};
use lookback_protocol::replay::record::ReplayPhase;
use lookback_protocol::replay::request::{LOSS, ReplayRequest, StatePolicy};
use lookback_protocol::termination::ExitReason;

use crate::api::DetectionPipeline;
use crate::api::pipeline::OnLoss;
use crate::api::status::Time;
use crate::operator::pipeline::build::epoch_of;
use crate::operator::pipeline::dereference::Found;
use crate::operator::pipeline::facts::{
    ConsumerFacts, Dereferenced, NatsFacts, PodFacts, PodWait, ServerFacts, StoreFacts,
};
use crate::operator::pipeline::validate::overlap;

/// After the time at which a pod should be gone; a node that works needs it to say so.
const OVERDUE: SignedDuration = SignedDuration::from_secs(10);

/// NATS, when it answered everything and the checkpoint can be read.
pub(super) fn server(facts: &Dereferenced) -> Option<(&ServerFacts, Option<&Checkpoint>)> {
    let NatsFacts::Reached(server) = &facts.nats else {
        return None;
    };
    let checkpoint = server.checkpoint.as_ref().ok()?;
    Some((server, checkpoint.as_ref()))
}

/// What is asked for: what the operator asks for itself when the state was lost, else what the spec
/// does. A block that is no request leaves what is under way as it is.
pub(super) fn wanted(
    pipeline: &DetectionPipeline,
    facts: &Dereferenced,
    written: &Written,
) -> Option<ReplayRequest> {
    if let Some(request) = loss(pipeline, facts, written) {
        return Some(request);
    }
    // What a worker said is forgotten with its pod, and the request it led to is not.
    let open = written.unfinished();
    if let Some(record) = open
        && record.request.id.as_str().starts_with(LOSS)
    {
        return Some(record.request.clone());
    }
    match pipeline.spec.replay.as_ref()?.request() {
        Ok(request) => Some(request),
        Err(_) => open.map(|record| record.request.clone()),
    }
}

/// The epoch whose worker can say that the state is lost: that of the request once its worker is started,
/// and none while the one before is being stopped.
fn speaks(written: &Written) -> Option<Epoch> {
    use ReplayPhase::{CursorCreated, Fencing};

    let open = written.unfinished();
    match open {
        Some(record) if matches!(record.phase, Fencing | CursorCreated) => None,
        Some(record) if record.phase > CursorCreated => record.epoch,
        _ => written.epoch,
    }
}

/// The request that brings a worker back whose state file is gone, unless a person is to decide.
fn loss(
    pipeline: &DetectionPipeline,
    facts: &Dereferenced,
    written: &Written,
) -> Option<ReplayRequest> {
    let epoch = speaks(written)?;
    let policy = match pipeline.spec.state.on_loss {
        OnLoss::Fail => decided(pipeline, written)?,
        OnLoss::RebuildWindows => StatePolicy::Rebuild,
        OnLoss::StartEmpty => StatePolicy::Clear,
    };
    let lost = facts.pods.iter().any(|pod| says_lost(pod, epoch));
    let (_, checkpoint) = server(facts)?;
    let start = checkpoint?.position.sequence.next();
    lost.then(|| ReplayRequest::loss(epoch, start, policy))
}

/// What a person decided who asks for a replay that begins anew while another is under way: over a
/// state that is gone that one never ends by itself, and the new one would wait for it for ever. Once
/// it is ended, the new one runs.
fn decided(pipeline: &DetectionPipeline, written: &Written) -> Option<StatePolicy> {
    let open = written.unfinished()?;
    let block = pipeline.spec.replay.as_ref()?.request().ok()?;
    let known = written.history.iter().any(|it| it.id == block.id);
    let is_new = block.id != open.request.id && !known;
    let started = open.phase > ReplayPhase::CursorCreated;
    (started && is_new && block.state_policy.begins_anew()).then_some(block.state_policy)
}

fn says_lost(pod: &PodFacts, epoch: Epoch) -> bool {
    let said = pod.stopped.as_ref().and_then(|stop| stop.message.as_ref());
    let refused = said.is_some_and(|said| said.reason == ExitReason::StateLost);
    refused && pod.epoch == Some(epoch) && !pod.ready && !pod.terminating
}

/// What the StatefulSet's pods are told.
pub(super) fn running(facts: &Dereferenced) -> Option<(Epoch, &Cursor)> {
    let config = &facts.running.as_ref()?.config;
    Some((config.epoch, &config.cursor))
}

/// The metadata of the pipeline's consumers.
pub(super) fn consumers(server: &ServerFacts) -> Vec<ConsumerMetadata> {
    let found = server.consumers.values();
    found.filter_map(|it| it.metadata.clone()).collect()
}

/// Sequences a second that the worker read since its numbers were written, if it was behind then.
pub(super) fn rate(pipeline: &DetectionPipeline, checkpoint: Option<&Checkpoint>) -> Option<u64> {
    let before = pipeline.status.as_ref()?.partitions.first()?;
    let Time(then) = before.observed_time?;
    let now = checkpoint?;
    let seconds = u64::try_from(now.time.duration_since(then).as_secs()).ok()?;
    let read = now
        .position
        .sequence
        .0
        .checked_sub(u64::try_from(before.position).ok()?)?;
    (before.lag? > 0)
        .then(|| read.checked_div(seconds))
        .flatten()
}

/// Alerts in any range: none when none is stored. To count others would take a read of each.
pub(super) fn known_alerts(alerts: Option<StoreFacts>) -> Option<u64> {
    let stored = alerts.map_or(0, |alerts| alerts.messages);
    (stored == 0).then_some(0)
}

/// StatefulSet and pods, as they were read live.
pub(super) fn workload(found: &Found, now: Timestamp) -> Workload {
    let pods = &found.facts.pods;
    let set = found.set.as_ref();
    let status = set.and_then(|set| set.status.as_ref());
    let of_config = || found.facts.running.as_ref().map(|it| it.config.epoch);
    Workload::Seen(Running {
        observed: set.is_none_or(|set| {
            let seen = status.and_then(|status| status.observed_generation);
            seen == set.metadata.generation
        }),
        replicas: set.map_or(0, replicas),
        pods: pods.len(),
        stuck: pods.iter().any(|pod| is_stuck(pod, now)),
        epoch: set.and_then(|set| epoch_of(set).or_else(of_config)),
        trouble: pods.iter().find_map(trouble),
    })
}

/// Pods that are there or are to be: one that was deleted is owed until nobody asks for it any more.
fn replicas(set: &StatefulSet) -> i32 {
    let wanted = set.spec.as_ref().and_then(|spec| spec.replicas);
    let status = set.status.as_ref().map_or(0, |status| status.replicas);
    wanted.unwrap_or(1).max(status)
}

fn is_stuck(pod: &PodFacts, now: Timestamp) -> bool {
    pod.deadline
        .is_some_and(|deadline| now.duration_since(deadline) > OVERDUE)
}

/// Why a pod that should run does not.
fn trouble(pod: &PodFacts) -> Option<String> {
    if pod.ready || pod.terminating {
        return None;
    }
    let name = &pod.name;
    let said = pod.stopped.as_ref().map(|stop| match &stop.message {
        Some(said) => format!("pod {name} stopped: {}", said.message),
        None => format!("pod {name} ended with exit code {}", stop.exit_code),
    });
    match &pod.waiting {
        Some(PodWait::Other(_)) if said.is_some() => said,
        Some(waiting) => Some(waiting.sentence(name)),
        None => said,
    }
}

/// The consumer of an epoch, as far as it says whether everything was read.
pub(super) fn view(
    consumer: &ConsumerFacts,
    server: &ServerFacts,
    subjects: &[String],
) -> CursorView {
    let whole = [">".to_owned()];
    let wanted = if subjects.is_empty() {
        &whole
    } else {
        subjects
    };
    let source = server.source.as_ref();
    let filter_is_ours = wanted.len() == consumer.filters.len()
        && wanted.iter().all(|it| consumer.filters.contains(it));
    let takes_any = source.is_some_and(|source| {
        let mut pairs = source
            .subjects
            .iter()
            .flat_map(|subject| wanted.iter().map(move |filter| (subject, filter)));
        source.subjects.is_empty() || pairs.any(|(subject, filter)| overlap(subject, filter))
    });
    CursorView {
        pending: consumer.pending,
        ack_pending: consumer.ack_pending,
        filter_ok: filter_is_ours && takes_any,
        bound_ok: source.is_some_and(|source| consumer.delivered <= source.last),
    }
}

#[cfg(test)]
mod tests;
