//! The engine of a worker over events that come from no stream, for trying rules out: the same
//! batches, limits, windows and order, and the same way with an event that makes the engine panic.
//! Nothing is stored. Of the state file only the rows are kept, in memory, because a panic must not
//! leave half an event in the windows.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use lookback_engine::{Changes, GroupRow, RuleSet};
use lookback_protocol::alert::AlertRecord;
use lookback_protocol::deadletter::Reason;
use lookback_protocol::position::StreamSeq;

use super::batch::{Applied, Engine};
use super::poison::PANICS;
use super::ports::{AckToken, DeadLetter, Delivery};
use super::record::Scribe;

/// An event on its way into the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrialEvent {
    /// Its place, which alerts and dead letters name; higher than that of the event before.
    pub sequence: StreamSeq,
    /// When it was stored, as far as the engine knows.
    pub published: Timestamp,
    /// Its payload.
    pub payload: Bytes,
}

/// What a batch gave.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Alerts, in the order of their events.
    pub alerts: Vec<AlertRecord>,
    /// Events that cannot be applied.
    pub refused: Vec<Refused>,
    /// Events older than their group allowed.
    pub late: u64,
    /// Events too far ahead of their published time.
    pub skewed: u64,
}

/// An event that would be a dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its place.
    pub sequence: StreamSeq,
    /// Why.
    pub reason: Reason,
    /// The error in words.
    pub error: String,
}

/// Rules and windows that are tried out.
pub struct Trial {
    engine: Engine,
    rows: BTreeMap<(String, Vec<u8>), Vec<u8>>,
    matches: Vec<u64>,
}

impl Trial {
    /// Empty windows over `rules`.
    ///
    /// # Errors
    /// A sentence; none of an engine with empty windows is known.
    pub fn new(rules: Arc<RuleSet>) -> Result<Self, String> {
        let matches = vec![0; rules.rules().len()];
        let scribe = Scribe::of_a_trial(rules.digest());
        Ok(Self {
            engine: Engine::new(rules, Vec::new(), scribe)?,
            rows: BTreeMap::new(),
            matches,
        })
    }

    /// How often each rule of the set matched an event; of correlations nothing is counted here.
    #[must_use]
    pub fn matches(&self) -> &[u64] {
        &self.matches
    }

    /// Groups that hold a window.
    #[must_use]
    pub fn groups(&self) -> u64 {
        self.engine.groups()
    }

    /// Applies `events`, in their order.
    ///
    /// # Errors
    /// A sentence that names a window that could not be read back after a panic.
    pub fn apply(&mut self, events: &[TrialEvent]) -> Result<Outcome, String> {
        let batch: Vec<Delivery> = events.iter().map(delivery).collect();
        let mut out = Outcome::default();
        match self.apply_batch(&batch) {
            Ok(applied) => self.take(applied, &mut out),
            Err(_) => {
                self.restore()?;
                for delivery in &batch {
                    let applied = self.apply_alone(delivery)?;
                    self.take(applied, &mut out);
                }
            }
        }
        Ok(out)
    }

    fn apply_alone(&mut self, delivery: &Delivery) -> Result<Option<Applied>, String> {
        let mut message = String::new();
        for _ in 0..PANICS {
            match self.apply_batch(std::slice::from_ref(delivery)) {
                Ok(applied) => return Ok(applied),
                Err(panic) => {
                    self.restore()?;
                    message = panic;
                }
            }
        }
        let reason = Reason::EnginePanic;
        Ok(Some(self.engine.park(delivery, reason, &message, PANICS)))
    }

    /// Matches count only when the whole batch does.
    fn apply_batch(&mut self, batch: &[Delivery]) -> Result<Option<Applied>, String> {
        let mut matches = vec![0; self.matches.len()];
        // With the wall clock for a time, the published one is as good as any.
        let received = batch.last().map(|last| last.published).unwrap_or_default();
        let applied = self.engine.apply_seen(batch, received, &mut |found| {
            for found in found {
                matches[found.rule] += 1;
            }
        });
        let applied = applied.map_err(|panic| panic.message)?;
        for (sum, more) in self.matches.iter_mut().zip(matches) {
            *sum += more;
        }
        Ok(applied)
    }

    fn restore(&mut self) -> Result<(), String> {
        let rows = self
            .rows
            .iter()
            .map(|((correlation, key), state)| GroupRow {
                correlation: correlation.clone(),
                key: key.clone(),
                state: state.clone(),
            });
        self.engine.restore(rows.collect())
    }

    fn take(&mut self, applied: Option<Applied>, out: &mut Outcome) {
        let Some(applied) = applied else {
            return;
        };
        out.alerts.extend(applied.alerts);
        out.refused
            .extend(applied.dead_letters.into_iter().map(refused));
        let Changes {
            upserts,
            deletes,
            late,
            skewed,
        } = applied.changes;
        out.late += late;
        out.skewed += skewed;
        for row in deletes {
            self.rows.remove(&row);
        }
        let upserts = upserts.into_iter();
        self.rows
            .extend(upserts.map(|row| ((row.correlation, row.key), row.state)));
    }
}

fn delivery(event: &TrialEvent) -> Delivery {
    Delivery {
        consumer_sequence: event.sequence.0,
        sequence: event.sequence,
        published: event.published,
        subject: String::new(),
        headers: Bytes::new(),
        payload: event.payload.clone(),
        pending: 0,
        ack: AckToken(String::new()),
    }
}

fn refused(letter: DeadLetter) -> Refused {
    Refused {
        sequence: letter.delivery.sequence,
        reason: letter.reason,
        error: letter.error,
    }
}

#[cfg(test)]
mod tests {
    use lookback_engine::{EngineOptions, RuleFile};

    use super::*;
    use crate::worker::fakes;

    const RULES: &str = "title: Bad\nid: bad\nlogsource: {product: windows}\ndetection:\n  \
                         selection: {kind: bad}\n  condition: selection\n\
                         ---\ntitle: Twice\nid: twice\ncorrelation:\n  type: event_count\n  \
                         rules: [bad]\n  group-by: [user]\n  timespan: 1m\n  condition: {gte: 2}\n";

    fn options() -> EngineOptions {
        let config = fakes::config();
        EngineOptions {
            processing: Vec::new(),
            logsource: config.source.logsource,
            correlation: config.correlation,
        }
    }

    fn trial() -> Trial {
        let file = RuleFile {
            name: "rules/a.yml".to_owned(),
            bytes: RULES.as_bytes().to_vec(),
        };
        let (rules, problems) = RuleSet::compile(&[file], &options());
        assert_eq!(problems, []);
        Trial::new(Arc::new(rules)).unwrap()
    }

    fn events(payloads: &[&str]) -> Vec<TrialEvent> {
        let numbered = payloads.iter().zip(1..);
        let event = |(payload, second): (&&str, i64)| TrialEvent {
            sequence: StreamSeq(second.unsigned_abs()),
            published: Timestamp::from_second(1_800_000_000 + second).unwrap(),
            payload: Bytes::copy_from_slice(payload.as_bytes()),
        };
        numbered.map(event).collect()
    }

    const BAD: &str = r#"{"kind":"bad","user":"eve"}"#;

    #[test]
    fn windows_go_on_from_batch_to_batch() {
        let (mut trial, events) = (trial(), events(&[BAD, "{", BAD]));
        let first = trial.apply(&events[..2]).unwrap();
        assert!(first.alerts.is_empty());
        assert_eq!(first.refused[0].reason, Reason::NotJson);
        assert_eq!(first.refused[0].sequence, StreamSeq(2));
        let second = trial.apply(&events[2..]).unwrap();
        let lines: Vec<_> = second.alerts[0]
            .events
            .iter()
            .map(|it| it.sequence.0)
            .collect();
        assert_eq!(lines, [1, 3]);
        assert_eq!(trial.matches(), [2, 0]);
    }

    #[test]
    fn an_event_that_breaks_the_engine_is_refused_alone() {
        let (mut trial, events) = (trial(), events(&[BAD, r#"{"trip":1}"#, BAD]));
        let outcome = trial.apply(&events).unwrap();
        assert_eq!(outcome.refused.len(), 1);
        assert_eq!(outcome.refused[0].reason, Reason::EnginePanic);
        assert_eq!(outcome.alerts.len(), 1);
        assert_eq!(trial.matches(), [2, 0], "what was undone is not counted");
    }
}
