//! Why a worker stops instead, and the verb that ends it.

use std::fmt::Display;

use crate::checkpoint::Checkpoint;
use crate::names::Owner;
use crate::position::{Position, StreamSeq};
use crate::termination::{ExitReason, TerminationMessage};

use super::course::{Course, Found};
use super::{FileFacts, FileState, MessageAt, StartFacts, StoreFacts};

pub(super) const BEGIN_ANEW: &str =
    "to begin anew, delete the pipeline with deletionPolicy Delete and create it again";
pub(super) const REWIND: &str = "ask for a replay with a new id and statePolicy Clear or Rebuild";
const NO_FACTS: [(&str, &str); 0] = [];

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
                    "stream {stream} acknowledged sequence {acknowledged} and now ends at {last}: the server lost what was stored; restore the stream, or {REWIND}: what it reads again is stored again"
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

/// Whose and of which epoch the file is.
pub(super) fn of_the_file(facts: &StartFacts<'_>) -> Option<TerminationMessage> {
    unreadable(facts)
        .or_else(|| owned_by_other(facts))
        .or_else(|| fenced(facts))
}

/// What the streams say of the state that counts under `course`.
pub(super) fn of_the_streams(
    facts: &StartFacts<'_>,
    course: &Course<'_>,
) -> Option<TerminationMessage> {
    let state = State::of(facts, course);
    stream_changed(facts, &state)
        .or_else(|| stream_regressed(facts, &state))
        .or_else(|| state.stores.iter().find_map(StoreFacts::regression))
}

/// What a sequence or a stream is compared with.
struct State<'a> {
    file: Option<&'a FileState>,
    checkpoint: Option<&'a Checkpoint>,
    /// Where it will stand; nothing when it is refused anyhow.
    begins: Option<Position>,
    stores: &'a [StoreFacts],
}

impl<'a> State<'a> {
    fn of(facts: &'a StartFacts<'a>, course: &Course<'a>) -> Self {
        let checkpoint = facts.checkpoint;
        let stores = facts.stores.as_slice();
        match course {
            Course::GoOn(file) => Self {
                file: Some(file),
                checkpoint,
                begins: Some(file.position),
                stores,
            },
            Course::Apply { rewind, file, .. } => {
                let begins = Some(Position::before(rewind.first()));
                if rewind.state_policy.begins_anew() {
                    Self {
                        file: None,
                        checkpoint: None,
                        begins,
                        stores: &[],
                    }
                } else {
                    Self {
                        file: *file,
                        checkpoint,
                        begins,
                        stores,
                    }
                }
            }
            Course::Fresh => Self {
                file: None,
                checkpoint,
                begins: Some(Position::before(facts.told.start)),
                stores,
            },
            Course::Lost(_) => Self {
                file: None,
                checkpoint,
                begins: None,
                stores,
            },
        }
    }
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
    let told = &facts.told;
    let is_ours = |owner: &Owner| owner == told.owner || Some(owner) == told.adopt;
    let (what, owner, partition) = match (&facts.file, facts.checkpoint) {
        (FileFacts::State(file), _)
            if !is_ours(&file.owner) || file.partition != told.partition =>
        {
            ("state file", &file.owner, file.partition)
        }
        (_, Some(checkpoint)) if !is_ours(&checkpoint.owner) => {
            ("checkpoint", &checkpoint.owner, told.partition)
        }
        _ => return None,
    };
    let adopt = if partition == told.partition {
        format!(
            "if nothing else works for it, annotate the pipeline with lookback.dev/adopt={owner}, else "
        )
    } else {
        String::new()
    };
    Some(TerminationMessage::new(
        ExitReason::OwnedByOther,
        format!(
            "the {what} belongs to {owner} partition {partition}, this worker is {} partition {}; {adopt}give this pipeline a name or a volume of its own",
            told.owner, told.partition
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

fn stream_changed(facts: &StartFacts<'_>, state: &State<'_>) -> Option<TerminationMessage> {
    let now = &facts.stream.identity;
    let (who, before) = [
        ("the state file is", state.file.map(|file| &file.stream)),
        (
            "the checkpoint is",
            state.checkpoint.map(|checkpoint| &checkpoint.stream),
        ),
        ("this worker was started", Some(facts.told.stream)),
    ]
    .into_iter()
    .filter_map(|(who, stream)| Some((who, stream?)))
    .find(|&(_, stream)| stream != now)?;
    Some(TerminationMessage::new(
        ExitReason::StreamChanged,
        format!(
            "{who} for stream {} created {}, but stream {} was created {}: its sequences mean other events; {REWIND}",
            before.name, before.created, now.name, now.created
        ),
        pairs([
            ("expected", &before.created as &dyn Display),
            ("created", &now.created),
        ]),
    ))
}

fn stream_regressed(facts: &StartFacts<'_>, state: &State<'_>) -> Option<TerminationMessage> {
    let name = &facts.stream.identity.name;
    let last = facts.stream.last;
    // An older copy of the volume may stand before what was lost; then the checkpoint is the witness.
    let witness = [
        state.begins.map(|position| position.sequence),
        state.file.map(|file| file.position.sequence),
        state
            .checkpoint
            .map(|checkpoint| checkpoint.position.sequence),
    ]
    .into_iter()
    .flatten()
    .max()
    .unwrap_or(StreamSeq(0));
    if witness > last {
        return Some(TerminationMessage::new(
            ExitReason::StreamRegressed,
            format!(
                "position {witness} is beyond the last sequence {last} of stream {name}: the server lost messages that were applied; restore the stream, or {REWIND}"
            ),
            pairs([
                ("position", &witness as &dyn Display),
                ("lastSequence", &last),
            ]),
        ));
    }
    let position = state.file?.position;
    match (position.published, facts.at_position) {
        (Some(stored), MessageAt::Published(found)) if stored != found => {
            Some(TerminationMessage::new(
                ExitReason::StreamRegressed,
                format!(
                    "message {} of stream {name} was published {stored} when it was applied and {found} now: the server lost messages and used their sequences again; restore the stream, or {REWIND}",
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

pub(super) fn state_lost(facts: &StartFacts<'_>, found: Found) -> TerminationMessage {
    let epoch = facts.told.epoch;
    let expected = match facts.checkpoint {
        Some(checkpoint) => format!(
            "the checkpoint says epoch {} at position {}",
            checkpoint.epoch, checkpoint.position.sequence
        ),
        None if facts.consumer_applied => format!("the consumer says that epoch {epoch} has begun"),
        None => format!("epoch {epoch} goes on with a state file"),
    };
    let found = match found {
        Found::Nothing => "the volume is empty".to_owned(),
        Found::Epoch(epoch) => format!("the volume holds a state file of epoch {epoch}"),
    };
    let position = facts
        .checkpoint
        .map(|checkpoint| ("position", checkpoint.position.sequence));
    TerminationMessage::new(
        ExitReason::StateLost,
        format!(
            "{expected}, but {found}: the windows are lost; restore the volume, set spec.state.onLoss, or {REWIND}"
        ),
        position.map(|(key, value)| (key, value.to_string())),
    )
}

fn pairs<const N: usize>(facts: [(&str, &dyn Display); N]) -> [(String, String); N] {
    facts.map(|(key, value)| (key.to_owned(), value.to_string()))
}
