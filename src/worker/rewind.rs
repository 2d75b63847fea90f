//! Positioning the consumer behind the file, and proving it. Everything the consumer said before is
//! forgotten by the reset, so it is read and written down first; everything that was pulled before is
//! worthless after it, acks included.
//!
//! A reset that gets no answer may have happened or not, and a pull of someone else that is open when
//! it comes is served all the same. So it is repeated until the consumer itself says that it stands
//! behind the file with nothing delivered; what still goes to someone else after that shows as a
//! jump in the consumer's numbering.

use std::time::Duration;

use lookback_protocol::checkpoint::{Checkpoint, Phase};
use lookback_protocol::continuity::Continuity;
use lookback_protocol::position::Position;
use lookback_protocol::start::{Begin, StartDecision};
use tracing::{debug, info};

use crate::runtime::telemetry::chain;

use super::commit::gauge;
use super::metrics::{Cause, CauseLabels};
use super::observe::observe;
use super::patience::{Patience, waits_for};
use super::ports::{Checkpoints, ConsumerFacts, Log, Outbox, Unavailable};
use super::run::Worker;
use super::start::note;
use super::stop::{Ending, Stop};

/// Rest before a broken pull is replaced: what took our deliveries may still be at it, and a consumer
/// that was deleted is made again.
const REST: Duration = Duration::from_millis(200);

impl<L: Log, O: Outbox, C: Checkpoints> Worker<L, O, C> {
    /// Makes the event after the file's position the next one pulled. Everything accepted must be
    /// committed.
    pub(super) async fn position(&mut self, cause: Cause) -> Result<(), Ending> {
        self.metrics
            .repositionings
            .get_or_create(&CauseLabels { cause })
            .inc();
        self.stop_pulling("the consumer to be positioned").await;
        match cause {
            Cause::Start | Cause::HoldEnded => {}
            Cause::Hole | Cause::HoleAtTail | Cause::PullDead | Cause::ConsumerGone => {
                self.shutdown.sleep(REST).await?;
            }
        }
        let mut patience = Patience::new();
        loop {
            match self.try_position().await {
                Ok(()) => break,
                Err(Stop::Unavailable(error)) => {
                    self.gates.consumer.close(&waits_for(&error));
                    patience.wait(error, &mut self.shutdown).await?;
                }
                Err(stop) => return Err(stop.into()),
            }
        }
        let position = self.continuity.accepted();
        info!(?cause, %position, "Positioned");
        self.pulling = true;
        self.gates.consumer.open();
        Ok(())
    }

    /// Closes the pull. When that fails the next positioning closes it again.
    pub(super) async fn stop_pulling(&mut self, waits_for: &str) {
        self.pulling = false;
        self.gates.consumer.close(waits_for);
        if let Err(error) = self.log.close().await {
            debug!(error = chain(&error), "Pull not closed");
        }
    }

    async fn try_position(&mut self) -> Result<(), Stop> {
        let said = self.fence.check().await?;
        self.log.close().await?;
        let begin = self.decide_again(&said).await?;
        note(&mut self.file, &self.identity, &begin, &self.metrics)?;
        self.output.set_published_through(begin.published_through);
        self.say_before_reset().await?;
        self.reset(begin.position).await?;
        self.log.open().await?;
        self.continuity = Continuity::after_reset(begin.position.sequence);
        let reported = self.file.gaps()?.last().map(|gap| gap.to);
        self.read = reported.unwrap_or_default().max(begin.position.sequence);
        Ok(())
    }

    async fn decide_again(&mut self, said: &Checkpoint) -> Result<Begin, Stop> {
        let position = self.file.position()?;
        let observed = observe(&mut self.log, self.output.outbox(), position).await?;
        let acknowledged = self.file.acknowledged()?;
        let decision = observed.decide_again(&self.config, self.file.facts()?, &acknowledged, said);
        let begin = match decision {
            StartDecision::Refuse(message) => return Err(Stop::Refused(message)),
            StartDecision::Resume(begin)
            | StartDecision::AlreadyApplied(begin)
            | StartDecision::Fresh(begin) => begin,
            StartDecision::Apply(_) => {
                let what = "it is not of the epoch that was begun on it";
                return Err(Stop::Windows(what.to_owned()));
            }
        };
        // The table comes first: a stream that was made anew has lost its consumers too.
        let Some(consumer) = observed.consumer else {
            return Err(self.consumer_missing());
        };
        self.metrics.lag.set(gauge(consumer.pending));
        self.metrics.position.set(gauge(position.sequence.0));
        Ok(begin)
    }

    /// The reset moves the ack floor to the position and forgets what was delivered, so the
    /// checkpoint must say both before it.
    async fn say_before_reset(&mut self) -> Result<(), Stop> {
        self.unsaid = None;
        let now = self.checkpoint(Phase::Started, None)?;
        let said = self.fence.written().is_some_and(|said| {
            let time = said.time;
            *said == Checkpoint { time, ..now }
        });
        if said {
            return Ok(());
        }
        self.tell(Phase::Started, None).await
    }

    async fn reset(&mut self, position: Position) -> Result<(), Stop> {
        if let Err(error) = self.log.reset(position.sequence.next()).await {
            debug!(error = chain(&error), "Reset without an answer");
        }
        let Some(consumer) = self.log.consumer().await? else {
            return Err(self.consumer_missing());
        };
        let ConsumerFacts {
            delivered_consumer,
            delivered,
            pending: _,
            applied: _,
        } = consumer;
        if (delivered_consumer, delivered) == (0, position.sequence) {
            return Ok(());
        }
        Err(Stop::Unavailable(Unavailable {
            operation: "CONSUMER.RESET",
            object: self.config.source.consumer.clone(),
            source: format!(
                "it stands at {delivered} after {delivered_consumer} deliveries, not at {} after none",
                position.sequence
            )
            .into(),
        }))
    }

    fn consumer_missing(&self) -> Stop {
        Stop::ConsumerMissing {
            consumer: self.config.source.consumer.clone(),
            stream: self.config.source.stream.name.clone(),
        }
    }
}
