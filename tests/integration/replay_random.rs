//! A random walk: requests of every kind, taken out and repeated, while everything dies. Whatever came of
//! each request, the state file is what the requests that were completed made of it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lookback_dev::support::eventually;
use lookback_protocol::position::Epoch;
use lookback_protocol::replay::record::ReplayPhase;
use serde_json::{Value, json};

use crate::operator_fixture::{SOON, STREAM, find};
use crate::replay_fixture::{Dice, in_ledger, story_applied, with_replay};
use crate::stand::Stand;

const STEPS: usize = 16;

/// A pipeline, and what was asked of it.
struct Walk {
    stand: Stand,
    dice: Dice,
    blocks: Vec<Value>,
    spec: Value,
    /// What was done, for people.
    story: Vec<String>,
}

impl Walk {
    async fn begin(seed: u64) -> Result<Self> {
        let dice = Dice::new(seed);
        let stand = story_applied(300).await?;
        Ok(Self {
            spec: stand.spec(),
            stand,
            dice,
            blocks: Vec::new(),
            story: Vec::new(),
        })
    }

    fn tell(&mut self, what: impl Into<String>) {
        self.story.push(what.into());
    }

    async fn step(&mut self) -> Result<()> {
        match self.dice.below(14) {
            0..=5 => self.ask_anew().await,
            6 => self.ask_again().await,
            7 => {
                self.tell("takes the block out");
                self.spec = self.stand.spec();
                self.apply().await
            }
            8 => {
                self.tell("kills the operator");
                self.stand.kill_operator().await?;
                self.stand.start_operator().await
            }
            9 => {
                self.tell("kills the worker, if one runs");
                let kill = self.stand.kubelet.kill();
                tokio::time::timeout(Duration::from_millis(200), kill)
                    .await
                    .ok();
                Ok(())
            }
            10 => {
                self.tell("kills NATS");
                self.stand.world.nats.kill();
                self.stand.world.nats.restart().await
            }
            11 => {
                self.spec["suspend"] = json!(self.dice.below(2) == 0);
                self.tell(format!("sets suspend: {}", self.spec["suspend"]));
                self.apply().await
            }
            12 => self.lose_consumer().await,
            _ => {
                self.tell("publishes");
                self.stand.publish_story(100).await
            }
        }
    }

    async fn ask_anew(&mut self) -> Result<()> {
        let last = self.stand.last().await?;
        let policy = ["Auto", "Clear", "Keep", "Rebuild"][self.dice.pick(4)];
        let outputs = ["Live", "Tag", "Suppress"][self.dice.pick(3)];
        let mut block = json!({
            "id": format!("r{}", self.blocks.len()), "statePolicy": policy, "outputs": outputs,
        });
        match self.dice.below(4) {
            0 => block["latest"] = json!(true),
            _ => block["fromSequence"] = json!(1 + self.dice.below(last + 1)),
        }
        self.tell(format!("asks for {block}"));
        self.spec = with_replay(&self.stand, block.clone());
        self.blocks.push(block);
        self.apply().await
    }

    async fn ask_again(&mut self) -> Result<()> {
        if self.blocks.is_empty() {
            return Ok(());
        }
        let block = self.blocks[self.dice.pick(self.blocks.len())].clone();
        self.tell(format!("asks again for {}", block["id"]));
        self.spec = with_replay(&self.stand, block);
        self.apply().await
    }

    async fn lose_consumer(&mut self) -> Result<()> {
        let epoch = self.stand.checkpoint().await?.epoch;
        self.tell(format!("loses the consumer of epoch {epoch}"));
        let source = self.stand.js.get_stream_no_info(STREAM).await?;
        let name = self.stand.key().consumer(0, Epoch(epoch.0));
        // It may be gone already.
        source.delete_consumer(&name).await.ok();
        Ok(())
    }

    async fn run(&mut self) -> Result<()> {
        for _ in 0..STEPS {
            self.step().await?;
            let pause = self.dice.millis(10, 2_000);
            let done = self
                .stand
                .condition("ReplayInProgress", "False", "Completed");
            tokio::time::timeout(pause, done).await.ok();
        }
        self.end().await
    }

    async fn apply(&self) -> Result<()> {
        self.stand.apply(&self.spec).await?;
        Ok(())
    }

    /// Lets it come to rest, and compares.
    async fn end(&mut self) -> Result<()> {
        self.spec["suspend"] = json!(false);
        let applied = self.stand.apply(&self.spec).await?;
        let generation = applied.metadata.generation;
        let stand = &mut self.stand;
        eventually(2 * SOON, "nothing is left to do", async || {
            let status = stand.status().await?;
            let accepted = find(&status, "ReplayAccepted")?;
            let waits = ["Queued", "Throttled"].contains(&&*accepted.reason);
            ensure!(
                !waits && status.observed_generation == generation,
                "{accepted:#?}"
            );
            let open = status.replay.filter(|record| !record.phase.is_final());
            ensure!(open.is_none(), "{open:#?}, {:#?}", status.conditions);
            Ok(())
        })
        .await?;
        stand.publish_story(50).await?;
        let epoch = stand.caught_up().await?.epoch.0;
        let digest = stand.equals_oracle().await?;
        let status = stand.status().await?;
        ensure!(status.epoch == i64::try_from(epoch).ok(), "{status:#?}");
        let history = status.replay_history.iter();
        let done = history.filter(|one| one.phase == ReplayPhase::Completed);
        let done: BTreeMap<_, _> = done
            .map(|one| {
                let epoch = one.epoch.context("completed without an epoch")?.0;
                Ok((epoch, one.id.as_str()))
            })
            .collect::<Result<_>>()?;
        let done: Vec<_> = done.into_iter().map(|(epoch, id)| (id, epoch)).collect();
        let told = in_ledger(&digest);
        ensure!(told == done, "the file says {told:?}, the status {done:?}");
        stand.stored_alerts().await?;
        Ok(())
    }
}

async fn walk(seed: u64) -> Result<()> {
    let mut walk = Walk::begin(seed).await?;
    let ended = walk.run().await;
    ended.with_context(|| format!("seed {seed}: {:#?}", walk.story))
}

#[tokio::test]
async fn whatever_happens_the_state_is_what_the_completed_requests_made() -> Result<()> {
    walk(1).await
}
