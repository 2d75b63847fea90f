use jiff::SignedDuration;

use super::fixture::{At, Stage, checkpoint, place, plan, request};
use crate::checkpoint::AppliedRequest;
use crate::position::{Epoch, StreamSeq};
use crate::replay::ledger::Standing;
use crate::replay::machine::{Accepted, Claim, Planned, Written};
use crate::replay::record::ReplayPhase;
use crate::replay::request::{ReplayRequest, StatePolicy};

const LATER: SignedDuration = SignedDuration::from_hours(1);

/// The request `r1` ended so, and nothing is left of its record but its place in the history.
fn remembered(phase: ReplayPhase) -> Stage {
    let mut stage = Stage::at(phase);
    stage.consumers = Some(stage.written.epoch.into_iter().collect());
    let other = request("r9", 9);
    stage.record_mut().request = other;
    stage.later(LATER)
}

#[track_caller]
fn is_not_run(stage: &Stage, accepted: Accepted) {
    stage.acts();
    let decision = stage.decide();
    assert_eq!(decision.accepted, accepted);
    assert!(
        decision.accepted_because.contains("set a new id"),
        "{}",
        decision.accepted_because
    );
}

#[test]
fn the_same_manifest_applied_again_is_a_no_op() {
    let mut stage = Stage::at(ReplayPhase::Completed);
    stage.consumers = Some(vec![Epoch(4)]);
    let stage = stage.later(LATER);
    assert_eq!(place(&stage.acts()), At::Run(4));
    assert_eq!(stage.decide().accepted, Accepted::Accepted);
}

#[test]
fn a_revert_to_an_older_block_is_a_no_op() {
    is_not_run(
        &remembered(ReplayPhase::Completed),
        Accepted::AlreadyApplied,
    );
}

#[test]
fn what_failed_or_was_taken_back_is_not_tried_again_under_its_id() {
    is_not_run(&remembered(ReplayPhase::Failed), Accepted::Failed);
    is_not_run(&remembered(ReplayPhase::Superseded), Accepted::Superseded);
    let mut latest = Stage::at(ReplayPhase::Failed);
    latest.consumers = Some(vec![Epoch(3)]);
    is_not_run(&latest, Accepted::Failed);
}

#[test]
fn an_id_that_only_the_state_file_remembers_is_known() {
    let mut stage = Stage::new();
    let wanted = request("r1", 10);
    let mut seen = checkpoint(3, None);
    seen.applied = Some(AppliedRequest {
        epoch: Epoch(2),
        id: wanted.id.clone(),
        fingerprint: wanted.fingerprint.clone(),
    });
    stage.checkpoint = Some(seen);
    stage.wanted = Some(wanted);
    is_not_run(&stage, Accepted::AlreadyApplied);
    stage.wanted = Some(request("r1", 11));
    is_not_run(&stage, Accepted::IdReused);
}

#[test]
fn an_id_that_only_the_consumer_remembers_is_known() {
    let mut stage = Stage::new();
    stage.standing = Standing::Stands {
        epoch: Epoch(3),
        cursor: Stage::at(ReplayPhase::RollingOut)
            .record()
            .cursor()
            .unwrap(),
    };
    stage.wanted = Some(request("r1", 10));
    is_not_run(&stage, Accepted::AlreadyApplied);
}

#[test]
fn an_id_that_only_the_claim_remembers_is_known() {
    let mut stage = Stage::new();
    let wanted = request("r1", 10);
    let fingerprint: &'static str = Box::leak(wanted.fingerprint.clone().into_boxed_str());
    stage.claim = Claim::Used {
        epoch: Epoch(2),
        fingerprint,
    };
    stage.wanted = Some(wanted);
    is_not_run(&stage, Accepted::AlreadyApplied);
    stage.wanted = Some(request("r1", 11));
    is_not_run(&stage, Accepted::IdReused);
}

#[test]
fn the_operators_own_request_goes_on_in_the_epoch_it_was_claimed_for() {
    let mut stage = Stage::new();
    let wanted = ReplayRequest::loss(Epoch(3), StreamSeq(51), StatePolicy::Rebuild);
    let fingerprint: &'static str = Box::leak(wanted.fingerprint.clone().into_boxed_str());
    stage.claim = Claim::Used {
        epoch: Epoch(4),
        fingerprint,
    };
    stage.wanted = Some(wanted);
    stage.written = stage.writes();
    stage.plan = Planned::Done(Box::leak(Box::new(plan())));
    assert_eq!(stage.writes().record.unwrap().epoch, Some(Epoch(4)));
    stage.highest = Epoch(4);
    stage.goes_to(ReplayPhase::Superseded);
}

#[test]
fn other_numbers_under_a_known_id_are_not_run() {
    let mut stage = Stage::at(ReplayPhase::Completed);
    stage.consumers = Some(vec![Epoch(4)]);
    stage.wanted = Some(request("r1", 11));
    is_not_run(&stage, Accepted::IdReused);
    let mut older = remembered(ReplayPhase::Completed);
    older.wanted = Some(request("r1", 11));
    is_not_run(&older, Accepted::IdReused);
}

#[test]
fn other_numbers_under_the_id_that_is_under_way_are_not_run() {
    let mut stage = Stage::at(ReplayPhase::CatchingUp);
    stage.wanted = Some(request("r1", 11));
    is_not_run(&stage, Accepted::IdReused);
}

#[test]
fn a_known_id_is_a_no_op_while_another_request_is_under_way() {
    let mut stage = Stage::at(ReplayPhase::CatchingUp);
    let mut before = Stage::at(ReplayPhase::Completed).written.history;
    before[0].id = request("r0", 10).id;
    stage.written.history = before;
    stage.wanted = Some(request("r0", 10));
    is_not_run(&stage, Accepted::AlreadyApplied);
}

#[test]
fn a_rejected_block_that_was_corrected_runs_at_once_under_its_id() {
    for phase in [ReplayPhase::Rejected, ReplayPhase::Expired] {
        let mut stage = Stage::at(phase);
        assert_eq!(place(&stage.acts()), At::Run(3));
        stage.wanted = Some(request("r1", 11));
        stage.goes_to(ReplayPhase::Requested);
        stage.wanted = Some(stage.record().request.clone());
        stage.wanted.as_mut().unwrap().not_after = Some(stage.now + LATER);
        stage.goes_to(ReplayPhase::Requested);
    }
}

#[test]
fn the_next_request_waits_for_the_minimum_interval() {
    let mut stage = Stage::at(ReplayPhase::Completed);
    stage.consumers = Some(vec![Epoch(4)]);
    stage.wanted = Some(request("r2", 10));
    let stage = stage.later(SignedDuration::from_secs(59));
    assert_eq!(place(&stage.acts()), At::Run(4));
    let decision = stage.decide();
    assert_eq!(decision.accepted, Accepted::Throttled);
    assert_eq!(decision.look_again, Some(std::time::Duration::from_secs(1)));
    stage
        .later(SignedDuration::from_secs(1))
        .goes_to(ReplayPhase::Requested);
}

#[test]
fn what_is_asked_for_while_suspended_is_queued_and_runs_on_resume() {
    let mut stage = Stage::new();
    stage.suspended = true;
    stage.wanted = Some(request("r1", 10));
    assert_eq!(place(&stage.acts()), At::Stop(3));
    assert_eq!(stage.decide().accepted, Accepted::Queued);
    stage.suspended = false;
    stage.goes_to(ReplayPhase::Requested);
}

#[test]
fn a_request_waits_while_nobody_can_say_whether_its_id_is_known() {
    let mut stage = Stage::new();
    stage.claim = Claim::Unknown;
    stage.wanted = Some(request("r1", 10));
    assert_eq!(place(&stage.acts()), At::Run(3));
    assert_eq!(stage.decide().accepted, Accepted::Queued);
}

#[test]
fn a_block_that_has_expired_when_it_is_first_seen_is_not_run() {
    let mut stage = Stage::new();
    let mut wanted = request("r1", 10);
    wanted.not_after = Some(stage.now - LATER);
    stage.wanted = Some(wanted);
    stage.claim = Claim::Unknown;
    assert_eq!(place(&stage.acts()), At::Run(3));
    stage.claim = Claim::Free;
    stage.goes_to(ReplayPhase::Expired);
}

fn never_begun() -> Stage {
    let mut stage = Stage::new();
    stage.written = Written::default();
    stage.standing = Standing::New;
    stage.highest = Epoch(0);
    stage.consumers = Some(Vec::new());
    stage.checkpoint = None;
    stage.wanted = Some(request("r1", 10));
    stage
}

#[test]
fn a_new_pipeline_begins_where_its_block_says() {
    let next = never_begun().writes();
    assert_eq!(next.record.unwrap().phase, ReplayPhase::Requested);
    assert_eq!(next.epoch, None);
}

#[test]
fn a_new_pipeline_whose_block_has_expired_begins_without_it() {
    let mut stage = never_begun();
    stage.wanted.as_mut().unwrap().not_after = Some(stage.now - LATER);
    stage.written = stage.writes();
    assert_eq!(stage.writes().epoch, Some(Epoch(1)));
}

#[test]
fn a_new_pipeline_begins_nowhere_while_its_block_is_rejected() {
    let mut stage = Stage::bootstrap_at(ReplayPhase::Rejected);
    assert_eq!(place(&stage.acts()), At::Unchanged);
    stage.wanted = None;
    assert!(stage.writes().epoch.is_some());
}

#[test]
fn a_new_pipeline_whose_id_was_claimed_takes_an_epoch_beyond_the_claim() {
    let mut stage = never_begun();
    let wanted = request("r1", 10);
    let fingerprint: &'static str = Box::leak(wanted.fingerprint.into_boxed_str());
    stage.claim = Claim::Used {
        epoch: Epoch(6),
        fingerprint,
    };
    assert_eq!(stage.writes().epoch, Some(Epoch(7)));
}

#[test]
fn nothing_wanted_is_no_replay() {
    let decision = Stage::new().decide();
    assert_eq!(decision.accepted, Accepted::NoReplay);
    assert_eq!(decision.accepted_because, "");
}
