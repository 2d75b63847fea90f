use jiff::SignedDuration;

use super::fixture::{At, Stage, checkpoint, place, request, running};
use crate::checkpoint::{Phase, RequestOutcome};
use crate::position::Epoch;
use crate::position::StreamSeq;
use crate::replay::machine::{Accepted, Check, Claim, Effect, Progress, Workload};
use crate::replay::record::{Record, ReplayPhase, WayBack};
use crate::replay::request::{ReplayRequest, RequestId, StatePolicy};

const LATE: SignedDuration = SignedDuration::from_mins(31);

fn taken_back(to: ReplayPhase) -> Stage {
    let mut stage = Stage::at(ReplayPhase::RollingOut);
    stage.record_mut().way_back = Some(WayBack {
        epoch: Epoch(5),
        to,
    });
    stage.highest = Epoch(5);
    stage
}

#[track_caller]
fn way_back(stage: &Stage) -> (Record, ReplayPhase) {
    let record = stage.writes().record.unwrap();
    let to = record.way_back.as_ref().expect("it is taken back").to;
    (record, to)
}

#[test]
fn a_removed_or_replaced_block_ends_a_request_that_was_not_begun() {
    for phase in [
        ReplayPhase::Requested,
        ReplayPhase::Planned,
        ReplayPhase::AwaitingApproval,
    ] {
        let mut stage = Stage::at(phase);
        for wanted in [None, Some(request("r2", 10)), Some(request("r1", 11))] {
            stage.wanted = wanted;
            let record = stage.writes().record.unwrap();
            assert_eq!(record.phase, ReplayPhase::Superseded);
            assert_eq!(record.way_back, None);
        }
    }
}

#[test]
fn a_request_that_has_expired_before_its_fencing_is_not_begun() {
    for phase in [
        ReplayPhase::Requested,
        ReplayPhase::Planned,
        ReplayPhase::AwaitingApproval,
    ] {
        let mut stage = Stage::at(phase).later(LATE);
        let before = stage.now - SignedDuration::from_secs(1);
        stage.wanted.as_mut().unwrap().not_after = Some(before);
        stage.goes_to(ReplayPhase::Expired);
    }
}

#[test]
fn a_request_that_is_fenced_no_longer_expires() {
    let mut stage = Stage::at(ReplayPhase::Fencing);
    stage.record_mut().request.not_after = Some(stage.now - SignedDuration::from_secs(1));
    stage.goes_to(ReplayPhase::CursorCreated);
}

#[test]
fn from_the_fencing_on_a_removed_block_takes_the_way_back_with_a_new_epoch() {
    for phase in [
        ReplayPhase::Fencing,
        ReplayPhase::CursorCreated,
        ReplayPhase::RollingOut,
    ] {
        let mut stage = Stage::at(phase);
        stage.wanted = None;
        let (record, to) = way_back(&stage);
        assert_eq!(to, ReplayPhase::Superseded);
        assert_eq!(record.phase, phase);
        assert_eq!(record.way_back.unwrap().epoch, Epoch(5));
    }
}

#[test]
fn a_step_that_takes_too_long_takes_the_way_back() {
    let mut fencing = Stage::at(ReplayPhase::Fencing).later(LATE);
    fencing.workload = running(1, 0);
    let mut cursor_created = Stage::at(ReplayPhase::CursorCreated).later(LATE);
    cursor_created.consumer = None;
    let rolling_out = Stage::at(ReplayPhase::RollingOut).later(LATE);
    for stage in [fencing, cursor_created, rolling_out] {
        assert_eq!(way_back(&stage).1, ReplayPhase::Failed);
    }
}

#[test]
fn fencing_has_no_time_while_a_pod_is_there_or_may_be() {
    let mut stage = Stage::at(ReplayPhase::Fencing).later(LATE);
    for workload in [running(0, 1), Workload::Unknown] {
        stage.workload = workload;
        assert_eq!(place(&stage.acts()), At::Stop(3));
    }
}

#[test]
fn a_plan_that_no_longer_holds_takes_the_way_back() {
    let mut stage = Stage::at(ReplayPhase::CursorCreated);
    stage.check = Check::Outdated("sequence 10 has left the stream");
    let (record, to) = way_back(&stage);
    assert_eq!(to, ReplayPhase::Failed);
    assert!(record.message.contains("sequence 10"));
}

#[test]
fn the_way_back_is_one_write_to_the_checkpoint_and_touches_no_worker() {
    let stage = taken_back(ReplayPhase::Failed);
    let actions = stage.acts();
    let take_back = Effect::TakeBack {
        from: Epoch(4),
        to: Epoch(5),
        resumes: Epoch(3),
    };
    assert_eq!(actions.effects, [take_back]);
    assert_eq!(place(&actions), At::Unchanged);
    assert!(matches!(stage.decide().progress, Progress::Step(..)));
    assert_eq!(stage.decide().accepted, Accepted::Failed);
}

#[test]
fn once_the_checkpoint_is_taken_back_the_request_is_final_and_its_epoch_takes_over() {
    for to in [ReplayPhase::Failed, ReplayPhase::Superseded] {
        let mut stage = taken_back(to);
        stage.checkpoint = Some(checkpoint(5, None));
        stage.checkpoint.as_mut().unwrap().phase = Phase::TakenBack;
        let next = stage.writes();
        assert_eq!(next.record.as_ref().unwrap().phase, to);
        assert_eq!(next.epoch, Some(Epoch(5)));
        assert_eq!(next.history[0].phase, to);
    }
}

#[test]
fn a_way_back_that_lost_to_the_worker_is_dropped_and_the_request_goes_on() {
    for outcome in [RequestOutcome::Applying, RequestOutcome::Applied] {
        let mut stage = taken_back(ReplayPhase::Failed);
        stage.checkpoint = Some(checkpoint(4, Some(outcome)));
        let record = stage.writes().record.unwrap();
        assert_eq!(record.way_back, None);
        assert_eq!(record.phase, ReplayPhase::RollingOut);
    }
}

#[test]
fn there_is_no_way_back_after_the_workers_write() {
    let mut stage = Stage::at(ReplayPhase::RollingOut).later(LATE);
    stage.checkpoint = Some(checkpoint(4, Some(RequestOutcome::Applying)));
    assert_eq!(place(&stage.acts()), At::Run(4));
    stage.wanted = None;
    assert_eq!(place(&stage.acts()), At::Run(4));
}

#[test]
fn a_removed_block_changes_nothing_after_the_point_of_no_return() {
    let mut stage = Stage::at(ReplayPhase::CatchingUp).later(LATE);
    stage.wanted = None;
    assert_eq!(place(&stage.acts()), At::Run(4));
    assert_eq!(stage.decide().accepted, Accepted::Accepted);
}

#[test]
fn the_next_id_waits_after_the_point_of_no_return() {
    let mut stage = Stage::at(ReplayPhase::CatchingUp).later(LATE);
    stage.wanted = Some(request("r2", 10));
    assert_eq!(place(&stage.acts()), At::Run(4));
    let decision = stage.decide();
    assert_eq!(decision.accepted, Accepted::Queued);
    assert!(decision.accepted_because.contains("r1"));
}

#[test]
fn a_bootstrap_has_no_way_back_and_is_waited_for() {
    for phase in [
        ReplayPhase::Fencing,
        ReplayPhase::CursorCreated,
        ReplayPhase::RollingOut,
    ] {
        let mut stage = Stage::bootstrap_at(phase).later(LATE);
        stage.workload = running(1, 0);
        stage.consumer = None;
        assert_eq!(stage.acts().effects, []);
    }
    let mut rolling_out = Stage::bootstrap_at(ReplayPhase::RollingOut);
    rolling_out.wanted = None;
    assert_eq!(place(&rolling_out.acts()), At::Run(1));
}

#[test]
fn a_bootstrap_that_no_worker_was_started_for_ends_and_the_pipeline_begins_without_it() {
    let mut outdated = Stage::bootstrap_at(ReplayPhase::CursorCreated);
    outdated.check = Check::Outdated("sequence 10 has left the stream");
    let mut removed = Stage::bootstrap_at(ReplayPhase::Fencing);
    removed.wanted = None;
    for (stage, phase) in [
        (outdated, ReplayPhase::Failed),
        (removed, ReplayPhase::Superseded),
    ] {
        let next = stage.writes();
        assert_eq!(next.record.unwrap().phase, phase);
        assert_eq!(next.epoch, Some(Epoch(2)));
    }
}

#[test]
fn an_id_that_was_claimed_elsewhere_meanwhile_is_not_run() {
    let mut stage = Stage::at(ReplayPhase::Fencing);
    stage.claim = Claim::Used {
        epoch: Epoch(9),
        fingerprint: "h-other",
    };
    stage.goes_to(ReplayPhase::Superseded);
}

fn loss(epoch: u64) -> ReplayRequest {
    ReplayRequest::loss(Epoch(epoch), StreamSeq(51), StatePolicy::Rebuild)
}

#[test]
fn the_operators_own_request_after_a_loss_is_not_taken_back_by_the_spec() {
    let mut stage = Stage::at(ReplayPhase::RollingOut);
    stage.record_mut().request = loss(3);
    for wanted in [None, Some(request("r1", 10)), Some(loss(3))] {
        stage.wanted = wanted;
        assert_eq!(place(&stage.acts()), At::Run(4));
    }
}

#[test]
fn state_that_is_lost_while_it_catches_up_is_left_to_the_request_for_the_loss() {
    for phase in [
        ReplayPhase::RollingOut,
        ReplayPhase::StateApplied,
        ReplayPhase::CatchingUp,
    ] {
        let mut stage = Stage::at(phase);
        stage.checkpoint = Some(checkpoint(4, Some(RequestOutcome::Applying)));
        stage.wanted = Some(loss(4));
        let next = stage.writes();
        assert_eq!(next.record.unwrap().phase, ReplayPhase::Superseded);
        assert_eq!(next.epoch, Some(Epoch(4)));
    }
    assert_eq!(RequestId::of_loss(Epoch(4)), loss(4).id);
}

#[test]
fn a_suspended_request_waits_with_its_worker_stopped_and_its_time_standing_still() {
    let mut stage = Stage::at(ReplayPhase::RollingOut);
    stage.suspended = true;
    let next = stage.writes();
    assert!(next.record.as_ref().unwrap().paused);
    stage.written = next;
    let mut stage = stage.later(LATE);
    assert_eq!(place(&stage.acts()), At::Stop(4));
    assert_eq!(stage.decide().accepted, Accepted::Queued);
    stage.suspended = false;
    let record = stage.writes().record.unwrap();
    assert!(!record.paused);
    assert_eq!(record.since, stage.now);
}

#[test]
fn a_suspended_fencing_stops_the_worker_of_the_epoch_before() {
    let mut stage = Stage::at(ReplayPhase::Fencing);
    stage.suspended = true;
    stage.record_mut().paused = true;
    assert_eq!(place(&stage.acts()), At::Stop(3));
    assert_eq!(stage.acts().effects, []);
}
