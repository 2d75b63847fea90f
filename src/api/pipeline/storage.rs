//! What a spec may say about the volume and the pipeline's own streams.

use kube::KubeSchema;
use lookback_protocol::workflow::WorkflowSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bytes;
use crate::api::{Bytes, Duration};

/// Where the windows are kept.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StateSpec {
    /// The volume.
    pub storage: StorageSpec,
    /// What to do when the volume comes back empty or from an old copy although the worker's checkpoint
    /// in NATS says how far it was.
    pub on_loss: OnLoss,
}

/// What to do when the state file is lost. Whatever is chosen, the worker goes on at the position that
/// its checkpoint names.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnLoss {
    /// Wait for a person.
    #[default]
    Fail,
    /// Make the windows again by reading back far enough before the position.
    RebuildWindows,
    /// Begin with empty windows.
    StartEmpty,
}

/// The worker's volume.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.storageClassName) == has(oldSelf.storageClassName) && (!has(self.storageClassName) || self.storageClassName == oldSelf.storageClassName)").message("state.storage.storageClassName cannot be changed"))]
#[serde(rename_all = "camelCase")]
pub struct StorageSpec {
    /// Its size; it can only grow, and only where the storage class allows it.
    #[x_kube(validation = Rule::new("quantity(string(self)).compareTo(quantity(string(oldSelf))) >= 0").message("state.storage.size can only grow"))]
    #[serde(default = "default_size")]
    pub size: Bytes,
    /// Its class; the cluster's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,
    /// ReadWriteOncePod where the driver has it.
    #[x_kube(validation = Rule::new("self == oldSelf").message("state.storage.accessMode cannot be changed"))]
    #[serde(default)]
    pub access_mode: AccessMode,
}

impl Default for StorageSpec {
    fn default() -> Self {
        Self {
            size: default_size(),
            storage_class_name: None,
            access_mode: AccessMode::default(),
        }
    }
}

/// Who may mount the volume.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccessMode {
    /// One node at a time.
    #[default]
    ReadWriteOnce,
    /// One pod at a time.
    ReadWriteOncePod,
}

/// The stream that takes alerts.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AlertsSpec {
    /// Copies of the pipeline's own streams: 3 when NATS is clustered, else 1, unless this or the profile
    /// says otherwise.
    #[x_kube(validation = Rule::new("self != 2").message("2 replicas need both servers for every write: use 1, 3 or 5"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 5))]
    pub replicas: Option<i32>,
    /// How long alerts, and with them their ids, are kept; 30d unless the profile says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
    /// How much is kept; 10Gi unless the profile says otherwise. New alerts wait at 95 % of it; none is
    /// dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<Bytes>,
    /// The states of an alert and the steps between them; when absent, new alerts go to triage, from
    /// there to escalated or closed, and back. Another workflow moves no alert.
    #[x_kube(
        validation = Rule::new("!self.states.exists(s, s in ['new', 'archived', 'left'])").message("the states new, archived and left are built in: leave them out of alerts.workflow.states"),
        validation = Rule::new("!self.transitions.exists(t, t.id in ['create', 'update', 'archive'])").message("the transitions create, update and archive are built in: give those of alerts.workflow another id"),
    )]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<WorkflowSpec>,
}

/// The stream that takes events that cannot be applied.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeadLettersSpec {
    /// How long they are kept; 30d unless the profile says otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Duration>,
    /// How much is kept; 1Gi unless the profile says otherwise. Events wait at 95 % of it; none is dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bytes: Option<Bytes>,
    /// Deaths of the worker with exactly one event in flight after which that event is parked.
    #[schemars(range(min = 1, max = 100))]
    pub max_attempts: i32,
}

impl Default for DeadLettersSpec {
    fn default() -> Self {
        Self {
            max_age: None,
            max_bytes: None,
            max_attempts: 3,
        }
    }
}

fn default_size() -> Bytes {
    bytes("5Gi")
}
