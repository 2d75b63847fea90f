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
    written: Option<Checkpoint>,
    tried_at: Option<Instant>,
    silent_since: Option<Instant>,
}

impl<C: Checkpoints> Fence<C> {
    /// A fence that is not taken over yet: the first [`Fence::write`] does it, from `revision`.
    pub(super) fn new(checkpoints: C, incarnation: String, revision: Option<Revision>) -> Self {
        Self {
            checkpoints,
            incarnation,
            revision,
            written: None,
            tried_at: None,
            silent_since: None,
        }
    }

    pub(super) fn incarnation(&self) -> &str {
        &self.incarnation
    }

    /// What the server last held of this incarnation, as far as is known.
    pub(super) fn written(&self) -> Option<&Checkpoint> {
        self.written.as_ref()
    }

    /// From when on another checkpoint may be written.
    pub(super) fn due(&self) -> Instant {
        self.tried_at.map_or_else(Instant::now, |at| at + APART)
    }

    /// How long every write has failed.
    pub(super) fn silence(&self) -> Duration {
        self.silent_since
            .map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Writes `checkpoint`. When it returns, the server holds it and no other incarnation has written
    /// since ours before it.
    pub(super) async fn write(&mut self, checkpoint: Checkpoint) -> Result<(), Stop> {
        let now = Instant::now();
        self.tried_at = Some(now);
        self.silent_since.get_or_insert(now);
        self.swap(&checkpoint).await?;
        self.silent_since = None;
        self.written = Some(checkpoint);
        Ok(())
    }

    /// Reads the checkpoint from the leader, adopts it with its revision, and gives what it says.
    ///
    /// Revisions only grow, and which of two incarnations is the newer cannot be told from their ids,
    /// which hold clocks of different machines. So another's record below our own revision is one from
    /// before we took over, in a bucket that NATS restored from an older copy.
    ///
    /// # Errors
    /// [`Stop::Fenced`] when another incarnation wrote it after us, [`Stop::CheckpointRegressed`] when
    /// before us.
    pub(super) async fn check(&mut self) -> Result<Checkpoint, Stop> {
        let mine = self.incarnation.clone();
        let Some((found, revision)) = self.checkpoints.load().await? else {
            return Err(Stop::CheckpointDeleted { mine });
        };
        if found.incarnation != mine {
            let other = found.incarnation;
            return Err(match self.revision {
                Some(ours) if revision < ours => Stop::CheckpointRegressed { mine, other },
                _ => Stop::Fenced { mine, other },
            });
        }
        self.revision = Some(revision);
        self.written = Some(found.clone());
        Ok(found)
    }

    async fn swap(&mut self, checkpoint: &Checkpoint) -> Result<(), Stop> {
        loop {
            match self.checkpoints.store(checkpoint, self.revision).await {
                Ok(revision) => {
                    self.revision = Some(revision);
                    return Ok(());
                }
                // Either a stranger's write, or one of ours whose answer was lost.
                Err(CheckpointError::Conflict) => {
                    if self.check().await? == *checkpoint {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
