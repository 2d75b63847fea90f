//! The order that keeps a crash harmless: publish, commit, checkpoint, ack. Windows, position and
//! counters move in one transaction; the checkpoint says what the file holds, so it is made from the
//! file; an ack follows the checkpoint that covers it. So the consumer's ack floor never is ahead of
//! the checkpoint, nor the checkpoint ahead of the file.

use std::collections::BTreeMap;

use lookback_protocol::checkpoint::{self, Checkpoint, Counters, Hold, Phase};
use lookback_protocol::start::{FileFacts, StoreFacts};
use tracing::{debug, warn};

use crate::runtime::telemetry::chain;
use crate::state::Commit;

use super::batch::Applied;
use super::metrics::{AlertLabels, AlertOutcome};
use super::output::{Acknowledged, Pending, Tally};
use super::patience::SILENCE;
use super::ports::{Checkpoints, Log, Outbox};
use super::run::Worker;
use super::stop::{Ending, Stop};

impl<L: Log, O: Outbox, C: Checkpoints> Worker<L, O, C> {
    /// Publishes what was applied, waiting as long as the stores do not take it, then commits it.
    pub(super) async fn settle(&mut self, mut applied: Applied) -> Result<(), Ending> {
        let alerts = std::mem::take(&mut applied.alerts);
        let dead_letters = std::mem::take(&mut applied.dead_letters);
        let mut pending = Pending::new(alerts, dead_letters);
        if let Err(hold) = self.output.send(&mut pending).await {
            self.hold(hold, &mut pending).await?;
        }
        self.commit(&applied, pending.stored)?;
        self.unsaid = Some(applied.ack);
        Ok(())
    }

    /// Writes the checkpoint and then acks, when there is something to say and it is time.
    pub(super) async fn tell_if_due(&mut self) -> Result<(), Ending> {
        if self.unsaid.is_none() || tokio::time::Instant::now() < self.fence.due() {
            return Ok(());
        }
        match self.tell(Phase::Started, None).await {
            // A file that is ahead of its checkpoint is always right, so this can wait.
            Err(Stop::Unavailable(error)) if self.fence.silence() < SILENCE => {
                warn!(error = chain(&error), "Checkpoint not written");
                Ok(())
            }
            told => Ok(told?),
        }
    }

    /// Writes the checkpoint, then acks what it covers.
    pub(super) async fn tell(&mut self, phase: Phase, held: Option<Hold>) -> Result<(), Stop> {
        let checkpoint = self.checkpoint(phase, held)?;
        let time = checkpoint.time;
        self.fence.write(checkpoint).await?;
        self.metrics
            .checkpoint_timestamp_seconds
            .set(time.as_duration().as_secs_f64());
        if let Some(ack) = self.unsaid.take()
            && let Err(error) = self.log.ack(&ack).await
        {
            debug!(error = chain(&error), "Ack not sent");
        }
        Ok(())
    }

    fn commit(&mut self, applied: &Applied, stored: Tally) -> Result<(), Stop> {
        let Tally {
            alerts_new,
            alerts_known,
            dead_letters,
            acknowledged,
        } = stored;
        self.check_stores(&acknowledged)?;
        let before = self.file.counters()?;
        let counters = Counters {
            events: before.events + applied.events,
            alerts_new: before.alerts_new + alerts_new,
            alerts_known: before.alerts_known + alerts_known,
            dead_letters: before.dead_letters + dead_letters,
            late: before.late + applied.changes.late,
            skewed: before.skewed + applied.changes.skewed,
        };
        let acknowledged: Vec<_> = acknowledged
            .into_iter()
            .map(|(stream, seen)| (stream, seen.highest))
            .collect();
        let began = std::time::Instant::now();
        self.file.commit(&Commit {
            changes: &applied.changes,
            position: applied.position,
            published_through: applied.position.sequence,
            counters,
            acknowledged: &acknowledged,
        })?;
        self.metrics
            .commit_seconds
            .observe(began.elapsed().as_secs_f64());
        self.count(applied);
        Ok(())
    }

    /// A stream that gives out a sequence again was made anew, or restored, under us: what it
    /// acknowledged before is lost.
    fn check_stores(&self, seen: &BTreeMap<String, Acknowledged>) -> Result<(), Stop> {
        let before = self.file.acknowledged()?;
        let regression = seen.iter().find_map(|(stream, seen)| {
            let store = StoreFacts {
                stream: stream.clone(),
                acknowledged: *before.get(stream)?,
                last: seen.lowest.saturating_sub(1),
            };
            store.regression()
        });
        match regression {
            Some(message) => Err(Stop::Refused(message)),
            None => Ok(()),
        }
    }

    fn count(&self, applied: &Applied) {
        let metrics = &self.metrics;
        metrics.events.inc_by(applied.events);
        metrics.matches.inc_by(applied.matches);
        if applied.suppressed > 0 {
            let outcome = AlertOutcome::Suppressed;
            metrics
                .alerts
                .get_or_create(&AlertLabels { outcome })
                .inc_by(applied.suppressed);
        }
        metrics.late.inc_by(applied.changes.late);
        metrics.skewed.inc_by(applied.changes.skewed);
        metrics.position.set(gauge(applied.position.sequence.0));
        metrics.lag.set(gauge(applied.pending));
        metrics.groups.set(gauge(self.engine.groups()));
    }

    /// What the file holds, as it is said in NATS.
    pub(super) fn checkpoint(&self, phase: Phase, held: Option<Hold>) -> Result<Checkpoint, Stop> {
        let FileFacts::State(file) = self.file.facts()? else {
            return Err(Stop::Windows("its identity is gone".to_owned()));
        };
        Ok(Checkpoint {
            v: checkpoint::VERSION,
            incarnation: self.fence.incarnation().to_owned(),
            request: file.progress(&self.config.cursor, file.epoch),
            applied: file.ledger.last().cloned(),
            owner: file.owner,
            epoch: file.epoch,
            phase,
            stream: file.stream,
            position: file.position,
            published_through: file.published_through,
            engine_digest: self.config.rules.engine_digest.clone(),
            groups: self.engine.groups(),
            gaps: file.gaps,
            counters: self.file.counters()?,
            resumes: None,
            held,
            time: (self.clock)(),
        })
    }
}

/// A gauge is an `i64`; sequences beyond it do not occur.
pub(super) fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
