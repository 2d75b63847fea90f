//! The checkpoint port over the modelled key. Bodies go through their wire format.

use lookback::worker::ports::{CheckpointError, Checkpoints, Revision};
use lookback_protocol::checkpoint::Checkpoint;

use super::{Faults, State, Way, World, unavailable};
use crate::invariants;

/// One process's way to the checkpoint.
#[derive(Debug)]
pub(crate) struct SimCheckpoints {
    world: World,
    process: u64,
}

impl SimCheckpoints {
    pub(crate) fn new(world: &World, process: u64) -> Self {
        Self {
            world: world.clone(),
            process,
        }
    }

    async fn request<T>(
        &self,
        operation: &'static str,
        carry_out: impl FnOnce(&mut State) -> T,
    ) -> Result<T, CheckpointError> {
        let failed = || CheckpointError::from(unavailable(operation, "checkpoint"));
        let way = self.world.travel(self.process, lost).await;
        if way == Way::Lost {
            return Err(failed());
        }
        let answer = carry_out(&mut self.world.lock());
        self.world.travel_back(self.process, way).await;
        if way == Way::Unanswered {
            return Err(failed());
        }
        Ok(answer)
    }
}

impl Checkpoints for SimCheckpoints {
    async fn load(&mut self) -> Result<Option<(Checkpoint, Revision)>, CheckpointError> {
        let value = self
            .request("leader get", |state| state.checkpoint.value.clone())
            .await?;
        value
            .map(|(body, revision)| {
                let checkpoint = serde_json::from_slice(&body);
                Ok((
                    checkpoint.map_err(CheckpointError::Unreadable)?,
                    Revision(revision),
                ))
            })
            .transpose()
    }

    async fn store(
        &mut self,
        checkpoint: &Checkpoint,
        expected: Option<Revision>,
    ) -> Result<Revision, CheckpointError> {
        let body = serde_json::to_vec(checkpoint).expect("a checkpoint is JSON");
        let process = self.process;
        invariants::checkpoint_is_not_ahead(&self.world, process, checkpoint);
        let written = self
            .request("compare-and-swap", |state| {
                let written = state.checkpoint.write(body, expected.map(|it| it.0));
                if written.is_some()
                    && let Some(process) = state.processes.get_mut(&process)
                {
                    process.checkpointed = checkpoint.position.sequence.0;
                }
                written
            })
            .await?;
        self.world.note(|| {
            let Checkpoint {
                phase, position, ..
            } = checkpoint;
            format!(
                "w{process} checkpoint {phase:?} {} {written:?}",
                position.sequence
            )
        });
        written.map(Revision).ok_or(CheckpointError::Conflict)
    }
}

fn lost(faults: &Faults) -> (u64, u64) {
    (faults.checkpoint_lost, faults.checkpoint_unanswered)
}
