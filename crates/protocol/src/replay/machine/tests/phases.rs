use jiff::SignedDuration;

use super::fixture::{At, Stage, checkpoint, place, plan, request, running};
use crate::checkpoint::RequestOutcome;
use crate::config::Cursor;
use crate::position::{Epoch, StreamSeq};
use crate::replay::ledger::Standing;
use crate::replay::machine::{
    Asks, Check, Claim, Effect, Planned, Progress, Running, Workers, Workload, Written, asks,
};
use crate::replay::record::ReplayPhase;
use crate::replay::request::Approval;

fn seen(change: impl FnOnce(&mut Running)) -> Workload {
    let Workload::Seen(mut running) = running(0, 0) else {
        unreachable!("the fixture sees it");
    };
    change(&mut running);
    Workload::Seen(running)
}

#[test]
fn a_pipeline_without_a_block_runs_in_its_epoch() {
    let stage = Stage::new();
    assert_eq!(place(&stage.acts()), At::Run(3));
    assert_eq!(stage.acts().effects, []);
}

#[test]
fn a_new_pipeline_writes_epoch_1_before_it_runs() {
    let mut stage = Stage::new();
    stage.written = Written::default();
    stage.standing = Standing::New;
    stage.highest = Epoch(0);
    assert_eq!(stage.writes().epoch, Some(Epoch(1)));
}

#[test]
fn an_epoch_that_only_the_other_ledgers_know_is_written_first() {
    let mut stage = Stage::new();
    stage.written = Written::default();
    assert_eq!(stage.writes().epoch, Some(Epoch(3)));
}

#[test]
fn a_block_is_recorded_and_nothing_is_done_for_it_yet() {
    let mut stage = Stage::new();
    stage.wanted = Some(request("r1", 10));
    stage.goes_to(ReplayPhase::Requested);
}

#[test]
fn a_requested_replay_asks_for_its_plan_and_the_old_worker_goes_on() {
    let stage = Stage::at(ReplayPhase::Requested);
    assert_eq!(asks(&stage.written, false), Asks::Plan);
    assert_eq!(place(&stage.acts()), At::Run(3));
}

#[test]
fn a_plan_that_cannot_be_made_now_is_asked_for_again() {
    let mut stage = Stage::at(ReplayPhase::Requested);
    stage.plan = Planned::Unavailable("NATS does not answer");
    assert_eq!(place(&stage.acts()), At::Run(3));
    assert!(stage.decide().look_again.is_some());
}

#[test]
fn a_plan_gives_the_request_an_epoch_that_nothing_carries() {
    let mut stage = Stage::at(ReplayPhase::Requested);
    let plan = plan();
    let plan: &'static _ = Box::leak(Box::new(plan));
    stage.plan = Planned::Done(plan);
    stage.highest = Epoch(7);
    let record = stage.writes().record.unwrap();
    assert_eq!(record.phase, ReplayPhase::Planned);
    assert_eq!(record.epoch, Some(Epoch(8)));
    assert_eq!(record.of, Some(Epoch(3)));
    assert_eq!(record.plan.as_ref(), Some(plan));
}

#[test]
fn the_recorded_plan_stays_whatever_a_later_one_would_say() {
    let mut stage = Stage::at(ReplayPhase::Planned);
    let other = crate::replay::record::Plan {
        start: StreamSeq(99),
        ..plan()
    };
    stage.plan = Planned::Done(Box::leak(Box::new(other)));
    assert_eq!(stage.writes().record.unwrap().plan, Some(plan()));
    assert_eq!(asks(&stage.written, false), Asks::Nothing);
}

#[test]
fn a_plan_goes_on_by_itself_without_manual_approval() {
    Stage::at(ReplayPhase::Planned).goes_to(ReplayPhase::Fencing);
}

fn manual(phase: ReplayPhase) -> Stage {
    let mut stage = Stage::at(phase);
    stage.record_mut().request.approval = Approval::Manual;
    stage.wanted.as_mut().unwrap().approval = Approval::Manual;
    stage
}

#[test]
fn a_plan_waits_for_its_approval_with_the_old_worker_going_on() {
    manual(ReplayPhase::Planned).goes_to(ReplayPhase::AwaitingApproval);
    assert_eq!(
        place(&manual(ReplayPhase::AwaitingApproval).acts()),
        At::Run(3)
    );
}

#[test]
fn only_the_exact_hash_approves_a_plan() {
    let mut stage = manual(ReplayPhase::AwaitingApproval);
    for stale in ["", "p-", "p-000000000002", "P-000000000001"] {
        stage.approved = Some(stale.to_owned());
        assert_eq!(place(&stage.acts()), At::Run(3), "{stale:?}");
    }
    stage.approved = Some("p-000000000001".to_owned());
    stage.goes_to(ReplayPhase::Fencing);
}

#[test]
fn approval_set_to_automatic_in_the_spec_lets_a_waiting_plan_run() {
    let mut stage = manual(ReplayPhase::AwaitingApproval);
    stage.wanted.as_mut().unwrap().approval = Approval::Automatic;
    stage.goes_to(ReplayPhase::Fencing);
}

#[test]
fn the_id_is_claimed_before_any_worker_is_stopped() {
    let mut stage = Stage::at(ReplayPhase::Fencing);
    stage.claim = Claim::Free;
    let actions = stage.acts();
    assert!(matches!(
        actions.effects[..],
        [Effect::Claim {
            epoch: Epoch(4),
            ..
        }]
    ));
    assert_eq!(actions.workers, Workers::Unchanged);
    stage.claim = Claim::Unknown;
    assert_eq!(place(&stage.acts()), At::Unchanged);
    stage.claim = Claim::Ours;
    stage.workload = running(1, 1);
    assert_eq!(place(&stage.acts()), At::Stop(3));
}

#[test]
fn a_worker_is_stopped_in_its_own_epoch_and_takes_other_changes_along() {
    let mut stage = Stage::at(ReplayPhase::Fencing);
    stage.workload = running(1, 1);
    let Workers::Stop {
        cursor,
        hold_template,
        ..
    } = stage.acts().workers
    else {
        panic!("it is stopped");
    };
    assert_eq!(cursor, Cursor::default());
    assert!(!hold_template);
}

#[test]
fn fencing_ends_only_when_the_controller_is_current_and_nothing_is_left() {
    let mut stage = Stage::at(ReplayPhase::Fencing);
    for workload in [
        Workload::Unknown,
        running(1, 0),
        running(0, 1),
        seen(|running| running.observed = false),
    ] {
        stage.workload = workload.clone();
        assert_eq!(place(&stage.acts()), At::Stop(3), "{workload:?}");
    }
    stage.workload = running(0, 0);
    stage.goes_to(ReplayPhase::CursorCreated);
}

#[test]
fn a_pod_on_a_lost_node_blocks_the_fencing_for_ever_and_is_named() {
    let mut stage = Stage::at(ReplayPhase::Fencing).later(SignedDuration::from_hours(100));
    stage.workload = seen(|running| {
        running.pods = 1;
        running.stuck = true;
    });
    assert_eq!(place(&stage.acts()), At::Stop(3));
    let Progress::FencingBlocked(sentence) = stage.decide().progress else {
        panic!("it is blocked");
    };
    assert!(sentence.contains("out-of-service"), "{sentence}");
}

#[test]
fn the_new_consumer_is_made_while_no_worker_runs() {
    let mut stage = Stage::at(ReplayPhase::CursorCreated);
    stage.consumer = None;
    assert_eq!(place(&stage.acts()), At::Stop(4));
    assert_eq!(asks(&stage.written, false), Asks::Check);
}

#[test]
fn a_worker_starts_only_after_the_plan_was_checked_again() {
    let mut stage = Stage::at(ReplayPhase::CursorCreated);
    assert_eq!(place(&stage.acts()), At::Stop(4));
    stage.check = Check::Holds;
    stage.goes_to(ReplayPhase::RollingOut);
}

#[test]
fn the_new_worker_runs_with_the_resolved_start_in_its_own_epoch() {
    let stage = Stage::at(ReplayPhase::RollingOut);
    let Workers::Run {
        epoch,
        cursor,
        hold_template,
    } = stage.acts().workers
    else {
        panic!("it runs");
    };
    assert_eq!(epoch, Epoch(4));
    assert_eq!(Some(cursor), stage.record().cursor());
    assert!(hold_template);
}

#[test]
fn another_rollout_waits_unless_a_pod_needs_it_to_run() {
    let holds = |stage: &Stage| match stage.acts().workers {
        Workers::Run { hold_template, .. } => hold_template,
        other => panic!("{other:?}"),
    };
    let mut stage = Stage::at(ReplayPhase::RollingOut);
    assert!(holds(&stage));
    stage.workload = seen(|running| running.trouble = Some("ImagePullBackOff".to_owned()));
    assert!(!holds(&stage));
    assert!(!holds(&Stage::at(ReplayPhase::CatchingUp)));
}

#[test]
fn the_state_is_applied_when_the_checkpoint_says_so_and_the_epoch_with_it() {
    for outcome in [RequestOutcome::Applied, RequestOutcome::AlreadyApplied] {
        let mut stage = Stage::at(ReplayPhase::RollingOut);
        stage.checkpoint = Some(checkpoint(4, Some(outcome)));
        let next = stage.writes();
        assert_eq!(next.record.unwrap().phase, ReplayPhase::StateApplied);
        assert_eq!(next.epoch, Some(Epoch(4)));
    }
}

#[test]
fn a_record_behind_the_checkpoint_catches_up_with_it() {
    for phase in [ReplayPhase::Fencing, ReplayPhase::CursorCreated] {
        let mut stage = Stage::at(phase);
        stage.checkpoint = Some(checkpoint(4, Some(RequestOutcome::Applying)));
        stage.goes_to(ReplayPhase::RollingOut);
    }
}

#[test]
fn applied_state_is_followed_by_catching_up() {
    Stage::at(ReplayPhase::StateApplied).goes_to(ReplayPhase::CatchingUp);
}

#[test]
fn a_recovered_plan_is_not_checked_again() {
    let mut stage = Stage::at(ReplayPhase::CursorCreated);
    stage.record_mut().plan.as_mut().unwrap().reason = super::super::RECOVERED.to_owned();
    assert_eq!(asks(&stage.written, false), Asks::Nothing);
    stage.goes_to(ReplayPhase::RollingOut);
}

#[test]
fn a_request_found_on_its_consumer_is_fenced_again_and_gives_the_same_cursor() {
    let cursor = Stage::at(ReplayPhase::RollingOut)
        .record()
        .cursor()
        .unwrap();
    let Cursor::Rewind(rewind) = cursor.clone() else {
        panic!("a rewind");
    };
    let mut stage = Stage::new();
    stage.wanted = Some(request("r1", 10));
    stage.written = Written::default();
    stage.standing = Standing::Underway {
        epoch: Epoch(4),
        rewind,
    };
    let next = stage.writes();
    let record = next.record.unwrap();
    assert_eq!(record.phase, ReplayPhase::Fencing);
    assert_eq!(record.cursor(), Some(cursor));
    assert_eq!(next.epoch, Some(Epoch(3)));
}

#[test]
fn a_bootstrap_touches_no_worker_before_it_rolls_out() {
    for phase in [
        ReplayPhase::Requested,
        ReplayPhase::Planned,
        ReplayPhase::Fencing,
    ] {
        let mut stage = Stage::bootstrap_at(phase);
        stage.claim = Claim::Free;
        if phase != ReplayPhase::Planned {
            assert_eq!(place(&stage.acts()), At::Unchanged);
        }
    }
    assert_eq!(
        place(&Stage::bootstrap_at(ReplayPhase::RollingOut).acts()),
        At::Run(1)
    );
}

#[test]
fn a_bootstrap_begins_at_epoch_1_with_no_state_to_move() {
    let mut stage = Stage::bootstrap_at(ReplayPhase::Requested);
    stage.highest = Epoch(0);
    stage.plan = Planned::Done(Box::leak(Box::new(plan())));
    let record = stage.writes().record.unwrap();
    assert_eq!(record.epoch, Some(Epoch(1)));
    assert_eq!(record.of, None);
}

#[test]
fn nothing_is_decided_while_a_person_must() {
    for standing in [
        Standing::Unknown,
        Standing::EpochAhead(String::new()),
        Standing::OwnedByOther(String::new()),
    ] {
        let mut stage = Stage::at(ReplayPhase::Planned);
        stage.standing = standing;
        assert_eq!(place(&stage.acts()), At::Unchanged);
        assert_eq!(stage.acts().effects, []);
    }
}
