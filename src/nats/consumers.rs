//! Consumers, for the operator: one durable cursor on the source stream for each partition and epoch.
//!
//! What is read comes from the leader; a consumer or stream that does not exist is an exact answer. An
//! update in place keeps the cursor and what is not yet acknowledged; a new filter takes effect at the
//! next delivery.

use std::collections::BTreeMap;

use lookback_protocol::consumer::APPLIED_KEY;
use lookback_protocol::names::PipelineKey;
use lookback_protocol::position::{Epoch, StreamSeq};
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{ApiError, Code};
use super::connect::Nats;
use super::desired::{Config, DesiredConsumer, DesiredSubscription, owner_of};
use super::ensure::{Deleted, Ensured, Object, ObjectError};
use crate::worker::ports::ConsumerFacts;

/// A consumer as its leader describes it.
#[derive(Clone, Debug, Deserialize)]
pub struct ObservedConsumer {
    /// Its configuration.
    pub config: Config,
    delivered: Delivered,
    num_pending: u64,
    num_ack_pending: u64,
}

#[derive(Clone, Debug, Deserialize)]
struct Delivered {
    consumer_seq: u64,
    stream_seq: u64,
}

#[derive(Deserialize)]
struct Page {
    total: usize,
    consumers: Option<Vec<String>>,
}

impl ObservedConsumer {
    /// What it has delivered.
    #[must_use]
    pub fn facts(&self) -> ConsumerFacts {
        ConsumerFacts {
            delivered_consumer: self.delivered.consumer_seq,
            delivered: StreamSeq(self.delivered.stream_seq),
            pending: self.num_pending,
            applied: self.metadata(APPLIED_KEY) == Some("true"),
        }
    }

    /// Messages delivered and not yet acknowledged.
    #[must_use]
    pub fn ack_pending(&self) -> u64 {
        self.num_ack_pending
    }

    /// What it delivers; `>` for the whole stream.
    pub fn filters(&self) -> impl Iterator<Item = &str> {
        let one = self.config.get("filter_subject").and_then(Value::as_str);
        let many = self.config.get("filter_subjects").and_then(Value::as_array);
        let filters: Vec<_> = one
            .into_iter()
            .chain(many.into_iter().flatten().filter_map(Value::as_str))
            .filter(|filter| !filter.is_empty())
            .collect();
        let whole = filters.is_empty().then_some(">");
        filters.into_iter().chain(whole)
    }

    /// A key of its metadata.
    #[must_use]
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.config.get("metadata")?.get(key)?.as_str()
    }

    /// The owner in its metadata.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        owner_of(&self.config)
    }
}

/// Reads a consumer; `None` when it, or its stream, does not exist.
///
/// # Errors
/// [`ObjectError::Api`] when there is no answer.
pub async fn read(
    nats: &Nats,
    stream: &str,
    name: &str,
) -> Result<Option<ObservedConsumer>, ObjectError> {
    object(stream, name, &request(stream)).read(nats).await
}

/// Every consumer of a pipeline and partition that is there, by its epoch: also what another owner
/// made under such a name, and what an earlier pipeline of the same name left.
///
/// The names come from the server that knows them all, each consumer from its leader. One that is
/// deleted meanwhile is left out.
///
/// # Errors
/// [`ObjectError::Api`] when there is no answer; a missing stream has no consumers.
pub async fn list(
    nats: &Nats,
    stream: &str,
    pipeline: &PipelineKey,
    partition: u32,
) -> Result<BTreeMap<Epoch, ObservedConsumer>, ObjectError> {
    let names = match names(nats, stream).await {
        Err(error) if error.code() == Some(Code::STREAM_NOT_FOUND) => Vec::new(),
        names => names.map_err(|source| ObjectError::Api {
            operation: "list",
            kind: "consumers of stream",
            name: stream.to_owned(),
            source,
        })?,
    };
    let mut consumers = BTreeMap::new();
    for name in names {
        if let Some(epoch) = pipeline.epoch_of(partition, &name)
            && let Some(consumer) = read(nats, stream, &name).await?
        {
            consumers.insert(epoch, consumer);
        }
    }
    Ok(consumers)
}

/// The names of all consumers of a stream. They come sorted and in pages, and one that vanishes moves
/// those behind it to a page already read. So each page begins with the last name of the one before;
/// when it does not, the names are read anew.
async fn names(nats: &Nats, stream: &str) -> Result<Vec<String>, ApiError> {
    let subject = format!("CONSUMER.NAMES.{stream}");
    let mut names: Vec<String> = Vec::new();
    loop {
        let body = json!({ "offset": names.len().saturating_sub(1) });
        let Page { total, consumers } = nats.api(&subject, &body).await?;
        let consumers = consumers.unwrap_or_default();
        let last = names.pop();
        if last.is_some() && last != consumers.first().cloned() {
            names.clear();
            continue;
        }
        names.extend(consumers);
        if names.len() >= total {
            return Ok(names);
        }
    }
}

/// Creates the consumer or updates it in place, and compares what the server then holds. One of
/// the owner to adopt becomes ours.
///
/// # Errors
/// [`ObjectError`]: it is another's, or cannot be repaired in place, or the server did not do it.
pub async fn ensure(nats: &Nats, desired: &DesiredConsumer) -> Result<Ensured, ObjectError> {
    object(&desired.stream, &desired.name, &request(&desired.stream))
        .ensure(
            nats,
            &desired.config(),
            desired.adopt.as_deref(),
            &|observed| desired.drift(observed),
        )
        .await
}

/// As [`ensure`], for a subscriber's.
///
/// # Errors
/// As [`ensure`].
pub(super) async fn ensure_subscription(
    nats: &Nats,
    desired: &DesiredSubscription,
) -> Result<Ensured, ObjectError> {
    let observed = read(nats, &desired.stream, &desired.name).await?;
    let config = desired.config(observed.as_ref().map(|observed| &observed.config));
    object(&desired.stream, &desired.name, &request(&desired.stream))
        .ensure(nats, &config, None, &|observed| desired.drift(observed))
        .await
}

/// Deletes a consumer, if its metadata says that it is `owner`'s.
///
/// # Errors
/// [`ObjectError`]: it is another's, or the server did not do it.
pub async fn delete(
    nats: &Nats,
    stream: &str,
    name: &str,
    owner: &str,
) -> Result<Deleted, ObjectError> {
    object(stream, name, &request(stream))
        .delete(nats, owner)
        .await
}

fn request(stream: &str) -> impl Fn(Config, &'static str) -> Value + Sync {
    move |config, action| json!({ "stream_name": stream, "config": config, "action": action })
}

fn object<'a>(
    stream: &str,
    name: &'a str,
    request: &'a (dyn Fn(Config, &'static str) -> Value + Sync),
) -> Object<'a> {
    let create = format!("CONSUMER.CREATE.{stream}.{name}");
    Object {
        kind: "consumer",
        name,
        info: format!("CONSUMER.INFO.{stream}.{name}"),
        update: create.clone(),
        create,
        delete: format!("CONSUMER.DELETE.{stream}.{name}"),
        request,
    }
}
