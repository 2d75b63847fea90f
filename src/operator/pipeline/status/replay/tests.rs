use lookback_protocol::checkpoint::{Hold, HoldReason};
use lookback_protocol::position::Epoch;
use lookback_protocol::replay::machine::{Actions, Step, Workers};
use lookback_protocol::replay::record::WayBack;
use serde_json::json;

use super::super::tests::{checkpoint, condition, on, status_by, status_of};
use super::*;
use crate::api::conditions::ConditionType::{
    NatsReady, Ready, Reconciling, ReplayAccepted, ReplayInProgress, Stalled, StateReady, Suspended,
};
use crate::api::status::ConditionStatus::{self, False, True, Unknown};
use crate::api::status::Phase as Word;
use crate::api::{DetectionPipeline, DetectionPipelineStatus};
use crate::operator::pipeline::facts::{Dereferenced, NatsFacts};
use crate::operator::pipeline::test_support::{MINIMAL, now, pipeline, record};

fn decision(accepted: Accepted, progress: Progress) -> Decision {
    Decision {
        step: Step::Act(Actions {
            effects: Vec::new(),
            workers: Workers::Unchanged,
        }),
        accepted,
        accepted_because: "request again: so".to_owned(),
        progress,
        look_again: None,
    }
}

fn in_phase(phase: ReplayPhase) -> Progress {
    Progress::Step(phase, "request again: so".to_owned())
}

fn with_record(record: Record) -> DetectionPipeline {
    let mut pipeline = pipeline(MINIMAL);
    pipeline.status = Some(DetectionPipelineStatus {
        replay: Some(record),
        ..DetectionPipelineStatus::default()
    });
    pipeline
}

fn decided(
    pipeline: &DetectionPipeline,
    accepted: Accepted,
    progress: Progress,
) -> DetectionPipelineStatus {
    let decision = decision(accepted, progress);
    status_by(pipeline, now(), |_| {}, Some(&decision))
}

#[test]
fn a_pipeline_without_a_replay_says_so() {
    let status = decided(&pipeline(MINIMAL), Accepted::NoReplay, Progress::NoReplay);
    assert_eq!(on(&status, ReplayAccepted), (Unknown, "NoReplay"));
    assert_eq!(on(&status, ReplayInProgress), (False, "Idle"));
    assert_eq!(on(&status, Suspended), (False, "NotSuspended"));
    assert_eq!(on(&status, Ready), (True, "Running"));
}

#[test]
fn whatever_becomes_of_a_request_a_worker_that_runs_stays_ready() {
    let told: [(Accepted, ConditionStatus, &str, ConditionStatus); 10] = [
        (Accepted::Accepted, True, "Accepted", False),
        (Accepted::AwaitingApproval, False, "AwaitingApproval", False),
        (Accepted::Queued, False, "Queued", False),
        (Accepted::Throttled, False, "Throttled", False),
        (Accepted::AlreadyApplied, True, "AlreadyApplied", False),
        (Accepted::IdReused, False, "IdReused", True),
        (Accepted::Rejected, False, "ReplayRejected", True),
        (Accepted::Expired, False, "ReplayExpired", False),
        (Accepted::Failed, False, "ReplayFailed", True),
        (Accepted::Superseded, False, "ReplaySuperseded", False),
    ];
    for (accepted, expected, reason, stalled) in told {
        let status = decided(&pipeline(MINIMAL), accepted, Progress::NoReplay);
        assert_eq!(on(&status, ReplayAccepted), (expected, reason));
        let message = &condition(&status, ReplayAccepted).message;
        assert_eq!(message, "request again: so");
        assert_eq!(on(&status, Stalled).0, stalled, "{reason}");
        assert_eq!(on(&status, Ready), (True, "Running"), "{reason}");
        assert_eq!(status.phase, Some(Word::Running), "{reason}");
    }
}

#[test]
fn the_steps_without_a_worker_are_waited_for_and_the_others_are_not() {
    for (phase, ready) in [
        (ReplayPhase::Requested, True),
        (ReplayPhase::Planned, True),
        (ReplayPhase::Fencing, False),
        (ReplayPhase::CursorCreated, False),
        (ReplayPhase::RollingOut, False),
        (ReplayPhase::StateApplied, True),
        (ReplayPhase::CatchingUp, True),
    ] {
        let status = decided(
            &with_record(record(phase)),
            Accepted::Accepted,
            in_phase(phase),
        );
        let reason = format!("{phase:?}");
        assert_eq!(on(&status, ReplayInProgress), (True, reason.as_str()));
        assert_eq!(on(&status, Ready).0, ready, "{reason}");
        assert_eq!(
            on(&status, Reconciling).0 == True,
            ready == False,
            "{reason}"
        );
        let word = if ready == True {
            Word::Running
        } else {
            Word::Starting
        };
        assert_eq!(status.phase, Some(word), "{reason}");
    }
}

#[test]
fn a_plan_that_waits_for_its_approval_is_in_progress_and_keeps_nothing_from_running() {
    let phase = ReplayPhase::AwaitingApproval;
    let pipeline = with_record(record(phase));
    let status = decided(&pipeline, Accepted::AwaitingApproval, in_phase(phase));
    assert_eq!(on(&status, ReplayInProgress), (True, "Planned"));
    assert_eq!(on(&status, Reconciling), (False, "Settled"));
    assert_eq!(on(&status, Ready), (True, "Running"));
}

#[test]
fn a_pod_that_does_not_go_stalls_the_pipeline_and_names_the_taint() {
    let blocked = Progress::FencingBlocked("request again waits for a pod".to_owned());
    let pipeline = with_record(record(ReplayPhase::Fencing));
    let status = decided(&pipeline, Accepted::Accepted, blocked);
    assert_eq!(on(&status, ReplayInProgress), (True, "FencingBlocked"));
    assert_eq!(on(&status, Stalled), (True, "FencingBlocked"));
    let message = &condition(&status, Stalled).message;
    assert!(message.contains("out-of-service"), "{message}");
}

#[test]
fn a_request_that_is_undone_is_in_progress() {
    let mut record = record(ReplayPhase::RollingOut);
    record.way_back = Some(WayBack {
        epoch: Epoch(3),
        to: ReplayPhase::Failed,
    });
    let rolling = in_phase(ReplayPhase::RollingOut);
    let status = decided(&with_record(record), Accepted::Failed, rolling);
    assert_eq!(on(&status, ReplayInProgress), (True, "TakingBack"));
}

#[test]
fn a_completed_replay_stays_named() {
    let pipeline = with_record(record(ReplayPhase::Completed));
    let status = decided(&pipeline, Accepted::Accepted, Progress::NoReplay);
    assert_eq!(on(&status, ReplayInProgress), (False, "Completed"));
}

#[test]
fn a_block_from_before_the_definition_that_is_no_request_is_rejected() {
    let mut pipeline = pipeline(MINIMAL);
    pipeline.spec.replay = Some(crate::api::pipeline::ReplaySpec::default());
    let status = decided(&pipeline, Accepted::NoReplay, Progress::NoReplay);
    assert_eq!(on(&status, ReplayAccepted), (False, "ReplayRejected"));
}

fn suspended(change: impl FnOnce(&mut Dereferenced)) -> DetectionPipelineStatus {
    let mut pipeline = pipeline(MINIMAL);
    pipeline.spec.suspend = true;
    status_of(&pipeline, now(), change)
}

/// The StatefulSet after its controller has seen that no replica is wanted.
fn scaled_down(facts: &mut Dereferenced) {
    let set = facts.stateful_set.as_mut().unwrap();
    set.metadata.generation = Some(2);
    set.spec.as_mut().unwrap().replicas = Some(0);
    set.status = serde_json::from_value(json!({"replicas": 0, "observedGeneration": 2})).unwrap();
    facts.pods.clear();
    checkpoint(facts, |it| it.phase = Phase::Drained);
}

#[test]
fn a_pipeline_is_suspended_when_its_worker_has_committed_and_gone() {
    let status = suspended(scaled_down);
    assert_eq!(on(&status, Suspended), (True, "Suspended"));
    let message = &condition(&status, Suspended).message;
    assert!(message.contains("everything up to 497"), "{message}");
    assert_eq!(status.phase, Some(Word::Suspended));
    assert_eq!(on(&status, Ready), (False, "Suspended"));
    assert_eq!(on(&status, Reconciling), (False, "Settled"));
    assert_eq!(on(&status, Stalled), (False, "NotStalled"));
    assert_eq!(on(&status, StateReady), (False, "WorkerStopped"));
}

#[test]
fn a_pod_that_is_left_keeps_a_pipeline_from_being_suspended() {
    for terminating in [false, true] {
        let status = suspended(|facts| {
            let mut pods = facts.pods.clone();
            scaled_down(facts);
            pods[0].terminating = terminating;
            facts.pods = pods;
        });
        assert_eq!(on(&status, Suspended), (False, "Suspending"));
        assert_eq!(on(&status, Reconciling).0, True);
        assert_eq!(status.phase, Some(Word::Suspended));
    }
}

#[test]
fn a_pod_that_the_controller_may_still_make_keeps_a_pipeline_from_being_suspended() {
    let unseen = suspended(|facts| {
        scaled_down(facts);
        facts.stateful_set.as_mut().unwrap().metadata.generation = Some(3);
    });
    assert_eq!(on(&unseen, Suspended), (False, "Suspending"));
    let owed = suspended(|facts| {
        scaled_down(facts);
        let status = facts.stateful_set.as_mut().unwrap().status.as_mut();
        status.unwrap().replicas = 1;
    });
    assert_eq!(on(&owed, Suspended), (False, "Suspending"));
}

#[test]
fn a_worker_that_died_before_its_last_checkpoint_is_told_apart() {
    let status = suspended(|facts| {
        scaled_down(facts);
        checkpoint(facts, |it| it.phase = Phase::Started);
    });
    assert_eq!(on(&status, Suspended), (True, "Suspended"));
    let message = &condition(&status, Suspended).message;
    assert!(message.contains("may be ahead of 497"), "{message}");
}

#[test]
fn what_a_worker_waited_for_before_it_was_stopped_is_over() {
    let status = suspended(|facts| {
        scaled_down(facts);
        checkpoint(facts, |it| {
            it.phase = Phase::Held;
            it.held = Some(Hold {
                reason: HoldReason::AlertsFull,
                message: "full".to_owned(),
            });
        });
    });
    assert_eq!(on(&status, NatsReady), (True, "Connected"));
    assert_eq!(on(&status, Suspended), (True, "Suspended"));
}

#[test]
fn a_suspended_pipeline_is_suspended_also_while_nats_does_not_answer() {
    let status = suspended(|facts| {
        scaled_down(facts);
        facts.nats = NatsFacts::Unavailable("no server answers".to_owned());
    });
    assert_eq!(on(&status, Suspended), (True, "Suspended"));
    assert_eq!(on(&status, Ready), (False, "NatsUnavailable"));
    assert_eq!(status.phase, Some(Word::Suspended));
}
