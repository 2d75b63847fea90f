//! The uninterrupted run over a lineage: the same engine over the same stretches of the same log.

use std::collections::BTreeMap;
use std::sync::Arc;

use lookback::state::{FileDigest, Segment};
use lookback_engine::{At, Correlator, Decoder, Detector, RuleSet, Scratch, state_digest};
use lookback_protocol::config::WorkerConfig;
use lookback_protocol::ids::{EventOrigin, alert_id};
use lookback_protocol::position::StreamSeq;
use lookback_protocol::start::{Fate, OutputRule};
use serde_json::Value;

use crate::oracle::outcome_of;
use crate::scenario::{engine_options, rule_files};
use crate::sim::stream::Stream;

/// A stretch of the log.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    start: StreamSeq,
    last: StreamSeq,
    dropped: bool,
    output: OutputRule,
}

/// What a run over stretches gives.
pub(crate) struct Findings {
    /// By id.
    pub(crate) alerts: BTreeMap<String, Value>,
    pub(crate) state_digest: String,
}

/// The stretches that led to a state file.
pub(crate) fn stretches(file: &FileDigest) -> Vec<Stretch> {
    let stretch = |segment: &Segment| Stretch {
        start: segment.start,
        last: segment.last.unwrap_or(file.position.sequence),
        dropped: segment.dropped,
        output: segment.output,
    };
    file.lineage.iter().map(stretch).collect()
}

/// The whole log from its beginning, in one go.
pub(crate) fn whole(last: StreamSeq) -> Vec<Stretch> {
    vec![Stretch {
        start: StreamSeq(1),
        last,
        dropped: false,
        output: OutputRule::default(),
    }]
}

/// Runs over `stretches`.
pub(crate) fn run(config: &WorkerConfig, log: &Stream, stretches: &[Stretch]) -> Findings {
    let (rules, _) = RuleSet::compile(&rule_files(), &engine_options(config));
    let rules = Arc::new(rules);
    let decoder = Decoder {
        max_depth: 64,
        max_bytes: 1 << 20,
    };
    let detector = Detector::new(Arc::clone(&rules));
    let mut scratch = Scratch::default();
    let mut correlator = Correlator::new(Arc::clone(&rules));
    let mut alerts = BTreeMap::new();
    for stretch in stretches {
        if stretch.dropped {
            correlator = Correlator::new(Arc::clone(&rules));
        }
        let within = |sequence| (stretch.start..=stretch.last).contains(&sequence);
        for message in log.iter().filter(|it| within(it.sequence)) {
            let origin = EventOrigin::new(log.identity(), message.sequence, message.published);
            let Ok(event) = decoder.decode(&message.payload) else {
                continue;
            };
            let matches = detector.detect(&event, &mut scratch);
            let at = At {
                sequence: message.sequence,
                published: message.published,
                received: message.published,
            };
            for alert in correlator.apply(at, &event, &matches) {
                match stretch.output.fate(message.sequence) {
                    Fate::Nothing | Fate::NoAlerts => {}
                    Fate::Stored | Fate::Tagged => {
                        let id = alert_id(&alert.rule.id, &alert.group_key, &origin);
                        alerts.entry(id).or_insert_with(|| outcome_of(&alert));
                    }
                }
            }
        }
    }
    Findings {
        alerts,
        state_digest: state_digest(correlator.rows()),
    }
}

/// What may be stored under a lineage although it is not in it: each stretch may have been read, and its
/// alerts stored, beyond the position at which the next one began.
pub(crate) fn beyond(
    config: &WorkerConfig,
    log: &Stream,
    stretches: &[Stretch],
) -> BTreeMap<String, Vec<Value>> {
    let mut all: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for count in 1..=stretches.len() {
        let mut prefix = stretches[..count].to_vec();
        if let Some(current) = prefix.last_mut() {
            current.last = StreamSeq(log.last());
        }
        for (id, body) in run(config, log, &prefix).alerts {
            let bodies = all.entry(id).or_default();
            if !bodies.contains(&body) {
                bodies.push(body);
            }
        }
    }
    all
}
