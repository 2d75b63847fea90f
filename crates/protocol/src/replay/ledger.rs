//! Where a pipeline stands, from what three ledgers say: the status, the consumers' metadata, and the
//! checkpoint, which speaks for the state file. Each may be gone; two of them rebuild the third.

use crate::checkpoint::{Checkpoint, Phase, RequestOutcome};
use crate::config::{Cursor, Rewind};
use crate::consumer::ConsumerMetadata;
use crate::names::Owner;
use crate::position::Epoch;

use super::machine::Written;
use super::record::ReplayPhase;

#[cfg(test)]
mod tests;

/// What the ledgers say.
#[derive(Clone, Copy, Debug)]
pub struct Ledgers<'a> {
    /// Who asks.
    pub me: &'a Owner,
    /// Whose objects are taken over.
    pub adopt: Option<&'a Owner>,
    /// The status.
    pub written: &'a Written,
    /// What the StatefulSet's pods are told: epoch and cursor of its `config.json`.
    pub running: Option<(Epoch, &'a Cursor)>,
    /// What stands in NATS; absent when it did not answer.
    pub nats: Option<NatsLedgers<'a>>,
}

/// The ledgers in NATS, read from the leaders.
#[derive(Clone, Copy, Debug)]
pub struct NatsLedgers<'a> {
    /// The metadata of all consumers of this pipeline's names.
    pub consumers: &'a [ConsumerMetadata],
    /// The checkpoint.
    pub checkpoint: Option<&'a Checkpoint>,
}

/// Where a pipeline stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It was never begun.
    New,
    /// In this epoch, which is what the status says or should say.
    Stands {
        /// The epoch.
        epoch: Epoch,
        /// What it does to a state file of another epoch; the same for the whole life of the epoch.
        cursor: Cursor,
    },
    /// The status is gone while a request was between its consumer and its application.
    Underway {
        /// The epoch of the request.
        epoch: Epoch,
        /// What it does.
        rewind: Rewind,
    },
    /// The status is gone, and NATS does not answer.
    Unknown,
    /// The state is of an epoch that the rest knows nothing of; a person decides. What to do, in one
    /// sentence.
    EpochAhead(String),
    /// Something belongs to another owner; a person decides. What to do, in one sentence.
    OwnedByOther(String),
}

impl Ledgers<'_> {
    /// Where the pipeline stands, first match wins.
    #[must_use]
    pub fn reconcile(&self) -> Standing {
        if let Some(owner) = self.other_owner() {
            return Standing::OwnedByOther(owned_by(&owner));
        }
        if let Some(message) = self.ahead() {
            return Standing::EpochAhead(message);
        }
        let Some(epoch) = self.epoch() else {
            return match self.nats {
                None if self.written.record.is_none() => Standing::Unknown,
                None | Some(_) => Standing::New,
            };
        };
        match self.cursor(epoch) {
            // What runs is of the epoch of the request that is under way.
            None if self
                .written
                .unfinished()
                .is_some_and(|record| record.phase >= ReplayPhase::RollingOut) =>
            {
                Standing::Stands {
                    epoch,
                    cursor: Cursor::Resume { of: Some(epoch) },
                }
            }
            None => Standing::Unknown,
            Some(Cursor::Rewind(rewind)) if self.is_underway(epoch) => {
                Standing::Underway { epoch, rewind }
            }
            Some(cursor) => Standing::Stands { epoch, cursor },
        }
    }

    /// The highest epoch that anything carries; 0 when nothing does.
    #[must_use]
    pub fn highest(&self) -> Epoch {
        let applied = self
            .checkpoint()
            .and_then(|checkpoint| checkpoint.applied.as_ref());
        [
            self.written.highest(),
            self.in_nats_or_running(),
            applied.map(|applied| applied.epoch),
        ]
        .into_iter()
        .flatten()
        .max()
        .unwrap_or_default()
    }

    fn consumers(&self) -> &[ConsumerMetadata] {
        self.nats.map_or(&[], |nats| nats.consumers)
    }

    fn checkpoint(&self) -> Option<&Checkpoint> {
        self.nats.and_then(|nats| nats.checkpoint)
    }

    fn last_consumer(&self) -> Option<Epoch> {
        self.consumers().iter().map(|consumer| consumer.epoch).max()
    }

    fn in_nats_or_running(&self) -> Option<Epoch> {
        let checkpoint = self.checkpoint().map(|checkpoint| checkpoint.epoch);
        let running = self.running.map(|(epoch, _)| epoch);
        self.last_consumer().max(checkpoint).max(running)
    }

    fn other_owner(&self) -> Option<String> {
        let ours = |owner: &str| {
            owner == self.me.to_string()
                || self.adopt.is_some_and(|adopt| owner == adopt.to_string())
        };
        let consumers = self
            .consumers()
            .iter()
            .map(|consumer| consumer.owner.clone());
        let checkpoint = self
            .checkpoint()
            .map(|checkpoint| checkpoint.owner.to_string());
        checkpoint
            .into_iter()
            .chain(consumers)
            .find(|owner| !ours(owner))
    }

    /// What carries an epoch beyond all that could have led to it.
    fn ahead(&self) -> Option<String> {
        let status = self.written.highest();
        let consumers = self.last_consumer();
        let running = self.running.map(|(epoch, _)| epoch);
        let beyond = |found: Option<Epoch>, known: Option<Epoch>| {
            known.is_some_and(|known| found.is_some_and(|found| found > known))
        };
        if beyond(consumers.max(running), status) {
            let found = consumers.max(running).unwrap_or_default();
            return Some(older_status(found, status.unwrap_or_default()));
        }
        let checkpoint = self.checkpoint()?;
        let known = status.max(consumers).max(running);
        // Its consumer may be lost, or never made after a way back: what is left of the consumers is then
        // what the checkpoint itself says it came after.
        let led_here = status.is_none() && consumers.max(running) <= came_after(checkpoint);
        if beyond(Some(checkpoint.epoch), known) && !led_here {
            return Some(unknown_checkpoint(
                checkpoint.epoch,
                known.unwrap_or_default(),
            ));
        }
        None
    }

    fn epoch(&self) -> Option<Epoch> {
        match (self.written.epoch, self.written.unfinished()) {
            (Some(epoch), _) => Some(epoch),
            // The pipeline begins with this request.
            (None, Some(_)) => None,
            (None, None) => self.in_nats_or_running(),
        }
    }

    /// What the epoch does, the same for its whole life; none while that cannot be known.
    fn cursor(&self, of: Epoch) -> Option<Cursor> {
        let running = self.running.filter(|(epoch, _)| *epoch == of);
        let consumer = self
            .consumers()
            .iter()
            .find(|consumer| consumer.epoch == of);
        let made = running
            .map(|(_, cursor)| cursor.clone())
            .or_else(|| consumer.map(|consumer| consumer.cursor.clone()))
            .or_else(|| self.recorded_cursor(of));
        made.or_else(|| {
            let nats = self.nats?;
            let of = nats
                .checkpoint
                .map(|checkpoint| checkpoint.resumes.unwrap_or(of));
            Some(Cursor::Resume { of })
        })
    }

    fn recorded_cursor(&self, of: Epoch) -> Option<Cursor> {
        let record = self.written.record.as_ref()?;
        let way_back = record.way_back.as_ref();
        if way_back.is_some_and(|way_back| way_back.epoch == of) {
            return Some(Cursor::Resume { of: record.of });
        }
        record.cursor().filter(|_| record.epoch == Some(of))
    }

    fn is_underway(&self, of: Epoch) -> bool {
        let consumer = self
            .consumers()
            .iter()
            .find(|consumer| consumer.epoch == of);
        self.written.epoch.is_none()
            && !consumer.is_some_and(|consumer| consumer.applied)
            && !self
                .checkpoint()
                .is_some_and(|checkpoint| is_applied(checkpoint, of))
    }
}

/// The last epoch that may have left a consumer before the epoch of this checkpoint.
fn came_after(checkpoint: &Checkpoint) -> Option<Epoch> {
    let before = Epoch(checkpoint.epoch.0.saturating_sub(1));
    let moved = checkpoint
        .applied
        .as_ref()
        .is_some_and(|applied| applied.epoch == checkpoint.epoch);
    (moved || checkpoint.phase == Phase::TakenBack).then_some(before)
}

/// Whether the checkpoint shows that an epoch has begun on the state file, so that a file that knows
/// nothing of it is an older one.
#[must_use]
pub fn is_applied(checkpoint: &Checkpoint, epoch: Epoch) -> bool {
    let moved = checkpoint
        .applied
        .as_ref()
        .is_some_and(|applied| applied.epoch == epoch);
    let outcome = checkpoint.request.as_ref().map(|request| request.outcome);
    let begun = checkpoint.epoch == epoch
        && !matches!(checkpoint.phase, Phase::Applying | Phase::TakenBack)
        && outcome != Some(RequestOutcome::Applying);
    moved || begun
}

fn owned_by(owner: &str) -> String {
    format!(
        "consumers or the checkpoint belong to {owner}; if that is gone for good, set the annotation lookback.dev/adopt to it, and this pipeline takes them over"
    )
}

fn older_status(found: Epoch, known: Epoch) -> String {
    format!(
        "there is a consumer or a worker of epoch {found}, and the status knows none beyond {known}: it was restored from an older copy. Delete the pipeline with deletionPolicy Retain and create it again: it goes on with epoch {found}"
    )
}

fn unknown_checkpoint(found: Epoch, known: Epoch) -> String {
    format!(
        "the checkpoint is of epoch {found}, and neither the status nor a consumer knows one beyond {known}. If that state is the right one, delete the pipeline with deletionPolicy Retain and its consumers up to epoch {known}, and create it again: it goes on with epoch {found}"
    )
}
