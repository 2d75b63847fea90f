//! What NATS knows of a pipeline. Whatever it does not answer is one fact, not an error: the condition
//! says so, and the next look may find it well.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::SignedDuration;
use lookback_protocol::checkpoint::Checkpoint;
use lookback_protocol::consumer::ConsumerMetadata;
use lookback_protocol::names::{Owner, PipelineKey};
use lookback_protocol::position::{Epoch, StreamSeq};
use serde_json::Value;

use super::counts;
use crate::api::DetectionPipeline;
use crate::nats::api::{ApiError, Code};
use crate::nats::checkpoint::JetStreamCheckpoints;
use crate::nats::connect::{ConnectError, Nats, Target};
use crate::nats::consumers::{self, ObservedConsumer};
use crate::nats::ensure::ObjectError;
use crate::nats::streams::{self, ObservedStream};
use crate::operator::controller::Context;
use crate::operator::pipeline::build::PARTITION;
use crate::operator::pipeline::facts::{
    ConsumerFacts, Counts, Fill, NatsFacts, Retention, ServerFacts, SourceFacts, StoreFacts,
};
use crate::operator::pipeline::replay;
use crate::runtime::telemetry::chain;
use crate::worker::ports::{CheckpointError, Checkpoints, Unavailable};

/// What a plan is made from.
pub struct ToPlan {
    /// The source stream.
    pub source: Option<SourceFacts>,
    /// The alerts stream.
    pub alerts: Option<StoreFacts>,
    /// The checkpoint of partition 0, from the leader.
    pub checkpoint: Option<Checkpoint>,
}

/// Asks NATS; the connection is handed on to whoever writes there.
pub(super) async fn read(
    context: &Context,
    target: Option<&Target>,
    key: &PipelineKey,
    pipeline: &DetectionPipeline,
) -> (NatsFacts, Option<Nats>) {
    let Some(target) = target else {
        return (NatsFacts::NotAsked, None);
    };
    let nats = match context.nats.get(target).await {
        Ok(nats) => nats,
        Err(error) => return (unconnected(&error), None),
    };
    match ask(&nats, key, pipeline, context).await {
        Ok(facts) => (NatsFacts::Reached(Box::new(facts)), Some(nats)),
        Err(error) => (unanswered(&error), None),
    }
}

/// What a plan is made from, of what NATS knows; `Err` is a sentence that says why it cannot be asked.
pub(super) async fn to_plan(
    nats: &Nats,
    key: &PipelineKey,
    pipeline: &DetectionPipeline,
) -> Result<ToPlan, String> {
    let name = pipeline.spec.source.stream.as_str();
    let alerts = key.alerts_stream();
    let source = async { Ok(streams::read(nats, name).await?) };
    let alerts = async { Ok(streams::read(nats, &alerts).await?) };
    let answers = tokio::try_join!(source, alerts, checkpoint(nats, key));
    let (source, alerts, checkpoint) = answers.map_err(|error: AskError| chain(&error))?;
    Ok(ToPlan {
        source: source.map(|stream| source_facts(name, &stream)),
        alerts: alerts.map(|stream| store_facts(&stream)),
        checkpoint: checkpoint?,
    })
}

/// Why a question to a connected server has no answer.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("cannot ask NATS about its JetStream")]
    Server(#[source] ApiError),
    #[error(transparent)]
    Object(#[from] ObjectError),
    #[error(transparent)]
    Checkpoint(Unavailable),
}

async fn ask(
    nats: &Nats,
    key: &PipelineKey,
    pipeline: &DetectionPipeline,
    context: &Context,
) -> Result<ServerFacts, AskError> {
    let source = pipeline.spec.source.stream.as_str();
    let (alerts, letters) = (key.alerts_stream(), key.dead_letters_stream());
    let server = async { nats.server().await.map_err(AskError::Server) };
    let source_stream = async { Ok(streams::read(nats, source).await?) };
    let alerts = async { Ok(streams::read(nats, &alerts).await?) };
    let letters = async { Ok(streams::read(nats, &letters).await?) };
    let consumers = async { Ok(consumers::list(nats, source, key, PARTITION).await?) };
    let checkpoint = checkpoint(nats, key);
    let (server, source_stream, alerts, letters, consumers, checkpoint) = tokio::try_join!(
        server,
        source_stream,
        alerts,
        letters,
        consumers,
        checkpoint
    )?;
    let consumers: BTreeMap<Epoch, ConsumerFacts> = consumers
        .iter()
        .map(|(epoch, consumer)| (*epoch, consumer_facts(consumer)))
        .collect();
    let epoch = replay::epoch(pipeline);
    let owner = Owner {
        cluster: context.settings.cluster.clone(),
        pipeline: key.clone(),
    };
    let stores = [alerts.as_ref(), letters.as_ref()];
    let counts = counts::read(&context.tallies, nats, &owner, stores).await;
    let of_stores = stores.into_iter().flatten().filter_map(|it| it.owner());
    let of_consumers = consumers.values().filter_map(|it| it.metadata.as_ref());
    let of_checkpoint = checkpoint.iter().flatten().map(|it| it.owner.to_string());
    let owners = of_stores
        .map(str::to_owned)
        .chain(of_consumers.map(|metadata| metadata.owner.clone()))
        .chain(of_checkpoint)
        .collect();
    Ok(ServerFacts {
        version: server.version,
        api_level: server.api_level,
        clustered: server.clustered,
        source: source_stream.map(|stream| source_facts(source, &stream)),
        alerts: alerts.map(|stream| store_facts(&stream)),
        dead_letters: letters.map(|stream| store_facts(&stream)),
        counts,
        owners,
        consumer: epoch.and_then(|epoch| consumers.get(&epoch).cloned()),
        consumers,
        checkpoint,
    })
}

/// The inner error is about a checkpoint that is there and cannot be read.
async fn checkpoint(
    nats: &Nats,
    key: &PipelineKey,
) -> Result<Result<Option<Checkpoint>, String>, AskError> {
    match JetStreamCheckpoints::new(nats.clone(), key, PARTITION)
        .load()
        .await
    {
        Ok(found) => Ok(Ok(found.map(|(checkpoint, _)| checkpoint))),
        Err(CheckpointError::Unavailable(error)) if is_without_bucket(&error) => Ok(Ok(None)),
        Err(CheckpointError::Unavailable(error)) => Err(AskError::Checkpoint(error)),
        Err(error) => Ok(Err(chain(&error))),
    }
}

/// The bucket comes with the first pipeline of the account.
fn is_without_bucket(error: &Unavailable) -> bool {
    let refused = error.source.downcast_ref::<ApiError>();
    refused.and_then(ApiError::code) == Some(Code::STREAM_NOT_FOUND)
}

fn source_facts(name: &str, stream: &ObservedStream) -> SourceFacts {
    let bounds = stream.facts(name);
    SourceFacts {
        identity: bounds.identity,
        retention: match stream.retention() {
            "workqueue" => Retention::WorkQueue,
            "interest" => Retention::Interest,
            _ => Retention::Limits,
        },
        first: bounds.first,
        first_time: (stream.state.messages > 0).then_some(stream.state.first_ts),
        last: bounds.last,
        last_time: (bounds.last > StreamSeq(0)).then_some(stream.state.last_ts),
        subjects: stream.subjects().map(str::to_owned).collect(),
        max_age: stream
            .max_age()
            .and_then(|age| SignedDuration::try_from(age).ok()),
        messages: Fill {
            held: stream.state.messages,
            limit: stream.max_messages().filter(|_| stream.drops_oldest()),
        },
        bytes: Fill {
            held: stream.state.bytes,
            limit: stream.max_bytes().filter(|_| stream.drops_oldest()),
        },
        replicas: replicas(stream),
    }
}

fn store_facts(stream: &ObservedStream) -> StoreFacts {
    StoreFacts {
        messages: stream.state.messages,
        replicas: replicas(stream),
    }
}

fn replicas(stream: &ObservedStream) -> u64 {
    let replicas = stream.config.get("num_replicas").and_then(Value::as_u64);
    replicas.unwrap_or(1)
}

fn consumer_facts(consumer: &ObservedConsumer) -> ConsumerFacts {
    ConsumerFacts {
        metadata: ConsumerMetadata::from_map(|key| consumer.metadata(key)).ok(),
        pending: consumer.facts().pending,
        ack_pending: consumer.ack_pending(),
        delivered: consumer.facts().delivered,
        filters: consumer.filters().map(str::to_owned).collect(),
    }
}

fn unconnected(error: &Arc<ConnectError>) -> NatsFacts {
    let sentence = chain(error.as_ref());
    match error.as_ref() {
        ConnectError::Unauthorized { .. } | ConnectError::Malformed { .. } => {
            NatsFacts::Refused(sentence)
        }
        ConnectError::JetStreamMissing { .. } => NatsFacts::JetStreamDisabled(sentence),
        ConnectError::ServerTooOld { version, level, .. } => {
            NatsFacts::Reached(Box::new(ServerFacts {
                version: version.clone(),
                api_level: *level,
                clustered: false,
                source: None,
                alerts: None,
                dead_letters: None,
                counts: Counts::default(),
                owners: BTreeSet::new(),
                consumer: None,
                consumers: BTreeMap::new(),
                checkpoint: Ok(None),
            }))
        }
        ConnectError::NoUrl
        | ConnectError::BadUrl { .. }
        | ConnectError::CredentialsInUrl { .. }
        | ConnectError::Read { .. }
        | ConnectError::Unreachable { .. }
        | ConnectError::Account { .. } => NatsFacts::Unavailable(sentence),
    }
}

fn unanswered(error: &AskError) -> NatsFacts {
    let sentence = chain(error);
    let source = match error {
        AskError::Server(source) | AskError::Object(ObjectError::Api { source, .. }) => source,
        AskError::Object(_) | AskError::Checkpoint(_) => return NatsFacts::Unavailable(sentence),
    };
    match source.code() {
        Some(code) if code.is_jetstream_missing() => NatsFacts::JetStreamDisabled(sentence),
        _ => NatsFacts::Unavailable(sentence),
    }
}
