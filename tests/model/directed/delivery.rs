//! What a network and a server do to deliveries and acks.

use std::time::Duration;

use super::{ALMOST, LAST, SOON, alerts_of, directed, expect, fail, idle, seconds, story};
use crate::case::{Case, Setup};

#[test]
fn h03_a_stalled_store_does_not_count_twice() {
    let setup = Setup {
        ack_wait: Duration::from_secs(2),
        ..Setup::default()
    };
    directed(setup, async |case| {
        case.start();
        seconds(1).await;
        case.world.lock().faults.store_lost = 1_000;
        for event in ALMOST {
            fail(case, event);
        }
        seconds(30).await;
        case.world.lock().faults.store_lost = 0;
        seconds(30).await;
        case.finish().await?;
        expect(alerts_of(case, "1") == 0, "two events are not three")
    });
}

#[test]
fn h07_a_consumer_made_again_does_not_read_twice() {
    directed(Setup::default(), async |case| {
        case.start();
        let second = ALMOST.map(|event| fail(case, event))[1];
        case.reach(second, SOON).await?;
        case.world.lock().server.delete_consumer();
        seconds(5).await;
        case.finish().await?;
        expect(alerts_of(case, "1") == 0, "two events are not three")
    });
}

#[test]
fn a_consumer_made_again_while_the_worker_was_down_makes_no_duplicate() {
    directed(Setup::default(), async |case| {
        story(case);
        case.start();
        // Stored, and not committed.
        case.kill_at_first_alert().await;
        case.world.lock().alerts.move_all_on("triage");
        case.world.lock().server.delete_consumer();
        case.finish().await
    });
}

#[test]
fn h09_an_old_redelivery_does_not_move_the_position_back() {
    directed(Setup::default(), async |case| {
        case.world.lock().faults.ack_lost = 1_000;
        case.start();
        let last = story(case);
        case.reach(last, SOON).await?;
        {
            let mut state = case.world.lock();
            let consumer = state.server.consumer.as_mut().expect("it exists");
            let unacked = consumer.unacked();
            consumer.redeliver(unacked);
        }
        for _ in 0..100 {
            expect(case.position() >= last, "the position never moves back")?;
            seconds(1).await;
        }
        case.finish().await
    });
}

#[test]
fn h10_an_event_whose_alert_is_not_stored_holds_the_position_back() {
    let setup = Setup {
        commit: lookback_protocol::config::CommitConfig {
            interval_ms: 100,
            events: 1,
        },
        ..Setup::default()
    };
    directed(setup, async |case| {
        case.world.lock().alerts.fill(200_000);
        case.start();
        fail(case, LAST);
        let last = idle(case);
        seconds(20).await;
        expect(
            case.position() == 0,
            "nothing is applied before its alert is stored",
        )?;
        case.world.lock().alerts.make_room();
        case.reach(last, SOON).await?;
        case.finish().await
    });
}

#[test]
fn h11_the_ack_floor_waits_for_the_checkpoint() {
    directed(Setup::default(), async |case| {
        case.start();
        seconds(2).await;
        case.world.lock().faults.checkpoint_lost = 1_000;
        story(case);
        seconds(10).await;
        expect(
            floor(case) == 0,
            "no ack before the checkpoint that covers it",
        )?;
        case.finish().await
    });
}

#[test]
fn h12_the_same_second_is_decided_by_sequence() {
    directed(Setup::default(), async |case| {
        case.start();
        seconds(1).await;
        for _ in 0..4 {
            story(case);
        }
        case.kill_at_call(25, SOON).await;
        expect(case.position_on_volume() > 0, "it was killed in the middle")?;
        case.finish().await
    });
}

#[test]
fn a_hole_at_the_tail_is_seen_by_the_heartbeat() {
    directed(Setup::default(), async |case| {
        case.start();
        seconds(3).await;
        let last = case.with_next_deliveries_lost(|case| {
            fail(case, LAST);
            fail(case, LAST)
        });
        case.reach(last, SOON).await?;
        case.finish().await
    });
}

#[test]
fn a_half_open_old_client_steals_nothing_for_good() {
    directed(Setup::default(), async |case| {
        case.start();
        seconds(2).await;
        case.kill(false).await;
        case.start();
        let last = story(case);
        case.reach(last, SOON).await?;
        case.finish().await
    });
}

#[test]
fn a_cut_in_mid_batch_loses_nothing() {
    for silent in [true, false] {
        directed(Setup::default(), async |case| {
            case.start();
            seconds(2).await;
            let mut last = 0;
            for _ in 0..5 {
                story(case);
                case.cut(silent);
                last = story(case);
                seconds(1).await;
            }
            case.reach(last, Duration::from_secs(60)).await?;
            case.finish().await
        });
    }
}

#[test]
fn a_subscription_of_capacity_one_loses_nothing() {
    directed(Setup::default(), async |case| {
        case.world.lock().server.capacity = 1;
        case.start();
        seconds(2).await;
        let last = story(case);
        case.reach(last, Duration::from_secs(120)).await?;
        case.finish().await
    });
}

#[test]
fn ack_wait_passing_while_held_counts_nothing_twice() {
    let setup = Setup {
        ack_wait: Duration::from_secs(2),
        ..Setup::default()
    };
    directed(setup, async |case| {
        case.world.lock().alerts.fill(200_000);
        case.start();
        story(case);
        seconds(60).await;
        case.world.lock().alerts.make_room();
        case.finish().await
    });
}

#[test]
fn an_alert_moved_while_its_answer_was_lost_is_not_stored_again() {
    directed(Setup::default(), async |case| {
        case.world.lock().faults.create_unanswered = 1_000;
        case.start();
        fail(case, LAST);
        seconds(4).await;
        {
            let mut state = case.world.lock();
            state.alerts.move_all_on("triage");
            state.faults.create_unanswered = 0;
        }
        case.finish().await
    });
}

#[test]
fn a_reset_that_is_carried_out_late_loses_nothing() {
    for seed in 0..20 {
        let setup = Setup {
            seed,
            ..Setup::default()
        };
        directed(setup, async |case| {
            case.world.lock().faults.late_reset = 500;
            case.start();
            for _ in 0..5 {
                story(case);
                seconds(1).await;
                case.cut(true);
            }
            case.finish().await
        });
    }
}

fn floor(case: &Case) -> u64 {
    case.world.look(|state| {
        state
            .server
            .consumer
            .as_ref()
            .map_or(0, |it| it.floor.stream)
    })
}

#[test]
fn a_reset_that_was_lost_is_not_taken_for_done() {
    directed(Setup::default(), async |case| {
        case.start();
        let first = story(case);
        case.reach(first, SOON).await?;
        case.drain(SOON).await?;
        let older = case.volume.clone();
        case.start();
        let second = story(case);
        case.reach(second, SOON).await?;
        // The consumer stands behind the second story, with nothing delivered since.
        case.drain(SOON).await?;
        case.start();
        seconds(2).await;
        case.kill(true).await;
        case.volume = older;
        story(case);
        case.world.lock().faults.reset_lost = 1_000;
        case.start();
        seconds(20).await;
        case.finish().await
    });
}
