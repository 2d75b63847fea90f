//! Rules and events for tests, through the public way in.

use std::sync::Arc;

use jiff::Timestamp;
use lookback_protocol::config::{
    CorrelationConfig, Emit, Limits, LogSource, Refire, TimestampFallback,
};
use lookback_protocol::position::StreamSeq;
use serde_json::{Value, json};

use crate::{
    Alert, At, Correlator, Detector, EngineOptions, Event, RuleFile, RuleProblem, RuleSet, Scratch,
};

/// The second at which tests begin; all times in tests count from here.
pub(crate) const START: i64 = 1_800_000_000;

pub(crate) fn options() -> EngineOptions {
    EngineOptions {
        processing: Vec::new(),
        logsource: LogSource {
            product: "windows".to_owned(),
            ..LogSource::default()
        },
        correlation: CorrelationConfig {
            timestamp_fields: vec!["t".to_owned()],
            timestamp_fallback: TimestampFallback::Published,
            allowed_lateness_seconds: 300,
            max_future_skew_seconds: 300,
            refire: Refire::EveryEvent,
            emit: Emit::Correlations,
            limits: Limits {
                groups: 1_000_000,
                events_per_group: 10_000,
            },
        },
    }
}

/// Options under which detections are alerts too.
pub(crate) fn with_detections() -> EngineOptions {
    let mut options = options();
    options.correlation.emit = Emit::All;
    options
}

pub(crate) fn file(name: &str, text: &str) -> RuleFile {
    RuleFile {
        name: name.to_owned(),
        bytes: text.as_bytes().to_vec(),
    }
}

pub(crate) fn compile(yaml: &str, options: &EngineOptions) -> (RuleSet, Vec<RuleProblem>) {
    RuleSet::compile(&[file("rules/test.yml", yaml)], options)
}

/// A set in which every document works.
pub(crate) fn rules(yaml: &str, options: &EngineOptions) -> Arc<RuleSet> {
    let (set, problems) = compile(yaml, options);
    assert_eq!(problems, []);
    Arc::new(set)
}

/// A detection that matches events with this `kind`.
pub(crate) fn detection(id: &str) -> String {
    format!(
        "---\ntitle: {id}\nid: {id}\nlogsource: {{product: windows}}\n\
         detection:\n  selection:\n    kind: {id}\n  condition: selection\n"
    )
}

/// A correlation with this body.
pub(crate) fn correlation(id: &str, body: &str) -> String {
    format!("---\ntitle: {id}\nid: {id}\nlevel: high\ncorrelation: {{{body}}}\n")
}

/// An engine that is given one event after another.
pub(crate) struct Run {
    pub(crate) rules: Arc<RuleSet>,
    detector: Detector,
    pub(crate) correlator: Correlator,
    /// The last event's.
    pub(crate) sequence: u64,
}

impl Run {
    pub(crate) fn new(rules: &Arc<RuleSet>) -> Self {
        Self {
            rules: Arc::clone(rules),
            detector: Detector::new(Arc::clone(rules)),
            correlator: Correlator::new(Arc::clone(rules)),
            sequence: 0,
        }
    }

    /// An event at `second`, published in that second.
    pub(crate) fn event(&mut self, second: i64, fields: Value) -> Vec<Alert> {
        self.event_published(second, second, fields)
    }

    pub(crate) fn event_published(
        &mut self,
        second: i64,
        published: i64,
        mut fields: Value,
    ) -> Vec<Alert> {
        fields["t"] = json!(START + second);
        self.raw(published, fields)
    }

    /// An event exactly as it is.
    pub(crate) fn raw(&mut self, published: i64, value: Value) -> Vec<Alert> {
        self.sequence += 1;
        let event = Event { value };
        let matches = self.detector.detect(&event, &mut Scratch::default());
        let published = Timestamp::from_second(START + published).unwrap();
        let at = At {
            sequence: StreamSeq(self.sequence),
            published,
            received: published,
        };
        self.correlator.apply(at, &event, &matches)
    }

    /// The values of the alerts of a series of (second, fields).
    pub(crate) fn values(&mut self, events: &[(i64, Value)]) -> Vec<Option<f64>> {
        events
            .iter()
            .map(|(second, fields)| value(&self.event(*second, fields.clone())))
            .collect()
    }

    /// Stores everything and goes on with what was stored, under `rules`.
    pub(crate) fn restart(&mut self) {
        self.detector = Detector::new(Arc::clone(&self.rules));
        let rows: Vec<_> = self.correlator.rows().collect();
        self.correlator = Correlator::restore(Arc::clone(&self.rules), rows).unwrap();
    }
}

/// The aggregated value of the only alert.
pub(crate) fn value(alerts: &[Alert]) -> Option<f64> {
    assert!(alerts.len() <= 1, "{alerts:?}");
    alerts
        .first()
        .map(|alert| alert.data["value"].as_f64().unwrap())
}
