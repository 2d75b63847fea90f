//! What is loaded, what is left out, and how it is named.

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::fixture::{Run, compile, correlation, detection, file, options, rules, with_detections};

/// The problems of `yaml`, as (document, rule, message).
fn problems(yaml: &str) -> Vec<(Option<usize>, Option<String>, String)> {
    let (_, problems) = compile(yaml, &options());
    problems
        .into_iter()
        .map(|p| (p.document, p.rule, p.message))
        .collect()
}

/// The only problem's message.
fn message(yaml: &str) -> String {
    let problems = problems(yaml);
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems[0].2.clone()
}

fn ids(set: &RuleSet) -> Vec<&str> {
    set.rules().iter().map(|rule| rule.id.as_str()).collect()
}

const COUNT: &str = "type: event_count, rules: [a], timespan: 60s, condition: {gte: 2}";

#[test]
fn detections_come_first_in_order_of_files_and_documents() {
    let files = [
        file("m/z.yml", &(correlation("c", COUNT) + &detection("b"))),
        file("m/a.yaml", &detection("a")),
    ];
    let (set, problems) = RuleSet::compile(&files, &options());
    assert_eq!(problems, []);
    assert_eq!(ids(&set), ["b", "a", "c"]);
    assert_eq!((set.detections(), set.correlations()), (2, 1));
}

#[test]
fn broken_yaml_takes_no_other_document_with_it() {
    let yaml = detection("a") + "---\ntitle: \"broken\nid: x\n" + &detection("b");
    let (set, problems) = compile(&yaml, &options());
    assert_eq!(ids(&set), ["a", "b"]);
    assert_eq!(problems.len(), 1);
    assert_eq!(problems[0].document, Some(2));
    assert_eq!(problems[0].rule.as_deref(), Some("x"));
    insta::assert_snapshot!(problems[0], @"rules/test.yml, document 2 (x): YAML parse error: found unexpected end of stream at line 12 column 1, while scanning a quoted scalar at line 10 column 8");
}

#[test]
fn a_sigma_error_names_document_and_rule() {
    let yaml = detection("a") + "---\ntitle: No detection\nlogsource: {product: windows}\n";
    let (set, problems) = compile(&yaml, &options());
    assert_eq!(ids(&set), ["a"]);
    insta::assert_snapshot!(problems[0], @"rules/test.yml, document 2 (No detection): Missing required field 'detection'");
}

#[test]
fn a_rule_that_does_not_compile_is_named() {
    let yaml = "title: Bad regex\nid: r\nlogsource: {product: windows}\n\
                detection:\n  s:\n    a|re: '('\n  condition: s\n";
    let problems = problems(yaml);
    assert_eq!(problems[0].1.as_deref(), Some("r"));
    assert!(
        problems[0].2.contains("invalid regular expression"),
        "{problems:?}"
    );
}

#[test]
fn of_duplicate_ids_the_later_is_left_out() {
    let later = detection("a").replace("title: a", "title: later");
    let files = [file("m/1.yml", &detection("a")), file("m/2.yml", &later)];
    let (set, problems) = RuleSet::compile(&files, &options());
    assert_eq!(set.rules()[0].title, "a");
    assert_eq!(set.detections(), 1);
    insta::assert_snapshot!(problems[0], @"m/2.yml, document 1 (a): duplicate id a: already used by m/1.yml, document 1; this later one is left out");
}

#[test]
fn a_rule_without_id_is_named_by_its_logic() {
    let without = |title: &str, value: &str| {
        format!(
            "title: {title}\nlogsource: {{product: windows}}\n\
             detection:\n  s:\n    a: {value}\n  condition: s\n"
        )
    };
    let id = |yaml: &str| rules(yaml, &options()).rules()[0].id.clone();
    assert_eq!(id(&without("one", "1")), "x-6ac26505e9d7722a");
    assert_eq!(id(&without("one", "1")), id(&without("two", "1")));
    assert_ne!(id(&without("one", "1")), id(&without("one", "2")));
}

#[test]
fn a_file_of_another_kind_is_named() {
    let (_, problems) = RuleSet::compile(&[file("m/README.md", "hello")], &options());
    insta::assert_snapshot!(problems[0], @"m/README.md: neither a YAML file (.yml, .yaml) nor an archive (.tar.gz): it is left out");
}

#[test]
fn a_file_that_is_not_utf8_is_named() {
    let bytes = b"title: \xff".to_vec();
    let name = "m/a.yml".to_owned();
    let (_, problems) = RuleSet::compile(&[RuleFile { name, bytes }], &options());
    assert_eq!(
        problems[0].to_string(),
        "m/a.yml: not UTF-8: the file is left out"
    );
}

#[test]
fn collection_actions_are_refused_by_name() {
    let message = message("action: global\ntitle: Many\n");
    assert!(message.starts_with("a collection action"), "{message}");
}

#[test]
fn a_chain_is_refused_by_name() {
    let chain = correlation(
        "chain",
        "type: event_count, rules: [c], timespan: 60s, condition: {gte: 2}",
    );
    let yaml = detection("a") + &correlation("c", COUNT) + &chain;
    assert_eq!(
        message(&yaml),
        "correlation \"chain\" uses a chain (it refers to the correlation c), which is not \
         supported: it is left out"
    );
}

#[test]
fn a_correlation_over_a_missing_rule_is_refused_by_name() {
    assert_eq!(
        message(&correlation("c", COUNT)),
        "correlation \"c\" refers to a, which is no id or name of a detection in the set: it is \
         left out"
    );
}

#[test]
fn a_correlation_over_a_rule_that_is_left_out_is_left_out() {
    let broken = detection("a").replace("kind: a", "kind|re: '('");
    let problems = problems(&(broken + &correlation("c", COUNT)));
    let last = &problems.last().unwrap().2;
    assert_eq!(
        last,
        "correlation \"c\" refers to a, which is itself left out: it is left out"
    );
}

#[test]
fn a_correlation_may_refer_to_a_rule_by_name() {
    let named = detection("a").replace("id: a", "id: other\nname: a");
    assert_eq!(
        rules(&(named + &correlation("c", COUNT)), &options()).correlations(),
        1
    );
}

#[test]
fn unsupported_windows_and_conditions_are_refused_by_name() {
    let temporal = "type: temporal, rules: [a], timespan: 60s";
    for (body, expected) in [
        (
            format!("{COUNT}, window: hopping"),
            "Unknown window mode: hopping",
        ),
        (
            format!("{temporal}, condition: a or z"),
            "a condition over z, which is none of its rules",
        ),
        (
            format!("{temporal}, condition: 1 of them"),
            "uses a selector (1 of them)",
        ),
        (
            COUNT.replace("60s", "101y"),
            "uses a window of more than 100 years",
        ),
        (COUNT.replace("[a]", "[]"), "refers to no rule"),
        (
            COUNT.replace("event_count", "magic"),
            "Unknown correlation type: magic",
        ),
    ] {
        let message = message(&(detection("a") + &correlation("c", &body)));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn h28_an_attribute_that_would_change_the_whole_engine_is_refused_by_name() {
    for attribute in [
        "timestamp_field",
        "suppress",
        "action",
        "correlation_event_mode",
        "new",
    ] {
        let key = format!("rsigma.{attribute}");
        let on_detection = detection("a") + &format!("{key}: reset\n") + &detection("b");
        let (set, problems) = compile(&on_detection, &options());
        assert_eq!(ids(&set), ["b"]);
        assert!(problems[0].message.contains(&key), "{problems:?}");

        let on_correlation = detection("a") + &correlation("c", COUNT) + &format!("{key}: 5m\n");
        let (set, problems) = compile(&on_correlation, &options());
        assert_eq!(ids(&set), ["a"]);
        assert!(problems[0].message.contains(&key), "{problems:?}");
    }
}

#[test]
fn attributes_that_stay_with_their_rule_or_only_document_it_are_taken() {
    let yaml = detection("a")
        + "rsigma.include_event: 'true'\nrsigma.ads.goal: x\n"
        + &correlation("c", COUNT)
        + "rsigma.window: session\nrsigma.gap: 5s\nrsigma.max_group_entries: '7'\n";
    let set = rules(&yaml, &options());
    assert_eq!(set.correlations[0].max_entries, 7);
    assert_eq!(set.correlations[0].compiled.gap_secs, Some(5));
}

#[test]
fn the_longest_chain_is_the_longest_timespan() {
    let of = |yaml: &str| compile(yaml, &options()).0.longest_chain();
    let body = |timespan: &str| COUNT.replace("60s", timespan);
    let counts = detection("a") + &correlation("c", &body("2h")) + &correlation("d", &body("60s"));
    assert_eq!(of(&counts), 7200);
    assert_eq!(of(&detection("a")), 0);
    let chain = counts
        + &correlation(
            "e",
            "type: event_count, rules: [c], timespan: 9h, condition: {gte: 2}",
        );
    assert_eq!(of(&chain), 7200, "a chain is left out");
}

#[test]
fn session_windows_are_seen() {
    let plain = detection("a") + &correlation("c", COUNT);
    assert!(!rules(&plain, &options()).has_session_windows());
    let session = plain + "rsigma.window: session\nrsigma.gap: 5s\n";
    assert!(rules(&session, &options()).has_session_windows());
}

#[test]
fn a_filter_is_merged_into_the_rules_it_names() {
    let filter = "---\ntitle: Not for bob\nlogsource: {product: windows}\n\
                  filter:\n  rules: [a]\n  f:\n    user: bob\n  condition: not f\n";
    let mut run = Run::new(&rules(&(detection("a") + filter), &with_detections()));
    let event = |user: &str| json!({"kind": "a", "user": user});
    assert_eq!(run.event(0, event("alice")).len(), 1);
    assert_eq!(run.event(0, event("bob")).len(), 0);
}

#[test]
fn a_filter_over_a_missing_rule_is_refused_by_name() {
    let filter = "---\ntitle: F\nlogsource: {product: windows}\n\
                  filter:\n  rules: [z]\n  f:\n    user: bob\n  condition: not f\n";
    assert_eq!(
        message(&(detection("a") + filter)),
        "refers to z, which is no rule of the set: the filter is left out"
    );
}

#[test]
fn an_unknown_processing_pipeline_leaves_every_rule_out() {
    let processing = vec!["sysmno".to_owned()];
    let options = EngineOptions {
        processing,
        ..options()
    };
    let (set, problems) = compile(&detection("a"), &options);
    assert_eq!(set.detections(), 0);
    insta::assert_snapshot!(problems[0], @"sysmno: unknown processing pipeline: neither built in (ecs_windows, fibratus_windows, sysmon) nor a file of the rules; without it no rule is loaded");
}

#[test]
fn a_file_named_in_processing_translates_rules_and_is_none() {
    let pipeline = "name: p\ntransformations:\n  - type: field_name_mapping\n    mapping:\n      kind: event.kind\n";
    let processing = vec!["p.yml".to_owned()];
    let options = EngineOptions {
        processing,
        ..with_detections()
    };
    let files = [file("m/p.yml", pipeline), file("m/r.yml", &detection("a"))];
    let (set, problems) = RuleSet::compile(&files, &options);
    assert_eq!(problems, []);
    let mut run = Run::new(&Arc::new(set));
    assert_eq!(run.event(0, json!({"event": {"kind": "a"}})).len(), 1);
    assert_eq!(run.event(0, json!({"kind": "a"})).len(), 0);
}

#[test]
fn the_engine_digest_is_pinned() {
    let set = rules(&detection("a"), &options());
    insta::assert_snapshot!(set.digest(), @"16f7f928dad3509a462ddbf3606e7b561a2ec1357d903bae30331566b8d3ea03");
}

#[test]
fn the_engine_digest_changes_with_everything_that_decides_alerts() {
    let digest = |text: &str, options: &EngineOptions| compile(text, options).0.digest().to_owned();
    let base = digest("", &options());
    let mut changed = vec![digest("# comment", &options())];
    let mut other = options();
    other.processing.push("sysmon".to_owned());
    changed.push(digest("", &other));
    let mut other = options();
    other.logsource.service = Some("sysmon".to_owned());
    changed.push(digest("", &other));
    let mut other = options();
    other.correlation.allowed_lateness_seconds += 1;
    changed.push(digest("", &other));
    assert!(!changed.contains(&base));
    changed.sort_unstable();
    changed.dedup();
    assert_eq!(changed.len(), 4);
}
