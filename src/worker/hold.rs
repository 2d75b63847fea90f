//! Waiting for a store that is full or does not answer. The batch stays in memory, applied and not
//! committed; the pull is closed, because what a held worker is given it could only let time out. The
//! hold ends by itself when the store takes everything.

use lookback_protocol::checkpoint::{Hold, Phase};
use tracing::{info, warn};

use super::output::Pending;
use super::patience::{LAST_DELAY, Patience, delays, waits_for};
use super::ports::{Checkpoints, Log, Outbox};
use super::run::Worker;
use super::stop::{Ending, Stop};

impl<L: Log, O: Outbox, C: Checkpoints> Worker<L, O, C> {
    /// Returns when everything in `pending` is stored.
    pub(super) async fn hold(
        &mut self,
        mut hold: Hold,
        pending: &mut Pending,
    ) -> Result<(), Ending> {
        warn!(reason = ?hold.reason, message = hold.message, "Holding");
        self.metrics.held.set(1);
        self.stop_pulling(&hold.message).await;
        // A kill while it is held is not the fault of the event in flight.
        self.file.clear_in_flight()?;
        let mut patience = Patience::new();
        let mut delays = delays();
        loop {
            match self.say_held(&hold).await {
                Ok(()) => patience.renew(),
                Err(Stop::Unavailable(error)) => {
                    self.gates.consumer.close(&waits_for(&error));
                    patience.wait(error, &mut self.shutdown).await?;
                }
                Err(stop) => return Err(stop.into()),
            }
            let delay = delays.next().unwrap_or(LAST_DELAY);
            self.shutdown.sleep(delay).await?;
            match self.output.send(pending).await {
                Ok(()) => break,
                Err(still) => {
                    self.gates.consumer.close(&still.message);
                    hold = still;
                }
            }
        }
        self.metrics.held.set(0);
        info!("Hold ended");
        Ok(())
    }

    /// Says in the checkpoint why it is held, once for each reason, and otherwise only looks whether
    /// this partition is still ours.
    async fn say_held(&mut self, hold: &Hold) -> Result<(), Stop> {
        let said = self.fence.written().and_then(|said| said.held.as_ref());
        if said.is_some_and(|said| said.reason == hold.reason) {
            self.fence.check().await?;
            return Ok(());
        }
        self.tell(Phase::Held, Some(hold.clone())).await
    }
}
