//! Numbers from NATS. Each is asked for by itself, since a person may have the right to some only.

use std::collections::BTreeMap;

use lookback_protocol::checkpoint::Checkpoint;
use lookback_protocol::position::Epoch;

use super::view::{Position, Status, percent, unsigned};
use crate::ctl::context::Reached;
use crate::nats::alerts::AlertStore;
use crate::nats::checkpoint::JetStreamCheckpoints;
use crate::nats::deadletters::DeadLetterStore;
use crate::nats::streams::ObservedStream;
use crate::nats::{consumers, streams};
use crate::operator::pipeline::build::PARTITION;
use crate::runtime::telemetry::chain;
use crate::worker::ports::Checkpoints;

type Answer<T> = Result<T, String>;

/// What NATS said; an error in words where it said nothing.
pub(super) struct Fresh {
    checkpoint: Answer<Option<Checkpoint>>,
    lag: Answer<Option<u64>>,
    source: Answer<Option<ObservedStream>>,
    alerts: Answer<BTreeMap<String, u64>>,
    dead_letters: Answer<BTreeMap<String, u64>>,
    /// What a replay in the status reads.
    replay: Option<(u64, u64)>,
}

fn answer<T, E: std::error::Error>(found: Result<T, E>) -> Answer<T> {
    found.map_err(|error| chain(&error))
}

pub(super) async fn read(reached: &Reached) -> Fresh {
    let Reached {
        pipeline,
        owner,
        nats,
    } = reached;
    let key = &owner.pipeline;
    let stream = &pipeline.spec.source.stream;
    let status = pipeline.status.as_ref();
    let epoch = status.and_then(|status| status.epoch).map(unsigned);
    let replay = status.and_then(|status| status.replay.as_ref()?.plan.as_ref());
    let replay = replay.map(|plan| (plan.start.0, plan.target.0));
    let alerts = AlertStore::new(nats.clone(), owner.clone());
    let dead_letters = DeadLetterStore::new(nats.clone(), owner.clone());
    let checkpoint = async {
        let mut checkpoints = JetStreamCheckpoints::new(nats.clone(), key, PARTITION);
        let found = checkpoints.load().await;
        answer(found).map(|found| found.map(|(checkpoint, _)| checkpoint))
    };
    let lag = async {
        let Some(epoch) = epoch else {
            return Ok(None);
        };
        let consumer = key.consumer(PARTITION, Epoch(epoch));
        let found = answer(consumers::read(nats, stream, &consumer).await)?;
        Ok(found.map(|found| found.facts().pending + found.ack_pending()))
    };
    let (checkpoint, lag, source, alerts, dead_letters) = tokio::join!(
        checkpoint,
        lag,
        streams::read(nats, stream),
        alerts.counts(),
        dead_letters.counts()
    );
    Fresh {
        checkpoint,
        lag,
        source: answer(source),
        alerts: answer(alerts),
        dead_letters: answer(dead_letters),
        replay,
    }
}

impl Fresh {
    /// Puts what NATS said in the place of what the operator wrote.
    pub(super) fn into_status(self, status: &mut Status) {
        let Self {
            checkpoint,
            lag,
            source,
            alerts,
            dead_letters,
            replay,
        } = self;
        let missing = &mut status.missing;
        if let Some(checkpoint) = given(checkpoint, "position", missing).flatten() {
            status.groups = Some(signed(checkpoint.groups));
            status.alerts.new = Some(signed(checkpoint.counters.alerts_new));
            status.alerts.known = Some(signed(checkpoint.counters.alerts_known));
            let position = checkpoint.position.sequence.0;
            if let (Some(shown), Some((start, target))) = (&mut status.replay, replay) {
                let now = percent(start, target, position);
                shown.percent = shown.percent.map(|_| now);
            }
            status.position = Some(Position {
                sequence: signed(position),
                time: checkpoint.position.published,
                observed: Some(checkpoint.time),
            });
        }
        if let Some(lag) = given(lag, "lag", missing).flatten() {
            status.lag = Some(signed(lag));
        }
        if let Some(stream) = given(source, "source stream", missing).flatten() {
            let facts = stream.facts(&status.source.stream);
            let held = stream.state.messages > 0;
            status.source.first = Some(signed(facts.first.0));
            status.source.last = Some(signed(facts.last.0));
            status.source.first_time = held.then_some(stream.state.first_ts);
        }
        if let Some(counts) = given(alerts, "alerts", missing) {
            let left = counts.iter().filter(|(state, _)| *state != "archived");
            status.alerts.stored = Some(signed(left.map(|(_, count)| count).sum()));
            status.alerts.by_state = Some(counts);
        }
        if let Some(counts) = given(dead_letters, "dead letters", missing) {
            status.dead_letters.by_state = counts;
        }
    }
}

fn given<T>(answer: Answer<T>, what: &str, missing: &mut Vec<String>) -> Option<T> {
    match answer {
        Ok(found) => Some(found),
        Err(why) => {
            missing.push(format!("{what}: what the operator wrote last, since {why}"));
            None
        }
    }
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::view::tests::{stalled, status};
    use super::*;

    fn silent() -> Fresh {
        let silence = || "no answer".to_owned();
        Fresh {
            checkpoint: Err(silence()),
            lag: Err(silence()),
            source: Err(silence()),
            alerts: Err(silence()),
            dead_letters: Err(silence()),
            replay: None,
        }
    }

    #[test]
    fn where_nats_says_nothing_the_numbers_of_the_operator_stay_and_it_is_said() {
        let mut found = status(stalled());
        let before = found.clone();
        silent().into_status(&mut found);
        assert_eq!(found.missing.len(), 5);
        found.missing.clear();
        assert_eq!(found, before);
    }

    #[test]
    fn what_nats_says_is_shown_instead() {
        let mut found = status(stalled());
        let counts = BTreeMap::from([("new".to_owned(), 3), ("archived".to_owned(), 5)]);
        let fresh = Fresh {
            lag: Ok(Some(99)),
            alerts: Ok(counts.clone()),
            ..silent()
        };
        fresh.into_status(&mut found);
        assert_eq!(found.lag, Some(99));
        assert_eq!(found.alerts.stored, Some(3));
        assert_eq!(found.alerts.by_state, Some(counts));
        assert_eq!(found.missing.len(), 3);
        assert_eq!(
            found.position.unwrap().observed,
            Some(Timestamp::from_second(1_767_600_000).unwrap())
        );
    }
}
