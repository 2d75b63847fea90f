//! The numbers of a status, which move with every event and must not be written with every event.

use std::collections::BTreeMap;

use lookback_protocol::alert::ARCHIVED;
use lookback_protocol::checkpoint::Checkpoint;
use lookback_protocol::deadletter::{DISCARDED, PARKED, REDRIVEN, REDRIVING};

use super::{NUMBERS_EVERY, Observation, worker};
use crate::api::status::{
    AlertsStatus, DeadLettersStatus, DetectionPipelineStatus, MAX_COUNTED, PartitionStatus, Phase,
    SourceStatus, Time,
};
use crate::operator::pipeline::build::PARTITION;
use crate::operator::pipeline::facts::{AlertCounts, ServerFacts};

/// The numbers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Numbers {
    pub(super) source: Option<SourceStatus>,
    pub(super) partitions: Vec<PartitionStatus>,
    pub(super) alerts: Option<AlertsStatus>,
    pub(super) dead_letters: Option<DeadLettersStatus>,
}

/// The numbers now, or the ones written before when it is too early for others.
pub(super) fn write(
    observation: &Observation<'_>,
    previous: &DetectionPipelineStatus,
    phase: Phase,
) -> Numbers {
    let written = Numbers {
        source: previous.source.clone(),
        partitions: previous.partitions.clone(),
        alerts: previous.alerts.clone(),
        dead_letters: previous.dead_letters.clone(),
    };
    let Some(server) = observation.server() else {
        return written;
    };
    let of_source = written.source.as_ref().and_then(|it| it.observed_time);
    let of_partition = written.partitions.first().and_then(|it| it.observed_time);
    let observed = of_source.or(of_partition);
    let mut now = numbers(server, worker::checkpoint(observation), &written);
    stamp(&mut now, observed);
    let early = observed.is_some_and(|Time(at)| observation.now.duration_since(at) < NUMBERS_EVERY);
    if now == written || (early && previous.phase == Some(phase)) {
        return written;
    }
    stamp(&mut now, Some(Time(observation.now)));
    now
}

/// What could not be counted now is as it was `written` before.
fn numbers(server: &ServerFacts, checkpoint: Option<&Checkpoint>, written: &Numbers) -> Numbers {
    let counters = checkpoint
        .map(|checkpoint| checkpoint.counters)
        .unwrap_or_default();
    let partition = checkpoint.map(|checkpoint| PartitionStatus {
        id: i64::from(PARTITION),
        position: signed(checkpoint.position.sequence.0),
        position_time: checkpoint.position.published.map(Time),
        lag: server
            .consumer
            .as_ref()
            .map(|consumer| signed(consumer.pending)),
        groups: signed(checkpoint.groups),
        incarnation: checkpoint.incarnation.clone(),
        observed_time: None,
    });
    let source = server.source.as_ref().map(|source| SourceStatus {
        first_sequence: signed(source.first.0),
        first_time: source.first_time.map(Time),
        last_sequence: signed(source.last.0),
        observed_time: None,
    });
    Numbers {
        source,
        partitions: partition.into_iter().collect(),
        alerts: server.alerts.and_then(|_| {
            let before = written.alerts.clone();
            let counted = server.counts.alerts.as_ref();
            let counted = counted.map(|counts| AlertsStatus {
                stored: signed(stored(counts)),
                by_state: by_state(counts),
                ..AlertsStatus::default()
            });
            Some(AlertsStatus {
                new: signed(counters.alerts_new),
                known: signed(counters.alerts_known),
                ..counted.or(before)?
            })
        }),
        dead_letters: server.dead_letters.and_then(|_| {
            let counted = server.counts.dead_letters.as_ref().map(dead_letters);
            counted.or_else(|| written.dead_letters.clone())
        }),
    }
}

fn stored(counts: &AlertCounts) -> u64 {
    let states = counts.by_state.iter();
    let standing = states.filter(|(state, _)| *state != ARCHIVED);
    standing.map(|(_, count)| count).sum()
}

/// States that hold something come before empty ones: there is room for the states of one workflow, and
/// one that it had before must not be lost sight of.
fn by_state(counts: &AlertCounts) -> BTreeMap<String, i64> {
    let shown = |(state, count): &(&String, &u64)| **count > 0 || counts.workflow.contains(*state);
    let mut states: Vec<_> = counts.by_state.iter().filter(shown).collect();
    states.sort_by_key(|(_, count)| **count == 0);
    let states = states.into_iter().take(MAX_COUNTED);
    states
        .map(|(state, count)| (state.clone(), signed(*count)))
        .collect()
}

fn dead_letters(counts: &BTreeMap<String, u64>) -> DeadLettersStatus {
    let count = |state| signed(counts.get(state).copied().unwrap_or_default());
    DeadLettersStatus {
        parked: count(PARKED),
        redriving: count(REDRIVING),
        redriven: count(REDRIVEN),
        discarded: count(DISCARDED),
    }
}

fn stamp(numbers: &mut Numbers, time: Option<Time>) {
    if let Some(source) = &mut numbers.source {
        source.observed_time = time;
    }
    for partition in &mut numbers.partitions {
        partition.observed_time = time;
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
