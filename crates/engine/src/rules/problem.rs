//! What is left out, named for the author of the rule.

use std::fmt;

use serde::Serialize;

/// A document that is left out, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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

impl fmt::Display for RuleProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(document) = self.document {
            write!(f, ", document {document}")?;
        }
        if let Some(rule) = &self.rule {
            write!(f, " ({rule})")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Where a document stands.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) file: String,
    pub(super) document: usize,
}

/// What is left out so far.
#[derive(Debug, Default)]
pub(super) struct Problems(pub(super) Vec<RuleProblem>);

impl Problems {
    pub(super) fn file(&mut self, file: &str, message: impl Into<String>) {
        self.0.push(RuleProblem {
            file: file.to_owned(),
            document: None,
            rule: None,
            message: message.into(),
        });
    }

    /// Whether the rule `id` is among them.
    pub(super) fn names(&self, id: &str) -> bool {
        self.0
            .iter()
            .any(|problem| problem.rule.as_deref() == Some(id))
    }

    pub(super) fn document(
        &mut self,
        place: &Place,
        rule: Option<String>,
        message: impl Into<String>,
    ) {
        self.0.push(RuleProblem {
            file: place.file.clone(),
            document: Some(place.document),
            rule,
            message: message.into(),
        });
    }
}
