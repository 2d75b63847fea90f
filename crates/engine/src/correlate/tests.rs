//! Semantics, one fact a test.

mod properties;
mod rows;
mod time;
mod types;

use lookback_protocol::config::{Emit, Refire};
use serde_json::json;

use crate::fixture::{Run, correlation, detection, options, rules, value, with_detections};
use crate::rules::EngineOptions;

const COUNT: &str = "type: event_count, rules: [a], group-by: [user], timespan: 60s";

fn count(condition: &str) -> String {
    detection("a") + &correlation("c", &format!("{COUNT}, condition: {{{condition}}}"))
}

fn once() -> EngineOptions {
    let mut options = options();
    options.correlation.refire = Refire::OncePerWindow;
    options
}

fn event() -> serde_json::Value {
    json!({"kind": "a", "user": "u"})
}

/// The seconds of `series` that give an alert.
fn firing(run: &mut Run, series: &[i64]) -> Vec<i64> {
    let fires = |second: &&i64| !run.event(**second, event()).is_empty();
    series.iter().filter(fires).copied().collect()
}

#[test]
fn once_per_window_fires_when_the_condition_becomes_true() {
    let mut run = Run::new(&rules(&count("gte: 3"), &once()));
    assert_eq!(firing(&mut run, &[0, 10, 20, 30, 40]), [20]);
}

#[test]
fn once_per_window_fires_again_after_an_event_for_which_it_did_not_hold() {
    let mut run = Run::new(&rules(&count("gte: 3"), &once()));
    assert_eq!(firing(&mut run, &[0, 10, 20, 75, 76, 77]), [20, 76]);
}

#[test]
fn once_per_window_fires_again_in_a_window_that_was_empty() {
    let mut run = Run::new(&rules(&count("gte: 1"), &once()));
    assert_eq!(firing(&mut run, &[0, 30, 90, 151]), [0, 151]);
}

#[test]
fn once_per_window_fires_in_each_tumbling_bucket_and_each_session() {
    for (window, series, expected) in [
        ("window: tumbling", vec![0, 1, 59, 60, 61], vec![0, 60]),
        (
            "window: session, gap: 10s",
            vec![0, 10, 21, 22],
            vec![0, 21],
        ),
    ] {
        let body = format!("{COUNT}, {window}, condition: {{gte: 1}}");
        let yaml = detection("a") + &correlation("c", &body);
        let mut run = Run::new(&rules(&yaml, &once()));
        assert_eq!(firing(&mut run, &series), expected, "{window}");
    }
}

#[test]
fn once_per_window_survives_a_restart() {
    let mut run = Run::new(&rules(&count("gte: 2"), &once()));
    assert_eq!(firing(&mut run, &[0, 1]), [1]);
    run.restart();
    assert!(firing(&mut run, &[2]).is_empty());
}

#[test]
fn an_edited_threshold_keeps_the_window_and_counts_from_its_content() {
    let mut run = Run::new(&rules(&count("gte: 2"), &once()));
    assert_eq!(firing(&mut run, &[0, 1]), [1]);
    run.rules = rules(&count("gte: 3"), &once());
    run.restart();
    assert_eq!(firing(&mut run, &[2]), [2]);
}

#[test]
fn one_event_gives_one_alert_per_rule_and_group_with_the_last_value() {
    let both = detection("b").replace("kind: b", "user: u");
    let body = COUNT.replace("[a]", "[a, b]") + ", condition: {gte: 1}";
    let yaml = detection("a") + &both + &correlation("c", &body);
    for options in [options(), once()] {
        let mut run = Run::new(&rules(&yaml, &options));
        let alerts = run.event(0, event());
        assert_eq!(value(&alerts), Some(2.0));
        assert_eq!(alerts[0].events.len(), 1);
    }
}

#[test]
fn an_alert_holds_rule_group_window_and_the_newest_ten_events() {
    let mut run = Run::new(&rules(&count("gte: 12"), &options()));
    for second in 0..11 {
        assert_eq!(run.event(second, event()), []);
    }
    let alerts = run.event(11, event());
    insta::assert_debug_snapshot!(alerts);
}

#[test]
fn a_detection_alert_holds_the_event_and_what_matched() {
    let mut run = Run::new(&rules(&detection("a"), &with_detections()));
    insta::assert_debug_snapshot!(run.event(0, event()));
}

#[test]
fn a_detection_of_a_correlation_is_silent_unless_generated() {
    let alerts = |generate: &str, emit: Emit| {
        let mut options = with_detections();
        options.correlation.emit = emit;
        let yaml = count("gte: 9") + generate;
        Run::new(&rules(&yaml, &options)).event(0, event()).len()
    };
    assert_eq!(alerts("", Emit::All), 0);
    assert_eq!(alerts("generate: true\n", Emit::All), 1);
    assert_eq!(alerts("generate: true\n", Emit::Correlations), 0);
}

#[test]
fn a_refused_correlation_does_not_silence_its_detections() {
    let yaml = count("gte: 2") + "rsigma.suppress: 5m\n";
    let (set, problems) = crate::fixture::compile(&yaml, &with_detections());
    assert_eq!(problems.len(), 1);
    assert_eq!(
        Run::new(&std::sync::Arc::new(set)).event(0, event()).len(),
        1
    );
}

#[test]
fn a_group_keeps_at_most_its_limit_of_entries() {
    let mut options = options();
    options.correlation.limits.events_per_group = 2;
    let mut run = Run::new(&rules(&count("gte: 1"), &options));
    let values: Vec<_> = (0..4).map(|s| value(&run.event(s, event()))).collect();
    assert_eq!(values, [Some(1.0), Some(2.0), Some(2.0), Some(2.0)]);
}

#[test]
fn h22_an_edited_type_starts_with_empty_windows() {
    let mut run = Run::new(&rules(&count("gte: 2"), &options()));
    assert_eq!(firing(&mut run, &[0, 1]), [1]);
    let body = COUNT.replace("event_count", "value_count") + ", condition: {gte: 1, field: user}";
    run.rules = rules(&(detection("a") + &correlation("c", &body)), &options());
    run.restart();
    assert_eq!(run.correlator.groups(), 0);
    assert_eq!(value(&run.event(2, event())), Some(1.0));
}

#[test]
fn h22_rows_of_a_removed_correlation_leave_as_deletes() {
    let mut run = Run::new(&rules(&count("gte: 2"), &options()));
    run.event(0, event());
    let row = run.correlator.rows().next().unwrap();
    run.rules = rules(&detection("a"), &options());
    run.restart();
    let changes = run.correlator.take_changes();
    assert_eq!(changes.deletes, [(row.correlation, row.key)]);
    assert_eq!(run.correlator.take_changes().deletes, []);
}

#[test]
fn h23_an_edit_elsewhere_keeps_the_windows() {
    let mut run = Run::new(&rules(&count("gte: 2"), &options()));
    run.event(0, event());
    let renamed = count("gte: 2")
        .replace("title: c", "title: new")
        .replace("high", "low");
    run.rules = rules(&(detection("b") + &renamed), &options());
    run.restart();
    assert_eq!(firing(&mut run, &[1]), [1]);
}

#[test]
fn an_edited_detection_empties_the_windows_that_count_it() {
    let mut run = Run::new(&rules(&count("gte: 2"), &options()));
    run.event(0, event());
    let edited = count("gte: 2").replace("kind: a", "kind|startswith: a");
    run.rules = rules(&edited, &options());
    run.restart();
    assert_eq!(run.correlator.groups(), 0);
}

#[test]
fn h28_one_rules_limit_does_not_reach_others() {
    let yaml = count("gte: 1")
        + "rsigma.max_group_entries: '1'\n"
        + &correlation("d", &format!("{COUNT}, condition: {{gte: 2}}"));
    let mut run = Run::new(&rules(&yaml, &options()));
    let values: Vec<_> = (0..2)
        .map(|s| {
            run.event(s, event())
                .iter()
                .map(|a| a.data["value"].clone())
                .collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(values, [vec![json!(1)], vec![json!(1), json!(2)]]);
}
