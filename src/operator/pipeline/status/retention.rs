//! What leaves the source stream before it is read. The worker that is slow, suspended or about to go
//! back loses events when the stream's limits pass the next one it is to read.

use jiff::{SignedDuration, Timestamp};
use lookback_protocol::checkpoint::Checkpoint;
use lookback_protocol::position::StreamSeq;
use lookback_protocol::replay::record::{Record, ReplayPhase};

use super::{Observation, worker};
use crate::api::conditions::Reason;
use crate::operator::pipeline::facts::{Fill, ServerFacts, SourceFacts};
use crate::operator::pipeline::problem::Problem;

/// The share of a limit, as 1 in this many, that must be left before the next unread event goes.
const SAFE_SHARE: u32 = 5;

/// The next event to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Next {
    /// Its sequence, or one below it.
    sequence: StreamSeq,
    /// A time at or before which it was stored; unknown before the first commit.
    stored: Option<Timestamp>,
}

/// The limit that will pass the next unread event soon, if one will.
pub(super) fn expiring(observation: &Observation<'_>, server: &ServerFacts) -> Option<Problem> {
    let source = server.source.as_ref()?;
    let record = observation
        .pipeline
        .status
        .as_ref()
        .and_then(|status| status.replay.as_ref());
    let unread = unread(server, worker::checkpoint(observation))
        .into_iter()
        .chain(record.and_then(ahead));
    let passing = unread
        .filter_map(|next| passing(next, source, observation.now))
        .next()?;
    let stream = &source.identity.name;
    let remedy = if observation.pipeline.spec.suspend {
        "set spec.suspend: false"
    } else {
        "give the worker more CPU"
    };
    Some(Problem::new(
        Reason::RetentionLow,
        format!(
            "events of stream {stream} that are not read yet leave it when another fifth of its {passing} is used up: {remedy}, or raise {passing}"
        ),
    ))
}

/// What the worker reads next, when there is anything.
fn unread(server: &ServerFacts, checkpoint: Option<&Checkpoint>) -> Option<Next> {
    let behind = server
        .consumer
        .as_ref()
        .is_some_and(|consumer| consumer.pending > 0);
    let position = checkpoint?.position;
    behind.then_some(Next {
        sequence: position.sequence.next(),
        stored: position.published,
    })
}

/// What a replay will read first, until its worker has begun.
fn ahead(record: &Record) -> Option<Next> {
    let plan = record.plan.as_ref()?;
    let waits = record.phase < ReplayPhase::StateApplied && record.way_back.is_none();
    let back = plan.read_back.as_ref();
    let seconds = back.and_then(|back| i64::try_from(back.seconds_available).ok());
    let span = SignedDuration::from_secs(seconds.unwrap_or(0));
    waits.then(|| Next {
        sequence: back.map_or(plan.start, |back| back.from),
        stored: plan
            .start_time
            .and_then(|start| start.checked_sub(span).ok()),
    })
}

/// The limit of which less than a fifth is left before it takes `next`.
fn passing(next: Next, source: &SourceFacts, now: Timestamp) -> Option<&'static str> {
    if next.sequence > source.last {
        return None;
    }
    let by_age = || {
        let age = now.duration_since(next.stored?);
        let limit = source.max_age?;
        (limit - age < limit / i32::try_from(SAFE_SHARE).ok()?).then_some("max_age")
    };
    let fills = [("max_msgs", source.messages), ("max_bytes", source.bytes)];
    let mut fills = fills
        .into_iter()
        .filter(|(_, fill)| is_short(next, source, *fill));
    by_age().or_else(|| fills.next().map(|(name, _)| name))
}

/// A limit takes the oldest messages first. What may still come in before it takes `next` is what is
/// free, and what is held by messages before it; those are taken to be as large as the others.
fn is_short(next: Next, source: &SourceFacts, fill: Fill) -> bool {
    let Some(limit) = fill.limit.filter(|limit| *limit > 0) else {
        return false;
    };
    let first = source.first.0;
    let span = source.last.0.saturating_sub(first) + 1;
    let before = next.sequence.0.saturating_sub(first).min(span);
    let held_before = u128::from(fill.held) * u128::from(before) / u128::from(span);
    let free = u128::from(limit.saturating_sub(fill.held));
    (free + held_before) * u128::from(SAFE_SHARE) < u128::from(limit)
}

#[cfg(test)]
mod tests;
