//! `kubectl lookback rules lint`.

use std::io::{self, Write};

use anyhow::{Result, bail};
use lookback_engine::rules::{RuleWarning, Severity, lint};
use lookback_engine::{EngineOptions, RuleFile, RuleProblem, RuleSet};
use serde::Serialize;

use super::files::{self, Paths};
use super::settings::Settings;
use crate::ctl::output::{Answer, Format, Paint, Style, plain, print};

#[derive(Debug, clap::Args)]
pub(in super::super) struct Args {
    #[command(flatten)]
    paths: Paths,
    #[command(flatten)]
    settings: Settings,
    /// Show hints as well: authors, descriptions and other good manners
    #[arg(long)]
    hints: bool,
}

/// What is wrong with rules.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Lint {
    files: usize,
    detections: usize,
    correlations: usize,
    /// Absent without a log source, which is part of it.
    engine_digest: Option<String>,
    /// Documents that cannot be used.
    problems: Vec<RuleProblem>,
    warnings: Vec<RuleWarning>,
    /// Hints that were found and are not among the warnings.
    hints_left_out: usize,
}

pub(super) fn run(args: &Args, format: Format) -> Result<()> {
    let options = args.settings.options()?;
    let mut files = args.paths.read()?;
    files::with_processing(&mut files, &options.processing)?;
    let mut found = look(&files, &options, args.hints);
    found
        .engine_digest
        .take_if(|_| !args.settings.has_logsource());
    print(&found, format)?;
    match found.problems.len() {
        0 => Ok(()),
        1 => bail!("a document cannot be used"),
        many => bail!("{many} documents cannot be used"),
    }
}

fn look(files: &[RuleFile], options: &EngineOptions, hints: bool) -> Lint {
    let (set, problems) = RuleSet::compile(files, options);
    let is_unusable = |warning: &RuleWarning| {
        let same = |problem: &RuleProblem| {
            problem.file == warning.file && problem.document == Some(warning.document)
        };
        problems.iter().any(same)
    };
    let mut warnings = lint(files, &options.processing);
    warnings.retain(|warning| !is_unusable(warning));
    let found = warnings.len();
    warnings.retain(|warning| hints || warning.severity == Severity::Warning);
    Lint {
        files: files.len(),
        detections: set.detections(),
        correlations: set.correlations(),
        engine_digest: Some(set.digest().to_owned()),
        hints_left_out: found - warnings.len(),
        problems,
        warnings,
    }
}

impl Answer for Lint {
    fn table(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        for problem in &self.problems {
            let severity = style.paint(Paint::Bad, "unusable");
            writeln!(out, "{severity}  {}", plain(&problem.to_string()))?;
        }
        for warning in &self.warnings {
            let severity = match warning.severity {
                Severity::Warning => style.paint(Paint::Warn, "warning "),
                Severity::Hint => style.paint(Paint::Faint, "hint    "),
            };
            writeln!(out, "{severity}  {}", plain(&sentence(warning)))?;
        }
        if !self.problems.is_empty() || !self.warnings.is_empty() {
            writeln!(out)?;
        }
        writeln!(
            out,
            "{} files: {} detections, {} correlations, {} documents that cannot be used, {} warnings",
            self.files,
            self.detections,
            self.correlations,
            self.problems.len(),
            self.warnings.len()
        )?;
        if self.hints_left_out > 0 {
            writeln!(
                out,
                "{} hints are left out: --hints shows them",
                self.hints_left_out
            )?;
        }
        match &self.engine_digest {
            Some(digest) => writeln!(out, "engine digest {digest}"),
            None => writeln!(
                out,
                "no engine digest: it needs --product or --from-pipeline"
            ),
        }
    }
}

fn sentence(warning: &RuleWarning) -> String {
    let place = match warning.line {
        Some(line) => format!("{}:{line}", warning.file),
        None => format!("{}, document {}", warning.file, warning.document),
    };
    let rule = warning.rule.as_ref().map(|rule| format!(" ({rule})"));
    let rule = rule.unwrap_or_default();
    format!("{place}{rule}: {} [{}]", warning.message, warning.check)
}
