//! What the dereference step found outside: plain data, so that the steps after it are pure. Nothing
//! here holds a secret; of a Secret only whether its keys are there.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use lookback_engine::RuleFile;
use lookback_protocol::checkpoint::Checkpoint;
use lookback_protocol::config::WorkerConfig;
use lookback_protocol::consumer::ConsumerMetadata;
use lookback_protocol::position::{Epoch, StreamIdentity, StreamSeq};
use lookback_protocol::termination::TerminationMessage;

use crate::api::Bytes;

/// What is the same for every pipeline of one operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Tells clusters apart in one NATS account: the uid of kube-system, or `--cluster-id`.
    pub cluster: String,
    /// The image of workers whose pipeline names none.
    pub image: String,
}

/// Everything a reconcile looks at beside the pipeline itself.
#[derive(Clone, Debug)]
pub struct Dereferenced {
    /// Every key of a Secret that `spec.nats` names, in the order of [`needed_secrets`].
    ///
    /// [`needed_secrets`]: super::validate::needed_secrets
    pub secrets: Vec<SecretFact>,
    /// The ConfigMaps of `spec.rules`, in its order.
    pub rules: Vec<ConfigMapFact>,
    /// What the StatefulSet's template runs now; `None` before the first apply.
    pub running: Option<Running>,
    /// NATS, as far as it could be asked.
    pub nats: NatsFacts,
    /// The StatefulSet, when it exists and is ours.
    pub stateful_set: Option<StatefulSet>,
    /// Its pods, at most one in v1alpha1.
    pub pods: Vec<PodFacts>,
    /// The workers' volumes.
    pub volumes: Vec<VolumeFacts>,
}

/// One key of a Secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretFact {
    /// The Secret.
    pub name: String,
    /// Its key.
    pub key: String,
    /// Whether it is there.
    pub content: SecretContent,
}

/// What is known of a secret's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretContent {
    /// There is no Secret of that name.
    NoSecret,
    /// The Secret lacks the key.
    NoKey,
    /// It is there.
    Present,
}

/// A ConfigMap with rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigMapFact {
    /// Its name.
    pub name: String,
    /// Its keys (`data` and `binaryData` together) with their bytes; `None` when it does not exist.
    pub files: Option<BTreeMap<String, Vec<u8>>>,
}

/// What the workers run now.
#[derive(Clone, Debug, PartialEq)]
pub struct Running {
    /// The config ConfigMap's `config.json`.
    pub config: WorkerConfig,
    /// The rule files it names, read from the rules ConfigMaps; `None` when one of them is gone.
    pub files: Option<Vec<RuleFile>>,
}

/// NATS.
#[derive(Clone, Debug)]
pub enum NatsFacts {
    /// Not asked, because credentials are missing or the spec is invalid.
    NotAsked,
    /// No answer; the message names the servers and the cause, never a credential.
    Unavailable(String),
    /// The credentials are refused, or lack a permission.
    Refused(String),
    /// The account has no JetStream.
    JetStreamDisabled(String),
    /// It answers.
    Reached(Box<ServerFacts>),
}

/// A NATS that answers.
#[derive(Clone, Debug)]
pub struct ServerFacts {
    /// The version of the connected server, such as `2.15.2`.
    pub version: String,
    /// The level of the JetStream API.
    pub api_level: u64,
    /// Whether JetStream is a cluster of servers.
    pub clustered: bool,
    /// The stream `spec.source.stream`.
    pub source: Option<SourceFacts>,
    /// The alerts stream.
    pub alerts: Option<StoreFacts>,
    /// The dead-letter stream.
    pub dead_letters: Option<StoreFacts>,
    /// What is in both, by state.
    pub counts: Counts,
    /// Whom streams, consumers and checkpoint of this pipeline's name belong to, as they say.
    pub owners: BTreeSet<String>,
    /// The consumer of partition 0 and the epoch in the status.
    pub consumer: Option<ConsumerFacts>,
    /// All consumers of partition 0 on the source stream, by the epoch in their names.
    pub consumers: BTreeMap<Epoch, ConsumerFacts>,
    /// The checkpoint of partition 0, from the leader; `Err` is a sentence about one that cannot be read.
    pub checkpoint: Result<Option<Checkpoint>, String>,
}

/// The source stream.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceFacts {
    /// Name and creation time.
    pub identity: StreamIdentity,
    /// Its retention.
    pub retention: Retention,
    /// The first sequence still in it; last + 1 when empty.
    pub first: StreamSeq,
    /// When that was stored; `None` when the stream is empty.
    pub first_time: Option<Timestamp>,
    /// The last sequence ever stored.
    pub last: StreamSeq,
    /// When that was stored; `None` when there never was a message.
    pub last_time: Option<Timestamp>,
    /// What it takes; empty for a mirror.
    pub subjects: Vec<String>,
    /// How long it keeps a message; `None` for ever.
    pub max_age: Option<jiff::SignedDuration>,
    /// Messages it holds, and beyond how many it drops the oldest, if it does.
    pub messages: Fill,
    /// Bytes it holds, and beyond how many it drops the oldest messages, if it does.
    pub bytes: Fill,
    /// Copies.
    pub replicas: u64,
}

/// How full a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fill {
    /// What it holds.
    pub held: u64,
    /// Beyond what it drops the oldest messages; `None` when it never does.
    pub limit: Option<u64>,
}

/// When a stream lets go of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retention {
    /// By age and size alone.
    Limits,
    /// When every consumer has acknowledged it.
    Interest,
    /// When one consumer has acknowledged it.
    WorkQueue,
}

/// One of the pipeline's own streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreFacts {
    /// Messages in it, marks of what moved on among them.
    pub messages: u64,
    /// Copies.
    pub replicas: u64,
}

/// How many alerts and dead letters there are in each state. What could not be counted is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// The alerts.
    pub alerts: Option<AlertCounts>,
    /// The dead letters, under each of their states.
    pub dead_letters: Option<BTreeMap<String, u64>>,
}

/// How many alerts there are in each state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AlertCounts {
    /// In each state of the workflow in NATS, and in those that the status shows.
    pub by_state: BTreeMap<String, u64>,
    /// The states of that workflow, with the two that every workflow has.
    pub workflow: BTreeSet<String>,
}

impl AlertCounts {
    /// States that hold alerts and are none of the workflow's, with how many.
    pub fn orphaned(&self) -> impl Iterator<Item = (&str, u64)> {
        let found = self.by_state.iter();
        found
            .filter(|(state, count)| **count > 0 && !self.workflow.contains(*state))
            .map(|(state, count)| (state.as_str(), *count))
    }
}

/// The consumer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerFacts {
    /// Whose it is and where it began; `None` when its metadata is not ours.
    pub metadata: Option<ConsumerMetadata>,
    /// Messages under its filter not yet delivered.
    pub pending: u64,
    /// Messages delivered and not yet acknowledged.
    pub ack_pending: u64,
    /// The last stream sequence it has delivered, or the one before where it was put.
    pub delivered: StreamSeq,
    /// What it delivers; `>` for the whole stream.
    pub filters: BTreeSet<String>,
}

/// A worker's pod.
#[derive(Clone, Debug, PartialEq)]
pub struct PodFacts {
    /// Its name.
    pub name: String,
    /// Whether its containers are ready.
    pub ready: bool,
    /// The epoch it works in; `None` when it does not say.
    pub epoch: Option<Epoch>,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// When it should be gone, while it is being deleted.
    pub deadline: Option<Timestamp>,
    /// How often its container was started again.
    pub restarts: i32,
    /// What keeps it from running.
    pub waiting: Option<PodWait>,
    /// How its container stopped last.
    pub stopped: Option<Stop>,
}

/// What keeps a pod from running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodWait {
    /// The scheduler finds no node; its sentence.
    Unschedulable(String),
    /// The image cannot be pulled; the kubelet's sentence.
    Image(String),
    /// Anything else, such as ContainerCreating or CrashLoopBackOff.
    Other(String),
}

impl PodWait {
    /// What keeps the pod `name` from running, for people.
    #[must_use]
    pub fn sentence(&self, name: &str) -> String {
        match self {
            Self::Unschedulable(message) => format!("pod {name} finds no node: {message}"),
            Self::Image(message) => format!("the image of pod {name} cannot be pulled: {message}"),
            Self::Other(message) => format!("pod {name} waits: {message}"),
        }
    }
}

/// How a container stopped.
#[derive(Clone, Debug, PartialEq)]
pub struct Stop {
    /// What the worker said; `None` when it said nothing that can be read.
    pub message: Option<TerminationMessage>,
    /// Its exit code; 137 for a kill.
    pub exit_code: i32,
    /// When.
    pub finished: Option<Timestamp>,
}

/// A worker's volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeFacts {
    /// The claim's name.
    pub name: String,
    /// Whether a volume is bound to it.
    pub bound: bool,
    /// What the claim asks for.
    pub requested: Option<Bytes>,
}
