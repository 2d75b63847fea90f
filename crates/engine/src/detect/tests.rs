//! Routing, order, and the evaluator as the oracle.

use std::sync::Arc;

use proptest::prelude::*;
use rsigma_eval::{Engine, LogSourceExtractor};
use serde_json::json;

use super::*;
use crate::fixture::{detection, rules, with_detections};

const RULES: &str = "\
title: keyword
id: keyword
logsource: {product: windows}
detection: {keywords: [evil, 77], condition: keywords}
---
title: selectors
id: selectors
logsource: {product: windows, category: process_creation}
detection:
  selection_a: {Image|endswith: '\\x.exe'}
  selection_b: {CommandLine|contains|all: [a, b]}
  filter: {User: null}
  condition: 1 of selection_* and not filter
---
title: other product
id: linux
logsource: {product: linux}
detection: {s: {Image|contains: x}, condition: s}
---
title: numbers
id: numbers
logsource: {category: process_creation}
detection: {s: {n|gte: 3, CommandLine|re: '^a'}, condition: s}
---
title: nested
id: nested
logsource: {service: sysmon}
detection: {s: {a.b|startswith: e}, condition: s}
";

fn detect(rules: &Arc<RuleSet>, value: Value) -> Vec<Match> {
    Detector::new(Arc::clone(rules)).detect(&Event { value }, &mut Scratch::default())
}

fn ids(rules: &Arc<RuleSet>, value: Value) -> Vec<String> {
    let matches = detect(rules, value);
    matches
        .iter()
        .map(|found| rules.rules()[found.rule].id.clone())
        .collect()
}

#[test]
fn rules_of_another_product_do_not_match() {
    let set = rules(RULES, &with_detections());
    assert_eq!(ids(&set, json!({"Image": "x"})), Vec::<String>::new());
}

#[test]
fn an_events_own_log_source_refines_the_default() {
    let set = rules(RULES, &with_detections());
    assert_eq!(
        ids(&set, json!({"Image": "x", "product": "linux"})),
        ["linux"]
    );
    let event = json!({"n": 3, "CommandLine": "a", "category": "file_event"});
    assert_eq!(ids(&set, event), Vec::<String>::new());
}

#[test]
fn matches_come_in_the_order_of_the_set() {
    let yaml: String = ["d", "b", "c", "a"]
        .map(|id| detection(id).replace(&format!("kind: {id}"), "kind: x"))
        .concat();
    let set = rules(&yaml, &with_detections());
    assert_eq!(ids(&set, json!({"kind": "x"})), ["d", "b", "c", "a"]);
}

#[test]
fn what_matched_is_listed_in_a_fixed_order() {
    let set = rules(RULES, &with_detections());
    let event = json!({"Image": "C:\\x.exe", "CommandLine": "b a", "User": "u"});
    for _ in 0..20 {
        let fresh = rules(RULES, &with_detections());
        assert_eq!(detect(&fresh, event.clone()), detect(&set, event.clone()));
    }
    insta::assert_json_snapshot!(detect(&set, event)[0].detail);
}

proptest! {
    #[test]
    fn the_matches_are_the_evaluators(
        image in prop_oneof![Just(json!("C:\\x.exe")), Just(json!("x")), Just(Value::Null)],
        command in "[ab]{0,4}|evil|77",
        user in prop_oneof![Just(Value::Null), Just(json!("u"))],
        n in 0..6,
        product in prop_oneof![Just(Value::Null), Just(json!("linux")), Just(json!("Windows"))],
        category in prop_oneof![Just(Value::Null), Just(json!("file_event"))],
        nested in prop_oneof![Just(json!({"b": "evil"})), Just(json!([{"b": "x"}, {"b": "e"}]))],
    ) {
        let event = json!({
            "Image": image, "CommandLine": command, "User": user, "n": n,
            "product": product, "category": category, "a": nested,
        });
        let mut engine = Engine::new();
        engine.add_collection(&rsigma_parser::parse_sigma_yaml(RULES).unwrap()).unwrap();
        engine.set_logsource_extractor(Some(LogSourceExtractor::new().with_defaults(
            rsigma_parser::LogSource {
                product: Some("windows".to_owned()),
                ..rsigma_parser::LogSource::default()
            },
        )));
        let mut expected: Vec<_> = engine
            .evaluate(&JsonEvent::borrow(&event))
            .into_iter()
            .filter_map(|result| result.header.rule_id)
            .collect();
        let mut actual = ids(&rules(RULES, &with_detections()), event);
        expected.sort_unstable();
        actual.sort_unstable();
        prop_assert_eq!(actual, expected);
    }
}
