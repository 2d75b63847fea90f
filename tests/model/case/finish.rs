//! The end of a case: no more trouble, everything applied and acknowledged, and the comparison.

use std::time::Duration;

use lookback_protocol::termination::ExitReason;
use tokio::time::sleep;

use super::Case;
use crate::invariants::{self, End};
use crate::scenario;
use crate::sim::Faults;

impl Case {
    /// Ends all faults, lets everything be applied and acknowledged, drains, and compares with the
    /// oracle.
    pub(crate) async fn finish(&mut self) -> Result<(), String> {
        self.world.note(|| "quiesce".to_owned());
        {
            let mut state = self.world.lock();
            state.faults = Faults::default();
            state.alerts.make_room();
            state.dead_letters.make_room();
        }
        self.care().await?;
        self.zombies_end().await?;
        let mut last = 0;
        // Two rounds: the second shows that acks still move the floor.
        for _ in 0..2 {
            last = self.publish("ev.win", scenario::logon("ok", "alice", "h1"));
            self.reach(last, Duration::from_secs(180)).await?;
        }
        self.floor_reaches(last).await?;
        let message = self.drain(Duration::from_secs(60)).await?;
        if message.reason != ExitReason::Drained {
            return Err(format!("a drained worker said {message:?}"));
        }
        self.breaches()?;
        self.compare()
    }

    async fn floor_reaches(&mut self, last: u64) -> Result<(), String> {
        let floor = |case: &Self| {
            let server = |state: &mut crate::sim::State| state.server.consumer.clone();
            case.world.look(server).map_or(0, |it| it.floor.stream)
        };
        for _ in 0..500 {
            if floor(self) == last {
                return Ok(());
            }
            self.care().await?;
            sleep(Duration::from_millis(20)).await;
        }
        Err(format!(
            "everything through {last} is applied, but the ack floor stays at {}",
            floor(self)
        ))
    }

    /// A worker that was replaced learns it with its next checkpoint, so it is given something to say.
    async fn zombies_end(&mut self) -> Result<(), String> {
        for _ in 0..120 {
            if self.zombies.is_empty() {
                return Ok(());
            }
            self.publish("ev.win", scenario::logon("idle", "alice", "h1"));
            sleep(Duration::from_millis(500)).await;
            self.care().await?;
        }
        Err("a worker that was replaced still runs after a minute".to_owned())
    }

    /// Compares what is stored with the oracle; nobody runs.
    pub(crate) fn compare(&self) -> Result<(), String> {
        let checkpoint = self.checkpoint().ok_or("no checkpoint was written")?;
        let volume = self.volume.clone().ok_or("no worker ended")?;
        self.world.look(|state| {
            invariants::check_end(&End {
                config: &self.config,
                log: &state.server.stream,
                unread: (!self.trust_gaps).then_some(&self.unread),
                alerts: &state.alerts,
                dead_letters: &state.dead_letters,
                checkpoint: &checkpoint,
                volume: &volume,
            })
        })
    }
}
