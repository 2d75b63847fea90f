//! The build step: a validated pipeline -> everything it owns, in Kubernetes and in JetStream. Pure:
//! the same pipeline gives the same objects, so whatever differs outside is drift.

mod config_map;
mod consumer;
pub mod names;
mod network_policy;
mod pod;
mod rules;
mod service;
mod service_account;
mod stateful_set;
mod streams;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::ResourceExt;
use lookback_protocol::names::Owner;
use lookback_protocol::workflow::Definition;

use crate::api::Bytes;
use crate::nats::desired::{DesiredConsumer, DesiredStream};
use crate::operator::pipeline::validate::ValidatedPipeline;

pub use config_map::worker_config;
pub use rules::{mounted, running};
pub use stateful_set::epoch_of;

/// The only partition of v1alpha1.
pub const PARTITION: u32 = 0;

/// Everything a pipeline owns, in the order in which it is applied: what a worker needs comes before
/// the worker.
#[derive(Clone, Debug)]
pub struct Desired {
    /// Where the worker writes.
    pub streams: Streams,
    /// The steps that alerts can take; `None` leaves those that stand in NATS.
    pub workflow: Option<DesiredWorkflow>,
    /// Partition 0 of the current epoch.
    pub consumer: DesiredConsumer,
    /// The pods' identity, without a token.
    pub service_account: ServiceAccount,
    /// What pods may reach, and who may reach them.
    pub network_policy: NetworkPolicy,
    /// Metrics.
    pub service: Service,
    /// Immutable: the rules, and `config.json`. Those of our label that are not among these may be
    /// deleted once no pod of an older revision is left.
    pub config_maps: Vec<ConfigMap>,
    /// The workers' volumes, made by the StatefulSet; the operator only grows them.
    pub volumes: Vec<DesiredVolume>,
    /// The worker.
    pub stateful_set: StatefulSet,
    /// Whether a StatefulSet of the same epoch and replicas is left as it is.
    pub hold_template: bool,
}

/// The streams a worker writes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Streams {
    /// The bucket of checkpoints, one per NATS account, shared: created when absent, never deleted.
    pub state_bucket: DesiredStream,
    /// What was done and by whom, one per NATS account, shared and never deleted, too.
    pub audit: DesiredStream,
    /// Takes alerts.
    pub alerts: DesiredStream,
    /// Takes events that cannot be applied.
    pub dead_letters: DesiredStream,
}

/// The definition by which alerts are moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredWorkflow {
    /// As it must stand in NATS.
    pub definition: Definition,
    /// Whose it may be until now.
    pub adopt: Option<String>,
}

/// A claim that must ask for at least a size. One that asks for more is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredVolume {
    /// The claim's name.
    pub name: String,
    /// The size.
    pub size: Bytes,
}

/// Everything `pipeline` owns.
#[must_use]
pub fn build(pipeline: &ValidatedPipeline) -> Desired {
    let config = config_map::build(pipeline);
    let rules = rules::build(pipeline);
    let stateful_set = stateful_set::build(
        pipeline,
        &config.name_any(),
        &rules.iter().map(ResourceExt::name_any).collect::<Vec<_>>(),
    );
    let volume = DesiredVolume {
        name: names::claim_name(&pipeline.owner.pipeline, PARTITION),
        size: pipeline.storage.size.clone(),
    };
    Desired {
        streams: streams::build(pipeline),
        workflow: workflow(pipeline),
        consumer: consumer::build(pipeline),
        service_account: service_account::build(pipeline),
        network_policy: network_policy::build(pipeline),
        service: service::build(pipeline),
        config_maps: rules.into_iter().chain([config]).collect(),
        volumes: vec![volume],
        stateful_set,
        hold_template: pipeline.turn.hold_template,
    }
}

fn workflow(pipeline: &ValidatedPipeline) -> Option<DesiredWorkflow> {
    let workflow = pipeline.workflow.as_ref()?;
    Some(DesiredWorkflow {
        definition: Definition::new(pipeline.owner.clone(), workflow),
        adopt: pipeline.adopt.as_ref().map(Owner::to_string),
    })
}

#[cfg(test)]
mod tests;
