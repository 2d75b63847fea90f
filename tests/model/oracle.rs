//! The uninterrupted run: the same engine over the same log, in one go, in memory.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use lookback_engine::{Alert, At, Correlator, Decoder, Detector, RuleSet, Scratch, state_digest};
use lookback_protocol::config::WorkerConfig;
use lookback_protocol::ids::{EventOrigin, alert_id, dead_letter_id};
use serde_json::{Value, json};

use crate::scenario::{FILTER, engine_options, rule_files};
use crate::sim::stream::Stream;

/// What a worker must have stored when its file stands at the last sequence given.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// By id: rule, group key, window and events.
    pub(crate) alerts: BTreeMap<String, Value>,
    /// By id: sequence and payload.
    pub(crate) dead_letters: BTreeMap<String, Value>,
    pub(crate) state_digest: String,
    /// Events applied, parked ones included.
    pub(crate) events: u64,
}

/// Runs `config` over `log` through `last`, without what was lost `unread`.
pub(crate) fn run(
    config: &WorkerConfig,
    log: &Stream,
    last: u64,
    unread: &[RangeInclusive<u64>],
) -> Outcome {
    let (rules, _) = RuleSet::compile(&rule_files(), &engine_options(config));
    let rules = Arc::new(rules);
    let decoder = Decoder {
        max_depth: 64,
        max_bytes: 1 << 20,
    };
    let detector = Detector::new(Arc::clone(&rules));
    let mut scratch = Scratch::default();
    let mut correlator = Correlator::new(rules);
    let mut outcome = Outcome {
        alerts: BTreeMap::new(),
        dead_letters: BTreeMap::new(),
        state_digest: String::new(),
        events: 0,
    };
    for message in log.iter() {
        let sequence = message.sequence;
        let foreign = !config.source.subjects.is_empty() && !message.subject.starts_with(FILTER);
        let lost = unread.iter().any(|range| range.contains(&sequence.0));
        if sequence.0 > last || foreign || lost {
            continue;
        }
        outcome.events += 1;
        let origin = EventOrigin::new(log.identity(), sequence, message.published);
        let Ok(event) = decoder.decode(&message.payload) else {
            let letter = json!({"sequence": sequence, "payload": message.payload.to_vec()});
            let id = dead_letter_id(config.partition, &origin);
            outcome.dead_letters.insert(id, letter);
            continue;
        };
        let matches = detector.detect(&event, &mut scratch);
        let at = At {
            sequence,
            published: message.published,
            received: message.published,
        };
        for alert in correlator.apply(at, &event, &matches) {
            let id = alert_id(&alert.rule.id, &alert.group_key, &origin);
            let what = outcome_of(&alert);
            outcome.alerts.insert(id, what);
        }
    }
    outcome.state_digest = state_digest(correlator.rows());
    outcome
}

/// An alert in the shape of [`Outcome::alerts`].
pub(crate) fn outcome_of(alert: &Alert) -> Value {
    let sequences: Vec<u64> = alert.events.iter().map(|it| it.sequence.0).collect();
    json!({
        "rule": alert.rule,
        "groupKey": alert.group_key,
        "window": alert.window,
        "sequences": sequences,
    })
}

/// A stored alert in the shape of [`Outcome::alerts`].
pub(crate) fn stored_alert(body: &Value) -> Value {
    let events = body["events"].as_array().cloned().unwrap_or_default();
    let sequences: Vec<Value> = events.iter().map(|it| it["sequence"].clone()).collect();
    json!({
        "rule": body["rule"],
        "groupKey": body["groupKey"],
        "window": body["window"],
        "sequences": sequences,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use jiff::Timestamp;
    use lookback_protocol::config::CommitConfig;

    use super::*;
    use crate::scenario;
    use crate::sim::rng::Rng;

    #[test]
    fn a_few_events_make_alerts_of_every_kind_and_dead_letters() {
        let mut rng = Rng::new(1);
        let mut log = Stream::new(scenario::STREAM, Timestamp::UNIX_EPOCH);
        for second in 0..60 {
            let (subject, payload) = scenario::event(&mut rng, 100, 0);
            let now = Timestamp::UNIX_EPOCH + Duration::from_secs(second);
            log.publish(subject, payload, now);
        }
        let commit = CommitConfig {
            interval_ms: 1,
            events: 1,
        };
        let config = scenario::config(log.identity(), commit, false);
        let outcome = run(&config, &log, 60, &[]);
        let titles: BTreeSet<_> = outcome
            .alerts
            .values()
            .filter_map(|alert| alert["rule"]["title"].as_str())
            .collect();
        let expected = [
            "Any failed logon",
            "Failed logon and logon",
            "Failed logons on several hosts",
            "Many failed logons",
        ];
        assert_eq!(titles, BTreeSet::from(expected));
        assert!(!outcome.dead_letters.is_empty());
        assert_eq!(outcome.events, 60);
    }
}
