//! Streams and the consumer. What the server does not grant is a problem with a reason, not an error.

use lookback_protocol::consumer::ConsumerMetadata;

use crate::api::conditions::Reason;
use crate::nats::api::ApiError;
use crate::nats::connect::Nats;
use crate::nats::consumers;
use crate::nats::desired::{DesiredConsumer, DesiredStream};
use crate::nats::ensure::{Ensured, ObjectError};
use crate::nats::streams;
use crate::operator::pipeline::build::Streams;
use crate::operator::pipeline::dereference::Found;
use crate::operator::pipeline::facts::{Dereferenced, NatsFacts};
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
        Ok(Ensured::Created) if was_there(&consumer.name, &found.facts) => {
            let name = &consumer.name;
            let note = format!(
                "consumer {name} was deleted and is created again with the epoch and the start it had; the worker goes on from its state file"
            );
            reached
                .notices
                .push(Notice::warning("ConsumerRecreated", note));
        }
        Ok(Ensured::Updated { .. }) if only_marks(consumer, &found.facts) => {}
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

/// Whether the workers read from a consumer of this name: that of a new epoch is not missing before.
fn was_there(name: &str, facts: &Dereferenced) -> bool {
    let running = facts.running.as_ref();
    running.is_some_and(|running| running.config.source.consumer == name)
}

/// Whether all that the consumer lacked is the mark that its epoch has begun on the state file, which
/// comes later than the consumer and repairs nothing.
fn only_marks(consumer: &DesiredConsumer, facts: &Dereferenced) -> bool {
    let NatsFacts::Reached(server) = &facts.nats else {
        return false;
    };
    let mut found = server
        .consumers
        .values()
        .filter_map(|it| it.metadata.clone());
    found.any(|found| {
        let marked = ConsumerMetadata {
            applied: true,
            ..found.clone()
        };
        !found.applied && marked.to_map() == consumer.metadata
    })
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

#[cfg(test)]
mod tests {
    use lookback_protocol::position::StreamSeq;

    use super::*;
    use crate::operator::pipeline::test_support::{
        EPOCH, MINIMAL, desired, owner, pipeline, running_facts,
    };

    #[test]
    fn only_a_consumer_that_the_workers_were_told_of_can_be_missing() {
        let facts = running_facts(&pipeline(MINIMAL));
        assert!(was_there("lb_detections_edr_p0_e1", &facts));
        assert!(!was_there("lb_detections_edr_p0_e2", &facts));
    }

    #[test]
    fn the_mark_that_an_epoch_has_begun_is_no_repair() {
        let facts = running_facts(&pipeline(MINIMAL));
        let mut consumer = desired(MINIMAL).consumer;
        assert!(!only_marks(&consumer, &facts));
        let mut metadata = ConsumerMetadata::new(&owner(), EPOCH, StreamSeq(501));
        metadata.applied = true;
        consumer.metadata = metadata.to_map();
        assert!(only_marks(&consumer, &facts));
        metadata.start = StreamSeq(1);
        consumer.metadata = metadata.to_map();
        assert!(!only_marks(&consumer, &facts));
    }
}
