//! Kills, restarts, replaced workers, copies of volumes.

use lookback_protocol::termination::ExitReason;

use super::{ALMOST, LAST, SOON, alerts_of, directed, expect, fail, idle, seconds, story};
use crate::case::Setup;

#[test]
fn h01_a_crash_between_commits_loses_no_window() {
    directed(Setup::default(), async |case| {
        case.start();
        let second = ALMOST.map(|event| fail(case, event))[1];
        case.reach(second, SOON).await?;
        idle(case);
        case.kill(false).await;
        case.start();
        fail(case, LAST);
        case.finish().await?;
        expect(
            alerts_of(case, "1") == 1,
            "the window of two and one is one alert",
        )
    });
}

#[test]
fn h02_redelivery_of_events_that_are_committed_and_not_acked_counts_once() {
    directed(Setup::default(), async |case| {
        case.world.lock().faults.ack_lost = 1_000;
        case.start();
        let second = ALMOST.map(|event| fail(case, event))[1];
        case.reach(second, SOON).await?;
        case.kill(true).await;
        case.start();
        seconds(3).await;
        case.finish().await?;
        expect(alerts_of(case, "1") == 0, "two events are not three")
    });
}

#[test]
fn a_kill_at_any_call_changes_nothing() {
    for calls in 0..90 {
        let setup = Setup {
            seed: calls,
            ..Setup::default()
        };
        directed(setup, async |case| {
            story(case);
            case.start();
            case.kill_at_call(calls, SOON).await;
            case.start();
            story(case);
            case.finish().await
        });
    }
}

#[test]
fn a_kill_at_any_call_of_the_next_start_changes_nothing() {
    for calls in 0..40 {
        let setup = Setup {
            seed: calls,
            ..Setup::default()
        };
        directed(setup, async |case| {
            let last = story(case);
            case.start();
            case.reach(last, SOON).await?;
            case.kill(false).await;
            story(case);
            case.start();
            case.kill_at_call(calls, SOON).await;
            case.finish().await
        });
    }
}

#[test]
fn h08_an_idle_restart_keeps_the_position() {
    directed(Setup::default(), async |case| {
        case.start();
        let last = story(case);
        case.reach(last, SOON).await?;
        for _ in 0..2 {
            case.drain(SOON).await?;
            expect(
                case.position_on_volume() == last,
                "the file keeps its position",
            )?;
            expect(case.position() == last, "the checkpoint keeps its position")?;
            case.start();
            seconds(3).await;
        }
        case.finish().await
    });
}

#[test]
fn h14_two_workers_on_one_partition_one_is_fenced() {
    directed(Setup::default(), async |case| {
        case.start();
        let last = story(case);
        case.reach(last, SOON).await?;
        case.leave_as_zombie();
        case.start();
        story(case);
        seconds(10).await;
        story(case);
        case.finish().await?;
        expect(case.zombies.is_empty(), "the older one is gone")
    });
}

#[test]
fn h21_a_second_process_on_one_file_is_refused() {
    directed(Setup::default(), async |case| {
        case.start();
        let last = story(case);
        case.reach(last, SOON).await?;
        let message = case.run_beside().await?;
        expect(
            message.reason == ExitReason::StateLocked,
            "the second is refused",
        )?;
        case.finish().await
    });
}

#[test]
fn an_older_copy_of_the_volume_catches_up_without_a_duplicate() {
    directed(Setup::default(), async |case| {
        case.start();
        let first = story(case);
        case.reach(first, SOON).await?;
        case.drain(SOON).await?;
        let older = case.volume.clone();
        case.start();
        let second = story(case);
        case.reach(second, SOON).await?;
        case.kill(true).await;
        case.world.lock().alerts.move_all_on("triage");
        case.volume = older;
        case.start();
        case.finish().await
    });
}

#[test]
fn a_volume_that_comes_back_empty_is_refused() {
    directed(Setup::default(), async |case| {
        case.start();
        let last = story(case);
        case.reach(last, SOON).await?;
        case.kill(true).await;
        case.volume = None;
        case.start();
        let message = case.end_within(SOON).await?;
        expect(
            message.reason == ExitReason::StateLost,
            "it does not begin anew by itself",
        )
    });
}

#[test]
fn a_worker_drained_while_it_is_held_loses_nothing() {
    directed(Setup::default(), async |case| {
        case.world.lock().faults.store_lost = 1_000;
        story(case);
        case.start();
        seconds(5).await;
        case.drain(SOON).await?;
        case.start();
        case.finish().await
    });
}
