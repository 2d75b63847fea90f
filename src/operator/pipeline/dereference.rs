//! The dereference step: everything a reconcile looks at beside the pipeline itself, read once and
//! handed to the pure steps as plain data. The API server not answering is an error; NATS not
//! answering is a fact.

mod counts;
mod nats;
mod rules;
mod secrets;
mod workers;

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod};
use kube::{Api, Client, Resource, ResourceExt};
use lookback_protocol::names::PipelineKey;
use serde::de::DeserializeOwned;

pub use self::counts::Tallies;
use crate::api::DetectionPipeline;
use crate::nats::connect::Nats;
use crate::operator::controller::Context;
use crate::operator::pipeline::build::{self, PARTITION, names};
use crate::operator::pipeline::facts::{Dereferenced, Running};
use crate::operator::pipeline::{owned_by, validate};
use crate::runtime::telemetry::chain;

/// What the API server did not say.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A read by name.
    #[error("cannot read {kind} {name}")]
    Read {
        /// Its kind.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What the API server said.
        #[source]
        source: Box<kube::Error>,
    },
    /// A list of what belongs to the pipeline.
    #[error("cannot list the {kind} of {pipeline}")]
    List {
        /// Their kind, in the plural.
        kind: String,
        /// The pipeline.
        pipeline: String,
        /// What the API server said.
        #[source]
        source: Box<kube::Error>,
    },
}

impl Error {
    fn read(kind: &'static str, name: &str, source: kube::Error) -> Self {
        Self::Read {
            kind,
            name: name.to_owned(),
            source: Box::new(source),
        }
    }
}

/// What was found, and the connection to write to when NATS answers.
pub struct Found {
    /// The pipeline as the API server has it: a watch may be behind what was written to it.
    pub pipeline: DetectionPipeline,
    /// For the pure steps.
    pub facts: Dereferenced,
    /// The StatefulSet of the pipeline's name and labels, also when a deleted pipeline left it.
    pub set: Option<StatefulSet>,
    /// For the apply step.
    pub nats: Option<Nats>,
    /// For the apply step: which ConfigMaps the pods mount.
    pub pods: Vec<Pod>,
}

/// Reads everything; `None` when there is no such pipeline any more.
///
/// The StatefulSet is read before the record in the status. So whoever acts later by a newer record
/// changes what was read here, and what is decided from an older one cannot be written over it.
///
/// # Errors
/// [`Error`] names what the API server did not say.
pub async fn dereference(key: &PipelineKey, context: &Context) -> Result<Option<Found>, Error> {
    let client = &context.client;
    let namespace = key.namespace();
    let set = Api::<StatefulSet>::namespaced(client.clone(), namespace)
        .get_opt(key.name())
        .await
        .map_err(|source| Error::read("StatefulSet", key.name(), source))?
        .filter(|found| names::are_ours(found.meta(), key));
    let pipeline = Api::<DetectionPipeline>::namespaced(client.clone(), namespace)
        .get_opt(key.name())
        .await
        .map_err(|source| Error::read("DetectionPipeline", key.name(), source))?;
    let Some(pipeline) = pipeline else {
        return Ok(None);
    };
    let spec = &pipeline.spec;
    let secrets = secrets::read(client, namespace, &spec.nats).await?;
    let rules = rules::read(client, namespace, &spec.rules.config_maps).await?;
    let uid = pipeline.uid().unwrap_or_default();
    let stateful_set = set.clone().filter(|found| workers::is_owned(found, &uid));
    let running = match &stateful_set {
        Some(stateful_set) => running(client, namespace, stateful_set).await?,
        None => None,
    };
    let pods = pods(client, key).await?;
    let claims = list::<PersistentVolumeClaim>(client, key).await?;
    let target = secrets.target(&spec.nats, validate::timeouts(spec));
    let (nats_facts, nats) = nats::read(context, target.as_ref(), key, &pipeline).await;
    Ok(Some(Found {
        facts: Dereferenced {
            secrets: secrets.facts(&spec.nats),
            rules,
            running,
            nats: nats_facts,
            stateful_set,
            pods: pods.iter().map(workers::pod).collect(),
            volumes: claims.iter().map(workers::volume).collect(),
        },
        pipeline,
        set,
        nats,
        pods,
    }))
}

/// The connection alone, for the cleanup; `Err` is a sentence that says why there is none.
///
/// # Errors
/// [`Error`] when a Secret cannot be read.
pub async fn connect(
    pipeline: &DetectionPipeline,
    key: &PipelineKey,
    context: &Context,
) -> Result<Result<Nats, String>, Error> {
    let spec = &pipeline.spec;
    let secrets = secrets::read(&context.client, key.namespace(), &spec.nats).await?;
    let Some(target) = secrets.target(&spec.nats, validate::timeouts(spec)) else {
        return Ok(Err("a Secret of spec.nats is missing".to_owned()));
    };
    let connected = context.nats.get(&target).await;
    Ok(connected.map_err(|error| chain(error.as_ref())))
}

/// The pipeline's pods, and whatever pod has the name of a worker's: it may be one whose labels somebody
/// took off, and nobody can say that it does not run.
async fn pods(client: &Client, key: &PipelineKey) -> Result<Vec<Pod>, Error> {
    let mut pods = list::<Pod>(client, key).await?;
    let name = names::pod_name(key, PARTITION);
    if !pods.iter().any(|pod| pod.name_any() == name) {
        let found = Api::<Pod>::namespaced(client.clone(), key.namespace())
            .get_opt(&name)
            .await;
        pods.extend(found.map_err(|source| Error::read("Pod", &name, source))?);
    }
    Ok(pods)
}

async fn list<K>(client: &Client, key: &PipelineKey) -> Result<Vec<K>, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned,
{
    let api = Api::<K>::namespaced(client.clone(), key.namespace());
    let found = api
        .list(&owned_by(key))
        .await
        .map_err(|source| Error::List {
            kind: K::plural(&()).into_owned(),
            pipeline: key.to_string(),
            source: Box::new(source),
        })?;
    Ok(found.items)
}

/// What the StatefulSet's template runs, from the ConfigMaps it mounts.
async fn running(
    client: &Client,
    namespace: &str,
    stateful_set: &StatefulSet,
) -> Result<Option<Running>, Error> {
    let api = Api::<ConfigMap>::namespaced(client.clone(), namespace);
    let mut config_maps = Vec::new();
    for name in build::mounted(stateful_set) {
        let found = api.get_opt(&name).await;
        config_maps.extend(found.map_err(|source| Error::read("ConfigMap", &name, source))?);
    }
    Ok(build::running(&config_maps))
}
