//! What the cursor of a worker asks of the file that it finds.

use crate::checkpoint::{Checkpoint, Phase};
use crate::config::{Cursor, Rewind};
use crate::position::Epoch;
use crate::replay::record::Windows;
use crate::replay::restore::{Reason, decide_windows};

use super::{FileFacts, FileState, StartFacts};

/// What is to become of the file.
#[derive(Clone, Debug)]
pub(super) enum Course<'a> {
    /// It goes on where it stands.
    GoOn(&'a FileState),
    /// It is moved.
    Apply {
        rewind: &'a Rewind,
        windows: Windows,
        reason: Reason,
        /// What the volume holds, whichever epoch it is of.
        file: Option<&'a FileState>,
    },
    /// There is none, and there never was one.
    Fresh,
    /// It is not the one it should be.
    Lost(Found),
}

/// What was found in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing.
    Nothing,
    /// A file of another epoch, as on a volume that was restored from an older copy.
    Epoch(Epoch),
}

pub(super) fn course<'a>(facts: &'a StartFacts<'a>) -> Course<'a> {
    let file = match &facts.file {
        FileFacts::State(file) => Some(&**file),
        FileFacts::Empty | FileFacts::Corrupt(_) | FileFacts::NewerSchema { .. } => None,
    };
    if let Some(file) = file.filter(|file| goes_on(facts, file)) {
        return Course::GoOn(file);
    }
    let lost = Course::Lost(file.map_or(Found::Nothing, |file| Found::Epoch(file.epoch)));
    if has_begun(facts) {
        return lost;
    }
    match facts.told.cursor {
        Cursor::Rewind(rewind) => apply(facts, rewind, file).unwrap_or(lost),
        Cursor::Resume { .. } if file.is_none() && state_said(facts).is_none() => Course::Fresh,
        Cursor::Resume { .. } => lost,
    }
}

/// The file is of this epoch, or this epoch goes on with it, or its request moved it already.
fn goes_on(facts: &StartFacts<'_>, file: &FileState) -> bool {
    file.epoch == facts.told.epoch
        || match facts.told.cursor {
            Cursor::Resume { of } => leads_to(*of, file),
            Cursor::Rewind(rewind) => file.ledger.iter().any(|row| row.id == rewind.request_id),
        }
}

/// Whether nothing but epochs that were taken back before they moved anything lies between `of` and the
/// file: whether a worker of one of them raised the file's epoch, nobody can see.
fn leads_to(of: Option<Epoch>, file: &FileState) -> bool {
    of.is_some_and(|of| of <= file.epoch)
}

/// Whether anyone saw this epoch, or its request, on a state file.
fn has_begun(facts: &StartFacts<'_>) -> bool {
    let epoch = facts.told.epoch;
    let id = match facts.told.cursor {
        Cursor::Rewind(rewind) => Some(&rewind.request_id),
        Cursor::Resume { .. } => None,
    };
    let said = facts.checkpoint.is_some_and(|checkpoint| {
        let applied = checkpoint.applied.as_ref();
        (checkpoint.epoch == epoch && is_of_a_file(checkpoint.phase))
            || applied.is_some_and(|applied| applied.epoch == epoch || Some(&applied.id) == id)
    });
    said || facts.consumer_applied
}

/// The other phases are written before the epoch has touched a file.
fn is_of_a_file(phase: Phase) -> bool {
    match phase {
        Phase::Started | Phase::Held | Phase::Drained => true,
        Phase::Applying | Phase::TakenBack => false,
    }
}

/// The checkpoint, if there was a state file behind it.
fn state_said<'a>(facts: &StartFacts<'a>) -> Option<&'a Checkpoint> {
    facts.checkpoint.filter(|checkpoint| {
        is_of_a_file(checkpoint.phase) || checkpoint.position.published.is_some()
    })
}

/// Nothing when the windows are to be kept and these are not the ones.
fn apply<'a>(
    facts: &StartFacts<'a>,
    rewind: &'a Rewind,
    file: Option<&'a FileState>,
) -> Option<Course<'a>> {
    let moved = file.filter(|file| leads_to(rewind.of, file));
    let said = state_said(facts);
    // Without the file itself what was said of it decides, so that windows which the plan kept are
    // not dropped without a word.
    let stored = moved
        .map(|file| file.position.sequence)
        .or_else(|| said.map(|checkpoint| checkpoint.position.sequence));
    let (windows, reason) = decide_windows(rewind.state_policy, stored, rewind.restore_start());
    let at_hand = match file {
        Some(_) => moved.is_some(),
        None => rewind.of.is_none() && said.is_none(),
    };
    match windows {
        Windows::Kept if !at_hand => None,
        Windows::Kept | Windows::Dropped | Windows::Rebuilt => Some(Course::Apply {
            rewind,
            windows,
            reason,
            file,
        }),
    }
}
