//! Sigma filters: conditions added to rules without editing them.

use rsigma_eval::{Pipeline, apply_filters, compile_rule, transform_rule};
use rsigma_parser::{FilterRule, FilterRuleTarget, SigmaCollection, SigmaRule};

use super::Problems;
use super::document::Item;

/// Merges the filters into the rules they target. A filter that refers to a missing rule, changes no
/// rule or does not compile is left out and named.
pub(super) fn apply(
    detections: &mut [Item<SigmaRule>],
    filters: Vec<Item<FilterRule>>,
    pipelines: &[Pipeline],
    problems: &mut Problems,
) {
    let mut usable = SigmaCollection::new();
    for filter in filters {
        match check(detections, &filter.rule, pipelines) {
            Ok(()) => usable.filters.push(filter.rule),
            Err(message) => problems.document(
                &filter.place,
                Some(filter.id),
                format!("{message}: the filter is left out"),
            ),
        }
    }
    if usable.filters.is_empty() {
        return;
    }
    usable.rules = detections.iter().map(|item| item.rule.clone()).collect();
    for (item, filtered) in detections.iter_mut().zip(apply_filters(&usable)) {
        item.rule = filtered;
    }
}

fn check(
    detections: &[Item<SigmaRule>],
    filter: &FilterRule,
    pipelines: &[Pipeline],
) -> Result<(), String> {
    let mut alone = SigmaCollection::new();
    alone.filters.push(filter.clone());
    let rules = detections.iter().map(|item| &item.rule);
    match &filter.rules {
        FilterRuleTarget::Any => alone.rules.extend(rules.cloned()),
        FilterRuleTarget::Specific(references) => {
            if let Some(missing) = references
                .iter()
                .find(|reference| !rules.clone().any(|rule| is_called(rule, reference)))
            {
                return Err(format!("refers to {missing}, which is no rule of the set"));
            }
            alone.rules.extend(
                rules
                    .filter(|rule| references.iter().any(|name| is_called(rule, name)))
                    .cloned(),
            );
        }
    }
    let filtered = apply_filters(&alone);
    let mut changed = alone
        .rules
        .iter()
        .zip(&filtered)
        .filter(|(before, after)| before != after)
        .peekable();
    if changed.peek().is_none() {
        return Err("applies to no rule of the set".to_owned());
    }
    let compiles = |rule: &SigmaRule| {
        transform_rule(pipelines, rule).and_then(|transformed| compile_rule(&transformed.rule))
    };
    match changed.find(|(before, _)| compiles(before).is_ok()) {
        Some((_, after)) => compiles(after).map(drop).map_err(|error| error.to_string()),
        None => Ok(()),
    }
}

fn is_called(rule: &SigmaRule, name: &str) -> bool {
    rule.id.as_deref() == Some(name) || rule.name.as_deref() == Some(name) || rule.title == name
}
