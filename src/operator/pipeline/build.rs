//! The build step: a validated pipeline -> everything it owns, in Kubernetes and in JetStream. Pure:
//! the same pipeline gives the same objects, so whatever differs outside is drift.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;

use crate::api::Bytes;
use crate::nats::desired::{DesiredConsumer, DesiredStream};

/// Everything a pipeline owns, in the order in which it is applied: what a worker needs comes before
/// the worker.
#[derive(Clone, Debug)]
pub struct Desired {
    /// The bucket of checkpoints, one per NATS account, shared: created when absent, never deleted.
    pub state_bucket: DesiredStream,
    /// Takes alerts.
    pub alerts: DesiredStream,
    /// Takes events that cannot be applied.
    pub dead_letters: DesiredStream,
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
}

/// A claim that must ask for at least a size. One that asks for more is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredVolume {
    /// The claim's name.
    pub name: String,
    /// The size.
    pub size: Bytes,
}
