//! `config.json`: everything the operator tells a worker. Mounted from an immutable ConfigMap, so a
//! change is a new ConfigMap and a rollout. It never holds a secret, only where one is mounted.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::names::Owner;
use crate::position::{Epoch, StreamIdentity, StreamSeq};
use crate::replay::record::Record;
use crate::replay::request::{Outputs, ReplayStart, RequestId, StatePolicy};
use crate::replay::restore::RestoreStart;
use crate::version;

/// The version of [`WorkerConfig`] written by this build.
pub const VERSION: u32 = 1;

/// What one worker is told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkerConfig {
    /// Format version, [`VERSION`]; another one is not read.
    #[serde(deserialize_with = "version::exactly::<VERSION, _>")]
    pub v: u32,
    /// The pipeline, and the cluster it is in.
    pub owner: Owner,
    /// The partition; always 0 in v1alpha1.
    pub partition: u32,
    /// The epoch this worker works in.
    pub epoch: Epoch,
    /// What becomes of the state file when that epoch begins on it.
    #[serde(default, skip_serializing_if = "Cursor::is_default")]
    pub cursor: Cursor,
    /// An owner whose state file and checkpoint this pipeline takes over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopt: Option<Owner>,
    /// How to reach NATS.
    pub nats: NatsConfig,
    /// What to read.
    pub source: SourceConfig,
    /// Which rules to load.
    pub rules: RulesConfig,
    /// How the engine treats time and windows.
    pub correlation: CorrelationConfig,
    /// When to commit.
    pub commit: CommitConfig,
    /// The stream that takes alerts.
    pub alerts_stream: String,
    /// Where and when events are parked.
    pub dead_letters: DeadLettersConfig,
}

/// What becomes of the state file when an epoch begins on it. A file that is of the epoch already goes
/// on, whatever stands here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Cursor {
    /// It goes on where it stands.
    #[serde(rename_all = "camelCase")]
    Resume {
        /// The epoch it is of, or, when others after that were taken back, the first it may be of; absent
        /// for the first epoch of a pipeline.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<Epoch>,
    },
    /// It is moved, once.
    Rewind(Rewind),
}

impl Default for Cursor {
    fn default() -> Self {
        Self::Resume { of: None }
    }
}

impl Cursor {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// One request to move the cursor, resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rewind {
    /// Under which it is remembered.
    pub request_id: RequestId,
    /// Tells requests of one id apart.
    pub fingerprint: String,
    /// The epoch whose file it moves, as in [`Cursor::Resume`]; absent when the pipeline begins with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Epoch>,
    /// The first sequence to be read with alerts.
    pub start: StreamSeq,
    /// Only for Rebuild: the first sequence to be read, without alerts until `start`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_from: Option<StreamSeq>,
    /// The start is the next message, whatever the position: [`StatePolicy::Auto`] then drops the windows.
    #[serde(default)]
    pub latest: bool,
    /// What becomes of the windows.
    pub state_policy: StatePolicy,
    /// What becomes of alerts on events up to `target`.
    pub outputs: Outputs,
    /// The last sequence when it was planned.
    pub target: StreamSeq,
    /// The plan a person saw.
    pub plan_hash: String,
}

impl Rewind {
    /// What a request does, as it was planned; `None` before it is.
    #[must_use]
    pub fn of(record: &Record) -> Option<Self> {
        let plan = record.plan.as_ref()?;
        let request = &record.request;
        Some(Self {
            request_id: request.id.clone(),
            fingerprint: request.fingerprint.clone(),
            of: record.of,
            start: plan.start,
            read_from: plan.read_back.as_ref().map(|read_back| read_back.from),
            latest: matches!(request.start, ReplayStart::Latest(_)),
            state_policy: request.state_policy,
            outputs: request.outputs,
            target: plan.target,
            plan_hash: plan.hash.clone(),
        })
    }

    /// The start as the state decision takes it.
    #[must_use]
    pub fn restore_start(&self) -> RestoreStart {
        if self.latest {
            RestoreStart::Latest
        } else {
            RestoreStart::Sequence(self.start)
        }
    }

    /// The first sequence to be read.
    #[must_use]
    pub fn first(&self) -> StreamSeq {
        self.read_from.unwrap_or(self.start)
    }
}

/// How to reach NATS. Files are read again at every connect, so a rotated Secret takes effect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NatsConfig {
    /// Server URLs, without credentials.
    pub urls: Vec<String>,
    /// At most one way to authenticate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<NatsAuth>,
    /// A file with PEM certificates of the CA to trust.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// Refuse a server that does not offer TLS.
    #[serde(default)]
    pub tls_required: bool,
    /// Milliseconds a connection may take; absent for the usual ones, so that a build that knows the field
    /// makes no other file, and no rollout, where nobody asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_timeout_ms: Option<u64>,
    /// Milliseconds an answer may take; absent for the usual ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_timeout_ms: Option<u64>,
}

/// Where credentials are mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum NatsAuth {
    /// A file in the format of `nsc`'s `.creds`.
    #[serde(rename_all = "camelCase")]
    Credentials {
        /// Its path.
        file: String,
    },
    /// A user name and a password, each a file.
    #[serde(rename_all = "camelCase")]
    UserPassword {
        /// Path of the user name.
        username_file: String,
        /// Path of the password.
        password_file: String,
    },
}

/// The source stream as the operator resolved it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SourceConfig {
    /// The stream, and which incarnation of it.
    pub stream: StreamIdentity,
    /// The durable consumer of this partition and epoch. The worker binds to it and never creates it.
    pub consumer: String,
    /// The filter; empty for the whole stream.
    pub subjects: Vec<String>,
    /// The default log source of the stream's events.
    pub logsource: LogSource,
    /// The first sequence of a brand-new state file, resolved once.
    pub start: StreamSeq,
}

/// A Sigma log source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LogSource {
    /// For example `windows`. Required: without it rules of other products run, and are wrong.
    pub product: String,
    /// For example `sysmon`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// For example `process_creation`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
}

/// The rules, as the operator validated them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RulesConfig {
    /// The files in the order of `spec.rules.configMaps`, then of their keys.
    pub files: Vec<RuleFileRef>,
    /// Names of built-in processing pipelines, or of files among `files`.
    pub processing: Vec<String>,
    /// What the worker must compute over all that decides its alerts; another value is a bug or a
    /// tampered mount.
    pub engine_digest: String,
}

/// One mounted rule file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleFileRef {
    /// `<configMap>/<key>`, the name used in every message about it.
    pub name: String,
    /// Where it is mounted.
    pub path: String,
}

/// How the engine treats time and windows; part of the engine digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CorrelationConfig {
    /// Fields that hold the event's own time, first match wins; dots descend.
    pub timestamp_fields: Vec<String>,
    /// What to do when none of them does.
    pub timestamp_fallback: TimestampFallback,
    /// How much older than its group's newest event an event may be and still count, in seconds.
    pub allowed_lateness_seconds: i64,
    /// How far after its published time an event may claim to be and still count, in seconds.
    pub max_future_skew_seconds: i64,
    /// When a condition that holds gives an alert.
    pub refire: Refire,
    /// Which matches become alerts.
    pub emit: Emit,
    /// Bounds on memory.
    pub limits: Limits,
}

/// The event time of an event without a timestamp field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimestampFallback {
    /// When JetStream stored it: the same in every run.
    Published,
    /// When the worker saw it: gives up exact replays.
    WallClock,
    /// Detections only; windows are not touched.
    Skip,
}

/// When a condition that holds gives an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refire {
    /// On the event that makes it true, when it did not hold at the group's previous event.
    OncePerWindow,
    /// On every event while it is true.
    EveryEvent,
}

/// Which matches become alerts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Emit {
    /// Detections and correlations.
    All,
    /// Correlations only.
    Correlations,
}

/// Bounds on what a pipeline keeps; what is beyond is evicted, oldest first, decided per event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Groups over all correlations.
    pub groups: u64,
    /// Entries of one group's window.
    pub events_per_group: u64,
}

/// A batch is committed at whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CommitConfig {
    /// Milliseconds since its first event.
    pub interval_ms: u64,
    /// Events in it.
    pub events: u64,
}

impl CommitConfig {
    /// The interval as a duration.
    #[must_use]
    pub fn interval(&self) -> SignedDuration {
        SignedDuration::from_millis(i64::try_from(self.interval_ms).unwrap_or(i64::MAX))
    }
}

/// Where and when events are parked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeadLettersConfig {
    /// The stream that takes them.
    pub stream: String,
    /// Deaths with exactly one event in flight after which that event is parked.
    pub max_attempts: u32,
}
