//! One batch through the engine: decode and detect on every core, correlate in order. No I/O, no
//! clock; what must be stored leaves as [`Applied`].

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use jiff::Timestamp;
use lookback_engine::{
    At, Changes, Correlator, DecodeError, Decoder, Detector, Event, GroupRow, Match, RuleSet,
    Scratch,
};
use lookback_protocol::alert::AlertRecord;
use lookback_protocol::deadletter::Reason;
use lookback_protocol::position::Position;
use rayon::prelude::*;

use super::ports::{AckToken, DeadLetter, Delivery};
use super::record::Scribe;

/// Decoded events take many times their bytes, so a batch is decoded in pieces.
const PIECE: usize = 512;
/// A thread takes at least this many events at once.
const PER_THREAD: usize = 16;

/// The rules and the windows of one partition.
pub(super) struct Engine {
    rules: Arc<RuleSet>,
    decoder: Decoder,
    detector: Detector,
    correlator: Correlator,
    scribe: Scribe,
}

/// What a batch must leave behind before it may be acknowledged.
#[derive(Debug)]
pub(super) struct Applied {
    /// The last event in it.
    pub(super) position: Position,
    /// Acknowledges it and everything before it.
    pub(super) ack: AckToken,
    /// Events not yet delivered when it was.
    pub(super) pending: u64,
    /// How many events are in it.
    pub(super) events: u64,
    /// How many detections matched.
    pub(super) matches: u64,
    /// Alerts, in the order of their events.
    pub(super) alerts: Vec<AlertRecord>,
    /// How many alerts are not to be stored.
    pub(super) suppressed: u64,
    /// Events that could not be applied.
    pub(super) dead_letters: Vec<DeadLetter>,
    /// The windows that changed.
    pub(super) changes: Changes,
}

/// The engine panicked. Its memory may be half changed: [`Engine::restore`] it.
#[derive(Debug)]
pub(super) struct Panic {
    /// What it said.
    pub(super) message: String,
}

impl Engine {
    /// An engine with the windows of `rows`.
    ///
    /// # Errors
    /// A sentence that names the row that cannot be read.
    pub(super) fn new(
        rules: Arc<RuleSet>,
        rows: Vec<GroupRow>,
        scribe: Scribe,
    ) -> Result<Self, String> {
        Ok(Self {
            decoder: Decoder::default(),
            detector: Detector::new(Arc::clone(&rules)),
            correlator: Correlator::restore(Arc::clone(&rules), rows)?,
            rules,
            scribe,
        })
    }

    /// Drops everything in memory and takes the windows of `rows` instead.
    ///
    /// # Errors
    /// A sentence that names the row that cannot be read.
    pub(super) fn restore(&mut self, rows: Vec<GroupRow>) -> Result<(), String> {
        *self = Self::new(Arc::clone(&self.rules), rows, self.scribe.clone())?;
        Ok(())
    }

    /// Groups that hold a window.
    pub(super) fn groups(&self) -> u64 {
        self.correlator.groups()
    }

    /// Applies `batch`, in the order of the stream. `None` for an empty batch. `received` matters only
    /// to pipelines that ask for the wall clock.
    ///
    /// # Errors
    /// [`Panic`] when an event makes the engine panic; which one is not known.
    pub(super) fn apply(
        &mut self,
        batch: &[Delivery],
        received: Timestamp,
    ) -> Result<Option<Applied>, Panic> {
        self.apply_seen(batch, received, &mut |_| {})
    }

    /// As [`Self::apply`]; `seen` is told what detections matched, event by event, also of a batch that
    /// comes to nothing by a panic.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub(super) fn apply_seen(
        &mut self,
        batch: &[Delivery],
        received: Timestamp,
        seen: &mut impl FnMut(&[Match]),
    ) -> Result<Option<Applied>, Panic> {
        catch_unwind(AssertUnwindSafe(|| {
            self.apply_unguarded(batch, received, seen)
        }))
        .map_err(|payload| Panic::new(payload.as_ref()))
    }

    /// Leaves `delivery` out of the windows and parks it.
    pub(super) fn park(
        &mut self,
        delivery: &Delivery,
        reason: Reason,
        error: &str,
        attempts: u32,
    ) -> Applied {
        let letter = self.scribe.dead_letter(delivery, reason, error, attempts);
        let mut applied = Applied::up_to(delivery, 1);
        applied.dead_letters.extend(letter);
        applied.changes = self.correlator.take_changes();
        applied
    }

    fn apply_unguarded(
        &mut self,
        batch: &[Delivery],
        received: Timestamp,
        seen: &mut impl FnMut(&[Match]),
    ) -> Option<Applied> {
        let mut applied = Applied::up_to(batch.last()?, batch.len());
        for piece in batch.chunks(PIECE) {
            let detected = detect(&self.decoder, &self.detector, piece);
            for (delivery, detected) in piece.iter().zip(detected) {
                match detected {
                    Ok((event, matches)) => {
                        applied.matches += matches.len() as u64;
                        seen(&matches);
                        let at = At {
                            sequence: delivery.sequence,
                            published: delivery.published,
                            received,
                        };
                        let alerts = self.correlator.apply(at, &event, &matches);
                        for alert in alerts {
                            match self.scribe.alert(delivery, alert) {
                                Some(record) => applied.alerts.push(record),
                                None => applied.suppressed += 1,
                            }
                        }
                    }
                    Err(DecodeError { reason, message }) => {
                        let letter = self.scribe.dead_letter(delivery, reason, &message, 1);
                        applied.dead_letters.extend(letter);
                    }
                }
            }
        }
        applied.changes = self.correlator.take_changes();
        Some(applied)
    }
}

impl Applied {
    fn up_to(last: &Delivery, events: usize) -> Self {
        Self {
            position: Position {
                sequence: last.sequence,
                published: Some(last.published),
            },
            ack: last.ack.clone(),
            pending: last.pending,
            events: events as u64,
            matches: 0,
            alerts: Vec::new(),
            suppressed: 0,
            dead_letters: Vec::new(),
            changes: Changes::default(),
        }
    }
}

impl Panic {
    fn new(payload: &(dyn Any + Send)) -> Self {
        let message = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "the engine panicked without a message".to_owned());
        Self { message }
    }
}

/// Decodes and detects in parallel; the result is in the order of `piece`.
fn detect(
    decoder: &Decoder,
    detector: &Detector,
    piece: &[Delivery],
) -> Vec<Result<(Event, Vec<Match>), DecodeError>> {
    piece
        .par_iter()
        .with_min_len(PER_THREAD)
        .map_init(Scratch::default, |scratch, delivery| {
            #[cfg(test)]
            super::fakes::trip(&delivery.payload);
            let event = decoder.decode(&delivery.payload)?;
            let matches = detector.detect(&event, scratch);
            Ok((event, matches))
        })
        .collect()
}
