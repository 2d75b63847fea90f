//! What a spec may say about the worker's pod.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Affinity, ResourceRequirements, Toleration};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::pod;

/// The worker's pod.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct WorkerSpec {
    /// Its image; the operator's own when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,
    /// What its container asks for and may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "pod::resources")]
    pub resources: Option<ResourceRequirements>,
    /// Labels its node must have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub node_selector: BTreeMap<String, String>,
    /// Taints it tolerates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "pod::tolerations")]
    pub tolerations: Vec<Toleration>,
    /// Where it may be placed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "pod::affinity")]
    pub affinity: Option<Affinity>,
    /// Its priority.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,
    /// Annotations of the pod.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 4096}))]
    pub annotations: BTreeMap<String, String>,
    /// Labels of the pod; those of the operator cannot be replaced.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64, "additionalProperties" = {"type": "string", "maxLength": 63}))]
    pub labels: BTreeMap<String, String>,
    /// How much it logs.
    pub log_level: LogLevel,
}

/// How much a worker logs.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What someone must act on.
    Error,
    /// And what was recovered.
    Warn,
    /// And changes of state.
    #[default]
    Info,
    /// And what helps to find a bug.
    Debug,
    /// And everything else.
    Trace,
}

impl LogLevel {
    /// As `--log-level` takes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}
