use lookback_protocol::replay::record::ReadBack;

use super::super::horizon;
use super::super::tests::{checkpoint, condition, on, status_of};
use super::*;
use crate::api::DetectionPipelineStatus;
use crate::api::conditions::ConditionType::RetentionSafe;
use crate::api::status::ConditionStatus::{False, True};
use crate::operator::pipeline::facts::Dereferenced;
use crate::operator::pipeline::test_support::{
    MINIMAL, at, now, pipeline, record, running_facts, validation, with_server,
};

const LOW: (crate::api::status::ConditionStatus, &str) = (False, "RetentionLow");
const SAFE: (crate::api::status::ConditionStatus, &str) = (True, "EventsRetained");

fn source(facts: &mut Dereferenced, change: impl FnOnce(&mut SourceFacts)) {
    with_server(facts, |server| change(server.source.as_mut().unwrap()));
}

fn pending(facts: &mut Dereferenced, pending: u64) {
    with_server(facts, |server| {
        server.consumer.as_mut().unwrap().pending = pending;
    });
}

fn applied(facts: &mut Dereferenced, sequence: u64, time: &str) {
    checkpoint(facts, |it| {
        it.position.sequence = StreamSeq(sequence);
        it.position.published = Some(at(time));
    });
}

fn status_when(change: impl FnOnce(&mut Dereferenced)) -> DetectionPipelineStatus {
    status_of(&pipeline(MINIMAL), now(), change)
}

/// The stream holds 101..=500; a limit that it is at takes one old message for each new one.
fn full(facts: &mut Dereferenced) {
    source(facts, |source| source.messages.limit = Some(400));
}

#[test]
fn unread_events_in_the_last_fifth_of_their_age_are_a_warning() {
    let status = status_when(|facts| {
        source(facts, |it| it.max_age = Some(SignedDuration::from_hours(1)));
        applied(facts, 497, "2026-11-21T11:10:00Z");
    });
    assert_eq!(on(&status, RetentionSafe), LOW);
    let message = &condition(&status, RetentionSafe).message;
    assert!(message.contains("raise max_age"), "{message}");
}

#[test]
fn a_worker_that_has_read_everything_loses_nothing_to_age() {
    let status = status_when(|facts| {
        source(facts, |it| it.max_age = Some(SignedDuration::from_hours(1)));
        pending(facts, 0);
        applied(facts, 497, "2026-11-20T00:00:00Z");
    });
    assert_eq!(on(&status, RetentionSafe), SAFE);
}

#[test]
fn a_full_stream_is_a_warning_when_it_is_about_to_drop_the_next_unread_event() {
    // 101 + 79 are before it: less than a fifth of 400.
    for (position, expected) in [(179, LOW), (180, SAFE), (497, SAFE)] {
        let status = status_when(|facts| {
            full(facts);
            applied(facts, position, "2026-11-21T11:59:58Z");
        });
        assert_eq!(on(&status, RetentionSafe), expected, "{position}");
    }
}

#[test]
fn what_a_stream_has_free_keeps_unread_events_safe() {
    let unread = |limit| {
        status_when(|facts| {
            source(facts, |it| it.bytes.limit = Some(limit));
            applied(facts, 100, "2026-11-21T11:59:58Z");
        })
    };
    assert_eq!(on(&unread(500_000), RetentionSafe), SAFE);
    let low = unread(499_000);
    assert_eq!(on(&low, RetentionSafe), LOW);
    let message = &condition(&low, RetentionSafe).message;
    assert!(message.contains("raise max_bytes"), "{message}");
}

#[test]
fn a_suspended_pipeline_is_told_to_go_on() {
    let mut pipeline = pipeline(MINIMAL);
    pipeline.spec.suspend = true;
    let status = status_of(&pipeline, now(), |facts| {
        full(facts);
        applied(facts, 120, "2026-11-21T11:59:58Z");
    });
    assert_eq!(on(&status, RetentionSafe), LOW);
    let message = &condition(&status, RetentionSafe).message;
    assert!(message.contains("spec.suspend: false"), "{message}");
}

fn replaying(phase: ReplayPhase, from: u64) -> DetectionPipelineStatus {
    let mut record = record(phase);
    record.plan.as_mut().unwrap().read_back = Some(ReadBack {
        from: StreamSeq(from),
        seconds_needed: 1800,
        seconds_available: 1800,
        exact: true,
        inexact_because: String::new(),
    });
    let mut pipeline = pipeline(MINIMAL);
    pipeline.status = Some(DetectionPipelineStatus {
        replay: Some(record),
        ..DetectionPipelineStatus::default()
    });
    status_of(&pipeline, now(), full)
}

#[test]
fn what_a_replay_is_about_to_read_is_watched_until_its_worker_has_begun() {
    assert_eq!(
        on(&replaying(ReplayPhase::Fencing, 110), RetentionSafe),
        LOW
    );
    assert_eq!(
        on(&replaying(ReplayPhase::Fencing, 300), RetentionSafe),
        SAFE
    );
    let begun = replaying(ReplayPhase::StateApplied, 110);
    assert_eq!(on(&begun, RetentionSafe), SAFE);
}

#[test]
fn the_horizon_is_the_age_of_the_oldest_message_and_the_way_from_it_to_the_position() {
    let pipeline = pipeline(MINIMAL);
    let of = |change: fn(&mut Dereferenced)| {
        let mut facts = running_facts(&pipeline);
        change(&mut facts);
        let validation = validation(&pipeline, &facts);
        horizon(&Observation {
            pipeline: &pipeline,
            facts: &facts,
            validation: &validation,
            desired: None,
            refused: &[],
            decision: None,
            now: now(),
        })
    };
    let whole = of(|_| {}).unwrap();
    assert_eq!((whole.seconds, whole.above), (36.0 * 3600.0, Some(397)));
    let expired = of(|facts| source(facts, |it| it.first = StreamSeq(499))).unwrap();
    assert_eq!(expired.above, Some(-1));
    let empty = of(|facts| source(facts, |it| it.first_time = None));
    assert_eq!(empty, None);
}
