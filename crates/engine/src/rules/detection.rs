//! Detections: translated, compiled, and which correlations each one feeds.

use std::sync::Arc;

use lookback_protocol::alert::{RuleKind, RuleRef};
use lookback_protocol::config::Emit;
use rsigma_eval::{CompiledRule, Engine, MatchDetailLevel, Pipeline, compile_rule, transform_rule};
use rsigma_parser::SigmaRule;

use super::correlation::Correlation;
use super::document::Item;
use super::{Problems, attributes, rule_ref};
use crate::canonical::{self, Hash};

/// `rsigma.include_event` asks for what every alert of a detection holds anyway.
const SUPPORTED: [&str; 1] = ["rsigma.include_event"];

/// What a match of one detection leads to.
#[derive(Debug)]
pub(crate) struct Detection {
    /// Whether it is an alert of its own.
    pub(crate) alerts: bool,
    /// The correlations that count it, in the order of the set.
    pub(crate) feeds: Vec<Feed>,
}

/// A detection as one correlation refers to it.
#[derive(Debug)]
pub(crate) struct Feed {
    /// Index into the set's correlations.
    pub(crate) correlation: usize,
    /// Which of the correlation's rule references this detection is.
    pub(crate) reference: usize,
    /// The group-by fields as this detection's events name them.
    pub(crate) group_fields: Vec<String>,
}

/// A detection on its way into the set.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) rule: RuleRef,
    pub(super) id: Option<String>,
    pub(super) name: Option<String>,
    /// A hash of what it matches.
    pub(super) logic: String,
    compiled: CompiledRule,
}

pub(super) fn compile(
    items: Vec<Item<SigmaRule>>,
    pipelines: &[Pipeline],
    problems: &mut Problems,
) -> Vec<Loaded> {
    let mut out = Vec::new();
    for item in items {
        match compile_one(&item, pipelines) {
            Ok(loaded) => out.push(loaded),
            Err(message) => problems.document(&item.place, Some(item.id), message),
        }
    }
    out
}

/// Puts the compiled rules into `engine`, each under its index: the evaluator reports a rule by its
/// id, which need not be there, never by its place.
pub(super) fn load(detections: Vec<Loaded>, engine: &mut Engine) {
    engine.set_match_detail(MatchDetailLevel::Summary);
    engine.extend_compiled_rules(detections.into_iter().enumerate().map(|(index, loaded)| {
        CompiledRule {
            id: Some(index.to_string()),
            title: String::new(),
            tags: Vec::new(),
            custom_attributes: Arc::default(),
            include_event: false,
            ..loaded.compiled
        }
    }));
}

impl Loaded {
    /// The names under which a correlation may refer to it, in the order of preference.
    pub(super) fn identities(&self) -> Vec<&str> {
        self.id
            .iter()
            .chain(&self.name)
            .map(String::as_str)
            .collect()
    }

    /// What a match of this detection, the `index`th of the set, leads to.
    pub(super) fn routed(
        &self,
        index: usize,
        correlations: &[Correlation],
        emit: Emit,
    ) -> Detection {
        let identities = self.identities();
        let mut feeds = Vec::new();
        let mut generate = false;
        for (place, correlation) in correlations.iter().enumerate() {
            if !correlation.detections.contains(&index) {
                continue;
            }
            let compiled = &correlation.compiled;
            generate |= compiled.generate;
            let reference = identities
                .iter()
                .find_map(|name| compiled.rule_refs.iter().position(|r| r == name))
                .expect("a detection of a correlation has an identity among its references");
            let fields = compiled.group_by.iter();
            feeds.push(Feed {
                correlation: place,
                reference,
                group_fields: fields.map(|f| f.resolve(&identities).to_owned()).collect(),
            });
        }
        Detection {
            alerts: emit == Emit::All && (feeds.is_empty() || generate),
            feeds,
        }
    }
}

fn compile_one(item: &Item<SigmaRule>, pipelines: &[Pipeline]) -> Result<Loaded, String> {
    let rule = transform_rule(pipelines, &item.rule)
        .map_err(|error| error.to_string())?
        .rule;
    attributes::unsupported(&rule.custom_attributes, &SUPPORTED)
        .map_err(|what| format!("the rule uses {what}: it is left out"))?;
    let compiled = compile_rule(&rule).map_err(|error| error.to_string())?;
    Ok(Loaded {
        rule: rule_ref(
            &item.id,
            &rule.title,
            rule.level,
            &rule.tags,
            RuleKind::Detection,
        ),
        id: rule.id.clone(),
        name: rule.name.clone(),
        logic: logic(&rule)?,
        compiled,
    })
}

/// A hash of what `rule` matches; its title, its condition's spelling and other words do not count.
fn logic(rule: &SigmaRule) -> Result<String, String> {
    let source = &rule.logsource;
    let detection = &rule.detection;
    let value = serde_json::to_value((
        (
            &source.product,
            &source.service,
            &source.category,
            &source.custom,
        ),
        (&detection.named, &detection.conditions),
    ))
    .map_err(|error| format!("the rule's logic cannot be hashed: {error}"))?;
    let mut hash = Hash::new();
    hash.part(canonical::json(&value));
    Ok(hash.hex())
}
