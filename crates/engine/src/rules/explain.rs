//! What the rules of a set need, for people: read from what was compiled, so it is what happens.

mod words;

use lookback_protocol::alert::RuleRef;
use rsigma_eval::{GroupByField, transform_rule};
use rsigma_parser::{ConditionOperator, SigmaRule, WindowMode};
use serde::Serialize;

use super::document::{self, Item};
use super::{Correlation, source};
use super::{EngineOptions, Place, Problems, RuleFile, RuleProblem, RuleSet, filters, processing};

/// One rule of a set.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The rule.
    pub rule: RuleRef,
    /// The file it stands in; for archives `<file>!<member>`.
    pub file: String,
    /// The document's place in the file, from 1.
    pub document: usize,
    /// Whether the author gave the id; else it is made from the rule's logic.
    pub has_own_id: bool,
    /// Whether a match, or a window in which the condition holds, gives an alert.
    pub alerts: bool,
    /// What it needs.
    pub needs: Needs,
}

/// What a rule needs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Needs {
    /// One event.
    Detection(DetectionNeeds),
    /// Several.
    Correlation(CorrelationNeeds),
}

/// What one event must be for a detection to match it, after processing pipelines and filters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DetectionNeeds {
    /// What the rule's log source names: (`product`, `windows`). What it leaves out may be anything.
    pub logsource: Vec<(&'static str, String)>,
    /// The selections by name, each a sentence a line; what is indented belongs to the line above.
    pub selections: Vec<(String, Vec<String>)>,
    /// Any of these.
    pub conditions: Vec<String>,
    /// The fields it looks at.
    pub fields: Vec<String>,
    /// The correlations that count it.
    pub feeds: Vec<RuleRef>,
}

/// What several events must be for a correlation to fire.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CorrelationNeeds {
    /// As in the rule: `event_count`, `temporal`.
    pub r#type: String,
    /// The rules it counts, as it refers to them, each with the detections of that name.
    pub counts: Vec<(String, Vec<RuleRef>)>,
    /// The group-by fields; one with an alias says which field of which rule it is.
    pub group_by: Vec<String>,
    /// The window.
    pub timespan_seconds: u64,
    /// `sliding`, `tumbling` or `session`.
    pub window: String,
    /// Only of session windows: silence that ends one.
    pub gap_seconds: Option<u64>,
    /// The condition in words.
    pub condition: String,
    /// Whether detections that it counts go on giving alerts.
    pub generate: bool,
    /// The most entries one group's window keeps.
    pub max_entries: usize,
}

/// Every rule of the set that `files` make, in its order, and what is left out of it.
#[must_use]
pub fn explain(
    files: &[RuleFile],
    options: &EngineOptions,
) -> (Vec<Explanation>, Vec<RuleProblem>) {
    let (set, problems) = RuleSet::compile(files, options);
    // The same way once more, for the words that a compiled rule no longer has.
    let mut again = Problems::default();
    let pipelines = processing::load(files, &options.processing, &mut again).unwrap_or_default();
    let documents = files
        .iter()
        .filter(|file| !processing::is_named(file, &options.processing))
        .flat_map(|file| source::documents(file, &mut again))
        .collect();
    let mut documents = document::parse(documents, &mut again);
    filters::apply(
        &mut documents.detections,
        std::mem::take(&mut documents.filters),
        &pipelines,
        &mut again,
    );
    let detections = set.detections.iter().zip(set.rules()).map(|(found, rule)| {
        let item = item(&documents.detections, rule)?;
        let translated = transform_rule(&pipelines, &item.rule).ok()?.rule;
        let feeds = found.feeds.iter().map(|feed| feed.correlation);
        let feeds = feeds.map(|at| set.correlations[at].rule.clone()).collect();
        let needs = Needs::Detection(detection(&translated, feeds));
        let has_own_id = item.rule.id.as_deref() == Some(rule.id.as_str());
        Some(explanation(
            rule,
            &item.place,
            has_own_id,
            found.alerts,
            needs,
        ))
    });
    let correlations = set.correlations.iter().map(|found| {
        let item = item(&documents.correlations, &found.rule)?;
        let needs = Needs::Correlation(correlation(found, &set));
        let has_own_id = item.rule.id.as_deref() == Some(found.rule.id.as_str());
        Some(explanation(
            &found.rule,
            &item.place,
            has_own_id,
            true,
            needs,
        ))
    });
    (detections.chain(correlations).flatten().collect(), problems)
}

/// Ids are claimed once in a set.
fn item<'a, T>(items: &'a [Item<T>], rule: &RuleRef) -> Option<&'a Item<T>> {
    items.iter().find(|item| item.id == rule.id)
}

fn explanation(
    rule: &RuleRef,
    place: &Place,
    has_own_id: bool,
    alerts: bool,
    needs: Needs,
) -> Explanation {
    Explanation {
        rule: rule.clone(),
        file: place.file.clone(),
        document: place.document,
        has_own_id,
        alerts,
        needs,
    }
}

fn detection(rule: &SigmaRule, feeds: Vec<RuleRef>) -> DetectionNeeds {
    let source = &rule.logsource;
    let logsource = [
        ("product", &source.product),
        ("service", &source.service),
        ("category", &source.category),
    ];
    let mut selections: Vec<_> = rule.detection.named.iter().collect();
    selections.sort_unstable_by_key(|(name, _)| *name);
    let mut fields = Vec::new();
    for (_, selection) in &selections {
        words::fields(selection, &mut fields);
    }
    fields.sort_unstable();
    fields.dedup();
    DetectionNeeds {
        logsource: logsource
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.clone()?)))
            .collect(),
        selections: selections
            .into_iter()
            .map(|(name, selection)| (name.clone(), words::sentences(selection)))
            .collect(),
        conditions: rule
            .detection
            .conditions
            .iter()
            .map(words::condition)
            .collect(),
        fields,
        feeds,
    }
}

fn correlation(found: &Correlation, set: &RuleSet) -> CorrelationNeeds {
    let compiled = &found.compiled;
    let at = set
        .correlations
        .iter()
        .position(|it| it.rule.id == found.rule.id);
    let counts = compiled
        .rule_refs
        .iter()
        .enumerate()
        .map(|(reference, name)| {
            let feeds = |detection: &super::Detection| {
                let mut feeds = detection.feeds.iter();
                feeds.any(|feed| Some(feed.correlation) == at && feed.reference == reference)
            };
            let detections = set.detections.iter().zip(set.rules());
            let counted = detections.filter(|(detection, _)| feeds(detection));
            (
                name.clone(),
                counted.map(|(_, rule)| rule.clone()).collect(),
            )
        });
    CorrelationNeeds {
        r#type: compiled.correlation_type.as_str().to_owned(),
        counts: counts.collect(),
        group_by: compiled.group_by.iter().map(group_field).collect(),
        timespan_seconds: compiled.timespan_secs,
        window: compiled.window_mode.as_str().to_owned(),
        gap_seconds: (compiled.window_mode == WindowMode::Session)
            .then(|| compiled.gap_secs.unwrap_or(compiled.timespan_secs)),
        condition: threshold(found),
        generate: compiled.generate,
        max_entries: found.max_entries,
    }
}

fn group_field(field: &GroupByField) -> String {
    match field {
        GroupByField::Direct(name) => name.clone(),
        GroupByField::Aliased { alias, mapping } => {
            let mut mapping: Vec<_> = mapping.iter().collect();
            mapping.sort_unstable();
            let of = |(rule, field): (&String, &String)| format!("{field} of {rule}");
            let names: Vec<_> = mapping.into_iter().map(of).collect();
            format!("{alias} ({})", names.join(", "))
        }
    }
}

/// When a correlation fires: `more than 5 distinct values of User`.
fn threshold(found: &Correlation) -> String {
    use rsigma_parser::CorrelationType as Type;

    let compiled = &found.compiled;
    if let Some(condition) = &compiled.extended_expr {
        return format!("{} in one window", words::condition(condition));
    }
    let condition = &compiled.condition;
    let fields = condition.field.as_deref().unwrap_or_default().join(", ");
    let what = match compiled.correlation_type {
        Type::EventCount => "the number of events".to_owned(),
        Type::ValueCount => format!("the number of distinct values of {fields}"),
        Type::Temporal => "the number of rules that matched, in any order,".to_owned(),
        Type::TemporalOrdered => "the number of rules that matched, in their order,".to_owned(),
        Type::ValueSum => format!("the sum of {fields}"),
        Type::ValueAvg => format!("the average of {fields}"),
        Type::ValueMedian => format!("the median of {fields}"),
        Type::ValuePercentile => {
            format!(
                "the {}th percentile of {fields}",
                condition.percentile.unwrap_or(50)
            )
        }
    };
    let predicates: Vec<_> = condition.predicates.iter().map(predicate).collect();
    format!("{what} is {}", predicates.join(" and "))
}

fn predicate((operator, value): &(ConditionOperator, f64)) -> String {
    let operator = match operator {
        ConditionOperator::Lt => "less than",
        ConditionOperator::Lte => "at most",
        ConditionOperator::Gt => "more than",
        ConditionOperator::Gte => "at least",
        ConditionOperator::Eq => "exactly",
        ConditionOperator::Neq => "not",
    };
    format!("{operator} {value}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{correlation, detection, file, with_detections};

    fn explained(yaml: &str) -> Vec<Explanation> {
        let (explained, problems) = explain(&[file("rules/a.yml", yaml)], &with_detections());
        assert_eq!(problems, []);
        explained
    }

    #[test]
    fn a_detection_is_told_by_its_fields_and_condition() {
        let yaml = "title: Shell\nlogsource: {product: windows, category: process_creation}\ndetection:\n  \
                    selection:\n    Image|endswith: ['\\cmd.exe', '\\sh.exe']\n    User: null\n  \
                    filter:\n    CommandLine|contains|all: [a, b]\n  condition: selection and not filter\n";
        let explained = explained(yaml);
        assert!(!explained[0].has_own_id && explained[0].alerts);
        let Needs::Detection(needs) = &explained[0].needs else {
            panic!("{explained:?}");
        };
        assert_eq!(needs.fields, ["CommandLine", "Image", "User"]);
        assert_eq!(needs.conditions, ["selection and not filter"]);
        let selection = &needs.selections[1].1;
        assert_eq!(
            *selection,
            [
                "Image ends with any of '\\cmd.exe', '\\sh.exe'",
                "User is null"
            ]
        );
        assert_eq!(
            needs.selections[0].1,
            ["CommandLine contains all of 'a', 'b'"]
        );
    }

    #[test]
    fn a_correlation_is_told_by_its_window_and_threshold() {
        let body =
            "type: event_count, rules: [a], group-by: [User], timespan: 5m, condition: {gte: 3}";
        let yaml = format!("{}{}", detection("a"), correlation("c", body));
        let explained = explained(&yaml);
        assert!(
            !explained[0].alerts,
            "a correlation counts it and does not generate"
        );
        let Needs::Correlation(needs) = &explained[1].needs else {
            panic!("{explained:?}");
        };
        assert_eq!(needs.condition, "the number of events is at least 3");
        assert_eq!(needs.timespan_seconds, 300);
        assert_eq!(needs.counts[0].1[0].id, "a");
    }
}
