//! What has passed validation: everything that is built is built from these.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Affinity, ResourceRequirements, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use lookback_engine::RuleFile;
use lookback_protocol::config::{CommitConfig, CorrelationConfig, Cursor, LogSource};
use lookback_protocol::names::Owner;
use lookback_protocol::position::{Epoch, StreamIdentity, StreamSeq};
use lookback_protocol::workflow::Workflow;

use crate::api::Bytes;
use crate::api::pipeline::{AccessMode, DeletionPolicy, LogLevel};
use crate::nats::connect::Timeouts;

/// A pipeline that can be built.
#[derive(Clone, Debug)]
pub struct ValidatedPipeline {
    /// Cluster, namespace and name.
    pub owner: Owner,
    /// Whose streams, consumers and state file it takes over.
    pub adopt: Option<Owner>,
    /// Another one is another pod; may be empty.
    pub restart_nonce: String,
    /// For every Kubernetes object except volumes that are retained.
    pub owner_reference: OwnerReference,
    /// The epoch, what becomes of the state file when it begins, and what the workers do.
    pub turn: ValidatedTurn,
    /// How workers reach NATS.
    pub nats: ValidatedNats,
    /// What they read.
    pub source: ValidatedSource,
    /// What they run.
    pub rules: ValidatedRules,
    /// Time and windows.
    pub correlation: CorrelationConfig,
    /// Batches.
    pub commit: CommitConfig,
    /// The volume.
    pub storage: ValidatedStorage,
    /// The alerts stream.
    pub alerts: ValidatedStore,
    /// The steps that alerts can take; `None` when the spec's cannot be followed, and those that stand in
    /// NATS are to stay.
    pub workflow: Option<Workflow>,
    /// The dead-letter stream.
    pub dead_letters: ValidatedStore,
    /// Deaths with exactly one event in flight after which it is parked.
    pub max_attempts: u32,
    /// Copies of the bucket of checkpoints, when this pipeline is the one that creates it.
    pub bucket_replicas: u8,
    /// The pod.
    pub worker: ValidatedWorker,
    /// What a deletion leaves.
    pub deletion_policy: DeletionPolicy,
}

/// What the workers are to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedTurn {
    /// Counts the cursors.
    pub epoch: Epoch,
    /// What becomes of the state file when the epoch begins on it.
    pub cursor: Cursor,
    /// Whether that has happened, as far as anything remembers it.
    pub applied: bool,
    /// Workers: 0 or 1.
    pub replicas: i32,
    /// Whether a StatefulSet that runs this epoch already keeps the template it has.
    pub hold_template: bool,
}

/// How workers reach NATS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedNats {
    /// Server URLs, without credentials.
    pub urls: Vec<String>,
    /// The ports in them, for the network policy; sorted, each once.
    pub ports: Vec<u16>,
    /// At most one way to authenticate.
    pub auth: Option<ValidatedAuth>,
    /// Secret and key of the CA to trust.
    pub ca: Option<(String, String)>,
    /// Refuse a server without TLS.
    pub tls_required: bool,
    /// How long it is waited for.
    pub timeouts: Timeouts,
}

/// Where credentials are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValidatedAuth {
    /// Secret and key of a `.creds` file.
    Credentials {
        /// The Secret.
        secret: String,
        /// Its key.
        key: String,
    },
    /// A Secret with the keys `username` and `password`.
    UserPassword {
        /// The Secret.
        secret: String,
    },
}

/// What workers read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedSource {
    /// The stream, and which incarnation of it the pipeline was begun on.
    pub stream: StreamIdentity,
    /// The filter; empty for the whole stream.
    pub subjects: Vec<String>,
    /// The default log source of its events.
    pub logsource: LogSource,
    /// Where a brand-new state file begins; resolved once, then kept.
    pub start: StreamSeq,
}

/// What workers run: either what the spec names or the last set that could be used.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedRules {
    /// In the order of the spec's ConfigMaps, then of their keys.
    pub files: Vec<RuleFile>,
    /// Built-in names and names of `files`.
    pub processing: Vec<String>,
    /// What the worker must compute, too.
    pub engine_digest: String,
    /// Detections in it.
    pub detections: usize,
    /// Correlations in it.
    pub correlations: usize,
    /// The longest sum of timespans along a chain of correlations, in seconds.
    pub longest_chain: u64,
    /// Whether a correlation has session windows, which go on as long as events keep coming.
    pub has_session_windows: bool,
}

/// The volume of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValidatedStorage {
    /// Its size.
    pub size: Bytes,
    /// The size in the StatefulSet's template, which Kubernetes never lets change: the first one.
    pub template_size: Bytes,
    /// Its class; the cluster's default when absent.
    pub class: Option<String>,
    /// Who may mount it.
    pub access_mode: AccessMode,
}

/// One of the pipeline's own streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ValidatedStore {
    /// Copies.
    pub replicas: u8,
    /// How long messages are kept.
    pub max_age: Duration,
    /// How much is kept.
    pub max_bytes: u64,
}

/// The pod of a worker.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidatedWorker {
    /// Its image.
    pub image: String,
    /// What its container asks for.
    pub resources: Option<ResourceRequirements>,
    /// Labels its node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints it tolerates.
    pub tolerations: Vec<Toleration>,
    /// Where it may be placed.
    pub affinity: Option<Affinity>,
    /// Its priority.
    pub priority_class_name: Option<String>,
    /// Annotations; none is the operator's.
    pub annotations: BTreeMap<String, String>,
    /// Labels; none is the operator's.
    pub labels: BTreeMap<String, String>,
    /// How much it logs.
    pub log_level: LogLevel,
}
