//! Which detections match one event.
//!
//! An event's log source is the stream's default, refined by the event's own `product`, `service` and
//! `category` fields. A rule is skipped when it names one of the three and the event's differs.

use std::sync::Arc;

use rsigma_eval::{DetectionBody, JsonEvent};
use serde_json::{Value, json};

use crate::decode::Event;
use crate::rules::RuleSet;

/// Evaluates detections; share it by reference between threads, one [`Scratch`] each.
#[derive(Debug)]
pub struct Detector {
    rules: Arc<RuleSet>,
}

/// Reused memory of one thread.
#[derive(Debug, Default)]
pub struct Scratch {}

/// A detection that matched.
#[derive(Clone, Debug, PartialEq)]
pub struct Match {
    /// The rule's index in the set; matches come in this order.
    pub rule: usize,
    /// What matched, for the alert: `{"selections": [...], "fields": [{field, value, ...}]}`. Null
    /// for a rule that gives no alerts of its own.
    pub detail: serde_json::Value,
}

impl Detector {
    /// A detector over `rules`.
    #[must_use]
    pub fn new(rules: Arc<RuleSet>) -> Self {
        Self { rules }
    }

    /// The detections that match `event`, in the order of rules in the set.
    pub fn detect(&self, event: &Event, _scratch: &mut Scratch) -> Vec<Match> {
        let json = JsonEvent::borrow(&event.value);
        let mut matches: Vec<Match> = self
            .rules
            .engine
            .evaluate(&json)
            .into_iter()
            .map(|result| {
                let rule = result
                    .header
                    .rule_id
                    .as_deref()
                    .and_then(|id| id.parse().ok());
                let rule: usize = rule.expect("rules are loaded under their index");
                let detail = match result.as_detection() {
                    Some(body) if self.rules.detections[rule].alerts => detail(body),
                    _ => Value::Null,
                };
                Match { rule, detail }
            })
            .collect();
        matches.sort_unstable_by_key(|found| found.rule);
        matches
    }
}

/// The evaluator reports selections in hash order; an alert must be the same in every run.
fn detail(body: &DetectionBody) -> Value {
    let mut selections = body.matched_selections.clone();
    selections.sort_unstable();
    let mut fields: Vec<Value> = body
        .matched_fields
        .iter()
        .map(|field| json!(field))
        .collect();
    fields.sort_by_cached_key(crate::canonical::json);
    json!({"selections": selections, "fields": fields})
}

#[cfg(test)]
mod tests;
