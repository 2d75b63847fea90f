//! How far a Rebuild reads back, and whether that makes the windows exactly what they would be.
//!
//! A group is kept for its timespan and `allowedLateness` after its newest event or the time that one was
//! stored; that event may itself have been stored `allowedLateness` after its own time; the window holds
//! events of one timespan before it, which also decide whether the condition held; and an event is stored
//! at most `maxFutureSkew` before its own time. Along a chain of correlations the timespans add up. So
//! everything that is in a window at the start was stored no longer before it than twice the longest chain
//! and twice the lateness, and the skew.

use jiff::{SignedDuration, Timestamp};

use super::{Answers, Facts, Find, Rejection, Stop};
use crate::config::TimestampFallback;
use crate::position::StreamSeq;
use crate::replay::record::ReadBack;
use crate::replay::request::StatePolicy;

pub(super) fn permitted(policy: StatePolicy, facts: &Facts<'_>) -> Result<(), Rejection> {
    let wall_clock = facts.correlation.timestamp_fallback == TimestampFallback::WallClock;
    if policy == StatePolicy::Rebuild && wall_clock {
        return Err(Rejection::NotDeterministic);
    }
    Ok(())
}

/// Reads back from a `start` at or before which nothing under the filter was stored before
/// `start_time`. A message that is still to come is stored after the last one there is.
pub(super) fn read_back(
    start: StreamSeq,
    start_time: Option<Timestamp>,
    facts: &Facts<'_>,
    answers: &Answers,
) -> Result<ReadBack, Stop> {
    let stream = facts.stream;
    let seconds_needed = seconds_needed(facts);
    let Some(base) = start_time.or(stream.last_time) else {
        return Ok(exactness(start, seconds_needed, 0, facts));
    };
    let span = SignedDuration::from_secs(i64::try_from(seconds_needed).unwrap_or(i64::MAX));
    let since = base.checked_sub(span).unwrap_or(Timestamp::UNIX_EPOCH);
    let since = since.max(Timestamp::UNIX_EPOCH);
    let found = answers.find(Find::Since(since))?;
    let from = found.map_or(start, |message| {
        message.sequence.max(stream.first()).min(start)
    });
    let oldest = stream.first_time.unwrap_or(base);
    let available = base.duration_since(oldest).as_secs();
    let available = u64::try_from(available).unwrap_or(0).min(seconds_needed);
    Ok(exactness(from, seconds_needed, available, facts))
}

fn seconds_needed(facts: &Facts<'_>) -> u64 {
    let settings = facts.correlation;
    let seconds = |value: i64| u64::try_from(value).unwrap_or(0);
    facts
        .longest_chain_seconds
        .saturating_add(seconds(settings.allowed_lateness_seconds))
        .saturating_mul(2)
        .saturating_add(seconds(settings.max_future_skew_seconds))
}

/// Reading the whole stream is a single pass, whatever its windows and however late its events.
fn exactness(from: StreamSeq, needed: u64, available: u64, facts: &Facts<'_>) -> ReadBack {
    let mut because = Vec::new();
    if from > StreamSeq(1) {
        if available < needed && !facts.stream.is_whole() {
            because.push(format!(
                "of the {needed} s before the start only {available} s are still in the stream"
            ));
        }
        if facts.session_windows {
            because
                .push("where a session window begins depends on everything before it".to_owned());
        }
        match facts.state {
            None => because.push("no worker has said yet whether events come late".to_owned()),
            Some(state) if state.late > 0 => because.push(format!(
                "{} events came later than allowedLateness, so others may be missing in windows",
                state.late
            )),
            Some(_) => {}
        }
        let limit = facts.correlation.limits.groups;
        if facts.state.is_some_and(|state| state.groups >= limit) {
            because.push(format!(
                "there are {limit} groups, as many as the limit allows: which are evicted depends on \
                 what came before"
            ));
        }
    }
    ReadBack {
        from,
        seconds_needed: needed,
        seconds_available: available,
        exact: because.is_empty(),
        inexact_because: because.join("; "),
    }
}
