//! What a request would do, said before anything is done: the start as one sequence, what becomes of
//! the windows and why, how much is to be read, and what a person should know of it.
//!
//! # Order of calls
//! 1. Read what [`Facts`] holds, once: a plan speaks of one moment.
//! 2. Call [`plan`]. When it stops with [`Stop::Find`] or [`Stop::Count`], put the answer of the stream's
//!    leader into [`Answers`] and call it again, until it gives a plan or a [`Rejection`]. It asks each
//!    question once, and about seven in all.
//! 3. Write the plan down. It is never made again for the same request, so that a relative start, a
//!    time or `latest` does not drift.
//! 4. When the worker of the epoch before has stopped, and before the next is started, call
//!    [`check_again`].

mod approved;
mod facts;
mod read_back;
mod rejection;
mod summary;
#[cfg(test)]
mod tests;

use jiff::Timestamp;

pub use self::approved::check_again;
pub use self::facts::{Answers, Bounds, Facts, Find, Message, Range, Stop, StoredState};
pub use self::rejection::Rejection;
pub use self::summary::summary;
use super::record::{Plan, Windows};
use super::request::{OnTruncated, ReplayRequest, ReplayStart, StatePolicy};
use super::restore::{Reason, RestoreStart, decide_windows};
use crate::position::{Position, StreamSeq};

/// Plans a request, or says what is still to be asked.
///
/// # Errors
/// [`Stop`] with the next question, or with the reason why the request cannot work.
pub fn plan(request: &ReplayRequest, facts: &Facts<'_>, answers: &Answers) -> Result<Plan, Stop> {
    read_back::permitted(request.state_policy, facts)?;
    let state = state(request.state_policy, facts, answers)?;
    let (start, truncated) = resolve(request, facts, answers)?;
    let position = state.position();
    let (windows, reason) = match state {
        State::Foreign(reason) => (of_foreign_state(request.state_policy), reason),
        _ => decide_windows(
            request.state_policy,
            position,
            restore_start(request, start),
        ),
    };
    let next = if start > facts.stream.last {
        None
    } else {
        answers.find(Find::FirstUnderFilter(start))?
    };
    let start_time = next.map(|message| message.published);
    let read_back = match windows {
        Windows::Rebuilt => Some(read_back::read_back(start, start_time, facts, answers)?),
        Windows::Kept | Windows::Dropped => None,
    };
    let last = answers.find(Find::LastUnderFilter)?;
    let target = last.map_or(StreamSeq(0), |message| message.sequence);
    let from = read_back.as_ref().map_or(start, |back| back.from);
    let messages = answers.count(from, target)?;
    let (mut gap, mut double_counted) = (0, 0);
    if let Some(position) = position {
        let ahead = answers.count(start, target)?;
        let unread = answers.count(position.next().max(facts.stream.first()), target)?;
        gap = unread.saturating_sub(ahead);
        if windows == Windows::Kept {
            double_counted = ahead.saturating_sub(unread);
        }
    }
    let rate = facts.rate.filter(|rate| *rate > 0);
    let mut plan = Plan {
        hash: String::new(),
        start,
        start_time,
        target,
        messages,
        bytes: bytes(messages, facts.stream),
        eta_seconds: rate.map(|rate| messages.div_ceil(rate)),
        position,
        truncated,
        gap,
        double_counted,
        windows,
        reason: reason.to_string(),
        groups: facts.state.map_or(0, |state| state.groups),
        read_back,
        known_alerts: facts.known_alerts,
    };
    plan.hash = approved::hash(request, &facts.stream.identity, &plan);
    Ok(plan)
}

/// The state that would be moved.
enum State {
    /// There is none.
    None,
    /// It has applied the stream up to here.
    At(StreamSeq),
    /// It has applied something else.
    Foreign(Reason),
}

impl State {
    fn position(&self) -> Option<StreamSeq> {
        match self {
            Self::At(position) => Some(*position),
            Self::None | Self::Foreign(_) => None,
        }
    }
}

/// Windows of another stream can be left behind, never kept, and comparing their position with a start
/// in this one means nothing.
fn state(policy: StatePolicy, facts: &Facts<'_>, answers: &Answers) -> Result<State, Stop> {
    let Some(state) = facts.state else {
        return Ok(State::None);
    };
    let (stream, position) = (facts.stream, state.position);
    let (reason, rejection) = if state.stream != stream.identity {
        let rejection = Rejection::StreamChanged {
            made_from: state.stream.clone(),
            now: stream.identity.clone(),
            policy,
        };
        (Reason::StreamChanged, rejection)
    } else if position.sequence > stream.last {
        let rejection = Rejection::StreamRegressed {
            position: position.sequence,
            last: stream.last,
            policy,
        };
        (Reason::StreamRegressed, rejection)
    } else {
        let Some(found) = reused(position, stream, answers)? else {
            return Ok(State::At(position.sequence));
        };
        let rejection = Rejection::SequenceReused {
            position: position.sequence,
            found,
            policy,
        };
        (Reason::StreamRegressed, rejection)
    };
    if policy.begins_anew() {
        Ok(State::Foreign(reason))
    } else {
        Err(rejection.into())
    }
}

/// When the message at the position was stored, if it is not the one that was applied.
fn reused(
    position: Position,
    stream: &Bounds,
    answers: &Answers,
) -> Result<Option<Timestamp>, Stop> {
    let Some(applied) = position.published else {
        return Ok(None);
    };
    if position.sequence < stream.first() {
        return Ok(None);
    }
    let found = answers.find(Find::At(position.sequence))?;
    let found = found.map(|message| message.published);
    Ok(found.filter(|found| *found != applied))
}

fn of_foreign_state(policy: StatePolicy) -> Windows {
    match policy {
        StatePolicy::Rebuild => Windows::Rebuilt,
        StatePolicy::Auto | StatePolicy::Keep | StatePolicy::Clear => Windows::Dropped,
    }
}

fn restore_start(request: &ReplayRequest, start: StreamSeq) -> RestoreStart {
    match request.start {
        ReplayStart::Latest(_) => RestoreStart::Latest,
        ReplayStart::FromSequence(_) | ReplayStart::FromTime(_) => RestoreStart::Sequence(start),
    }
}

/// The start as one sequence, and whether what was asked for has left the stream.
fn resolve(
    request: &ReplayRequest,
    facts: &Facts<'_>,
    answers: &Answers,
) -> Result<(StreamSeq, bool), Stop> {
    let stream = facts.stream;
    let (first, end) = (stream.first(), stream.last.next());
    let (start, truncated) = match request.start {
        ReplayStart::Latest(_) => (end, false),
        ReplayStart::FromSequence(asked) if asked > end => {
            return Err(Rejection::BeyondEnd {
                asked,
                last: stream.last,
            }
            .into());
        }
        ReplayStart::FromSequence(asked) => (asked.max(first), asked < first && !stream.is_whole()),
        ReplayStart::FromTime(asked) if asked > facts.now => {
            return Err(Rejection::InFuture {
                asked,
                now: facts.now,
            }
            .into());
        }
        ReplayStart::FromTime(asked) => {
            let found = answers.find(Find::Since(asked.max(Timestamp::UNIX_EPOCH)))?;
            let start = found.map_or(end, |message| message.sequence.max(first));
            (start, left_by(asked, stream))
        }
    };
    if truncated && request.on_truncated == OnTruncated::Fail {
        return Err(Rejection::truncated(request.start, stream).into());
    }
    Ok((start, truncated))
}

/// Whether messages stored at or after `asked` may have left the stream at its beginning.
fn left_by(asked: Timestamp, stream: &Bounds) -> bool {
    let covered = match (stream.first_time, stream.last_time) {
        (Some(first), _) => first <= asked,
        (None, Some(last)) => last < asked,
        (None, None) => false,
    };
    !stream.is_whole() && !covered
}

fn bytes(messages: u64, stream: &Bounds) -> u64 {
    let all = u128::from(messages) * u128::from(stream.bytes);
    u64::try_from(all / u128::from(stream.messages.max(1))).unwrap_or(u64::MAX)
}
