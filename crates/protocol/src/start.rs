//! What a worker does when it opens its state file: one ordered table over what it observed, first
//! match wins. A mismatch is never guessed away; the worker stops and says which verb ends it.
//!
//! 1. A file that cannot be read, or belongs to another, or is of a later epoch: refused.
//! 2. What its cursor asks of this file: to go on, to move it, to begin a new one, or that the file is
//!    not the one it should be (`course`).
//! 3. What the streams say of the state that counts then: of the file that goes on, of the checkpoint
//!    when the file is lost, and of neither when windows and position begin anew (`refusal`).

use crate::checkpoint::{Gap, RequestOutcome, RequestProgress};
use crate::config::Rewind;
use crate::position::{Position, StreamSeq};
use crate::replay::record::Windows;
use crate::replay::restore::Reason;
use crate::termination::TerminationMessage;

mod course;
mod facts;
mod outputs;
mod refusal;
#[cfg(test)]
mod tests;

pub use facts::{FileFacts, FileState, MessageAt, StartFacts, StoreFacts, StreamFacts, Told};
pub use outputs::{Fate, OutputRule};

use course::{Course, course};

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartDecision {
    /// Stop and say why.
    Refuse(TerminationMessage),
    /// Move the file, once the checkpoint says that this is about to happen.
    Apply(Box<Apply>),
    /// The request moved this file in an earlier epoch: go on after `position`.
    AlreadyApplied(Begin),
    /// Go on after `position`.
    Resume(Begin),
    /// Begin a new state file before `told.start`.
    Fresh(Begin),
}

/// How a request moves the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Apply {
    /// The request.
    pub rewind: Rewind,
    /// What becomes of the windows.
    pub windows: Windows,
    /// Why.
    pub reason: Reason,
    /// From where it goes on then.
    pub begin: Begin,
}

impl Apply {
    /// Whether it needs nothing of the state before, and so also ends what is wrong with it.
    #[must_use]
    pub fn begins_anew(&self) -> bool {
        self.rewind.state_policy.begins_anew()
    }
}

/// From where, and what may already have happened beyond it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begin {
    /// The last sequence applied.
    pub position: Position,
    /// Up to here an alert may be stored already, in any state.
    pub published_through: StreamSeq,
    /// Events that expired unread and are not yet reported.
    pub gap: Option<Gap>,
}

/// The table.
#[must_use]
pub fn decide(facts: &StartFacts<'_>) -> StartDecision {
    if let Some(message) = refusal::of_the_file(facts) {
        return StartDecision::Refuse(message);
    }
    let course = course(facts);
    if let Some(message) = refusal::of_the_streams(facts, &course) {
        return StartDecision::Refuse(message);
    }
    match course {
        Course::Lost(found) => StartDecision::Refuse(refusal::state_lost(facts, found)),
        Course::GoOn(file) => {
            let begin = begin(facts, file.position, file.published_through, &file.gaps);
            match file.progress(facts.told.cursor, facts.told.epoch) {
                Some(RequestProgress {
                    outcome: RequestOutcome::AlreadyApplied,
                    ..
                }) => StartDecision::AlreadyApplied(begin),
                _ => StartDecision::Resume(begin),
            }
        }
        Course::Fresh => {
            let position = Position::before(facts.told.start);
            StartDecision::Fresh(begin(facts, position, StreamSeq(0), &[]))
        }
        Course::Apply {
            rewind,
            windows,
            reason,
            file,
        } => StartDecision::Apply(Box::new(Apply {
            rewind: rewind.clone(),
            windows,
            reason,
            begin: begin_moved(facts, rewind, windows, file),
        })),
    }
}

fn begin(facts: &StartFacts<'_>, position: Position, stored: StreamSeq, gaps: &[Gap]) -> Begin {
    let now = &facts.stream.identity;
    let said = facts
        .checkpoint
        .filter(|checkpoint| checkpoint.stream == *now)
        .map_or(StreamSeq(0), |checkpoint| {
            checkpoint
                .published_through
                .max(checkpoint.position.sequence)
        });
    let delivered = facts.consumer_delivered.unwrap_or_default();
    Begin {
        position,
        published_through: stored.max(said).max(delivered),
        gap: unread(facts, position, gaps),
    }
}

/// After a move the file does not tell what an epoch before may have published, so it is taken to be
/// everything the stream holds. Sequences of another stream say nothing about this one.
fn begin_moved(
    facts: &StartFacts<'_>,
    rewind: &Rewind,
    windows: Windows,
    file: Option<&FileState>,
) -> Begin {
    let file = file.filter(|file| file.stream == facts.stream.identity);
    let stored = file.map_or(StreamSeq(0), |file| file.published_through);
    let gaps = match (windows, file) {
        (Windows::Kept, Some(file)) => file.gaps.as_slice(),
        _ => &[],
    };
    let position = Position::before(rewind.first());
    begin(facts, position, stored.max(facts.stream.last), gaps)
}

/// The part of what expired unread that no earlier start reported.
fn unread(facts: &StartFacts<'_>, position: Position, reported: &[Gap]) -> Option<Gap> {
    let known = reported.iter().map(|gap| gap.to).max().unwrap_or_default();
    let from = position.sequence.max(known).next();
    let to = facts.stream.first.previous();
    (from <= to).then_some(Gap {
        from,
        to,
        possible: facts.told.filtered,
    })
}
