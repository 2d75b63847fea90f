//! Requests that move the file.

use lookback_protocol::alert::ReplayMark;
use lookback_protocol::checkpoint::{Checkpoint, RequestOutcome};
use lookback_protocol::config::{Cursor, Rewind};
use lookback_protocol::position::{Epoch, Position};
use lookback_protocol::replay::request::{Outputs, RequestId, StatePolicy};

use super::*;

fn id(text: &str) -> RequestId {
    RequestId::new(text).unwrap()
}

fn rewind(policy: StatePolicy, start: u64) -> Rewind {
    Rewind {
        request_id: id("r"),
        fingerprint: "h-r".to_owned(),
        of: Some(Epoch(1)),
        start: StreamSeq(start),
        read_from: None,
        latest: false,
        state_policy: policy,
        outputs: Outputs::Live,
        target: StreamSeq(6),
        plan_hash: "p".to_owned(),
    }
}

/// Epoch 1 has read everything.
async fn worked(payloads: &[&str]) -> Bench {
    let mut bench = Bench::new(payloads);
    bench.run().await;
    bench
}

impl Bench {
    fn ask(&self, rewind: Rewind) {
        self.roll_out(2, Cursor::Rewind(rewind));
    }

    fn said(&self) -> Checkpoint {
        self.world().checkpoint.clone().unwrap().0
    }

    /// What the checkpoint says of its request, and the epoch of the request applied last.
    fn progress(&self) -> (Option<RequestOutcome>, Option<Epoch>) {
        let said = self.said();
        let outcome = said.request.map(|request| request.outcome);
        (outcome, said.applied.map(|applied| applied.epoch))
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_announced_then_applied_then_said() {
    let mut bench = worked(&[MATCH; 8]).await;
    let before = bench.world().checkpoints.len();
    bench.ask(rewind(StatePolicy::Clear, 3));
    bench.run().await;
    let phases: Vec<_> = bench.world().checkpoints[before..before + 2]
        .iter()
        .map(|said| {
            let outcome = said.request.as_ref().map(|request| request.outcome);
            (said.phase, said.position.sequence.0, outcome)
        })
        .collect();
    assert_eq!(
        phases,
        [
            (Phase::Applying, 2, Some(RequestOutcome::Applying)),
            (Phase::Started, 2, Some(RequestOutcome::Applied)),
        ]
    );
    assert_eq!(bench.said().position.sequence, StreamSeq(8));
    assert_eq!(bench.file().counters().unwrap().events, 8 + 6);
    assert_eq!(bench.world().alerts_stored, 8);
}

#[tokio::test(start_paused = true)]
async fn a_request_is_applied_once_however_often_it_is_started() {
    let mut bench = worked(&[MATCH; 8]).await;
    bench.ask(rewind(StatePolicy::Clear, 3));
    for _ in 0..3 {
        bench.run().await;
    }
    assert_eq!(bench.file().counters().unwrap().events, 8 + 6);
    let applied = (Some(RequestOutcome::Applied), Some(Epoch(2)));
    assert_eq!(bench.progress(), applied);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_moved_the_file_before_is_answered_in_a_later_epoch() {
    let mut bench = worked(&[MATCH; 8]).await;
    bench.ask(rewind(StatePolicy::Clear, 3));
    bench.run().await;
    bench.roll_out(5, Cursor::Rewind(rewind(StatePolicy::Clear, 3)));
    bench.run().await;
    assert_eq!(bench.file().counters().unwrap().events, 8 + 6);
    let known = (Some(RequestOutcome::AlreadyApplied), Some(Epoch(2)));
    assert_eq!(bench.progress(), known);
    assert_eq!(bench.said().epoch, Epoch(5));
}

#[tokio::test(start_paused = true)]
async fn a_kill_at_any_await_applies_a_request_exactly_once() {
    for awaits in 1.. {
        let mut bench = worked(&[MATCH, OTHER, MATCH, "no json", MATCH, MATCH]).await;
        let mut rebuild = rewind(StatePolicy::Rebuild, 5);
        rebuild.read_from = Some(StreamSeq(2));
        bench.ask(rebuild);
        let known = bench.world().alerts.keys().cloned().collect();
        bench.world().moved = known;
        let killed = bench.run_and_kill(awaits).await;
        let moved = !bench.file().ledger().unwrap().is_empty();
        let announced = bench.said().phase == Phase::Applying || bench.said().epoch == Epoch(2);
        assert!(announced || !moved, "killed at await {awaits}");
        let ended = bench.run().await;
        assert_eq!(ended.reason, ExitReason::Drained, "{awaits}: {ended:?}");
        assert_eq!(bench.file().ledger().unwrap().len(), 1);
        assert_eq!(
            bench.file().counters().unwrap().events,
            6 + 5,
            "killed at await {awaits}"
        );
        let world = bench.world();
        assert_eq!(world.alerts_stored, 4, "killed at await {awaits}");
        assert_eq!(world.dead_letters.len(), 1, "killed at await {awaits}");
        if !killed {
            assert!(awaits > 40, "only {awaits} places to be killed at");
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_taken_back_first_leaves_the_file_alone() {
    let mut bench = worked(&[MATCH; 4]).await;
    let taken_back = Checkpoint {
        incarnation: "operator".to_owned(),
        phase: Phase::TakenBack,
        epoch: Epoch(3),
        resumes: Some(Epoch(1)),
        ..bench.said()
    };
    bench.world().overtaken_by = Some(taken_back);
    bench.ask(rewind(StatePolicy::Clear, 2));
    let ended = bench.run().await;
    assert_eq!(ended.reason, ExitReason::Fenced);
    assert!(bench.file().ledger().unwrap().is_empty());

    let of = Some(Epoch(1));
    bench.roll_out(3, Cursor::Resume { of });
    bench.run().await;
    assert_eq!(bench.file().counters().unwrap().events, 4);
    assert_eq!(bench.said().epoch, Epoch(3));
}

#[tokio::test(start_paused = true)]
async fn an_announcement_whose_answer_was_lost_is_ours() {
    let mut bench = worked(&[MATCH; 4]).await;
    bench.world().lose_checkpoint_answer = true;
    bench.ask(rewind(StatePolicy::Clear, 2));
    let ended = bench.run().await;
    assert_eq!(ended.reason, ExitReason::Drained, "{ended:?}");
    assert_eq!(bench.file().ledger().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_empty_volume_after_the_request_is_lost_state() {
    let mut bench = worked(&[MATCH; 4]).await;
    bench.ask(rewind(StatePolicy::Clear, 2));
    bench.run().await;
    bench.lose_volume();
    let ended = bench.run().await;
    assert_eq!(ended.reason, ExitReason::StateLost);
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_was_begun_on_makes_an_empty_volume_lost_state() {
    let mut bench = worked(&[MATCH; 4]).await;
    bench.ask(rewind(StatePolicy::Clear, 2));
    bench.lose_volume();
    bench.world().checkpoint = None;
    bench.world().consumer.as_mut().unwrap().applied = true;
    let ended = bench.run().await;
    assert_eq!(ended.reason, ExitReason::StateLost);
}

#[tokio::test(start_paused = true)]
async fn clear_begins_on_a_volume_that_was_lost() {
    let mut bench = worked(&[MATCH; 4]).await;
    bench.lose_volume();
    bench.ask(rewind(StatePolicy::Keep, 2));
    assert_eq!(bench.run().await.reason, ExitReason::StateLost);
    bench.ask(rewind(StatePolicy::Clear, 2));
    assert_eq!(bench.run().await.reason, ExitReason::Drained);
    assert_eq!(bench.file().counters().unwrap().events, 3);
}

#[tokio::test(start_paused = true)]
async fn clear_begins_after_the_stream_lost_applied_events() {
    let mut bench = worked(&[MATCH; 6]).await;
    bench.world().events.truncate(3);
    bench.ask(rewind(StatePolicy::Keep, 2));
    assert_eq!(bench.run().await.reason, ExitReason::StreamRegressed);
    bench.ask(rewind(StatePolicy::Clear, 2));
    assert_eq!(bench.run().await.reason, ExitReason::Drained);
    assert_eq!(bench.said().position.sequence, StreamSeq(3));
}

#[tokio::test(start_paused = true)]
async fn what_is_read_back_gives_no_alert_and_no_dead_letter() {
    let mut bench = Bench::new(&[MATCH, "no json", MATCH, MATCH]);
    let mut rebuild = rewind(StatePolicy::Rebuild, 4);
    rebuild.of = None;
    rebuild.read_from = Some(StreamSeq(1));
    bench.roll_out(1, Cursor::Rewind(rebuild));
    bench.run().await;
    let world = bench.world();
    assert_eq!(world.alerts.len(), 1);
    assert!(world.dead_letters.is_empty());
}

#[tokio::test(start_paused = true)]
async fn outputs_end_at_the_target_also_across_a_restart() {
    for outputs in [Outputs::Tag, Outputs::Suppress] {
        let mut bench = Bench::new(&[MATCH, "no json", MATCH]);
        let mut request = rewind(StatePolicy::Clear, 1);
        request.of = None;
        request.outputs = outputs;
        bench.roll_out(1, Cursor::Rewind(request));
        bench.run().await;
        let more = vec![Bytes::from_static(MATCH.as_bytes()); 5];
        bench.world().events.extend(more);
        bench.run().await;
        let world = bench.world();
        let (marked, plain): (Vec<_>, Vec<_>) = world
            .alerts
            .values()
            .partition(|alert| alert.replay.is_some());
        let expected = match outputs {
            Outputs::Tag => (5, 2),
            _ => (0, 2),
        };
        assert_eq!((marked.len(), plain.len()), expected, "{outputs:?}");
        let mark = ReplayMark {
            id: id("r"),
            epoch: Epoch(1),
        };
        assert!(
            marked
                .iter()
                .all(|alert| alert.replay.as_ref() == Some(&mark))
        );
        assert_eq!(world.dead_letters.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn an_announcement_is_never_ahead_of_the_file() {
    let mut bench = worked(&[MATCH; 4]).await;
    let more = vec![Bytes::from_static(MATCH.as_bytes()); 6];
    bench.world().events.extend(more);
    bench.ask(rewind(StatePolicy::Keep, 8));
    bench.run().await;
    let world = bench.world();
    let announced = world
        .checkpoints
        .iter()
        .find(|said| said.phase == Phase::Applying)
        .unwrap();
    assert_eq!(announced.position.sequence, StreamSeq(4));
    let applied = world
        .checkpoints
        .iter()
        .find(|said| said.request.is_some() && said.phase == Phase::Started)
        .unwrap();
    assert_eq!(applied.position, Position::before(StreamSeq(8)));
}
