//! The spec of a DetectionPipeline. What stands here is shape: patterns, bounds, what may not change.
//! Whether it can work (does the stream exist, do the rules compile) is found by validation and said
//! in conditions.
#![expect(
    unreachable_pub,
    reason = "kube's derive copies these types into functions"
)]

mod correlation;
mod replay;
mod storage;
mod worker;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::Duration;
use super::profile::Profile;
use super::quantity::Bytes;
use super::status::DetectionPipelineStatus;

pub use correlation::{CorrelationSpec, Emit, LimitsSpec, Refire, TimestampFallback};
pub use replay::{ReplaySpec, ReplaySpecError};
pub use storage::{AccessMode, AlertsSpec, DeadLettersSpec, OnLoss, StateSpec, StorageSpec};
pub use worker::{LogLevel, WorkerSpec};

/// The annotation by which a person says that events lost up to a sequence are known.
pub const ACKNOWLEDGE: &str = "lookback.dev/acknowledge";
/// The annotation by which a person lets the plan of this hash run.
pub const APPROVE: &str = "lookback.dev/approve";
/// The annotation by which a person hands over what belongs to the pipeline of a cluster that is gone.
pub const ADOPT: &str = "lookback.dev/adopt";
/// The finalizer of pipelines with `deletionPolicy: Delete`.
pub const FINALIZER: &str = "lookback.dev/cleanup";

/// Stateful Sigma detections over one JetStream stream.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, kube(cel))]
#[kube(
    group = "lookback.dev",
    version = "v1alpha1",
    kind = "DetectionPipeline",
    namespaced,
    shortname = "dpl",
    category = "lookback",
    status = "DetectionPipelineStatus",
    derive = "PartialEq",
    doc = "Stateful Sigma detections over one JetStream stream.",
    validation = Rule::new("self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')").message("the name must match ^[a-z]([-a-z0-9]*[a-z0-9])?$ and have at most 40 characters"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Position", type_ = "integer", json_path = ".status.partitions[0].position"),
    printcolumn(name = "Lag", type_ = "integer", json_path = ".status.partitions[0].lag"),
    printcolumn(name = "Alerts", type_ = "integer", json_path = ".status.alerts.stored"),
    printcolumn(name = "DLQ", type_ = "integer", json_path = ".status.deadLetters.parked"),
    printcolumn(name = "Replay", type_ = "string", json_path = ".status.replay.phase"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
)]
#[serde(rename_all = "camelCase")]
pub struct DetectionPipelineSpec {
    /// Stop the worker once everything it applied is committed; nothing is lost or deleted. A replay
    /// asked for meanwhile waits.
    #[serde(default)]
    pub suspend: bool,
    /// Any text; another one replaces the worker's pod. It moves no cursor and drops no window.
    #[serde(default)]
    #[schemars(length(max = 128))]
    pub restart_nonce: String,
    /// What the knobs are that this spec leaves out; docs/profiles.md has the table.
    #[serde(default)]
    pub profile: Profile,
    /// Move the cursor, once. What was done stays done when the block is applied again or taken out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<ReplaySpec>,
    /// How to reach NATS.
    pub nats: NatsSpec,
    /// Which events to read.
    pub source: SourceSpec,
    /// Which Sigma rules to run.
    pub rules: RulesSpec,
    /// How time and windows are treated.
    #[serde(default)]
    pub correlation: CorrelationSpec,
    /// When a batch of events is committed: at whichever comes first.
    #[serde(default)]
    pub commit: CommitSpec,
    /// Where the windows are kept.
    #[serde(default)]
    pub state: StateSpec,
    /// The stream that takes alerts.
    #[serde(default)]
    pub alerts: AlertsSpec,
    /// The stream that takes events that cannot be applied.
    #[serde(default)]
    pub dead_letters: DeadLettersSpec,
    /// The worker's pod.
    #[serde(default)]
    pub worker: WorkerSpec,
    /// What becomes of volume, streams and checkpoint when the pipeline is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// How to reach NATS.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("!(has(self.credentialsSecretRef) && has(self.userPasswordSecretRef))").message("at most one of credentialsSecretRef and userPasswordSecretRef may be set"))]
#[serde(rename_all = "camelCase")]
pub struct NatsSpec {
    /// Servers of one cluster, without credentials: nats://host:4222 or tls://host:4222.
    #[schemars(
        length(min = 1, max = 16),
        inner(
            length(max = 256),
            regex(pattern = r"^(nats|tls)://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?$")
        )
    )]
    pub urls: Vec<String>,
    /// A Secret's key with a .creds file, as nsc writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<SecretKeyRef>,
    /// A Secret with the keys username and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_password_secret_ref: Option<SecretRef>,
    /// Encryption.
    #[serde(default)]
    pub tls: TlsSpec,
    /// How long a server may take to let operator and worker in: 100ms to 1m, 5s unless the profile says
    /// otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<Duration>,
    /// How long an answer of JetStream is waited for: 100ms to 1m, 5s unless the profile says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_timeout: Option<Duration>,
}

/// Encryption of the connection.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TlsSpec {
    /// A Secret's key with the PEM certificates of the CA to trust instead of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyRef>,
    /// Refuse a server that does not offer TLS.
    #[serde(default)]
    pub required: bool,
}

/// One key of a Secret in the pipeline's namespace.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// The Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its key.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// A Secret in the pipeline's namespace.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// The Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// Which events to read.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceSpec {
    /// A stream that exists and has Limits retention. It is only read: never created, never changed.
    #[x_kube(validation = Rule::new("self == oldSelf").message("source.stream cannot be changed: position and windows belong to it; create another pipeline"))]
    #[schemars(length(min = 1, max = 255), regex(pattern = r"^[^\s.*>/\\]+$"))]
    pub stream: String,
    /// Subjects to read; empty for the whole stream. A change takes effect at the next event.
    #[serde(default)]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 255), regex(pattern = r"^[^\s]+$"))
    )]
    pub subjects: Vec<String>,
    /// Where a new pipeline begins: with the next event, or with the oldest one kept. Resolved once.
    #[serde(default)]
    pub start: Start,
    /// What the events are, for rules that name a log source.
    pub logsource: LogSourceSpec,
}

/// Where a new pipeline begins.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// With the next event.
    #[default]
    Latest,
    /// With the oldest event kept.
    Earliest,
}

/// A Sigma log source.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogSourceSpec {
    /// For example windows. Without it the rules of every product would run on every event.
    #[schemars(length(min = 1, max = 128))]
    pub product: String,
    /// For example sysmon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub service: Option<String>,
    /// For example process_creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub category: Option<String>,
}

/// Which Sigma rules to run.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RulesSpec {
    /// ConfigMaps whose keys *.yml, *.yaml and *.tar.gz hold rules; merged in this order, then by key.
    #[schemars(length(min = 1, max = 64))]
    pub config_maps: Vec<ConfigMapRef>,
    /// Processing pipelines, in order: names of built-in ones, or keys of the ConfigMaps.
    #[serde(default)]
    #[schemars(length(max = 16), inner(length(min = 1, max = 508)))]
    pub processing: Vec<String>,
    /// What to do with a set that has a document that cannot be used.
    #[serde(default)]
    pub on_error: OnError,
}

/// A ConfigMap in the pipeline's namespace.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapRef {
    /// The ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What to do with a set that has a document that cannot be used.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnError {
    /// Keep running the set before it. The very first set is loaded as with LoadGood.
    #[default]
    KeepPrevious,
    /// Run what can be used.
    LoadGood,
}

/// When a batch of events is committed.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CommitSpec {
    /// Time since the first event of the batch: 1ms to 1m, 1s unless the profile says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<Duration>,
    /// Events in the batch; 5000 unless the profile says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub events: Option<i64>,
}

/// What becomes of volume, streams and checkpoint when the pipeline is deleted.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeletionPolicy {
    /// They stay, and a pipeline of the same name goes on with them.
    #[default]
    Retain,
    /// They are deleted with it.
    Delete,
}

pub(super) fn duration(text: &str) -> Duration {
    text.parse().expect("a default in the code")
}

pub(super) fn bytes(text: &str) -> Bytes {
    text.parse().expect("a default in the code")
}
