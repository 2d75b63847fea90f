//! Checkpoints in the KV bucket, written and read past the client's key-value helpers: those read from
//! any replica, which may be behind, and their create overwrites delete markers.
//!
//! What it guarantees:
//! - [`Checkpoints::load`] is answered by the leader: it sees every write that was acknowledged.
//! - [`Checkpoints::store`] succeeds only if the key's last sequence is the expected one; of several
//!   writers with the same expectation one wins. It survives a killed server with its revision.
//! - [`CheckpointError::Conflict`] can also mean that our own write succeeded and its answer was lost:
//!   load, and compare the incarnation and the body.
//! - A key that a person deleted counts as never written, and can be written again.

use bytes::Bytes;
use futures::StreamExt;
use lookback_protocol::checkpoint::Checkpoint;
use lookback_protocol::names::{Owner, PipelineKey, STATE_BUCKET, STATE_STREAM};

use super::api::{Code, unavailable};
use super::connect::Nats;
use super::ensure::{Deleted, ObjectError};
use super::outbox::expecting;
use super::owned_key::OwnedKey;
use crate::worker::ports::{CheckpointError, Checkpoints, Revision};

/// The checkpoint of one partition; see the [module](self).
#[derive(Clone, Debug)]
pub struct JetStreamCheckpoints {
    nats: Nats,
    key: String,
    subject: String,
    /// The sequence of a delete marker, which a first write must expect; 0 for none.
    marker: u64,
}

impl JetStreamCheckpoints {
    /// The checkpoint of `partition` of `pipeline`. Nothing is asked yet.
    #[must_use]
    pub fn new(nats: Nats, pipeline: &PipelineKey, partition: u32) -> Self {
        Self {
            nats,
            key: pipeline.checkpoint_key(partition),
            subject: pipeline.checkpoint_subject(partition),
            marker: 0,
        }
    }

    fn object(&self) -> String {
        format!("checkpoint {}", self.key)
    }
}

impl Checkpoints for JetStreamCheckpoints {
    async fn load(&mut self) -> Result<Option<(Checkpoint, Revision)>, CheckpointError> {
        let found = self
            .nats
            .last_of_subject(STATE_STREAM, &self.subject)
            .await
            .map_err(|error| unavailable("read", self.object())(error))?;
        self.marker = 0;
        let Some(message) = found else {
            return Ok(None);
        };
        if message.is_marker() {
            self.marker = message.sequence;
            return Ok(None);
        }
        let checkpoint =
            serde_json::from_slice(&message.payload).map_err(CheckpointError::Unreadable)?;
        Ok(Some((checkpoint, Revision(message.sequence))))
    }

    async fn store(
        &mut self,
        checkpoint: &Checkpoint,
        expected: Option<Revision>,
    ) -> Result<Revision, CheckpointError> {
        let body = serde_json::to_vec(checkpoint).map_err(CheckpointError::Unreadable)?;
        let expected = expected.map_or(self.marker, |revision| revision.0);
        let written = self
            .nats
            .publish(self.subject.clone(), expecting(expected), Bytes::from(body))
            .await;
        match written {
            Ok(sequence) => Ok(Revision(sequence)),
            Err(error) if error.code().is_some_and(Code::is_conflict) => {
                Err(CheckpointError::Conflict)
            }
            Err(error) => Err(unavailable("write", self.object())(error).into()),
        }
    }
}

/// Who won the race between the operator, which takes an epoch back, and the worker that begins it.
#[derive(Clone, Debug, PartialEq)]
pub enum TakeBack {
    /// The operator: its checkpoint stands at this revision.
    Won(Revision),
    /// Another write came first, and this is what stands now; `None` when a person deleted it. Should
    /// it be of the operator's own new epoch, then an earlier try had won, and a worker went on from it.
    Lost(Option<Box<(Checkpoint, Revision)>>),
}

/// Writes `checkpoint` over the revision that the decision to do so was made from (`None`: over
/// nothing), and says whether that succeeded: by the answer to the write, or else by what the leader
/// holds. Give the same checkpoint, its incarnation and time too, each time it is tried: by them one's
/// own earlier write is known.
///
/// # Errors
/// [`CheckpointError`]: it is not decided yet, and a write under way may still win. Try again.
pub async fn take_back(
    nats: &Nats,
    partition: u32,
    checkpoint: &Checkpoint,
    expected: Option<Revision>,
) -> Result<TakeBack, CheckpointError> {
    let pipeline = &checkpoint.owner.pipeline;
    let mut checkpoints = JetStreamCheckpoints::new(nats.clone(), pipeline, partition);
    if let Some(decided) = decided(checkpoints.load().await?, checkpoint, expected) {
        return Ok(decided);
    }
    match checkpoints.store(checkpoint, expected).await {
        Ok(revision) => Ok(TakeBack::Won(revision)),
        Err(error) => decided(checkpoints.load().await?, checkpoint, expected).ok_or(error),
    }
}

/// `None` while what stands is what is to be written over.
fn decided(
    stands: Option<(Checkpoint, Revision)>,
    ours: &Checkpoint,
    expected: Option<Revision>,
) -> Option<TakeBack> {
    match stands {
        Some((checkpoint, revision)) if checkpoint == *ours => Some(TakeBack::Won(revision)),
        stands if stands.as_ref().map(|(_, revision)| *revision) == expected => None,
        stands => Some(TakeBack::Lost(stands.map(Box::new))),
    }
}

/// Tells the operator which checkpoints changed, instead of asking for each.
pub struct CheckpointWatch {
    entries: async_nats::jetstream::kv::Watch,
}

/// Why the bucket cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("cannot watch bucket {STATE_BUCKET}")]
pub struct WatchError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl CheckpointWatch {
    /// Watches the bucket: first every checkpoint there is, then each change.
    ///
    /// # Errors
    /// [`WatchError`] when the bucket does not exist or NATS does not answer.
    pub async fn open(nats: &Nats) -> Result<Self, WatchError> {
        let bucket = async_nats::jetstream::new(nats.client().clone())
            .get_key_value(STATE_BUCKET)
            .await
            .map_err(|error| WatchError(error.into()))?;
        let entries = bucket
            .watch_with_history(">")
            .await
            .map_err(|error| WatchError(error.into()))?;
        Ok(Self { entries })
    }

    /// The pipeline and partition whose checkpoint was written or deleted; read it with
    /// [`JetStreamCheckpoints`]. An interruption is passed over: the same watch goes on with what was
    /// written meanwhile. `None` when the watch has ended; open another.
    pub async fn next(&mut self) -> Option<(PipelineKey, u32)> {
        loop {
            match self.entries.next().await? {
                Ok(entry) => {
                    if let Some(changed) = pipeline_of(&entry.key) {
                        return Some(changed);
                    }
                }
                Err(error) => tracing::warn!(%error, "Watch of checkpoints interrupted"),
            }
        }
    }
}

/// Deletes a checkpoint, if it is `owner`'s, up to what was read: a write that comes between survives.
///
/// # Errors
/// [`ObjectError`]: it is another's, or the server did not do it.
pub async fn delete(nats: &Nats, owner: &Owner, partition: u32) -> Result<Deleted, ObjectError> {
    let key = OwnedKey {
        kind: "checkpoint",
        name: owner.pipeline.checkpoint_key(partition),
        subject: owner.pipeline.checkpoint_subject(partition),
        owner,
    };
    key.delete(nats).await
}

fn pipeline_of(key: &str) -> Option<(PipelineKey, u32)> {
    let mut tokens = key.split('.');
    let pipeline = PipelineKey::new(tokens.next()?, tokens.next()?).ok()?;
    let partition = match (tokens.next()?, tokens.next()?, tokens.next()) {
        ("ckpt", partition, None) => partition.parse().ok()?,
        _ => return None,
    };
    Some((pipeline, partition))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_key_names_its_pipeline_and_partition() {
        let pipeline = PipelineKey::new("prod", "edr").unwrap();
        let key = pipeline.checkpoint_key(3);
        assert_eq!(pipeline_of(&key), Some((pipeline, 3)));
    }

    #[test]
    fn a_key_of_something_else_is_passed_over() {
        assert_eq!(pipeline_of("prod.edr.def"), None);
        assert_eq!(pipeline_of("prod.edr.ckpt.0.more"), None);
    }
}
