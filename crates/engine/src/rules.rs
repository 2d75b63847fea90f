//! Rule files -> one compiled set. A document that cannot be used exactly as it is written is left
//! out and named in a [`RuleProblem`]; it never takes another document with it.
//!
//! - Every file is split into its YAML documents before it is parsed; an archive is a list of files.
//! - Detections come first in the set, then correlations, each in the order of files and documents.
//! - A rule's id is Sigma's `id`, else `x-` and a hash of its logic. Of duplicate ids the first
//!   document keeps the id and later ones are left out.
//! - A detection that a correlation refers to gives no alerts of its own, as Sigma specifies, unless
//!   one of the correlations that refer to it says `generate: true`. A correlation that is left out
//!   does not silence the detections it names.
//! - `rsigma.*` attributes act on their own rule only: `rsigma.window`, `rsigma.gap` and
//!   `rsigma.max_group_entries` of correlations. Others that would change how events are evaluated
//!   make the rule unusable.
//! - When a processing pipeline is unusable the set is empty, because rules that are translated
//!   wrongly match the wrong events.

mod attributes;
mod correlation;
mod detection;
mod document;
mod explain;
mod filters;
mod lint;
mod problem;
mod processing;
mod source;

use std::fmt;

use lookback_protocol::alert::{RuleKind, RuleRef};
use lookback_protocol::config::{CorrelationConfig, LogSource};
use rsigma_eval::{Engine, LogSourceExtractor, Pipeline};
use rsigma_parser::WindowMode;

use self::document::Documents;
use self::problem::{Place, Problems};
use crate::canonical::Hash;

pub(crate) use self::correlation::Correlation;
pub(crate) use self::detection::Detection;
pub use self::explain::{CorrelationNeeds, DetectionNeeds, Explanation, Needs, explain};
pub use self::lint::{RuleWarning, Severity, lint};
pub use self::problem::RuleProblem;

/// Part of the engine digest. Raise it whenever this crate, or the evaluator it is built on, decides
/// anything differently for the same rules and events.
const SEMANTICS_VERSION: u32 = 1;

/// One rule file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFile {
    /// `<configMap>/<key>`, the name used in every message about it. The key says what it is: `.yml`,
    /// `.yaml` or `.tar.gz`.
    pub name: String,
    /// Its bytes: YAML, or a `.tar.gz` of YAML files.
    pub bytes: Vec<u8>,
}

/// The settings that decide alerts together with the rules.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineOptions {
    /// Built-in processing pipelines, or files of the set by name or by key alone. They run by their
    /// priority, then in this order, and are no rule files.
    pub processing: Vec<String>,
    /// The default log source of the stream's events.
    pub logsource: LogSource,
    /// Time and windows.
    pub correlation: CorrelationConfig,
}

/// A compiled set of rules.
pub struct RuleSet {
    digest: String,
    /// Detections, then correlations.
    rules: Vec<RuleRef>,
    /// Parallel to the detections in `rules`.
    pub(crate) detections: Vec<Detection>,
    pub(crate) correlations: Vec<Correlation>,
    pub(crate) engine: Engine,
    pub(crate) settings: CorrelationConfig,
}

impl fmt::Debug for RuleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RuleSet")
            .field("digest", &self.digest)
            .field("detections", &self.detections.len())
            .field("correlations", &self.correlations.len())
            .finish_non_exhaustive()
    }
}

impl RuleSet {
    /// Compiles `files`. A document that cannot be used is left out and named; the rest works.
    #[must_use]
    pub fn compile(files: &[RuleFile], options: &EngineOptions) -> (Self, Vec<RuleProblem>) {
        let mut problems = Problems::default();
        let pipelines = processing::load(files, &options.processing, &mut problems);
        let sources = files
            .iter()
            .filter(|file| !processing::is_named(file, &options.processing))
            .flat_map(|file| source::documents(file, &mut problems))
            .collect();
        let documents = document::parse(sources, &mut problems);
        let mut set = Self {
            digest: digest(files, options),
            rules: Vec::new(),
            detections: Vec::new(),
            correlations: Vec::new(),
            engine: Engine::with_logsource_extractor(extractor(&options.logsource)),
            settings: options.correlation.clone(),
        };
        if let Some(pipelines) = pipelines {
            set.add(documents, &pipelines, &mut problems);
        }
        (set, problems.0)
    }

    /// The engine digest: SHA-256, hex, over the files in their order (which decides between
    /// duplicates), processing, log source, correlation settings and the semantics version.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The rules, detections first; [`crate::Match::rule`] is an index into them.
    #[must_use]
    pub fn rules(&self) -> &[RuleRef] {
        &self.rules
    }

    /// How many detections are in it.
    #[must_use]
    pub fn detections(&self) -> usize {
        self.detections.len()
    }

    /// How many correlations are in it.
    #[must_use]
    pub fn correlations(&self) -> usize {
        self.correlations.len()
    }

    /// The longest sum of timespans along a chain of correlations, in seconds; 0 without correlations.
    /// A correlation that refers to another is left out, so every chain is one correlation, and this
    /// is the longest timespan.
    #[must_use]
    pub fn longest_chain(&self) -> u64 {
        let timespans = self.correlations.iter();
        timespans
            .map(|correlation| correlation.compiled.timespan_secs)
            .max()
            .unwrap_or(0)
    }

    /// Whether a correlation has session windows: where one begins depends on everything before it.
    #[must_use]
    pub fn has_session_windows(&self) -> bool {
        self.correlations
            .iter()
            .any(|correlation| correlation.compiled.window_mode == WindowMode::Session)
    }

    fn add(&mut self, documents: Documents, pipelines: &[Pipeline], problems: &mut Problems) {
        let Documents {
            detections: mut parsed,
            correlations,
            filters,
        } = documents;
        filters::apply(&mut parsed, filters, pipelines, problems);
        let compiled = detection::compile(parsed, pipelines, problems);
        let correlations =
            correlation::compile(correlations, &compiled, pipelines, &self.settings, problems);
        for (index, detection) in compiled.iter().enumerate() {
            self.rules.push(detection.rule.clone());
            self.detections
                .push(detection.routed(index, &correlations, self.settings.emit));
        }
        self.rules.extend(
            correlations
                .iter()
                .map(|correlation| correlation.rule.clone()),
        );
        self.correlations = correlations;
        detection::load(compiled, &mut self.engine);
    }
}

fn rule_ref(
    id: &str,
    title: &str,
    level: Option<rsigma_parser::Level>,
    tags: &[String],
    kind: RuleKind,
) -> RuleRef {
    RuleRef {
        id: id.to_owned(),
        title: title.to_owned(),
        level: level.map(|level| level.as_str().to_owned()),
        tags: tags.to_vec(),
        kind,
    }
}

fn extractor(logsource: &LogSource) -> LogSourceExtractor {
    LogSourceExtractor::new().with_defaults(rsigma_parser::LogSource {
        product: Some(logsource.product.clone()),
        service: logsource.service.clone(),
        category: logsource.category.clone(),
        ..rsigma_parser::LogSource::default()
    })
}

fn digest(files: &[RuleFile], options: &EngineOptions) -> String {
    let EngineOptions {
        processing,
        logsource,
        correlation,
    } = options;
    let mut hash = Hash::new();
    hash.part(SEMANTICS_VERSION.to_be_bytes())
        .count(files.len());
    for RuleFile { name, bytes } in files {
        hash.part(name).part(bytes);
    }
    let settings = serde_json::json!([processing, logsource, correlation]);
    hash.part(crate::canonical::json(&settings));
    hash.hex()
}

#[cfg(test)]
mod tests;
