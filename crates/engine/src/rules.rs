//! Rule files -> one compiled set.

use lookback_protocol::config::{CorrelationConfig, LogSource};

/// One rule file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFile {
    /// `<configMap>/<key>`, the name used in every message about it.
    pub name: String,
    /// Its bytes: YAML, or a `.tar.gz` of YAML files.
    pub bytes: Vec<u8>,
}

/// The settings that decide alerts together with the rules.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineOptions {
    /// Built-in processing pipelines, or names of files in the set, in order.
    pub processing: Vec<String>,
    /// The default log source of the stream's events.
    pub logsource: LogSource,
    /// Time and windows.
    pub correlation: CorrelationConfig,
}

/// A document that is left out, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleProblem {
    /// The file it stands in; for archives `<file>!<member>`.
    pub file: String,
    /// The document's place in the file, from 1, when known.
    pub document: Option<usize>,
    /// The rule's id or title, when known.
    pub rule: Option<String>,
    /// What is wrong, in words for the author of the rule.
    pub message: String,
}

/// A compiled set of rules.
#[derive(Debug)]
pub struct RuleSet {
    digest: String,
}

impl RuleSet {
    /// Compiles `files`. A document that cannot be used is left out and named; the rest works.
    #[must_use]
    pub fn compile(_files: &[RuleFile], _options: &EngineOptions) -> (Self, Vec<RuleProblem>) {
        (
            Self {
                digest: String::new(),
            },
            Vec::new(),
        )
    }

    /// The engine digest: SHA-256, hex, over sorted files, processing, log source, correlation
    /// settings and the engine's semantics version.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// How many detections are in it.
    #[must_use]
    pub fn detections(&self) -> usize {
        0
    }

    /// How many correlations are in it.
    #[must_use]
    pub fn correlations(&self) -> usize {
        0
    }
}
