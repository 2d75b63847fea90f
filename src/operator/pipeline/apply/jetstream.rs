//! Streams and the consumer. What the server does not grant is a problem with a reason, not an error.

use crate::api::conditions::Reason;
use crate::nats::api::ApiError;
use crate::nats::connect::Nats;
use crate::nats::consumers;
use crate::nats::desired::{DesiredConsumer, DesiredStream};
use crate::nats::ensure::{Ensured, ObjectError};
use crate::nats::streams;
use crate::operator::pipeline::build::Streams;
use crate::operator::pipeline::dereference::Found;
use crate::operator::pipeline::problem::Problem;
use crate::operator::report::Notice;
use crate::runtime::telemetry::chain;

/// What came of streams and consumer.
#[derive(Debug, Default)]
pub(super) struct Reached {
    /// What could not be had, and what someone must do.
    pub(super) problems: Vec<Problem>,
    /// What people should hear of.
    pub(super) notices: Vec<Notice>,
}

/// The streams in their order, then the consumer.
pub(super) async fn apply(
    nats: &Nats,
    streams: &Streams,
    consumer: &DesiredConsumer,
    found: &Found,
) -> Reached {
    let mut reached = Reached::default();
    let Streams {
        state_bucket,
        audit,
        alerts,
        dead_letters,
    } = streams;
    for stream in [state_bucket, audit, alerts, dead_letters] {
        match ensure_stream(nats, stream).await {
            Ok(ensured) => reached
                .notices
                .extend(repaired("stream", &stream.name, &ensured)),
            Err(error) => reached.problems.push(stream_problem(&error)),
        }
    }
    match consumers::ensure(nats, consumer).await {
        Ok(Ensured::Created) if found.facts.running.is_some() => {
            let name = &consumer.name;
            let note = format!(
                "consumer {name} was deleted and is created again with the epoch and the start it had; the worker goes on from its state file"
            );
            reached
                .notices
                .push(Notice::warning("ConsumerRecreated", note));
        }
        Ok(ensured) => reached
            .notices
            .extend(repaired("consumer", &consumer.name, &ensured)),
        Err(error) => reached.problems.push(consumer_problem(&error)),
    }
    reached
}

async fn ensure_stream(nats: &Nats, desired: &DesiredStream) -> Result<Ensured, ObjectError> {
    if desired.is_shared() {
        streams::ensure_shared(nats, desired).await
    } else {
        streams::ensure(nats, desired).await
    }
}

fn repaired(kind: &str, name: &str, ensured: &Ensured) -> Option<Notice> {
    match ensured {
        Ensured::Created | Ensured::Unchanged => None,
        Ensured::Updated { fields } => {
            let note = format!("{kind} {name} is set back in {}", fields.join(", "));
            Some(Notice::normal("Repaired", note))
        }
    }
}

fn stream_problem(error: &ObjectError) -> Problem {
    let reason = match error {
        ObjectError::Foreign { .. } => Reason::ForeignStream,
        ObjectError::Immutable { .. } => Reason::StreamImmutable,
        ObjectError::Ignored { .. } => Reason::ServerTooOld,
        ObjectError::Api { source, .. } => api_reason(source, Reason::StreamRefused),
    };
    Problem::new(reason, chain(error))
}

fn consumer_problem(error: &ObjectError) -> Problem {
    let reason = match error {
        ObjectError::Foreign { .. } => Reason::ForeignConsumer,
        ObjectError::Immutable { .. } => Reason::ConsumerRefused,
        ObjectError::Ignored { .. } => Reason::ServerTooOld,
        ObjectError::Api { source, .. } => api_reason(source, Reason::ConsumerRefused),
    };
    Problem::new(reason, chain(error))
}

fn api_reason(error: &ApiError, refused: Reason) -> Reason {
    match error {
        ApiError::Refused { .. } => refused,
        ApiError::NoAnswer(_) | ApiError::Unreadable(_) | ApiError::Swallowed(_) => {
            Reason::NatsUnavailable
        }
    }
}
