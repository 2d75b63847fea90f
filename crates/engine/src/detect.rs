//! Which detections match one event.

use std::sync::Arc;

use crate::decode::Event;
use crate::rules::RuleSet;

/// Evaluates detections; share it by reference between threads, one [`Scratch`] each.
#[derive(Debug)]
pub struct Detector {
    _rules: Arc<RuleSet>,
}

/// Reused memory of one thread.
#[derive(Debug, Default)]
pub struct Scratch {}

/// A detection that matched.
#[derive(Clone, Debug, PartialEq)]
pub struct Match {
    /// The rule's index in the set; matches come in this order.
    pub rule: usize,
    /// What matched, for the alert.
    pub detail: serde_json::Value,
}

impl Detector {
    /// A detector over `rules`.
    #[must_use]
    pub fn new(rules: Arc<RuleSet>) -> Self {
        Self { _rules: rules }
    }

    /// The detections that match `event`, in the order of rules in the set.
    pub fn detect(&self, _event: &Event, _scratch: &mut Scratch) -> Vec<Match> {
        Vec::new()
    }
}
