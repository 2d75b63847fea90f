//! Streams and the consumer. What the server does not grant is a problem with a reason, not an error.

use lookback_protocol::consumer::ConsumerMetadata;
use lookback_protocol::workflow::Definition;

use crate::api::conditions::Reason;
use crate::nats::api::{ApiError, Code};
use crate::nats::connect::Nats;
use crate::nats::consumers;
use crate::nats::definition;
use crate::nats::desired::{DesiredConsumer, DesiredStream};
use crate::nats::ensure::{Ensured, ObjectError};
use crate::nats::streams;
use crate::operator::pipeline::build::{DesiredWorkflow, Streams};
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
        Ok(ensured) => reached
            .notices
            .extend(of_consumer(consumer, &found.facts, &ensured)),
        Err(error) => reached.problems.push(consumer_problem(&error)),
    }
    reached
}

/// The definition of the workflow. No worker needs it, so nothing waits for it.
pub(super) async fn apply_workflow(nats: &Nats, workflow: &DesiredWorkflow) -> Reached {
    let DesiredWorkflow { definition, adopt } = workflow;
    match definition::ensure(nats, definition, adopt.as_deref()).await {
        Ok(ensured) => Reached {
            problems: Vec::new(),
            notices: of_workflow(definition, &ensured).into_iter().collect(),
        },
        Err(error) => Reached {
            problems: vec![workflow_problem(&error)],
            notices: Vec::new(),
        },
    }
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
        Ensured::Adopted { from } => {
            let note = format!("{kind} {name} of {from} is taken over");
            Some(Notice::normal("Adopted", note))
        }
    }
}

fn of_workflow(definition: &Definition, ensured: &Ensured) -> Option<Notice> {
    let key = definition.owner.pipeline.definition_key();
    match ensured {
        Ensured::Updated { fields } => {
            let note = format!("workflow {key} is changed in {}", fields.join(", "));
            Some(Notice::normal("WorkflowChanged", note))
        }
        Ensured::Created | Ensured::Unchanged | Ensured::Adopted { .. } => {
            repaired("workflow", &key, ensured)
        }
    }
}

/// A consumer that the workers had is missed; that of a new epoch is not, and its mark is no repair.
fn of_consumer(
    desired: &DesiredConsumer,
    facts: &Dereferenced,
    ensured: &Ensured,
) -> Option<Notice> {
    let name = &desired.name;
    match ensured {
        Ensured::Created => {
            let running = facts.running.as_ref()?;
            (running.config.source.consumer == *name).then(|| {
                let note = format!(
                    "consumer {name} was deleted and is created again with the epoch and the start it had; the worker goes on from its state file"
                );
                Notice::warning("ConsumerRecreated", note)
            })
        }
        Ensured::Updated { .. } if is_marked(desired, facts) => None,
        Ensured::Unchanged | Ensured::Updated { .. } | Ensured::Adopted { .. } => {
            repaired("consumer", name, ensured)
        }
    }
}

/// Whether the only news is that the epoch's request is applied.
fn is_marked(desired: &DesiredConsumer, facts: &Dereferenced) -> bool {
    let NatsFacts::Reached(server) = &facts.nats else {
        return false;
    };
    let mut found = server
        .consumers
        .values()
        .filter_map(|it| it.metadata.as_ref());
    found.any(|before| {
        let marked = ConsumerMetadata {
            applied: true,
            ..before.clone()
        };
        !before.applied && marked.to_map() == desired.metadata
    })
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

fn workflow_problem(error: &ObjectError) -> Problem {
    let reason = match error {
        ObjectError::Foreign { .. } => Reason::OwnedByOther,
        ObjectError::Immutable { .. } | ObjectError::Ignored { .. } => Reason::StreamRefused,
        // Another write came first; the next reconcile reads it.
        ObjectError::Api { source, .. } if source.code().is_some_and(Code::is_conflict) => {
            Reason::NatsUnavailable
        }
        ObjectError::Api { source, .. } => api_reason(source, Reason::StreamRefused),
    };
    Problem::new(reason, chain(error))
}

fn api_reason(error: &ApiError, refused: Reason) -> Reason {
    match error {
        ApiError::Refused { .. } => refused,
        ApiError::NoAnswer(_)
        | ApiError::Unreadable(_)
        | ApiError::Swallowed(_)
        | ApiError::NoCopies => Reason::NatsUnavailable,
    }
}

#[cfg(test)]
mod tests {
    use lookback_protocol::position::{Epoch, StreamSeq};

    use super::*;
    use crate::operator::pipeline::test_support::{
        MINIMAL, desired, owner, pipeline, running_facts, with_consumer, with_server,
    };

    fn metadata(applied: bool) -> ConsumerMetadata {
        ConsumerMetadata {
            applied,
            ..ConsumerMetadata::new(&owner(), Epoch(1), StreamSeq(7))
        }
    }

    fn told(name: &str, before: Option<bool>, ensured: &Ensured) -> Option<String> {
        let mut facts = running_facts(&pipeline(MINIMAL));
        with_server(&mut facts, |server| {
            let consumer = server.consumer.clone();
            let found = before.zip(consumer).map(|(applied, mut consumer)| {
                consumer.metadata = Some(metadata(applied));
                consumer
            });
            with_consumer(server, found);
        });
        let consumer = DesiredConsumer {
            name: name.to_owned(),
            metadata: metadata(true).to_map(),
            ..desired(MINIMAL).consumer
        };
        of_consumer(&consumer, &facts, ensured).map(|notice| notice.reason)
    }

    const OF_THE_WORKER: &str = "lb_detections_edr_p0_e1";

    #[test]
    fn only_a_consumer_that_the_worker_had_is_recreated() {
        let created = Ensured::Created;
        let again = told(OF_THE_WORKER, None, &created);
        assert_eq!(again.as_deref(), Some("ConsumerRecreated"));
        assert_eq!(told("lb_detections_edr_p0_e2", None, &created), None);
    }

    #[test]
    fn the_mark_of_an_applied_request_is_no_repair() {
        let updated = Ensured::Updated {
            fields: vec!["metadata".to_owned()],
        };
        assert_eq!(told(OF_THE_WORKER, Some(false), &updated), None);
        let repaired = told(OF_THE_WORKER, Some(true), &updated);
        assert_eq!(repaired.as_deref(), Some("Repaired"));
    }

    #[test]
    fn what_is_taken_over_is_told() {
        let adopted = Ensured::Adopted {
            from: "c2/detections/edr".to_owned(),
        };
        let told = told(OF_THE_WORKER, Some(true), &adopted);
        assert_eq!(told.as_deref(), Some("Adopted"));
    }
}
