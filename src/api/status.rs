//! What the operator says about a pipeline. Types on the wire are lenient where a newer operator may
//! have written more: conditions and their reasons are strings here, a closed set in
//! [`super::conditions`].
#![expect(
    unreachable_pub,
    reason = "kube's derive copies these types into functions"
)]

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::KubeSchema;
use lookback_protocol::deadletter::{DISCARDED, PARKED, REDRIVEN, REDRIVING};
use lookback_protocol::replay::record::{Finished, Record, Retired};
use lookback_protocol::workflow::MAX_STATES;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Problems with rules shown at most.
pub const MAX_PROBLEMS: usize = 20;
/// Characters of a message at most; what is longer is cut.
pub const MAX_MESSAGE: usize = 2048;
/// States whose alerts are counted: those of the largest workflow, and the archive.
pub const MAX_COUNTED: usize = MAX_STATES + 1;

/// What the operator observed last.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DetectionPipelineStatus {
    /// The generation of the spec all this is about; -1 before the operator has seen the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// One word for people; programs read the conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Counts the cursors the pipeline had. Written before anything of the epoch exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// The latest replay: what was asked for, what it would do, and how far it has come. A phase stands
    /// here before anything is done under it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<Record>,
    /// Replays that ended, the newest first. The state file and the audit stream remember all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20))]
    pub replay_history: Vec<Finished>,
    /// Consumers of epochs that were left; each is deleted some time later.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub retired_consumers: Vec<Retired>,
    /// See docs/conditions.md.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub conditions: Vec<Condition>,
    /// The source stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceStatus>,
    /// The rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<RulesStatus>,
    /// The workers, one a partition.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["id".into()]))]
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub partitions: Vec<PartitionStatus>,
    /// The alerts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alerts: Option<AlertsStatus>,
    /// The dead letters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letters: Option<DeadLettersStatus>,
}

/// One word for people.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Something outside is missing: NATS, the stream, rules, a Secret.
    Pending,
    /// The worker is being started or replaced.
    Starting,
    /// The worker reads, commits and stores alerts.
    Running,
    /// The worker waits with everything committed; nothing is lost.
    Held,
    /// It does not go on until someone does what a condition says.
    Stalled,
    /// The worker is stopped, or being stopped, because the spec says so.
    Suspended,
    /// It is being deleted.
    Deleting,
}

/// One aspect of a pipeline.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// See [`super::conditions::ConditionType`].
    #[schemars(length(max = 64))]
    pub r#type: String,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// The generation of the spec it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// When its status changed last.
    pub last_transition_time: Time,
    /// See [`super::conditions::Reason`].
    #[schemars(length(max = 64))]
    pub reason: String,
    /// What happened, and what to do.
    #[schemars(length(max = 4096))]
    pub message: String,
}

/// Whether a condition holds.
#[derive(JsonSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not.
    False,
    /// It was not observed.
    Unknown,
}

/// What the source stream holds, and so how far back a replay can go.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SourceStatus {
    /// The first sequence still in it; the one after `lastSequence` when it is empty.
    pub first_sequence: i64,
    /// When that message was stored: the replay horizon. Absent when the stream is empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_time: Option<Time>,
    /// The last sequence ever stored.
    pub last_sequence: i64,
    /// When this was written here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_time: Option<Time>,
}

/// The rules.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RulesStatus {
    /// The engine digest of what the spec asks for, when it can be compiled.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub desired: Option<String>,
    /// The engine digest of what the worker said it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub loaded: Option<String>,
    /// Detections in the set that runs or is about to.
    pub detections: i64,
    /// Correlations in the set that runs or is about to.
    pub correlations: i64,
    /// Documents that cannot be used; the first twenty.
    #[schemars(length(max = 20))]
    pub problems: Vec<RuleProblemStatus>,
    /// How many documents cannot be used.
    pub problem_count: i64,
}

/// A document that cannot be used.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuleProblemStatus {
    /// The file, as `<configMap>/<key>`, for archives followed by `!<member>`.
    #[schemars(length(max = 1024))]
    pub file: String,
    /// Its place in the file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub document: Option<i64>,
    /// The rule's id or title.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub rule: Option<String>,
    /// What is wrong with it.
    #[schemars(length(max = 2048))]
    pub message: String,
}

/// One worker.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PartitionStatus {
    /// The partition.
    pub id: i64,
    /// The last sequence applied and committed.
    pub position: i64,
    /// When that event was stored in the source stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position_time: Option<Time>,
    /// Events under the filter not yet read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<i64>,
    /// Groups that hold a window.
    pub groups: i64,
    /// The process that works on it.
    #[schemars(length(max = 64))]
    pub incarnation: String,
    /// When position and lag were written here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_time: Option<Time>,
}

/// The alerts.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AlertsStatus {
    /// Alerts in the stream, in any state but archived.
    pub stored: i64,
    /// Alerts in each state of the workflow, and in states that it no longer has.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = MAX_COUNTED, "additionalProperties" = {"type": "integer", "format": "int64"}))]
    pub by_state: BTreeMap<String, i64>,
    /// Alerts stored for the first time since the state file was made.
    pub new: i64,
    /// Alerts that were in the store already when they were found again.
    pub known: i64,
}

/// The dead letters.
#[derive(JsonSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeadLettersStatus {
    /// Events that could not be applied, and of which nobody has decided anything.
    pub parked: i64,
    /// Events that are being sent once more; one that stays here waits for its redrive to be repeated.
    pub redriving: i64,
    /// Events that were sent once more.
    pub redriven: i64,
    /// Events that were let go.
    pub discarded: i64,
}

impl DeadLettersStatus {
    /// As in the status, by state.
    #[must_use]
    pub fn by_state(&self) -> BTreeMap<String, i64> {
        let Self {
            parked,
            redriving,
            redriven,
            discarded,
        } = *self;
        let counts = [
            (PARKED, parked),
            (REDRIVING, redriving),
            (REDRIVEN, redriven),
            (DISCARDED, discarded),
        ];
        counts
            .map(|(state, count)| (state.to_owned(), count))
            .into()
    }
}

/// A time with its schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(pub Timestamp);

impl JsonSchema for Time {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "format": "date-time", "maxLength": 40})
    }
}
