//! Event time, lateness, skew and expiry.

use lookback_protocol::config::TimestampFallback;
use serde_json::json;

use super::{COUNT, count, event, firing};
use crate::fixture::{Run, START, correlation, detection, options, rules, value};

#[test]
fn h24_a_late_event_does_not_complete_a_threshold() {
    let body = COUNT.replace("60s", "300s") + ", condition: {gte: 3}";
    let mut run = Run::new(&rules(
        &(detection("a") + &correlation("c", &body)),
        &options(),
    ));
    run.event_published(9_000, 9_000, event());
    run.event_published(9_001, 9_001, event());
    assert_eq!(run.event_published(1, 9_002, event()), []);
    assert_eq!(run.correlator.take_changes().late, 1);
    assert_eq!(value(&run.event(9_003, event())), Some(3.0));
}

#[test]
fn an_event_within_the_allowed_lateness_counts_where_it_belongs() {
    let mut run = Run::new(&rules(&count("gte: 3"), &options()));
    run.event(100, event());
    run.event(50, event());
    // The window of second 110 begins at 50, the one of 111 does not hold the late event any more.
    assert_eq!(value(&run.event(110, event())), Some(3.0));
    assert_eq!(value(&run.event(111, event())), Some(3.0));
    assert_eq!(run.correlator.take_changes().late, 0);
}

#[test]
fn an_event_before_the_open_window_is_late_whatever_lateness_is_allowed() {
    for (window, newest, late) in [
        ("window: sliding", 100, 39),
        ("window: tumbling", 120, 119),
        ("window: session, gap: 20s", 100, 79),
    ] {
        let body = format!("{COUNT}, {window}, condition: {{gte: 2}}");
        let mut run = Run::new(&rules(
            &(detection("a") + &correlation("c", &body)),
            &options(),
        ));
        run.event(newest, event());
        assert_eq!(run.event(late, event()), [], "{window}");
        assert_eq!(run.correlator.take_changes().late, 1, "{window}");
        assert_eq!(run.event(late + 1, event()).len(), 1, "{window}");
    }
}

#[test]
fn an_event_late_for_two_windows_is_counted_once() {
    let yaml = count("gte: 2") + &correlation("d", &format!("{COUNT}, condition: {{gte: 2}}"));
    let mut run = Run::new(&rules(&yaml, &options()));
    run.event(1_000, event());
    run.event(1, event());
    assert_eq!(run.correlator.take_changes().late, 1);
}

#[test]
fn h25_a_far_future_event_touches_no_window() {
    let mut run = Run::new(&rules(&count("gte: 2"), &options()));
    run.event(0, event());
    assert_eq!(run.event_published(301, 0, event()), []);
    assert_eq!(run.event_published(4_000_000, 0, event()), []);
    assert_eq!(run.correlator.take_changes().skewed, 2);
    assert_eq!(firing(&mut run, &[1]), [1]);
}

#[test]
fn h25_events_far_apart_never_pile_up() {
    let mut run = Run::new(&rules(&count("gte: 2"), &options()));
    let series: Vec<i64> = (0..1_000).map(|n| n * 61).collect();
    assert!(firing(&mut run, &series).is_empty());
}

#[test]
fn h26_an_idle_group_expires_with_any_later_event() {
    let mut run = Run::new(&rules(&count("gte: 2"), &options()));
    run.event(0, event());
    let key = run.correlator.take_changes().upserts.remove(0).key;
    run.event(360, json!({"kind": "none"}));
    assert_eq!(run.correlator.groups(), 1);
    run.event(361, json!({"kind": "none"}));
    assert_eq!(run.correlator.groups(), 0);
    let changes = run.correlator.take_changes();
    assert_eq!(changes.deletes[0].1, key);
    assert_eq!(changes.upserts, []);
}

#[test]
fn h26_a_touched_group_lives_on() {
    let mut run = Run::new(&rules(&count("gte: 9"), &options()));
    for second in (0..2_000).step_by(50) {
        run.event(second, event());
        assert_eq!(run.correlator.groups(), 1);
    }
}

#[test]
fn h26_a_host_that_sends_its_backlog_keeps_its_windows() {
    let mut run = Run::new(&rules(&count("gte: 2"), &options()));
    let other = json!({"kind": "a", "user": "other"});
    run.event(10_000, other.clone());
    run.event_published(0, 10_000, event());
    run.event(10_001, other);
    assert_eq!(value(&run.event_published(30, 10_001, event())), Some(2.0));
}

#[test]
fn a_group_that_comes_and_goes_within_a_batch_is_at_most_a_delete() {
    let mut run = Run::new(&rules(&count("gte: 2"), &options()));
    run.event(0, event());
    run.event(361, json!({"kind": "none"}));
    assert_eq!(run.correlator.take_changes().upserts, []);
}

#[test]
fn over_the_limit_the_group_that_would_expire_first_goes() {
    let mut options = options();
    options.correlation.limits.groups = 2;
    let mut run = Run::new(&rules(&count("gte: 2"), &options));
    let user = |user: &str| json!({"kind": "a", "user": user});
    run.event(0, user("x"));
    run.event(1, user("y"));
    run.event(2, user("x"));
    run.event(3, user("z"));
    assert_eq!(run.correlator.groups(), 2);
    // y is gone, x still holds its two events.
    assert_eq!(value(&run.event(4, user("x"))), Some(3.0));
}

#[test]
fn the_first_field_that_holds_a_time_decides() {
    let mut options = options();
    options.correlation.timestamp_fields = vec!["bad".to_owned(), "winlog.time".to_owned()];
    let mut run = Run::new(&rules(&count("gte: 1"), &options));
    for time in [
        json!({"winlog": {"time": START + 7}}),
        json!({"winlog.time": START + 7}),
        json!({"winlog.time": START + 7, "winlog": {"time": 5}, "bad": "soon"}),
    ] {
        let mut event = event();
        event
            .as_object_mut()
            .unwrap()
            .extend(time.as_object().unwrap().clone());
        let alerts = run.raw(9, event);
        assert_eq!(alerts[0].events.last().unwrap().time.as_second(), START + 7);
    }
}

#[test]
fn without_a_time_the_fallback_decides() {
    for (fallback, expected) in [
        (TimestampFallback::Published, 1),
        (TimestampFallback::WallClock, 1),
        (TimestampFallback::Skip, 0),
    ] {
        let mut options = options();
        options.correlation.timestamp_fallback = fallback;
        let mut run = Run::new(&rules(&count("gte: 1"), &options));
        let mut event = event();
        event["t"] = json!("yesterday");
        assert_eq!(run.raw(9, event).len(), expected, "{fallback:?}");
    }
}

#[test]
fn a_time_of_day_is_cut_to_its_second() {
    let mut run = Run::new(&rules(&count("gte: 2"), &options()));
    let at = |time: f64| {
        let mut event = event();
        event["t"] = json!(time);
        event
    };
    run.raw(0, at(1_800_000_000.0));
    assert_eq!(run.raw(60, at(1_800_000_060.9)).len(), 1);
}
