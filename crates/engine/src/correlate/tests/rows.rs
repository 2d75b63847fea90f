//! Rows, changes and the state digest.

use serde_json::json;

use super::{count, event};
use crate::fixture::{Run, correlation, detection, options, rules};
use crate::{Correlator, GroupRow, state_digest};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// One correlation of each kind of window, all fed by `a`.
fn all_kinds() -> String {
    let base = "rules: [a], group-by: [user], timespan: 60s";
    detection("a")
        + &detection("b")
        + &correlation(
            "c1",
            &format!("type: event_count, {base}, condition: {{gte: 2}}"),
        )
        + &correlation(
            "c2",
            &format!("type: value_count, {base}, condition: {{gte: 2, field: n}}"),
        )
        + &correlation(
            "c3",
            &format!("type: temporal, {base}").replace("[a]", "[b, a]"),
        )
        + &correlation(
            "c4",
            &format!("type: value_sum, {base}, condition: {{gte: 2, field: n}}"),
        )
}

#[test]
fn the_bytes_of_a_row_are_pinned() {
    let set = rules(&all_kinds(), &options());
    let mut run = Run::new(&set);
    run.event(0, json!({"kind": "a", "user": "u", "n": 1.5}));
    run.event_published(3, 5, json!({"kind": "a", "user": "u", "n": "x"}));
    let order: Vec<_> = set
        .correlations
        .iter()
        .map(|c| c.fingerprint.clone())
        .collect();
    let mut rows: Vec<_> = run.correlator.rows().collect();
    rows.sort_by_key(|row| order.iter().position(|f| *f == row.correlation));
    let text: Vec<_> = rows
        .iter()
        .map(|row| format!("{} {} {}", row.correlation, hex(&row.key), hex(&row.state)))
        .collect();
    insta::assert_snapshot!(text.join("\n"));
    insta::assert_snapshot!(state_digest(rows));
}

#[test]
fn a_row_that_cannot_be_read_is_named() {
    let set = rules(&all_kinds(), &options());
    let mut run = Run::new(&set);
    run.event(0, json!({"kind": "a", "user": "u", "n": 1}));
    for row in run.correlator.rows() {
        for length in 0..row.state.len() {
            let state = row.state[..length].to_vec();
            let cut = GroupRow {
                state,
                ..row.clone()
            };
            let error = Correlator::restore(set.clone(), [cut]).unwrap_err();
            assert!(error.starts_with("a window of correlation \""), "{error}");
        }
    }
}

#[test]
fn a_row_of_a_newer_encoding_is_refused() {
    let set = rules(&count("gte: 2"), &options());
    let mut run = Run::new(&set);
    run.event(0, event());
    let mut row = run.correlator.rows().next().unwrap();
    row.state[0] = 2;
    let error = Correlator::restore(set, [row]).unwrap_err();
    assert!(
        error.ends_with("its encoding has version 2, this build reads 1"),
        "{error}"
    );
}

#[test]
fn a_row_with_a_time_beyond_all_times_is_refused() {
    let set = rules(&count("gte: 2"), &options());
    let mut run = Run::new(&set);
    run.event(0, event());
    let mut row = run.correlator.rows().next().unwrap();
    let newest = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    row.state.splice(1..6, newest);
    let error = Correlator::restore(set, [row]).unwrap_err();
    assert!(error.ends_with("a time is out of range"), "{error}");
}

#[test]
fn changes_are_only_the_groups_that_changed() {
    let mut run = Run::new(&rules(&count("gte: 2"), &options()));
    run.event(0, event());
    run.event(0, json!({"kind": "a", "user": "v"}));
    assert_eq!(run.correlator.take_changes().upserts.len(), 2);
    run.event(1, event());
    run.event(1, json!({"kind": "none", "user": "v"}));
    let changes = run.correlator.take_changes();
    assert_eq!(changes.upserts.len(), 1);
    assert_eq!(changes.upserts[0].key, b"\x01u");
    assert_eq!(run.correlator.take_changes(), crate::Changes::default());
}

#[test]
fn parts_of_a_group_key_do_not_run_together() {
    let body =
        "type: event_count, rules: [a], group-by: [x, y], timespan: 60s, condition: {gte: 2}";
    let mut run = Run::new(&rules(
        &(detection("a") + &correlation("c", body)),
        &options(),
    ));
    run.event(0, json!({"kind": "a", "x": "ab", "y": "c"}));
    assert_eq!(run.event(0, json!({"kind": "a", "x": "a", "y": "bc"})), []);
}
