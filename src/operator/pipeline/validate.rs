//! The validate step: what a person asks for and what was found outside, parsed once into a
//! [`ValidatedPipeline`]. Pure, and the only maker of that type, so whatever is built has passed here.

mod nats;
mod rules;
mod spec;
mod turn;
mod validated;

use std::time::Duration;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};
use lookback_engine::RuleProblem;
use lookback_protocol::config::CorrelationConfig;
use lookback_protocol::names::{Owner, PipelineKey};
use lookback_protocol::replay::machine::Workers;

use super::facts::{Dereferenced, Retention, ServerFacts, Settings, SourceFacts};
use super::problem::Problem;
use crate::api::conditions::Reason;
use crate::api::pipeline::{ADOPT, StorageSpec};
use crate::api::{self, Bytes, DetectionPipeline, DetectionPipelineSpec};

use nats::Owners;

pub use rules::{Chosen, Compiler, engine_options, files as rule_files};
pub use spec::{needed_secrets, overlap, timeouts};
pub use validated::{
    ValidatedAuth, ValidatedNats, ValidatedPipeline, ValidatedRules, ValidatedSource,
    ValidatedStorage, ValidatedStore, ValidatedTurn, ValidatedWorker,
};

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
