//! Correlations: which are supported, which detections they count, and their fingerprints.

use std::collections::HashSet;

use lookback_protocol::alert::{RuleKind, RuleRef};
use lookback_protocol::config::CorrelationConfig;
use rsigma_eval::correlation::compile_correlation;
use rsigma_eval::pipeline::apply_pipelines_to_correlation;
use rsigma_eval::{CompiledCorrelation, GroupByField, Pipeline};
use rsigma_parser::{ConditionExpr, CorrelationRule};

use super::detection::Loaded;
use super::document::Item;
use super::{Problems, attributes, rule_ref};
use crate::canonical::Hash;

/// The attributes that act on their own correlation.
const SUPPORTED: [&str; 3] = ["rsigma.window", "rsigma.gap", "rsigma.max_group_entries"];
/// The longest window, a hundred years: nothing is then near the ends of the time line.
const MAX_SECONDS: u64 = 100 * 366 * 86_400;

/// A compiled correlation.
#[derive(Debug)]
pub(crate) struct Correlation {
    pub(crate) rule: RuleRef,
    /// Names the correlation's windows in the store; see [`fingerprint`].
    pub(crate) fingerprint: String,
    pub(crate) compiled: CompiledCorrelation,
    /// The most entries one group's window keeps.
    pub(crate) max_entries: usize,
    /// The detections it counts, as indices into the set.
    pub(super) detections: Vec<usize>,
}

pub(super) fn compile(
    items: Vec<Item<CorrelationRule>>,
    detections: &[Loaded],
    pipelines: &[Pipeline],
    settings: &CorrelationConfig,
    problems: &mut Problems,
) -> Vec<Correlation> {
    let correlations: HashSet<String> = items
        .iter()
        .flat_map(|item| item.rule.id.iter().chain(&item.rule.name).cloned())
        .collect();
    let mut out = Vec::new();
    for item in items {
        let compiled = compile_one(&item, pipelines, settings).and_then(|mut correlation| {
            correlation.detections =
                resolve(&correlation.compiled, detections, &correlations, problems)?;
            correlation.fingerprint = fingerprint(&correlation, detections);
            Ok(correlation)
        });
        match compiled {
            Ok(correlation) => out.push(correlation),
            Err(message) => problems.document(
                &item.place,
                Some(item.id),
                format!(
                    "correlation {:?} {message}: it is left out",
                    item.rule.title
                ),
            ),
        }
    }
    out
}

fn compile_one(
    item: &Item<CorrelationRule>,
    pipelines: &[Pipeline],
    settings: &CorrelationConfig,
) -> Result<Correlation, String> {
    let cannot = |error: rsigma_eval::EvalError| format!("does not compile: {error}");
    let mut rule = item.rule.clone();
    apply_pipelines_to_correlation(pipelines, &mut rule).map_err(cannot)?;
    attributes::unsupported(&rule.custom_attributes, &SUPPORTED)
        .map_err(|what| format!("uses {what}"))?;
    let compiled = compile_correlation(&rule).map_err(cannot)?;
    let own_limit = compiled.max_group_entries;
    if own_limit.is_none()
        && rule
            .custom_attributes
            .contains_key("rsigma.max_group_entries")
    {
        return Err("has an rsigma.max_group_entries that is no quoted number".to_owned());
    }
    if compiled.timespan_secs > MAX_SECONDS || compiled.gap_secs > Some(MAX_SECONDS) {
        return Err("uses a window of more than 100 years, which is not supported".to_owned());
    }
    if let Some(condition) = &compiled.extended_expr {
        check_condition(condition, &compiled.rule_refs)?;
    }
    let limit = usize::try_from(settings.limits.events_per_group).unwrap_or(usize::MAX);
    Ok(Correlation {
        rule: rule_ref(
            &item.id,
            &compiled.title,
            compiled.level,
            &compiled.tags,
            RuleKind::Correlation,
        ),
        fingerprint: String::new(),
        max_entries: own_limit.map_or(limit, |own| own.min(limit)).max(1),
        compiled,
        detections: Vec::new(),
    })
}

/// A condition over names that are no rules of the correlation could never hold.
fn check_condition(condition: &ConditionExpr, rule_refs: &[String]) -> Result<(), String> {
    match condition {
        ConditionExpr::Identifier(name) if rule_refs.contains(name) => Ok(()),
        ConditionExpr::Identifier(name) => Err(format!(
            "has a condition over {name}, which is none of its rules"
        )),
        ConditionExpr::Selector { .. } => Err(format!(
            "uses a selector ({condition}), which is not supported"
        )),
        ConditionExpr::Not(inner) => check_condition(inner, rule_refs),
        ConditionExpr::And(all) | ConditionExpr::Or(all) => all
            .iter()
            .try_for_each(|inner| check_condition(inner, rule_refs)),
    }
}

/// The detections that `rules:` refers to, by id or name.
fn resolve(
    compiled: &CompiledCorrelation,
    detections: &[Loaded],
    correlations: &HashSet<String>,
    problems: &Problems,
) -> Result<Vec<usize>, String> {
    if compiled.rule_refs.is_empty() {
        return Err("refers to no rule".to_owned());
    }
    let mut out = Vec::new();
    for reference in &compiled.rule_refs {
        if correlations.contains(reference) {
            return Err(format!(
                "uses a chain (it refers to the correlation {reference}), which is not supported"
            ));
        }
        let found = out.len();
        let named = |detection: &Loaded| detection.identities().contains(&reference.as_str());
        out.extend((0..detections.len()).filter(|index| named(&detections[*index])));
        if out.len() == found {
            return Err(if problems.names(reference) {
                format!("refers to {reference}, which is itself left out")
            } else {
                format!("refers to {reference}, which is no id or name of a detection in the set")
            });
        }
    }
    out.sort_unstable();
    out.dedup();
    Ok(out)
}

/// Names what a window's content depends on: the correlation's id, its type, fields, window and the
/// logic of the rules it counts. Thresholds, titles and other words do not count, so that editing
/// them keeps the windows; anything else begins with empty ones.
fn fingerprint(correlation: &Correlation, detections: &[Loaded]) -> String {
    let compiled = &correlation.compiled;
    let mut hash = Hash::new();
    hash.part(&correlation.rule.id)
        .part(compiled.correlation_type.as_str())
        .part(compiled.window_mode.as_str())
        .part(compiled.timespan_secs.to_be_bytes())
        .part(compiled.gap_secs.unwrap_or_default().to_be_bytes());
    hash.count(compiled.group_by.len());
    for field in &compiled.group_by {
        hash.part(field.name());
        if let GroupByField::Aliased { mapping, .. } = field {
            let mut mapping: Vec<_> = mapping.iter().collect();
            mapping.sort_unstable();
            hash.count(mapping.len());
            for (rule, field) in mapping {
                hash.part(rule).part(field);
            }
        }
    }
    let fields = compiled.condition.field.as_deref().unwrap_or_default();
    hash.count(fields.len());
    for field in fields {
        hash.part(field);
    }
    hash.count(compiled.rule_refs.len());
    for reference in &compiled.rule_refs {
        let mut logic: Vec<_> = correlation
            .detections
            .iter()
            .map(|index| &detections[*index])
            .filter(|detection| detection.identities().contains(&reference.as_str()))
            .map(|detection| &detection.logic)
            .collect();
        logic.sort_unstable();
        hash.count(logic.len());
        for logic in logic {
            hash.part(logic);
        }
    }
    hash.short_hex()
}
