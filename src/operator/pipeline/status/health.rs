//! What is worth knowing while a pipeline runs: dead letters, events about to expire or gone, clocks,
//! copies.

use kube::ResourceExt;
use lookback_protocol::checkpoint::Gap;
use lookback_protocol::deadletter::{PARKED, REDRIVING};

use super::{Observation, retention, worker};
use crate::api::conditions::{ConditionType, Reason};
use crate::api::pipeline::{ACKNOWLEDGE, TimestampFallback};
use crate::operator::pipeline::facts::ServerFacts;
use crate::operator::pipeline::problem::Problem;

/// Ranges named in one message.
const NAMED: usize = 3;

/// What someone should know.
pub(super) fn problems(observation: &Observation<'_>) -> Vec<Problem> {
    let server = observation.server();
    [
        parked(observation),
        server.and_then(orphaned),
        expired(observation),
        server.and_then(|server| retention::expiring(observation, server)),
        wall_clock(observation),
        server.and_then(at_risk),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What to say when there is nothing to know.
pub(super) fn fine(condition: ConditionType, observation: &Observation<'_>) -> Problem {
    let server = observation.server();
    let source = server.and_then(|server| server.source.as_ref());
    let reason = match condition {
        ConditionType::NatsReady if server.is_some() => Reason::Connected,
        ConditionType::NatsReady => Reason::NatsUnknown,
        ConditionType::RulesLoaded if observation.validation.rules.desired.is_some() => {
            Reason::Loaded
        }
        ConditionType::RulesLoaded => Reason::RulesUnknown,
        ConditionType::DeadLettersClear
            if server.is_some_and(|server| server.counts.dead_letters.is_some()) =>
        {
            Reason::NoDeadLetters
        }
        ConditionType::DeadLettersClear => Reason::DeadLettersUnknown,
        ConditionType::RetentionSafe if source.is_some() => Reason::EventsRetained,
        ConditionType::RetentionSafe => Reason::RetentionUnknown,
        ConditionType::DurabilityAtRisk if source.is_some() => Reason::Replicated,
        ConditionType::DurabilityAtRisk => Reason::DurabilityUnknown,
        ConditionType::ReplayAccepted => Reason::NoReplay,
        ConditionType::ReplayInProgress => Reason::Idle,
        ConditionType::Suspended => Reason::NotSuspended,
        ConditionType::Deterministic
        | ConditionType::Ready
        | ConditionType::Reconciling
        | ConditionType::Stalled
        | ConditionType::ConsumerReady
        | ConditionType::StateReady => Reason::EventTime,
    };
    as_it_should(reason)
}

/// A reason with nothing to add to what the table says.
pub(super) fn as_it_should(reason: Reason) -> Problem {
    Problem::new(reason, reason.row().meaning)
}

fn parked(observation: &Observation<'_>) -> Option<Problem> {
    let counts = observation.server()?.counts.dead_letters.as_ref()?;
    let count = |state| counts.get(state).copied().unwrap_or_default();
    let (parked, redriving) = (count(PARKED), count(REDRIVING));
    let name = observation.pipeline.name_any();
    let parked = (parked > 0).then(|| {
        format!(
            "events that could not be applied are parked, {parked} of them: read them with `kubectl lookback dlq list -p {name}`, correct their producer, then redrive or discard them"
        )
    });
    // Whoever began that may have died, and then nobody has decided on the event.
    let redriving = (redriving > 0).then(|| {
        format!(
            "dead letters are being redriven, {redriving} of them: when nobody is at it any more, redrive or discard by their ids what `kubectl lookback dlq list -p {name} --state {REDRIVING}` shows"
        )
    });
    let said: Vec<String> = parked.into_iter().chain(redriving).collect();
    (!said.is_empty()).then(|| Problem::new(Reason::EventsParked, said.join("; ")))
}

fn orphaned(server: &ServerFacts) -> Option<Problem> {
    let counts = server.counts.alerts.as_ref()?;
    let states: Vec<String> = counts
        .orphaned()
        .map(|(state, count)| format!("{state} ({count})"))
        .collect();
    (!states.is_empty()).then(|| {
        Problem::new(
            Reason::StatesOrphaned,
            format!(
                "alerts stand in states that the workflow does not have: {}; put these states back into spec.alerts.workflow, or archive the alerts",
                states.join(", ")
            ),
        )
    })
}

fn expired(observation: &Observation<'_>) -> Option<Problem> {
    let annotations = observation.pipeline.metadata.annotations.as_ref();
    let acknowledged = annotations.and_then(|annotations| annotations.get(ACKNOWLEDGE));
    let through = acknowledged
        .and_then(|text| text.parse::<u64>().ok())
        .unwrap_or(0);
    let gaps: Vec<&Gap> = worker::checkpoint(observation)?
        .gaps
        .iter()
        .filter(|gap| gap.to.0 > through)
        .collect();
    let last = gaps.iter().map(|gap| gap.to).max()?;
    let named: Vec<String> = gaps
        .iter()
        .rev()
        .take(NAMED)
        .map(|gap| range(gap))
        .collect();
    let malformed = match acknowledged {
        Some(text) if text.parse::<u64>().is_err() => {
            format!(" (it is {text:?} now, which is no sequence)")
        }
        _ => String::new(),
    };
    Some(Problem::new(
        Reason::EventsExpired,
        format!(
            "events left the source stream before they were read, in {} ranges, the newest {}: find out what is lost, then annotate the pipeline with {ACKNOWLEDGE}={last}{malformed}",
            gaps.len(),
            named.join(", ")
        ),
    ))
}

fn range(gap: &Gap) -> String {
    let possible = if gap.possible {
        " (if any was under the filter)"
    } else {
        ""
    };
    format!("{}..{}{possible}", gap.from, gap.to)
}

fn wall_clock(observation: &Observation<'_>) -> Option<Problem> {
    let fallback = observation.pipeline.spec.correlation.timestamp_fallback;
    (fallback == TimestampFallback::WallClock).then(|| {
        Problem::new(Reason::WallClock, "spec.correlation.timestampFallback is WallClock: events without a time of their own get the worker's, and two runs may differ")
    })
}

fn at_risk(server: &ServerFacts) -> Option<Problem> {
    let source = server.source.as_ref()?;
    if !server.clustered {
        return Some(Problem::new(
            Reason::SingleServer,
            "NATS is a single server: its disk holds the only copy of what it acknowledged; run a cluster of three",
        ));
    }
    let own = [
        ("alerts", server.alerts),
        ("dead-letter", server.dead_letters),
    ];
    let own = own
        .into_iter()
        .filter_map(|(name, store)| Some((name, store?.replicas)));
    let single: Vec<&str> = [("source", source.replicas)]
        .into_iter()
        .chain(own)
        .filter(|(_, replicas)| *replicas == 1)
        .map(|(name, _)| name)
        .collect();
    (!single.is_empty()).then(|| {
        Problem::new(
            Reason::SingleReplica,
            format!(
                "one copy only in a cluster of NATS servers: the {} stream",
                single.join(", the ")
            ),
        )
    })
}
