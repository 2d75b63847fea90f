//! Which acts of the operator the audit has: how a replay ended, what a person let happen by an
//! annotation, and what was deleted. Pure.
//!
//! A key is made from what the act is about, so that whoever tells it again tells the same. Where a name
//! can come again, as after a pipeline was deleted and created anew, the key holds what does not.

use data_encoding::HEXLOWER;
use kube::ResourceExt;
use lookback_protocol::audit::OperatorAct;
use lookback_protocol::names::PipelineKey;
use lookback_protocol::position::Epoch;
use lookback_protocol::replay::record::{Finished, Record, ReplayPhase};
use lookback_protocol::replay::request::Approval;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::build::PARTITION;
use super::facts::{Dereferenced, NatsFacts, ServerFacts};
use super::validate;
use crate::api::DetectionPipeline;
use crate::api::conditions::Reason;
use crate::api::pipeline::{ACKNOWLEDGE, ADOPT, APPROVE};
use crate::operator::audit::Told;

/// What can be told from how things stand: the status and annotations as they were read, and what was
/// found in NATS before anything was done.
pub(super) fn standing(pipeline: &DetectionPipeline, facts: &Dereferenced) -> Vec<Told> {
    let server = match &facts.nats {
        NatsFacts::Reached(server) => Some(server.as_ref()),
        NatsFacts::NotAsked
        | NatsFacts::Unavailable(_)
        | NatsFacts::Refused(_)
        | NatsFacts::JetStreamDisabled(_) => None,
    };
    let status = pipeline.status.as_ref();
    let record = status.and_then(|status| status.replay.as_ref());
    let history = status.map_or(&[][..], |status| &status.replay_history);
    let latest = record.filter(|record| record.phase.is_final());
    let ended = latest.map(Record::finished).into_iter();
    let ended = ended.chain(history.iter().cloned()).map(|it| ended_as(&it));
    ended
        .chain(record.and_then(own_request))
        .chain(record.and_then(|record| approved(pipeline, record)))
        .chain(server.and_then(|server| acknowledged(pipeline, server)))
        .chain(server.and_then(|server| handed_over(pipeline, server)))
        .collect()
}

/// The consumer of an epoch that was left is deleted.
pub(super) fn consumer_deleted(
    pipeline: &DetectionPipeline,
    key: &PipelineKey,
    epoch: Epoch,
) -> Told {
    let consumer = key.consumer(PARTITION, epoch);
    let stream = &pipeline.spec.source.stream;
    told(
        format!("consumer-{}-e{epoch}", uid(pipeline)),
        "ConsumerDeleted",
        format!("consumer {consumer} of stream {stream} is deleted: its epoch was left"),
        json!({"stream": stream, "consumer": consumer, "epoch": epoch}),
    )
}

/// A pipeline with `deletionPolicy: Delete` is gone, with what it had in NATS but for what is `left`.
pub(super) fn cleaned_up(
    pipeline: &DetectionPipeline,
    key: &PipelineKey,
    left: Option<&str>,
) -> Told {
    let (reason, message) = match left {
        None => (
            "CleanedUp",
            format!("pipeline {key} was deleted, with its streams, consumers and state"),
        ),
        Some(left) => (
            "CleanupIncomplete",
            format!("pipeline {key} was deleted, but not all of what it had: {left}"),
        ),
    };
    let streams = [key.alerts_stream(), key.dead_letters_stream()];
    told(
        format!("deleted-{}", uid(pipeline)),
        reason,
        message,
        json!({"uid": pipeline.uid(), "streams": streams}),
    )
}

fn ended_as(finished: &Finished) -> Told {
    let Finished {
        id, phase, message, ..
    } = finished;
    let why = if message.is_empty() {
        Reason::of_phase(*phase).row().meaning
    } else {
        message
    };
    let outcome = format!("{phase:?}");
    // One that was never begun may be asked for again under its id, and end again.
    let at = finished.finished_at.as_second();
    told(
        format!("replay-{id}-{}-{at}", outcome.to_lowercase()),
        format!("Replay{outcome}"),
        format!("request {id}: {why}"),
        json!(finished),
    )
}

/// Nobody asked for this replay but the operator.
fn own_request(record: &Record) -> Option<Told> {
    let request = &record.request;
    let id = &request.id;
    request.id.is_loss().then(|| {
        told(
            format!("requested-{id}-{}", record.requested_at.as_second()),
            "ReplayRequested",
            format!("request {id}: the state was lost, and spec.state.onLoss says how to go on"),
            json!(request),
        )
    })
}

fn approved(pipeline: &DetectionPipeline, record: &Record) -> Option<Told> {
    let Record { request, phase, .. } = record;
    let plan = record.plan.as_ref()?;
    let annotation = pipeline.annotations().get(APPROVE)?;
    let begun = *phase >= ReplayPhase::Fencing && *phase <= ReplayPhase::Failed;
    let was = request.approval == Approval::Manual && *annotation == plan.hash && begun;
    let (id, hash) = (&request.id, &plan.hash);
    was.then(|| {
        told(
            format!("approved-{id}-{}", digest(hash)),
            "ReplayApproved",
            format!("request {id}: plan {hash} was approved by the annotation {APPROVE}"),
            json!({"request": request, "plan": plan}),
        )
    })
}

fn acknowledged(pipeline: &DetectionPipeline, server: &ServerFacts) -> Option<Told> {
    let through: u64 = pipeline.annotations().get(ACKNOWLEDGE)?.parse().ok()?;
    let checkpoint = server.checkpoint.as_ref().ok()?.as_ref()?;
    let gaps = checkpoint.gaps.iter().filter(|gap| gap.to.0 <= through);
    let gaps: Vec<_> = gaps.collect();
    let stream = &checkpoint.stream;
    (!gaps.is_empty()).then(|| {
        told(
            // A sequence means nothing in another stream of the same name.
            format!("acknowledged-{}-{through}", stream.created.as_second()),
            "LossAcknowledged",
            format!(
                "events of stream {} up to {through} that were lost are known, says the annotation {ACKNOWLEDGE}",
                stream.name
            ),
            json!({"stream": stream, "gaps": gaps}),
        )
    })
}

/// What is still another's is about to be taken over.
fn handed_over(pipeline: &DetectionPipeline, server: &ServerFacts) -> Option<Told> {
    let from = validate::adopted(pipeline)?.to_string();
    server.owners.contains(&from).then(|| {
        told(
            format!("adopted-{}-{}", uid(pipeline), digest(&from)),
            "Adopted",
            format!("what belongs to {from} is handed over, says the annotation {ADOPT}"),
            json!({"owners": server.owners}),
        )
    })
}

fn told(key: String, reason: impl Into<String>, message: String, details: Value) -> Told {
    Told {
        act: OperatorAct {
            key,
            reason: reason.into(),
            message,
        },
        details,
    }
}

/// The object, as no other is called that has its name before or after it.
fn uid(pipeline: &DetectionPipeline) -> String {
    pipeline.uid().unwrap_or_default()
}

/// For texts that may hold what a subject's token may not.
fn digest(text: &str) -> String {
    HEXLOWER.encode(&Sha256::digest(text)[..6])
}

#[cfg(test)]
mod tests;
