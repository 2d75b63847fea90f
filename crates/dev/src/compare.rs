//! Compares what a pipeline stored with what the oracle found.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::Result;
use async_nats::jetstream;
use futures::TryStreamExt;
use lookback_protocol::names::PipelineKey;

use crate::stream::Reader;

/// The header of the marker that a moved record leaves behind.
const MOVED: &str = "Lookback-Moved-To";

/// What differs in one store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Comparison {
    /// What is compared, for people.
    pub what: &'static str,
    /// How many the oracle found.
    pub expected: usize,
    /// How many are stored.
    pub stored: usize,
    /// Ids that stand in more than one state.
    pub duplicates: Vec<String>,
    /// Ids the oracle found that are not stored.
    pub missing: Vec<String>,
    /// Ids that are stored and the oracle did not find.
    pub unexpected: Vec<String>,
}

impl Comparison {
    /// Compares `stored` (id -> in how many states) with `expected`.
    #[must_use]
    pub fn new(
        what: &'static str,
        expected: &BTreeSet<String>,
        stored: &BTreeMap<String, usize>,
    ) -> Self {
        let duplicates = stored.iter().filter(|(_, states)| **states > 1);
        Self {
            what,
            expected: expected.len(),
            stored: stored.len(),
            duplicates: duplicates.map(|(id, _)| id.clone()).collect(),
            missing: expected
                .iter()
                .filter(|id| !stored.contains_key(*id))
                .cloned()
                .collect(),
            unexpected: stored
                .keys()
                .filter(|id| !expected.contains(*id))
                .cloned()
                .collect(),
        }
    }

    /// Whether each expected id is stored exactly once, and nothing else.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.duplicates.is_empty() && self.missing.is_empty() && self.unexpected.is_empty()
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            expected,
            stored,
            duplicates,
            missing,
            unexpected,
        } = self;
        let (duplicates, missing) = (duplicates.len(), missing.len());
        write!(
            f,
            "{what}: expected {expected}, stored {stored}, duplicates {duplicates}, missing {missing}"
        )?;
        match unexpected.len() {
            0 => Ok(()),
            count => write!(f, ", unexpected {count}"),
        }
    }
}

/// Ids in the alerts stream of `pipeline`, each with the number of states it stands in.
///
/// # Errors
/// When the stream cannot be read.
pub async fn stored_alerts(
    jetstream: &jetstream::Context,
    pipeline: &PipelineKey,
) -> Result<BTreeMap<String, usize>> {
    stored(
        jetstream,
        &pipeline.alerts_stream(),
        &pipeline.alert_subjects(),
    )
    .await
}

/// Ids in the dead-letter stream of `pipeline`, each with the number of states it stands in.
///
/// # Errors
/// When the stream cannot be read.
pub async fn stored_dead_letters(
    jetstream: &jetstream::Context,
    pipeline: &PipelineKey,
) -> Result<BTreeMap<String, usize>> {
    stored(
        jetstream,
        &pipeline.dead_letters_stream(),
        &pipeline.dead_letter_subjects(),
    )
    .await
}

/// The id is the seventh token of a subject; further parts of a large dead letter have eight.
async fn stored(
    jetstream: &jetstream::Context,
    stream: &str,
    subjects: &str,
) -> Result<BTreeMap<String, usize>> {
    let reader = Reader::last_per_subject(jetstream, stream, subjects).await?;
    let mut messages = std::pin::pin!(reader.messages());
    let mut ids = BTreeMap::new();
    while let Some(message) = messages.try_next().await? {
        let moved = message
            .headers
            .as_ref()
            .is_some_and(|headers| headers.get(MOVED).is_some());
        let tokens: Vec<_> = message.subject.split('.').collect();
        if let (false, [_, _, _, _, _, _, id]) = (moved, tokens.as_slice()) {
            *ids.entry((*id).to_owned()).or_default() += 1;
        }
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compare(expected: &[&str], stored: &[(&str, usize)]) -> Comparison {
        let expected = expected.iter().map(|&id| id.to_owned()).collect();
        let stored = stored
            .iter()
            .map(|&(id, states)| (id.to_owned(), states))
            .collect();
        Comparison::new("alerts", &expected, &stored)
    }

    #[test]
    fn the_same_ids_once_each_are_exact() {
        let same = compare(&["A", "B"], &[("A", 1), ("B", 1)]);
        assert!(same.is_exact());
        assert_eq!(
            same.to_string(),
            "alerts: expected 2, stored 2, duplicates 0, missing 0"
        );
    }

    #[test]
    fn a_missing_id_is_not_exact() {
        let missing = compare(&["A", "B"], &[("A", 1)]);
        assert!(!missing.is_exact());
        assert_eq!(missing.missing, ["B"]);
    }

    #[test]
    fn an_id_in_two_states_is_not_exact() {
        assert_eq!(compare(&["A"], &[("A", 2)]).duplicates, ["A"]);
    }

    #[test]
    fn an_id_nobody_expected_is_not_exact_and_is_said() {
        let more = compare(&["A"], &[("A", 1), ("C", 1)]);
        assert!(!more.is_exact());
        assert!(more.to_string().ends_with(", unexpected 1"));
    }
}
