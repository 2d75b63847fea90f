use jiff::SignedDuration;

use super::fixture::{At, Stage, place};
use crate::config::Cursor;
use crate::position::{Epoch, StreamSeq};
use crate::replay::ledger::Standing;
use crate::replay::machine::{Accepted, CursorView, Effect, Planned};
use crate::replay::record::{MAX_HISTORY, MAX_RETIRED, ReplayPhase, Retired};

const DAY: SignedDuration = SignedDuration::from_hours(24);

fn at_position(sequence: u64) -> Stage {
    let mut stage = Stage::at(ReplayPhase::CatchingUp);
    stage.checkpoint.as_mut().unwrap().position.sequence = StreamSeq(sequence);
    stage
}

#[test]
fn a_request_is_completed_at_its_target_and_not_before() {
    assert_eq!(place(&at_position(99).acts()), At::Run(4));
    at_position(100).goes_to(ReplayPhase::Completed);
}

#[test]
fn a_target_that_is_gone_is_reached_when_nothing_is_pending() {
    let mut stage = at_position(50);
    stage.consumer.as_mut().unwrap().pending = 0;
    stage.goes_to(ReplayPhase::Completed);
}

#[test]
fn nothing_pending_says_nothing_of_a_wrong_filter_or_a_start_beyond_the_end() {
    let drained = CursorView {
        pending: 0,
        ack_pending: 0,
        filter_ok: true,
        bound_ok: true,
    };
    for consumer in [
        CursorView {
            filter_ok: false,
            ..drained
        },
        CursorView {
            bound_ok: false,
            ..drained
        },
        CursorView {
            ack_pending: 1,
            ..drained
        },
    ] {
        let mut stage = at_position(50);
        stage.consumer = Some(consumer);
        assert_eq!(place(&stage.acts()), At::Run(4), "{consumer:?}");
    }
}

#[test]
fn the_position_of_another_epoch_completes_nothing() {
    let mut stage = at_position(100);
    stage.checkpoint.as_mut().unwrap().epoch = Epoch(3);
    assert_eq!(place(&stage.acts()), At::Run(4));
}

#[test]
fn a_completed_request_goes_into_the_history_and_the_worker_runs_on() {
    let stage = at_position(100);
    let next = stage.writes();
    assert_eq!(next.history[0].id, stage.record().request.id);
    assert_eq!(next.history[0].finished_at, stage.now);
    let mut done = Stage::at(ReplayPhase::Completed);
    done.consumers = Some(vec![Epoch(4)]);
    assert_eq!(place(&done.acts()), At::Run(4));
    assert_eq!(done.decide().accepted, Accepted::Accepted);
}

#[test]
fn the_history_keeps_the_newest() {
    let mut stage = at_position(100);
    let finished = stage.record().finished();
    stage.written.history = vec![finished; MAX_HISTORY];
    let history = stage.writes().history;
    assert_eq!(history.len(), MAX_HISTORY);
    assert_eq!(history[0].phase, ReplayPhase::Completed);
    assert_eq!(history[1].phase, ReplayPhase::CatchingUp);
}

#[test]
fn a_rejected_plan_says_why_and_the_pipeline_runs_on() {
    let mut stage = Stage::at(ReplayPhase::Requested);
    stage.plan = Planned::Rejected("sequence 10 is beyond the end");
    let next = stage.writes();
    assert_eq!(
        next.record.as_ref().unwrap().message,
        "sequence 10 is beyond the end"
    );
    stage.written = next;
    assert_eq!(place(&stage.acts()), At::Run(3));
    let decision = stage.decide();
    assert_eq!(decision.accepted, Accepted::Rejected);
    assert!(decision.accepted_because.contains("beyond the end"));
}

#[test]
fn the_consumer_of_the_epoch_before_is_left_alone_until_the_request_is_final() {
    for phase in [ReplayPhase::RollingOut, ReplayPhase::CatchingUp] {
        let mut stage = Stage::at(phase);
        stage.consumers = Some(vec![Epoch(3), Epoch(4)]);
        assert_eq!(stage.acts().effects, []);
    }
}

fn left(stage: &Stage, epoch: u64) -> Retired {
    Retired {
        name: format!("lb_prod_edr_p0_e{epoch}"),
        epoch: Epoch(epoch),
        since: stage.now,
    }
}

#[test]
fn consumers_that_were_left_are_listed_kept_a_day_and_deleted() {
    let mut stage = Stage::at(ReplayPhase::Completed);
    stage.consumers = Some(vec![Epoch(3), Epoch(4)]);
    let next = stage.writes();
    assert_eq!(next.retired, [left(&stage, 3)]);
    stage.written = next;
    let stage = stage.later(DAY - SignedDuration::from_secs(5));
    assert_eq!(stage.acts().effects, []);
    assert_eq!(
        stage.decide().look_again,
        Some(std::time::Duration::from_secs(5))
    );
    let stage = stage.later(SignedDuration::from_secs(5));
    assert_eq!(stage.acts().effects, [Effect::DeleteConsumer(Epoch(3))]);
}

#[test]
fn a_consumer_that_is_gone_is_listed_no_more() {
    let mut stage = Stage::at(ReplayPhase::Completed);
    stage.written.retired = vec![left(&stage, 3)];
    stage.consumers = Some(vec![Epoch(4)]);
    assert_eq!(stage.writes().retired, []);
}

#[test]
fn nothing_is_forgotten_while_nats_does_not_answer() {
    let mut stage = Stage::at(ReplayPhase::Completed);
    stage.written.retired = vec![left(&stage, 3)];
    stage.consumers = None;
    assert_eq!(stage.acts().effects, []);
}

#[test]
fn consumers_that_there_is_no_room_to_list_are_deleted_at_once() {
    let mut stage = Stage::at(ReplayPhase::Completed);
    let epochs: Vec<_> = (10..10 + MAX_RETIRED as u64 + 2).map(Epoch).collect();
    stage.consumers = Some(epochs);
    let epoch = Epoch(10 + MAX_RETIRED as u64 + 1);
    stage.standing = Standing::Stands {
        epoch,
        cursor: Cursor::default(),
    };
    let next = stage.writes();
    assert_eq!(next.retired.len(), MAX_RETIRED);
    stage.written = next;
    assert_eq!(stage.acts().effects, [Effect::DeleteConsumer(Epoch(10))]);
}
