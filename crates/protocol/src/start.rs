//! What a worker does when it opens its state file: one ordered table over what it observed, first
//! match wins. A mismatch is never guessed away; the worker stops and says which verb ends it.

use std::fmt::Display;

use jiff::Timestamp;

use crate::checkpoint::{Checkpoint, Gap};
use crate::names::Owner;
use crate::position::{Epoch, Position, StreamIdentity, StreamSeq};
use crate::termination::{ExitReason, TerminationMessage};

#[cfg(test)]
mod tests;

const BEGIN_ANEW: &str =
    "to begin anew, delete the pipeline with deletionPolicy Delete and create it again";

/// Everything the decision looks at.
#[derive(Clone, Debug)]
pub struct StartFacts<'a> {
    /// What the operator told this worker.
    pub told: Told<'a>,
    /// What the volume holds.
    pub file: FileFacts,
    /// The partition's checkpoint, read from the leader.
    pub checkpoint: Option<&'a Checkpoint>,
    /// The source stream, read from the leader.
    pub stream: StreamFacts,
    /// The message at the file's position, read from the leader.
    pub at_position: MessageAt,
    /// The highest stream sequence the consumer ever delivered; lost by a reset, so read before it.
    pub consumer_delivered: Option<StreamSeq>,
    /// The pipeline's own streams.
    pub stores: Vec<StoreFacts>,
}

/// The part of the configuration that the decision needs.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// Whose worker this is.
    pub owner: &'a Owner,
    /// Its partition.
    pub partition: u32,
    /// Its epoch.
    pub epoch: Epoch,
    /// The source stream as the operator saw it.
    pub stream: &'a StreamIdentity,
    /// Where a brand-new state file begins.
    pub start: StreamSeq,
    /// Whether only some subjects are read.
    pub filtered: bool,
}

/// What the volume holds.
#[derive(Clone, Debug)]
pub enum FileFacts {
    /// No state file, or one in which nothing was ever written.
    Empty,
    /// A file that SQLite or our checks refuse.
    Corrupt(String),
    /// A file of a newer version.
    NewerSchema {
        /// Its schema version.
        found: u32,
        /// The newest this build knows.
        supported: u32,
    },
    /// A state file.
    State(FileState),
}

/// The identity and position of a state file.
#[derive(Clone, Debug)]
pub struct FileState {
    /// Whose it is.
    pub owner: Owner,
    /// Which partition's.
    pub partition: u32,
    /// The stream it was made from.
    pub stream: StreamIdentity,
    /// The epoch it was last used in.
    pub epoch: Epoch,
    /// What it has applied.
    pub position: Position,
    /// The highest sequence whose alerts may be stored although no commit covers it.
    pub published_through: StreamSeq,
    /// Ranges already reported as expired unread, oldest first.
    pub gaps: Vec<Gap>,
}

/// The source stream now.
#[derive(Clone, Debug)]
pub struct StreamFacts {
    /// Name and creation time.
    pub identity: StreamIdentity,
    /// The first sequence still in it; last + 1 when empty.
    pub first: StreamSeq,
    /// The last sequence ever stored.
    pub last: StreamSeq,
}

/// What the leader answered for one sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageAt {
    /// Stored at that time.
    Published(Timestamp),
    /// No such message: expired, deleted, or never stored; the stream's bounds tell which.
    Absent,
}

/// One of the pipeline's own streams.
#[derive(Clone, Debug)]
pub struct StoreFacts {
    /// Its name.
    pub stream: String,
    /// The last sequence it acknowledged to this state file; 0 for none.
    pub acknowledged: u64,
    /// The last sequence it holds or held.
    pub last: u64,
}

impl StoreFacts {
    /// Why this stream cannot be used: it lost what it acknowledged.
    #[must_use]
    pub fn regression(&self) -> Option<TerminationMessage> {
        let Self {
            stream,
            acknowledged,
            last,
        } = self;
        (acknowledged > last).then(|| {
            TerminationMessage::new(
                ExitReason::StoreRegressed,
                format!(
                    "stream {stream} acknowledged sequence {acknowledged} and now ends at {last}: the server lost what was stored; restore the stream, or {BEGIN_ANEW}"
                ),
                pairs([
                    ("stream", stream as &dyn Display),
                    ("acknowledged", acknowledged),
                    ("lastSequence", last),
                ]),
            )
        })
    }
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartDecision {
    /// Stop and say why.
    Refuse(TerminationMessage),
    /// Go on after `position`.
    Resume(Begin),
    /// Begin a new state file before `told.start`.
    Fresh(Begin),
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
    let refusal = unreadable(facts)
        .or_else(|| owned_by_other(facts))
        .or_else(|| fenced(facts))
        .or_else(|| stream_changed(facts))
        .or_else(|| stream_regressed(facts))
        .or_else(|| store_regressed(facts))
        .or_else(|| state_lost(facts));
    if let Some(message) = refusal {
        return StartDecision::Refuse(message);
    }
    match &facts.file {
        FileFacts::State(file) => StartDecision::Resume(begin(
            facts,
            file.position,
            file.published_through,
            &file.gaps,
        )),
        FileFacts::Empty | FileFacts::Corrupt(_) | FileFacts::NewerSchema { .. } => {
            let position = Position::before(facts.told.start);
            StartDecision::Fresh(begin(facts, position, StreamSeq(0), &[]))
        }
    }
}

fn begin(facts: &StartFacts<'_>, position: Position, stored: StreamSeq, gaps: &[Gap]) -> Begin {
    let said = facts.checkpoint.map_or(StreamSeq(0), |checkpoint| {
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

fn unreadable(facts: &StartFacts<'_>) -> Option<TerminationMessage> {
    match &facts.file {
        FileFacts::Corrupt(error) => Some(TerminationMessage::new(
            ExitReason::Corrupt,
            format!(
                "the state file cannot be read ({error}); it is left as it is; restore the volume from a copy, or {BEGIN_ANEW}"
            ),
            NO_FACTS,
        )),
        FileFacts::NewerSchema { found, supported } => Some(TerminationMessage::new(
            ExitReason::NewerSchema,
            format!(
                "the state file has schema {found}, this worker knows up to {supported}; run the newer version again"
            ),
            [
                ("found", found.to_string()),
                ("supported", supported.to_string()),
            ],
        )),
        FileFacts::Empty | FileFacts::State(_) => None,
    }
}

fn owned_by_other(facts: &StartFacts<'_>) -> Option<TerminationMessage> {
    let mine = (facts.told.owner, facts.told.partition);
    let (what, owner, partition) = match (&facts.file, facts.checkpoint) {
        (FileFacts::State(file), _) if (&file.owner, file.partition) != mine => {
            ("state file", &file.owner, file.partition)
        }
        (_, Some(checkpoint)) if &checkpoint.owner != mine.0 => {
            ("checkpoint", &checkpoint.owner, mine.1)
        }
        _ => return None,
    };
    Some(TerminationMessage::new(
        ExitReason::OwnedByOther,
        format!(
            "the {what} belongs to {owner} partition {partition}, this worker is {} partition {}; give this pipeline a name or a volume of its own",
            mine.0, mine.1
        ),
        pairs([("owner", owner as &dyn Display), ("partition", &partition)]),
    ))
}

fn fenced(facts: &StartFacts<'_>) -> Option<TerminationMessage> {
    let mine = facts.told.epoch;
    let in_file = match &facts.file {
        FileFacts::State(file) => Some(file.epoch),
        _ => None,
    };
    let newest = in_file.max(facts.checkpoint.map(|checkpoint| checkpoint.epoch))?;
    (newest > mine).then(|| {
        TerminationMessage::new(
            ExitReason::Fenced,
            format!("epoch {newest} has begun, this worker was started for epoch {mine}"),
            pairs([("epoch", &mine as &dyn Display), ("newest", &newest)]),
        )
    })
}

fn stream_changed(facts: &StartFacts<'_>) -> Option<TerminationMessage> {
    let now = &facts.stream.identity;
    let in_file = match &facts.file {
        FileFacts::State(file) => Some(&file.stream),
        _ => None,
    };
    let in_checkpoint = facts.checkpoint.map(|checkpoint| &checkpoint.stream);
    let (who, before) = [
        ("the state file is", in_file),
        ("the checkpoint is", in_checkpoint),
        ("this worker was started", Some(facts.told.stream)),
    ]
    .into_iter()
    .filter_map(|(who, stream)| Some((who, stream?)))
    .find(|&(_, stream)| stream != now)?;
    Some(TerminationMessage::new(
        ExitReason::StreamChanged,
        format!(
            "{who} for stream {} created {}, but stream {} was created {}: its sequences mean other events; {BEGIN_ANEW}",
            before.name, before.created, now.name, now.created
        ),
        pairs([
            ("expected", &before.created as &dyn Display),
            ("created", &now.created),
        ]),
    ))
}

fn stream_regressed(facts: &StartFacts<'_>) -> Option<TerminationMessage> {
    let position = match &facts.file {
        FileFacts::State(file) => file.position,
        _ => Position::before(facts.told.start),
    };
    let name = &facts.stream.identity.name;
    let last = facts.stream.last;
    // An older copy of the volume may stand before what was lost; then the checkpoint is the witness.
    let witness = facts.checkpoint.map_or(position.sequence, |checkpoint| {
        checkpoint.position.sequence.max(position.sequence)
    });
    if witness > last {
        return Some(TerminationMessage::new(
            ExitReason::StreamRegressed,
            format!(
                "position {witness} is beyond the last sequence {last} of stream {name}: the server lost messages that were applied; restore the stream, or {BEGIN_ANEW}"
            ),
            pairs([
                ("position", &witness as &dyn Display),
                ("lastSequence", &last),
            ]),
        ));
    }
    match (position.published, facts.at_position) {
        (Some(stored), MessageAt::Published(found)) if stored != found => {
            Some(TerminationMessage::new(
                ExitReason::StreamRegressed,
                format!(
                    "message {} of stream {name} was published {stored} when it was applied and {found} now: the server lost messages and used their sequences again; restore the stream, or {BEGIN_ANEW}",
                    position.sequence
                ),
                pairs([
                    ("position", &position.sequence as &dyn Display),
                    ("published", &stored),
                    ("found", &found),
                ]),
            ))
        }
        _ => None,
    }
}

fn store_regressed(facts: &StartFacts<'_>) -> Option<TerminationMessage> {
    facts.stores.iter().find_map(StoreFacts::regression)
}

fn state_lost(facts: &StartFacts<'_>) -> Option<TerminationMessage> {
    let (FileFacts::Empty, Some(checkpoint)) = (&facts.file, facts.checkpoint) else {
        return None;
    };
    let position = checkpoint.position.sequence;
    Some(TerminationMessage::new(
        ExitReason::StateLost,
        format!(
            "the checkpoint says position {position}, but the volume is empty: the windows are lost; restore the volume, or {BEGIN_ANEW}"
        ),
        pairs([("position", &position as &dyn Display)]),
    ))
}

const NO_FACTS: [(&str, &str); 0] = [];

fn pairs<const N: usize>(facts: [(&str, &dyn Display); N]) -> [(String, String); N] {
    facts.map(|(key, value)| (key.to_owned(), value.to_string()))
}
