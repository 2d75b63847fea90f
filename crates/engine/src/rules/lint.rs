//! What the author of a rule may want to know although the rule works: the findings of the parser's
//! linter, and what matters here. What does not work is a [`RuleProblem`](super::RuleProblem).

use rsigma_parser::lint::{LintRule, LintWarning, lint_yaml_str};
use rsigma_parser::{SigmaCollection, parse_sigma_yaml};
use serde::Serialize;

use super::source::{self, Document};
use super::{Problems, RuleFile, document, processing};

/// A finding about a rule that works.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleWarning {
    /// The file it stands in; for archives `<file>!<member>`.
    pub file: String,
    /// The document's place in the file, from 1.
    pub document: usize,
    /// The rule's id or title, when known.
    pub rule: Option<String>,
    /// The line of the file, from 1, when known.
    pub line: Option<u32>,
    /// How much it matters.
    pub severity: Severity,
    /// The name of the check, for example `invalid_level`.
    pub check: String,
    /// What was found, in words.
    pub message: String,
}

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The rule says something else than its author thinks, or cannot be found again.
    Warning,
    /// Good manners.
    Hint,
}

/// Looks at every document of `files` that is no processing pipeline. A document that cannot be parsed
/// has no findings.
#[must_use]
pub fn lint(files: &[RuleFile], processing: &[String]) -> Vec<RuleWarning> {
    let mut unreadable = Problems::default();
    let mut out = Vec::new();
    for file in files {
        if processing::is_named(file, processing) {
            continue;
        }
        for document in source::documents(file, &mut unreadable) {
            lint_document(&document, &mut out);
        }
    }
    out
}

fn lint_document(document: &Document, out: &mut Vec<RuleWarning>) {
    let Ok(parsed) = parse_sigma_yaml(&document.text) else {
        return;
    };
    let mut find = |line, severity, check: &str, message: String| {
        out.push(RuleWarning {
            file: document.place.file.clone(),
            document: document.place.document,
            rule: document::name(&document.text),
            line,
            severity,
            check: check.to_owned(),
            message,
        });
    };
    for (check, message) in ours(&parsed) {
        find(None, Severity::Warning, check, message.to_owned());
    }
    for warning in lint_yaml_str(&document.text) {
        if is_said_otherwise(&warning) {
            continue;
        }
        let line = warning.span.map(|span| span.start_line + 1);
        let severity = severity(&warning);
        find(line, severity, &warning.rule.to_string(), warning.message);
    }
}

/// What matters here, whatever Sigma says.
fn ours(parsed: &SigmaCollection) -> Vec<(&'static str, &'static str)> {
    let mut out = Vec::new();
    let rules = parsed.rules.iter().map(|rule| &rule.id);
    let mut ids = rules.chain(parsed.correlations.iter().map(|rule| &rule.id));
    if ids.any(|id| id.as_deref().unwrap_or_default().is_empty()) {
        out.push((
            "missing_id",
            "the rule has no id: its alerts have one that is made from its logic, and another one when that is edited",
        ));
    }
    if parsed
        .rules
        .iter()
        .any(|rule| rule.logsource.product.is_none())
    {
        out.push((
            "missing_product",
            "the log source names no product: the rule runs on the events of every product",
        ));
    }
    out
}

/// What is a problem of the set anyway.
fn is_said_otherwise(warning: &LintWarning) -> bool {
    matches!(
        warning.rule,
        LintRule::YamlParseError | LintRule::NotAMapping | LintRule::FileReadError
    )
}

fn severity(warning: &LintWarning) -> Severity {
    use rsigma_parser::lint::Severity as Theirs;

    match warning.severity {
        Theirs::Error | Theirs::Warning => Severity::Warning,
        Theirs::Info | Theirs::Hint => Severity::Hint,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{detection, file};

    fn checks(yaml: &str) -> Vec<String> {
        let found = lint(&[file("rules/a.yml", yaml)], &[]);
        let warnings = found.into_iter();
        warnings
            .filter(|found| found.severity == Severity::Warning)
            .map(|found| found.check)
            .collect()
    }

    fn rule(more: &str) -> String {
        format!(
            "title: A rule\n{more}logsource: {{product: windows}}\ndetection:\n  selection:\n    \
             kind: a\n  condition: selection\n"
        )
    }

    const ID: &str = "id: 929a690e-bef0-4204-a928-ef5e620d6fcc\n";

    #[test]
    fn a_rule_without_fault_gives_no_warning() {
        assert_eq!(checks(&rule(&format!("{ID}level: high\n"))), [""; 0]);
    }

    #[test]
    fn a_misspelt_level_is_named_with_its_line() {
        let found = lint(
            &[file("rules/a.yml", &rule(&format!("{ID}level: hihg\n")))],
            &[],
        );
        let level = found.iter().find(|it| it.check == "invalid_level").unwrap();
        assert_eq!(level.line, Some(3));
        assert_eq!(level.severity, Severity::Warning);
        assert_eq!(level.document, 1);
    }

    #[test]
    fn a_rule_without_id_or_product_is_named() {
        assert_eq!(checks(&rule("level: low\n")), ["missing_id"]);
        let anywhere = rule(&format!("{ID}level: low\n")).replace("product:", "category:");
        assert_eq!(checks(&anywhere), ["missing_product"]);
    }

    #[test]
    fn lines_are_those_of_the_file_also_in_later_documents() {
        let yaml = format!(
            "{}---\n{}",
            detection("a"),
            rule(&format!("{ID}level: hihg\n"))
        );
        let found = lint(&[file("rules/a.yml", &yaml)], &[]);
        let level = found.iter().find(|it| it.check == "invalid_level").unwrap();
        let line = yaml.lines().position(|line| line == "level: hihg").unwrap() + 1;
        assert_eq!(level.line.map(|line| line as usize), Some(line));
        assert_eq!(level.document, 2);
    }
}
