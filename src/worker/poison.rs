//! Events that break the engine. A panic does not say which event of a batch caused it, and a process
//! that died says nothing at all, so the events are applied one at a time, each with a commit of its
//! own, until the one that is to blame is alone: the event that panics twice is parked, and so is the
//! event with which, alone in flight, the process died `maxAttempts` times.

use lookback_protocol::deadletter::Reason;
use tracing::{error, warn};

use super::batch::{Applied, Panic};
use super::ports::{Checkpoints, Delivery, Log, Outbox};
use super::run::Worker;
use super::stop::{Ending, Stop};

/// An event that panics this often is parked.
pub(super) const PANICS: u32 = 2;

impl<L: Log, O: Outbox, C: Checkpoints> Worker<L, O, C> {
    /// Counts this start. After too many at one position the first events, as many as a batch may
    /// hold, are applied one at a time.
    pub(super) fn count_start(&mut self) -> Result<(), Stop> {
        let tries = self.file.note_start()?;
        if tries > self.config.dead_letters.max_attempts {
            warn!(
                tries,
                "No progress since the last starts, applying events one at a time"
            );
            self.one_at_a_time = self.config.commit.events;
        }
        Ok(())
    }

    /// Applies, publishes and commits one batch.
    pub(super) async fn process(&mut self, batch: Vec<Delivery>) -> Result<(), Ending> {
        if self.one_at_a_time > 0 {
            return self.process_one_at_a_time(batch).await;
        }
        let began = std::time::Instant::now();
        match self.engine.apply(&batch, (self.clock)()) {
            Ok(None) => Ok(()),
            Ok(Some(applied)) => {
                let seconds = began.elapsed().as_secs_f64();
                self.metrics.batch_seconds.observe(seconds);
                self.settle(applied).await
            }
            Err(Panic { message }) => {
                error!(
                    message,
                    "The engine panicked, applying the batch one event at a time"
                );
                self.restore()?;
                self.process_one_at_a_time(batch).await
            }
        }
    }

    async fn process_one_at_a_time(&mut self, batch: Vec<Delivery>) -> Result<(), Ending> {
        for delivery in batch {
            if self.shutdown.is_requested() {
                return Err(Ending::Drain);
            }
            let applied = self.apply_alone(&delivery)?;
            self.settle(applied).await?;
            self.tell_if_due().await?;
            self.one_at_a_time = self.one_at_a_time.saturating_sub(1);
        }
        Ok(())
    }

    fn apply_alone(&mut self, delivery: &Delivery) -> Result<Applied, Stop> {
        let deaths = self.file.set_in_flight(delivery.sequence)?;
        if deaths >= self.config.dead_letters.max_attempts {
            let error = format!("the worker died {deaths} times while it applied this event");
            return Ok(self.park(delivery, Reason::CrashLoop, &error, deaths));
        }
        let mut message = String::new();
        for _ in 0..PANICS {
            let alone = std::slice::from_ref(delivery);
            match self.engine.apply(alone, (self.clock)()) {
                Ok(applied) => return Ok(applied.expect("a batch of one event is not empty")),
                Err(panic) => {
                    self.restore()?;
                    message = panic.message;
                }
            }
        }
        Ok(self.park(delivery, Reason::EnginePanic, &message, PANICS))
    }

    fn park(&mut self, delivery: &Delivery, reason: Reason, error: &str, tries: u32) -> Applied {
        error!(sequence = %delivery.sequence, %reason, error, "Parking an event");
        self.engine.park(delivery, reason, error, tries)
    }

    /// After a panic memory may be half changed; the file is not.
    fn restore(&mut self) -> Result<(), Stop> {
        let rows = self.file.groups()?;
        self.engine.restore(rows).map_err(Stop::Windows)
    }
}
