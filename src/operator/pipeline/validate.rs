//! The validate step: what a person asks for and what was found outside, parsed once into a
//! [`ValidatedPipeline`]. Pure, and the only maker of that type, so whatever is built has passed here.

mod nats;
mod rules;
mod spec;
mod turn;

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Affinity, ResourceRequirements, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};
use lookback_engine::{RuleFile, RuleProblem};
use lookback_protocol::config::{CommitConfig, CorrelationConfig, Cursor, LogSource};
use lookback_protocol::names::{Owner, PipelineKey};
use lookback_protocol::position::{Epoch, StreamIdentity, StreamSeq};
use lookback_protocol::replay::machine::Workers;
use lookback_protocol::workflow::Workflow;

use super::facts::{Dereferenced, Retention, ServerFacts, Settings, SourceFacts};
use super::problem::Problem;
use crate::api::conditions::Reason;
use crate::api::pipeline::{ADOPT, AccessMode, DeletionPolicy, LogLevel, StorageSpec};
use crate::api::{self, Bytes, DetectionPipeline, DetectionPipelineSpec};
use crate::nats::connect::Timeouts;

use nats::Owners;

pub use rules::{Chosen, Compiler};
pub use spec::{needed_secrets, overlap, timeouts};

/// What validation found.
#[derive(Clone, Debug)]
pub struct Validation {
    /// What to build; `None` when a problem leaves nothing that could be built, and what runs stays.
    pub pipeline: Option<ValidatedPipeline>,
    /// What is wrong, also with what can be built; at most one a cause.
    pub problems: Vec<Problem>,
    /// The rules, for the status.
    pub rules: RulesReport,
}

/// What is known of the rules the spec names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RulesReport {
    /// The engine digest of the set the spec names, when one could be compiled.
    pub desired: Option<String>,
    /// Documents of that set which cannot be used.
    pub problems: Vec<RuleProblem>,
}

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

/// Chooses the rules to run: those the spec names, or the last ones that could be used. The slow part:
/// a large set takes a second to compile.
#[must_use]
pub fn rules(pipeline: &DetectionPipeline, facts: &Dereferenced, compiler: &Compiler) -> Chosen {
    let spec = &pipeline.spec;
    rules::choose(
        &spec.rules,
        &facts.rules,
        facts.running.as_ref(),
        &spec::logsource(&spec.source.logsource),
        &spec::correlation(&spec.correlation),
        compiler,
    )
}

/// The source stream, when it can be read without taking events from others.
#[must_use]
pub fn source(server: &ServerFacts) -> Option<&SourceFacts> {
    let source = server.source.as_ref();
    source.filter(|source| source.retention == Retention::Limits)
}

/// Whose streams, consumers and state file the pipeline takes over, as a person says.
#[must_use]
pub fn adopted(pipeline: &DetectionPipeline) -> Option<Owner> {
    let text = pipeline.annotations().get(ADOPT)?;
    let mut parts = text.rsplitn(3, '/');
    let (name, namespace) = (parts.next()?, parts.next()?);
    Some(Owner {
        cluster: parts.next()?.to_owned(),
        pipeline: PipelineKey::new(namespace, name).ok()?,
    })
}

/// How the pipeline treats time and windows.
#[must_use]
pub fn correlation(spec: &DetectionPipelineSpec) -> CorrelationConfig {
    spec::correlation(&spec.correlation)
}

/// Copies of a stream of the pipeline's, as the spec says or as the server has room for.
#[must_use]
pub fn copies(wanted: Option<i32>, server: &ServerFacts) -> u8 {
    nats::replicas(wanted, server)
}

/// Checks `pipeline` against what was found outside, for what its `workers` are to do. Without an epoch
/// for them there is nothing to build.
#[must_use]
pub fn validate(
    pipeline: &DetectionPipeline,
    facts: &Dereferenced,
    chosen: Chosen,
    workers: &Workers,
    settings: &Settings,
) -> Validation {
    let spec = &pipeline.spec;
    let owner = match owner(pipeline, settings) {
        Ok(owner) => owner,
        Err(problem) => return Validation::refused(vec![problem]),
    };
    let knobs = spec::knobs(spec);
    let mut problems = spec::problems(spec, &knobs);
    let turn = turn::of(workers, pipeline, facts);
    let adopt = adopted(pipeline);
    let secrets = nats::missing_secrets(&facts.secrets);
    let owners = Owners {
        me: &owner,
        adopt: adopt.as_ref(),
    };
    let readable = nats::readable(&spec.source, owners, facts, turn.as_ref());
    let can_build = problems.is_empty() && secrets.is_empty();
    problems.extend(secrets);
    problems.extend(chosen.problem);
    problems.extend(nats::outdated(&facts.nats));
    let workflow = match spec::workflow(&spec.alerts) {
        Ok(workflow) => Some(workflow),
        Err(problem) => {
            problems.push(problem);
            None
        }
    };
    let readable = match readable {
        Ok(readable) => Some(readable),
        Err(problem) => {
            problems.extend(problem);
            None
        }
    };
    let parts = chosen.rules.zip(readable).zip(turn).filter(|_| can_build);
    let pipeline = parts.map(|((rules, readable), turn)| {
        let replicas = nats::replicas(knobs.replicas, readable.server);
        ValidatedPipeline {
            owner_reference: owner_reference(pipeline),
            owner,
            adopt,
            restart_nonce: spec.restart_nonce.clone(),
            turn,
            nats: spec::nats(&spec.nats, spec::timeouts(spec)),
            source: ValidatedSource {
                stream: readable.stream,
                subjects: spec.source.subjects.clone(),
                logsource: spec::logsource(&spec.source.logsource),
                start: readable.start,
            },
            rules,
            correlation: spec::correlation(&spec.correlation),
            commit: spec::commit(&knobs),
            storage: storage(&spec.state.storage, facts.stateful_set.as_ref()),
            alerts: store(replicas, &knobs.alerts_age, &knobs.alerts_bytes),
            workflow,
            dead_letters: store(replicas, &knobs.dead_letters_age, &knobs.dead_letters_bytes),
            max_attempts: spec.dead_letters.max_attempts.unsigned_abs(),
            bucket_replicas: nats::replicas(None, readable.server),
            worker: spec::worker(&spec.worker, &settings.image),
            deletion_policy: spec.deletion_policy,
        }
    });
    Validation {
        pipeline,
        problems,
        rules: chosen.report,
    }
}

impl Validation {
    fn refused(problems: Vec<Problem>) -> Self {
        Self {
            pipeline: None,
            problems,
            rules: RulesReport::default(),
        }
    }
}

fn owner(pipeline: &DetectionPipeline, settings: &Settings) -> Result<Owner, Problem> {
    let namespace = pipeline.namespace().unwrap_or_default();
    let key = PipelineKey::new(&namespace, &pipeline.name_any())
        .map_err(|error| Problem::new(Reason::InvalidSpec, error.to_string()))?;
    Ok(Owner {
        cluster: settings.cluster.clone(),
        pipeline: key,
    })
}

fn owner_reference(pipeline: &DetectionPipeline) -> OwnerReference {
    pipeline
        .controller_owner_ref(&())
        .unwrap_or_else(|| OwnerReference {
            api_version: DetectionPipeline::api_version(&()).into_owned(),
            kind: DetectionPipeline::kind(&()).into_owned(),
            name: pipeline.name_any(),
            controller: Some(true),
            ..OwnerReference::default()
        })
}

fn storage(spec: &StorageSpec, existing: Option<&StatefulSet>) -> ValidatedStorage {
    let template_size = existing.and_then(|set| {
        let template = set
            .spec
            .as_ref()?
            .volume_claim_templates
            .as_ref()?
            .first()?;
        let requests = template
            .spec
            .as_ref()?
            .resources
            .as_ref()?
            .requests
            .as_ref()?;
        Bytes::try_from(requests.get("storage")?.clone()).ok()
    });
    ValidatedStorage {
        size: spec.size.clone(),
        template_size: template_size.unwrap_or_else(|| spec.size.clone()),
        class: spec.storage_class_name.clone(),
        access_mode: spec.access_mode,
    }
}

fn store(replicas: u8, max_age: &api::Duration, max_bytes: &Bytes) -> ValidatedStore {
    ValidatedStore {
        replicas,
        max_age: Duration::from_millis(max_age.milliseconds()),
        max_bytes: max_bytes.bytes(),
    }
}

#[cfg(test)]
mod tests;
