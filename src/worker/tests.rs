//! Single facts of the loop over the fake world.

use std::time::Duration;

use bytes::Bytes;
use lookback_protocol::checkpoint::{Gap, HoldReason, Phase};
use lookback_protocol::deadletter::Reason;
use lookback_protocol::position::StreamSeq;
use lookback_protocol::termination::ExitReason;

use super::fakes::{Bench, Step};
use super::ports::Lookup;

mod replay;

const MATCH: &str = r#"{"EventID":1}"#;
const OTHER: &str = r#"{"EventID":2}"#;
const PANIC: &str = r#"{"trip":true}"#;

fn gap(from: u64, to: u64) -> Gap {
    Gap {
        from: StreamSeq(from),
        to: StreamSeq(to),
        possible: false,
    }
}

#[tokio::test(start_paused = true)]
async fn everything_in_the_stream_is_applied_and_said() {
    let mut bench = Bench::new(&[OTHER; 12]);
    let ended = bench.run().await;
    assert_eq!(ended.reason, ExitReason::Drained, "{ended:?}");
    let (checkpoint, _) = bench.world().checkpoint.clone().unwrap();
    assert_eq!(checkpoint.phase, Phase::Drained);
    assert_eq!(checkpoint.position.sequence, StreamSeq(12));
    assert_eq!(checkpoint.counters.events, 12);
}

#[tokio::test(start_paused = true)]
async fn an_ack_follows_the_checkpoint_that_follows_the_alerts() {
    let mut bench = Bench::new(&[MATCH; 12]);
    bench.run().await;
    let mut published = 0;
    let mut said = 0;
    let mut acked = 0;
    for step in &bench.world().journal {
        match *step {
            Step::Alert(sequence) => {
                assert!(sequence > acked);
                published = published.max(sequence);
            }
            Step::Checkpoint(sequence) => {
                assert!(sequence <= published);
                said = sequence;
            }
            Step::Ack(sequence) => {
                assert!(sequence <= said);
                acked = sequence;
            }
            Step::Reset(next) => assert_eq!(next, 1),
        }
    }
    assert_eq!(acked, 12);
}

#[tokio::test(start_paused = true)]
async fn a_kill_at_any_await_loses_and_repeats_nothing() {
    for awaits in 1.. {
        let mut bench = Bench::new(&[MATCH, OTHER, MATCH, MATCH, "no json", OTHER, MATCH]);
        let killed = bench.run_and_kill(awaits).await;
        let known = bench.world().alerts.keys().cloned().collect();
        bench.world().moved = known;
        let ended = bench.run().await;
        assert_eq!(ended.reason, ExitReason::Drained, "{awaits}: {ended:?}");
        let world = bench.world();
        assert_eq!(world.alerts.len(), 4, "killed at await {awaits}");
        assert_eq!(world.alerts_stored, 4, "killed at await {awaits}");
        let (checkpoint, _) = world.checkpoint.clone().unwrap();
        assert_eq!(checkpoint.counters.events, 7, "killed at await {awaits}");
        if !killed {
            assert!(awaits > 40, "only {awaits} places to be killed at");
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_kill_at_any_await_of_a_second_run_loses_and_repeats_nothing() {
    for awaits in 1.. {
        let mut bench = Bench::new(&[MATCH; 9]);
        bench.run_and_kill(60).await;
        let known = bench.world().alerts.keys().cloned().collect();
        bench.world().moved = known;
        let killed = bench.run_and_kill(awaits).await;
        let known = bench.world().alerts.keys().cloned().collect();
        bench.world().moved = known;
        bench.run().await;
        assert_eq!(bench.world().alerts_stored, 9, "killed at await {awaits}");
        if !killed {
            return;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_stolen_delivery_is_read_again() {
    let mut bench = Bench::new(&[OTHER; 12]);
    bench.world().steal = true;
    bench.run().await;
    assert_eq!(bench.file().counters().unwrap().events, 12);
}

#[tokio::test(start_paused = true)]
async fn a_stolen_last_delivery_is_read_again() {
    let mut bench = Bench::new(&[OTHER]);
    bench.world().steal = true;
    bench.run().await;
    assert_eq!(bench.file().counters().unwrap().events, 1);
}

#[tokio::test(start_paused = true)]
async fn a_reset_without_an_answer_is_repeated() {
    let mut bench = Bench::new(&[OTHER; 3]);
    bench.world().consumer.as_mut().unwrap().delivered = StreamSeq(2);
    bench.world().deaf_resets = 2;
    bench.run().await;
    assert_eq!(bench.file().counters().unwrap().events, 3);
}

#[tokio::test(start_paused = true)]
async fn what_the_consumer_delivered_before_is_looked_up_first() {
    let mut bench = Bench::new(&[MATCH; 4]);
    bench.world().consumer.as_mut().unwrap().delivered = StreamSeq(2);
    bench.run().await;
    let first = |lookup: &&Lookup| **lookup == Lookup::First;
    assert_eq!(bench.world().lookups.iter().filter(first).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn under_a_consumer_made_anew_everything_is_looked_up_first() {
    let mut bench = Bench::new(&[MATCH; 4]);
    bench.run().await;
    let events = vec![Bytes::from_static(MATCH.as_bytes()); 3];
    bench.world().events.extend(events);
    bench.world().consumer.as_mut().unwrap().delivered = StreamSeq(0);
    bench.world().lookups.clear();
    bench.run().await;
    assert_eq!(bench.world().lookups, [Lookup::First; 3]);
}

/// Before the first commit the file stands where a consumer made anew does.
#[tokio::test(start_paused = true)]
async fn what_an_earlier_process_may_have_stored_without_a_commit_is_looked_up_first() {
    let mut bench = Bench::new(&[]);
    bench.run().await;
    let events = vec![Bytes::from_static(MATCH.as_bytes()); 3];
    bench.world().events.extend(events);
    bench.run().await;
    assert_eq!(bench.world().lookups, [Lookup::First; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_missing_consumer_ends_the_worker() {
    let mut bench = Bench::new(&[]);
    bench.world().consumer = None;
    let ended = bench.run().await;
    assert_eq!(ended.reason, ExitReason::ConsumerMissing);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_lost_applied_events_ends_the_worker() {
    let mut bench = Bench::new(&[OTHER; 4]);
    bench.run().await;
    bench.world().events.truncate(3);
    let ended = bench.run().await;
    assert_eq!(ended.reason, ExitReason::StreamRegressed);
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_whose_answer_was_lost_is_adopted() {
    let mut bench = Bench::new(&[OTHER; 4]);
    bench.world().lose_checkpoint_answer = true;
    let ended = bench.run().await;
    assert_eq!(ended.reason, ExitReason::Drained, "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_was_replaced_stops_before_it_acks() {
    let mut bench = Bench::new(&[]);
    let mut first = Box::pin(super::run(bench.deps(), std::future::pending()));
    let quiet = tokio::time::timeout(Duration::from_secs(10), &mut first).await;
    assert!(quiet.is_err());
    let (mut other, revision) = bench.world().checkpoint.clone().unwrap();
    other.incarnation = "another".to_owned();
    bench.world().checkpoint = Some((other, super::ports::Revision(revision.0 + 1)));
    bench
        .world()
        .events
        .push(Bytes::from_static(OTHER.as_bytes()));
    let ended = first.await;
    assert_eq!(ended.reason, ExitReason::Fenced);
    let acked = |step: &Step| matches!(step, Step::Ack(_));
    assert!(!bench.world().journal.iter().any(acked));
}

/// Incarnation ids hold the clocks of different machines, so they say nothing about which is newer.
#[tokio::test(start_paused = true)]
async fn a_checkpoint_from_before_the_takeover_is_not_taken_for_a_replacement() {
    let mut bench = Bench::new(&[OTHER; 4]);
    bench.run().await;
    let before = bench.world().checkpoint.clone();
    let mut worker = Box::pin(super::run(bench.deps(), std::future::pending()));
    let quiet = tokio::time::timeout(Duration::from_secs(10), &mut worker).await;
    assert!(quiet.is_err());
    bench.world().checkpoint = before;
    bench
        .world()
        .events
        .push(Bytes::from_static(OTHER.as_bytes()));
    let ended = worker.await;
    assert_eq!(ended.reason, ExitReason::NatsUnavailable, "{ended:?}");
    assert!(ended.message.contains("older copy"), "{ended:?}");
}

/// What was said before a reset must stand in NATS when the reset comes, not only once have been there.
#[tokio::test(start_paused = true)]
async fn an_older_checkpoint_of_our_own_is_written_anew_before_the_reset() {
    let mut bench = Bench::new(&[]);
    let mut worker = Box::pin(super::run(bench.deps(), std::future::pending()));
    let quiet = tokio::time::timeout(Duration::from_secs(10), &mut worker).await;
    assert!(quiet.is_err());
    let older = bench.world().checkpoint.clone();
    bench
        .world()
        .events
        .push(Bytes::from_static(OTHER.as_bytes()));
    let quiet = tokio::time::timeout(Duration::from_secs(10), &mut worker).await;
    assert!(quiet.is_err());
    bench.world().checkpoint = older;
    bench.world().steal = true;
    bench
        .world()
        .events
        .push(Bytes::from_static(OTHER.as_bytes()));
    let quiet = tokio::time::timeout(Duration::from_secs(10), &mut worker).await;
    assert!(quiet.is_err());
    let world = bench.world();
    let reset = world
        .journal
        .iter()
        .rposition(|step| matches!(step, Step::Reset(_)));
    assert_eq!(
        world.journal[reset.unwrap() - 1..=reset.unwrap()],
        [Step::Checkpoint(1), Step::Reset(2)]
    );
}

#[tokio::test(start_paused = true)]
async fn a_full_store_holds_and_heals() {
    let mut bench = Bench::new(&[MATCH; 7]);
    bench.world().alerts_full = 20;
    bench.run().await;
    let world = bench.world();
    assert_eq!(world.alerts.len(), 7);
    let held = |reason| {
        let said = world
            .checkpoints
            .iter()
            .filter_map(|said| said.held.as_ref());
        said.filter(|hold| hold.reason == reason).count()
    };
    assert_eq!(held(HoldReason::AlertsFull), 1);
    assert_eq!(world.checkpoints.last().unwrap().held, None);
}

#[tokio::test(start_paused = true)]
async fn a_held_worker_drains_without_committing() {
    let mut bench = Bench::new(&[MATCH; 7]);
    bench.world().alerts_full = u32::MAX;
    let ended = bench.run().await;
    assert_eq!(ended.reason, ExitReason::Drained);
    assert_eq!(bench.file().position().unwrap().sequence, StreamSeq(0));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_cannot_be_decoded_is_parked_and_passed() {
    let mut bench = Bench::new(&[OTHER, "", MATCH]);
    bench.run().await;
    let world = bench.world();
    assert_eq!(world.dead_letters.len(), 1);
    assert_eq!(world.dead_letters[0].reason, Reason::Empty);
    assert_eq!(world.dead_letters[0].delivery.sequence, StreamSeq(2));
    assert_eq!(world.alerts.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_panics_twice_is_parked_alone() {
    let mut bench = Bench::new(&[MATCH, PANIC, MATCH, PANIC, MATCH, MATCH]);
    bench.run().await;
    let world = bench.world();
    let parked: Vec<_> = world
        .dead_letters
        .iter()
        .map(|letter| (letter.reason, letter.delivery.sequence.0, &*letter.error))
        .collect();
    assert_eq!(
        parked,
        [
            (Reason::EnginePanic, 2, "tripped"),
            (Reason::EnginePanic, 4, "tripped")
        ]
    );
    assert_eq!(world.alerts.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn an_event_with_which_the_process_died_too_often_is_parked() {
    let mut bench = Bench::new(&[]);
    bench.run().await;
    for _ in 0..3 {
        let mut file = bench.file();
        file.set_in_flight(StreamSeq(2)).unwrap();
        file.note_start().unwrap();
    }
    let events = vec![Bytes::from_static(MATCH.as_bytes()); 3];
    bench.world().events.extend(events);
    bench.run().await;
    let world = bench.world();
    assert_eq!(world.dead_letters.len(), 1);
    assert_eq!(world.dead_letters[0].reason, Reason::CrashLoop);
    assert_eq!(world.dead_letters[0].delivery.sequence, StreamSeq(2));
    assert_eq!(world.alerts.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn kills_with_other_events_in_flight_park_nobody() {
    let mut bench = Bench::new(&[]);
    bench.run().await;
    for sequence in 1..=3 {
        let mut file = bench.file();
        file.set_in_flight(StreamSeq(sequence)).unwrap();
        file.note_start().unwrap();
    }
    let events = vec![Bytes::from_static(MATCH.as_bytes()); 3];
    bench.world().events.extend(events);
    bench.run().await;
    assert_eq!(bench.world().dead_letters, []);
    assert_eq!(bench.world().alerts.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn events_that_expired_before_the_start_are_reported() {
    let mut bench = Bench::new(&[OTHER; 9]);
    bench.world().first = 5;
    bench.run().await;
    assert_eq!(bench.file().gaps().unwrap(), [gap(1, 4)]);
    let (checkpoint, _) = bench.world().checkpoint.clone().unwrap();
    assert_eq!(checkpoint.gaps, [gap(1, 4)]);
}

#[tokio::test(start_paused = true)]
async fn events_that_expire_under_way_are_reported() {
    let mut bench = Bench::new(&[OTHER; 9]);
    bench.world().expire = Some((2, 7));
    bench.run().await;
    assert_eq!(bench.file().gaps().unwrap(), [gap(3, 6)]);
    assert_eq!(bench.file().counters().unwrap().events, 5);
}
