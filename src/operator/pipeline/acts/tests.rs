use lookback_protocol::checkpoint::Gap;
use lookback_protocol::position::StreamSeq;
use lookback_protocol::replay::request::{ReplayRequest, StatePolicy};

use super::*;
use crate::api::DetectionPipelineStatus;
use crate::operator::pipeline::test_support::{
    MINIMAL, at, now, owner, pipeline, record, running_facts, with_server,
};

/// What is told of a pipeline with this record and these annotations.
fn keys(record: Option<Record>, annotations: &[(&str, &str)]) -> Vec<String> {
    let pipeline = with(record, annotations);
    let facts = running_facts(&pipeline);
    keys_of(&standing(&pipeline, &facts))
}

fn with(record: Option<Record>, annotations: &[(&str, &str)]) -> DetectionPipeline {
    let mut pipeline = pipeline(MINIMAL);
    pipeline.status = Some(DetectionPipelineStatus {
        replay: record,
        ..DetectionPipelineStatus::default()
    });
    for (name, value) in annotations {
        let annotations = pipeline.annotations_mut();
        annotations.insert((*name).to_owned(), (*value).to_owned());
    }
    pipeline
}

fn keys_of(told: &[Told]) -> Vec<String> {
    told.iter().map(|told| told.act.key.clone()).collect()
}

#[test]
fn where_nothing_happened_nothing_is_told() {
    assert_eq!(keys(None, &[]), [""; 0]);
}

#[test]
fn every_way_in_which_a_replay_ends_is_told_and_no_phase_before_it() {
    use ReplayPhase::{
        AwaitingApproval, CatchingUp, Completed, CursorCreated, Expired, Failed, Fencing, Planned,
        Rejected, Requested, RollingOut, StateApplied, Superseded,
    };
    let ended = now().as_second();
    for phase in [
        Requested,
        Planned,
        AwaitingApproval,
        Fencing,
        CursorCreated,
        RollingOut,
        StateApplied,
        CatchingUp,
    ] {
        assert_eq!(keys(Some(record(phase)), &[]), [""; 0], "{phase:?}");
    }
    for (phase, outcome) in [
        (Completed, "completed"),
        (Failed, "failed"),
        (Rejected, "rejected"),
        (Expired, "expired"),
        (Superseded, "superseded"),
    ] {
        let expected = format!("replay-again-{outcome}-{ended}");
        assert_eq!(keys(Some(record(phase)), &[]), [expected]);
    }
}

#[test]
fn a_replay_is_told_in_the_same_words_when_it_is_history() {
    let ended = with(Some(record(ReplayPhase::Failed)), &[]);
    let mut later = with(None, &[]);
    let status = later.status.as_mut().unwrap();
    status.replay_history = vec![record(ReplayPhase::Failed).finished()];
    let facts = running_facts(&ended);
    assert_eq!(standing(&ended, &facts), standing(&later, &facts));
    assert_eq!(standing(&ended, &facts)[0].act.reason, "ReplayFailed");
}

#[test]
fn a_plan_is_approved_when_a_person_said_so_and_it_was_begun() {
    let mut awaited = record(ReplayPhase::Fencing);
    awaited.request.approval = Approval::Manual;
    let approved = keys(Some(awaited.clone()), &[(APPROVE, "p-1")]);
    assert_eq!(approved.len(), 1, "{approved:?}");
    assert!(approved[0].starts_with("approved-again-"), "{approved:?}");
    assert_eq!(keys(Some(awaited.clone()), &[(APPROVE, "p-2")]), [""; 0]);
    awaited.phase = ReplayPhase::AwaitingApproval;
    assert_eq!(keys(Some(awaited.clone()), &[(APPROVE, "p-1")]), [""; 0]);
    let automatic = record(ReplayPhase::Fencing);
    assert_eq!(keys(Some(automatic), &[(APPROVE, "p-1")]), [""; 0]);
}

#[test]
fn the_operators_own_request_after_a_loss_is_told() {
    let mut own = record(ReplayPhase::Requested);
    own.request = ReplayRequest::loss(Epoch(3), StreamSeq(51), StatePolicy::Rebuild);
    let expected = format!("requested-loss-3-{}", now().as_second());
    assert_eq!(keys(Some(own), &[]), [expected]);
}

#[test]
fn losses_are_told_when_they_are_acknowledged_and_not_before() {
    let through = |annotation: &str| {
        let pipeline = with(None, &[(ACKNOWLEDGE, annotation)]);
        let mut facts = running_facts(&pipeline);
        with_server(&mut facts, |server| {
            let checkpoint = server.checkpoint.as_mut().unwrap().as_mut().unwrap();
            checkpoint.gaps.push(Gap {
                from: StreamSeq(10),
                to: StreamSeq(20),
                possible: false,
            });
        });
        keys_of(&standing(&pipeline, &facts))
    };
    let created = at("2026-11-01T00:00:00Z").as_second();
    assert_eq!(through("20"), [format!("acknowledged-{created}-20")]);
    assert_eq!(through("19"), [""; 0]);
    assert_eq!(through("all"), [""; 0]);
}

#[test]
fn a_hand_over_is_told_while_there_is_something_of_the_other_owner() {
    let other = "c2/detections/edr";
    let pipeline = with(None, &[(ADOPT, other)]);
    let mut facts = running_facts(&pipeline);
    assert_eq!(standing(&pipeline, &facts), []);
    with_server(&mut facts, |server| {
        server.owners.insert(other.to_owned());
    });
    let told = standing(&pipeline, &facts);
    assert_eq!(told[0].act.reason, "Adopted");
    assert!(told[0].act.message.contains(other), "{told:?}");
    assert!(told[0].act.key.starts_with("adopted-9d1f-"), "{told:?}");
}

#[test]
fn what_is_told_of_another_object_of_the_same_name_has_another_key() {
    let first = pipeline(MINIMAL);
    let mut second = first.clone();
    second.metadata.uid = Some("7c00".to_owned());
    let key = owner().pipeline;
    let keys = [&first, &second].map(|pipeline| {
        let deleted = cleaned_up(pipeline, &key, None);
        let consumer = consumer_deleted(pipeline, &key, Epoch(1));
        (deleted.act.key, consumer.act.key)
    });
    assert_eq!(
        keys[0],
        ("deleted-9d1f".to_owned(), "consumer-9d1f-e1".to_owned())
    );
    assert_ne!(keys[0].0, keys[1].0);
    assert_ne!(keys[0].1, keys[1].1);
}

#[test]
fn every_key_is_one_token_of_a_subject() {
    let mut ended = record(ReplayPhase::Completed);
    ended.request.approval = Approval::Manual;
    ended.plan.as_mut().unwrap().hash = "a.b *>".to_owned();
    let pipeline = with(Some(ended), &[(APPROVE, "a.b *>"), (ADOPT, "c 2.*/a/b")]);
    let mut facts = running_facts(&pipeline);
    with_server(&mut facts, |server| {
        server.owners.insert("c 2.*/a/b".to_owned());
    });
    let told = standing(&pipeline, &facts);
    assert_eq!(told.len(), 3, "{told:?}");
    for Told { act, .. } in told {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-';
        assert!(act.key.chars().all(fits), "{}", act.key);
    }
}
