//! The checkpoint as a fence. Every write is a compare-and-swap on the revision of our last one, so of
//! two workers on one partition the older learns of the newer with its next write, before its next
//! ack. A write whose answer was lost is told from a stranger's by the incarnation in the record.

use std::time::Duration;

use lookback_protocol::checkpoint::Checkpoint;
use tokio::time::Instant;

use super::ports::{CheckpointError, Checkpoints, Revision};
use super::stop::Stop;

/// Checkpoints are at least this far apart, unless the phase changes.
const APART: Duration = Duration::from_secs(1);

/// The checkpoint of this partition, held by this incarnation.
pub(super) struct Fence<C> {
    checkpoints: C,
    incarnation: String,
    revision: Option<Revision>,
    written: Option<(Checkpoint, Instant)>,
}

impl<C: Checkpoints> Fence<C> {
    /// A fence that is not taken over yet: the first [`Fence::write`] does it, from `revision`.
    pub(super) fn new(checkpoints: C, incarnation: String, revision: Option<Revision>) -> Self {
        Self {
            checkpoints,
            incarnation,
            revision,
            written: None,
        }
    }

    pub(super) fn incarnation(&self) -> &str {
        &self.incarnation
    }

    /// What this incarnation last wrote.
    pub(super) fn written(&self) -> Option<&Checkpoint> {
        self.written.as_ref().map(|(checkpoint, _)| checkpoint)
    }

    /// From when on another checkpoint may be written.
    pub(super) fn due(&self) -> Instant {
        self.written
            .as_ref()
            .map_or_else(Instant::now, |(_, at)| *at + APART)
    }

    /// Writes `checkpoint`. When it returns, the server holds it and no other incarnation has written
    /// since ours before it.
    pub(super) async fn write(&mut self, checkpoint: Checkpoint) -> Result<(), Stop> {
        loop {
            match self.checkpoints.store(&checkpoint, self.revision).await {
                Ok(revision) => {
                    self.revision = Some(revision);
                    break;
                }
                // Either a stranger's write, or one of ours whose answer was lost.
                Err(CheckpointError::Conflict) => {
                    if self.check().await? == checkpoint {
                        break;
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        self.written = Some((checkpoint, Instant::now()));
        Ok(())
    }

    /// Reads the checkpoint from the leader, adopts its revision, and gives what it says.
    ///
    /// # Errors
    /// [`Stop::Fenced`] when another incarnation wrote it.
    pub(super) async fn check(&mut self) -> Result<Checkpoint, Stop> {
        let mine = self.incarnation.clone();
        let Some((found, revision)) = self.checkpoints.load().await? else {
            return Err(Stop::CheckpointDeleted { mine });
        };
        if found.incarnation != mine {
            let other = found.incarnation;
            return Err(Stop::Fenced { mine, other });
        }
        self.revision = Some(revision);
        Ok(found)
    }
}
