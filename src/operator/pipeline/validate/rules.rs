//! The rules: the set the spec names, or the last one that could be used.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use lookback_engine::{EngineOptions, RuleFile, RuleProblem, RuleSet};
use lookback_protocol::config::{CorrelationConfig, LogSource};
use sha2::{Digest, Sha256};

use super::{RulesReport, ValidatedRules, spec};
use crate::api::conditions::Reason;
use crate::api::pipeline::{CorrelationSpec, LogSourceSpec, OnError, RulesSpec};
use crate::operator::pipeline::facts::{ConfigMapFact, Running};
use crate::operator::pipeline::problem::Problem;

const SUFFIXES: [&str; 3] = [".yml", ".yaml", ".tar.gz"];
const REMEMBERED: usize = 256;
/// Problems named in one message; the status lists more.
const NAMED: usize = 3;

/// Compiles rule sets and remembers what came of it: a reconcile comes often, and a large set takes a
/// second. The answer depends on the question alone.
#[derive(Default)]
pub struct Compiler {
    answers: Mutex<BTreeMap<[u8; 32], Arc<Compiled>>>,
}

/// What came of compiling a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Compiled {
    digest: String,
    detections: usize,
    correlations: usize,
    longest_chain: u64,
    has_session_windows: bool,
    problems: Vec<RuleProblem>,
}

impl fmt::Debug for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Compiler").finish_non_exhaustive()
    }
}

impl Compiler {
    fn compile(&self, files: &[RuleFile], options: &EngineOptions) -> Arc<Compiled> {
        let question = question(files, options);
        let known = self.locked().get(&question).cloned();
        known.unwrap_or_else(|| {
            let (set, problems) = RuleSet::compile(files, options);
            let compiled = Arc::new(Compiled {
                digest: set.digest().to_owned(),
                detections: set.detections(),
                correlations: set.correlations(),
                longest_chain: set.longest_chain(),
                has_session_windows: set.has_session_windows(),
                problems,
            });
            let mut answers = self.locked();
            if answers.len() >= REMEMBERED {
                answers.clear();
            }
            answers.insert(question, compiled.clone());
            compiled
        })
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, BTreeMap<[u8; 32], Arc<Compiled>>> {
        // A panic while compiling leaves the map as it was.
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What decides alerts together with the rules, as a spec says it.
#[must_use]
pub fn engine_options(
    processing: &[String],
    logsource: &LogSourceSpec,
    correlation: &CorrelationSpec,
) -> EngineOptions {
    EngineOptions {
        processing: processing.to_vec(),
        logsource: spec::logsource(logsource),
        correlation: spec::correlation(correlation),
    }
}

/// The set to run, if there is one, and what is wrong with the set the spec names.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// The set to run.
    pub rules: Option<ValidatedRules>,
    pub(super) problem: Option<Problem>,
    pub(super) report: RulesReport,
}

/// Chooses between the set the spec names and the one that runs.
pub(super) fn choose(
    spec: &RulesSpec,
    config_maps: &[ConfigMapFact],
    running: Option<&Running>,
    logsource: &LogSource,
    correlation: &CorrelationConfig,
    compiler: &Compiler,
) -> Chosen {
    let options = |processing: &[String]| EngineOptions {
        processing: processing.to_vec(),
        logsource: logsource.clone(),
        correlation: correlation.clone(),
    };
    let previous = || {
        let running = running?;
        let files = running.files.as_ref()?;
        let options = options(&running.config.rules.processing);
        let compiled = compiler.compile(files, &options);
        (!compiled.is_empty()).then(|| compiled.validated(files.clone(), options.processing))
    };
    if let Some(problem) = missing(config_maps) {
        return Chosen {
            rules: previous(),
            problem: Some(problem),
            report: RulesReport::default(),
        };
    }
    let files = files(config_maps);
    let options = options(&spec.processing);
    let compiled = compiler.compile(&files, &options);
    let report = RulesReport {
        desired: Some(compiled.digest.clone()),
        problems: compiled.problems.clone(),
    };
    let desired = compiled.validated(files, options.processing);
    let (rules, problem) = if compiled.is_empty() {
        (
            previous(),
            Some(no_rules(&desired.files, &compiled.problems)),
        )
    } else if compiled.problems.is_empty() {
        (Some(desired), None)
    } else {
        let other = |previous: &ValidatedRules| {
            previous.files != desired.files || previous.processing != desired.processing
        };
        let kept = match spec.on_error {
            OnError::KeepPrevious => previous().filter(other),
            OnError::LoadGood => None,
        };
        match kept {
            Some(previous) => (
                Some(previous),
                Some(with_named(
                    Reason::RulesRejected,
                    "the set before them keeps running",
                    &compiled.problems,
                )),
            ),
            None => (
                Some(desired),
                Some(with_named(
                    Reason::DocumentsLeftOut,
                    "they are left out",
                    &compiled.problems,
                )),
            ),
        }
    };
    Chosen {
        rules,
        problem,
        report,
    }
}

impl Compiled {
    fn is_empty(&self) -> bool {
        self.detections == 0 && self.correlations == 0
    }

    fn validated(&self, files: Vec<RuleFile>, processing: Vec<String>) -> ValidatedRules {
        ValidatedRules {
            files,
            processing,
            engine_digest: self.digest.clone(),
            detections: self.detections,
            correlations: self.correlations,
            longest_chain: self.longest_chain,
            has_session_windows: self.has_session_windows,
        }
    }
}

fn missing(config_maps: &[ConfigMapFact]) -> Option<Problem> {
    let names: Vec<&str> = config_maps
        .iter()
        .filter(|config_map| config_map.files.is_none())
        .map(|config_map| config_map.name.as_str())
        .collect();
    (!names.is_empty()).then(|| {
        Problem::new(
            Reason::ConfigMapMissing,
            format!(
                "ConfigMap {} of spec.rules.configMaps does not exist: create it",
                names.join(", ")
            ),
        )
    })
}

/// The rule files in `config_maps`, in their order, then by key.
#[must_use]
pub fn files(config_maps: &[ConfigMapFact]) -> Vec<RuleFile> {
    let entries = config_maps.iter().flat_map(|config_map| {
        let files = config_map.files.iter().flatten();
        files.map(move |(key, bytes)| (&config_map.name, key, bytes))
    });
    entries
        .filter(|(_, key, _)| SUFFIXES.iter().any(|suffix| key.ends_with(suffix)))
        .map(|(config_map, key, bytes)| RuleFile {
            name: format!("{config_map}/{key}"),
            bytes: bytes.clone(),
        })
        .collect()
}

fn no_rules(files: &[RuleFile], problems: &[RuleProblem]) -> Problem {
    if problems.is_empty() {
        return Problem::new(
            Reason::NoRules,
            format!(
                "the ConfigMaps of spec.rules.configMaps hold no rule in {} files *.yml, *.yaml or *.tar.gz: put Sigma rules there",
                files.len()
            ),
        );
    }
    with_named(Reason::NoRules, "no rule is left", problems)
}

fn with_named(reason: Reason, what: &str, problems: &[RuleProblem]) -> Problem {
    let named: Vec<String> = problems.iter().take(NAMED).map(describe).collect();
    let more = match problems.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!("; and {more} more, see status.rules.problems"),
    };
    Problem::new(
        reason,
        format!(
            "{} documents cannot be used, {what}: {}{more}",
            problems.len(),
            named.join("; ")
        ),
    )
}

fn describe(problem: &RuleProblem) -> String {
    let document = problem.document.map(|at| format!(" document {at}"));
    let rule = problem.rule.as_ref().map(|rule| format!(" rule {rule}"));
    format!(
        "{}{}{}: {}",
        problem.file,
        document.unwrap_or_default(),
        rule.unwrap_or_default(),
        problem.message
    )
}

fn question(files: &[RuleFile], options: &EngineOptions) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    part(format!("{options:?}").as_bytes());
    for file in files {
        part(file.name.as_bytes());
        part(&file.bytes);
    }
    hash.finalize().into()
}
