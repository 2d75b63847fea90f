//! A stream, a store or a cursor that is not the one it was.

use std::time::Duration;

use lookback_protocol::termination::ExitReason;

use super::{SOON, directed, expect, seconds, story};
use crate::case::{Case, Setup};
use crate::sim::stream::Stream;

/// Applies a story, ends the worker, and gives the position.
async fn applied(case: &mut Case) -> Result<u64, String> {
    case.start();
    let last = story(case);
    case.reach(last, SOON).await?;
    case.drain(SOON).await?;
    Ok(last)
}

async fn refusal(case: &mut Case) -> Result<ExitReason, String> {
    case.start();
    Ok(case.end_within(SOON).await?.reason)
}

#[test]
fn a_stream_made_again_under_its_name_is_refused() {
    directed(Setup::default(), async |case| {
        let last = applied(case).await?;
        {
            let now = case.world.clock();
            let mut state = case.world.lock();
            state.server.stream = Stream::new(crate::scenario::STREAM, now);
        }
        while story(case) <= last {}
        let reason = refusal(case).await?;
        expect(
            reason == ExitReason::StreamChanged,
            "its sequences mean other events",
        )
    });
}

#[test]
fn a_stream_that_lost_its_tail_is_refused() {
    directed(Setup::default(), async |case| {
        let last = applied(case).await?;
        case.world.lock().server.stream.regress_to(last - 2);
        let reason = refusal(case).await?;
        expect(
            reason == ExitReason::StreamRegressed,
            "applied events are gone",
        )
    });
}

#[test]
fn a_stream_that_used_sequences_twice_is_refused() {
    directed(Setup::default(), async |case| {
        let last = applied(case).await?;
        case.world.lock().server.stream.regress_to(last - 2);
        seconds(1).await;
        while story(case) <= last {}
        let reason = refusal(case).await?;
        expect(
            reason == ExitReason::StreamRegressed,
            "another event stands at the position",
        )
    });
}

#[test]
fn a_running_worker_notices_that_the_stream_lost_its_tail() {
    directed(Setup::default(), async |case| {
        case.start();
        let last = story(case);
        case.reach(last, SOON).await?;
        {
            let now = case.world.now();
            let mut state = case.world.lock();
            state.server.stream.regress_to(last - 2);
            state.server.restart(now);
        }
        let reason = case.end_within(SOON).await?.reason;
        expect(
            reason == ExitReason::StreamRegressed,
            "it looks before it goes on",
        )
    });
}

#[test]
fn a_store_that_lost_alerts_is_refused() {
    directed(Setup::default(), async |case| {
        applied(case).await?;
        case.world.lock().alerts.regress_to(1);
        let reason = refusal(case).await?;
        expect(
            reason == ExitReason::StoreRegressed,
            "stored alerts are gone",
        )
    });
}

#[test]
fn events_that_expired_unread_are_reported_once() {
    directed(Setup::default(), async |case| {
        let last = applied(case).await?;
        story(case);
        case.world.lock().server.stream.expire_through(last + 3);
        case.unread.push(last + 1..=last + 3);
        case.start();
        seconds(5).await;
        case.drain(SOON).await?;
        case.start();
        case.finish().await
    });
}

#[test]
fn a_message_deleted_at_the_position_is_no_mismatch() {
    directed(Setup::default(), async |case| {
        let last = applied(case).await?;
        case.world.lock().server.stream.delete(last);
        case.start();
        case.finish().await
    });
}

#[test]
fn a_position_at_the_end_of_an_expired_stream_is_no_mismatch() {
    directed(Setup::default(), async |case| {
        let last = applied(case).await?;
        case.world.lock().server.stream.expire_through(last);
        case.start();
        seconds(2).await;
        case.finish().await
    });
}

#[test]
fn h20_a_deleted_consumer_ends_the_worker_and_is_not_success() {
    directed(Setup::default(), async |case| {
        case.start();
        seconds(2).await;
        case.world.lock().server.delete_consumer();
        let message = case.end_within(Duration::from_secs(10)).await?;
        expect(message.reason == ExitReason::ConsumerMissing, "it says so")?;
        expect(
            message.reason.exit_code() == 75,
            "it is to be started again",
        )?;
        case.finish().await
    });
}

#[test]
fn events_that_expire_on_their_way_to_a_running_worker_are_reported() {
    directed(Setup::default(), async |case| {
        case.start();
        let last = story(case);
        case.reach(last, SOON).await?;
        case.trust_gaps = true;
        case.world.lock().alerts.fill(200_000);
        for _ in 0..8 {
            story(case);
        }
        seconds(5).await;
        let through = case.world.look(|state| state.server.stream.last()) - 4;
        case.world.lock().server.stream.expire_through(through);
        case.finish().await?;
        let gaps = case.checkpoint().map_or(0, |it| it.gaps.len());
        expect(gaps == 1, "the gap is reported")
    });
}

#[test]
fn a_store_made_again_under_a_running_worker_is_refused() {
    directed(Setup::default(), async |case| {
        case.start();
        let last = story(case);
        case.reach(last, SOON).await?;
        case.world.lock().alerts.regress_to(0);
        story(case);
        let reason = case.end_within(SOON).await?.reason;
        expect(
            reason == ExitReason::StoreRegressed,
            "stored alerts are gone",
        )
    });
}
