//! Each correlation type on a small series of events.

use serde_json::{Value, json};

use crate::fixture::{Run, correlation, detection, options, rules};

/// The alert values of a correlation over the detections `a` and `b`.
fn values(body: &str, events: &[(i64, Value)]) -> Vec<Option<f64>> {
    let yaml = detection("a") + &detection("b") + &correlation("c", body);
    Run::new(&rules(&yaml, &options())).values(events)
}

fn a(second: i64, mut fields: Value) -> (i64, Value) {
    fields["kind"] = json!("a");
    fields["user"] = json!("u");
    (second, fields)
}

fn b(second: i64) -> (i64, Value) {
    (second, json!({"kind": "b", "user": "u"}))
}

#[test]
fn event_count_counts_within_a_sliding_window_with_both_ends() {
    let body =
        "type: event_count, rules: [a], group-by: [user], timespan: 60s, condition: {gte: 3}";
    let series: Vec<_> = [0, 10, 60, 61, 200].map(|s| a(s, json!({}))).into();
    assert_eq!(
        values(body, &series),
        [None, None, Some(3.0), Some(3.0), None]
    );
}

#[test]
fn event_count_takes_a_range() {
    let body = "type: event_count, rules: [a], group-by: [user], timespan: 60s, condition: {gt: 1, lte: 2}";
    let series: Vec<_> = [0, 1, 2].map(|s| a(s, json!({}))).into();
    assert_eq!(values(body, &series), [None, Some(2.0), None]);
}

#[test]
fn value_count_counts_distinct_tuples() {
    let body = "type: value_count, rules: [a], group-by: [user], timespan: 60s, \
                condition: {gte: 2, field: [host, port]}";
    let series = [
        a(0, json!({"host": "x", "port": 1})),
        a(1, json!({"host": "x", "port": 1})),
        a(2, json!({"host": "x"})),
        a(3, json!({"host": "x", "port": 2})),
    ];
    assert_eq!(values(body, &series), [None, None, None, Some(2.0)]);
}

#[test]
fn temporal_takes_any_order() {
    let body = "type: temporal, rules: [a, b], group-by: [user], timespan: 60s";
    let series = [b(0), a(10, json!({})), b(100)];
    assert_eq!(values(body, &series), [None, Some(2.0), None]);
}

#[test]
fn temporal_ordered_takes_the_given_order() {
    let body = "type: temporal_ordered, rules: [a, b], group-by: [user], timespan: 60s";
    let series = [b(0), a(10, json!({})), b(20)];
    assert_eq!(values(body, &series), [None, None, Some(2.0)]);
}

#[test]
fn temporal_takes_a_boolean_condition() {
    let body = "type: temporal, rules: [a, b], group-by: [user], timespan: 60s, \
                condition: a and not b";
    let series = [a(0, json!({})), b(1), a(62, json!({}))];
    assert_eq!(values(body, &series), [Some(1.0), None, Some(1.0)]);
}

#[test]
fn value_sum_adds_numbers_and_their_digits() {
    let body = "type: value_sum, rules: [a], group-by: [user], timespan: 60s, \
                condition: {gte: 10, field: n}";
    let series = [
        a(0, json!({"n": 4})),
        a(1, json!({"n": "5.5"})),
        a(2, json!({"n": 1})),
    ];
    assert_eq!(values(body, &series), [None, None, Some(10.5)]);
}

#[test]
fn value_avg_is_the_mean_of_the_window() {
    let body = "type: value_avg, rules: [a], group-by: [user], timespan: 60s, \
                condition: {gte: 3, field: n}";
    let series = [
        a(0, json!({"n": 2})),
        a(1, json!({"n": 4})),
        a(2, json!({"n": 0})),
    ];
    assert_eq!(values(body, &series), [None, Some(3.0), None]);
}

#[test]
fn value_percentile_interpolates() {
    let body = "type: value_percentile, rules: [a], group-by: [user], timespan: 60s, \
                condition: {gte: 9, field: n, percentile: 90}";
    let series = [a(0, json!({"n": 0})), a(1, json!({"n": 10}))];
    assert_eq!(values(body, &series), [None, Some(9.0)]);
}

#[test]
fn value_median_is_the_middle_of_the_window() {
    let body = "type: value_median, rules: [a], group-by: [user], timespan: 60s, \
                condition: {gte: 5, field: n}";
    let series = [
        a(0, json!({"n": 1})),
        a(1, json!({"n": 9})),
        a(2, json!({"n": 2})),
    ];
    assert_eq!(values(body, &series), [None, Some(5.0), None]);
}

#[test]
fn a_tumbling_window_begins_anew_at_its_border() {
    let body = "type: event_count, rules: [a], group-by: [user], timespan: 60s, window: tumbling, \
                condition: {gte: 2}";
    let series: Vec<_> = [50, 59, 60, 61].map(|s| a(s, json!({}))).into();
    assert_eq!(values(body, &series), [None, Some(2.0), None, Some(2.0)]);
}

#[test]
fn a_session_ends_with_its_gap_and_with_its_timespan() {
    let body = "type: event_count, rules: [a], group-by: [user], timespan: 100s, window: session, \
                gap: 40s, condition: {gte: 2}";
    let series: Vec<_> = [0, 40, 81, 121, 161, 182].map(|s| a(s, json!({}))).into();
    let expected = [None, Some(2.0), None, Some(2.0), Some(3.0), None];
    assert_eq!(values(body, &series), expected);
}

#[test]
fn aliases_name_the_field_of_each_rule() {
    let body = "type: temporal, rules: [a, b], group-by: [who], timespan: 60s, \
                aliases: {who: {a: source, b: target}}";
    let series = [
        (0, json!({"kind": "a", "source": "x", "target": "y"})),
        (1, json!({"kind": "b", "source": "x", "target": "y"})),
        (2, json!({"kind": "b", "source": "y", "target": "x"})),
    ];
    assert_eq!(values(body, &series), [None, None, Some(2.0)]);
}

#[test]
fn an_event_without_a_group_by_field_is_not_counted() {
    let body =
        "type: event_count, rules: [a], group-by: [user], timespan: 60s, condition: {gte: 1}";
    let series = [
        (0, json!({"kind": "a"})),
        (1, json!({"kind": "a", "user": null})),
    ];
    assert_eq!(values(body, &series), [None, None]);
}
