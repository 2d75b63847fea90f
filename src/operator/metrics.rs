//! The operator's metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};

use lookback_protocol::names::PipelineKey;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// What the operator counts and measures. Labels come from closed sets; what is about one pipeline has
/// its name for a label, and goes when the pipeline goes.
#[derive(Clone, Debug)]
pub struct OperatorMetrics {
    /// How long reconciles take.
    pub reconcile_seconds: Histogram,
    results: Family<Outcome, Counter>,
    /// 1 while this replica leads.
    pub leader: Gauge,
    horizon: Family<Pipeline, Gauge<f64, AtomicU64>>,
    above_horizon: Family<Pipeline, Gauge>,
    alerts: Family<State, Gauge>,
    dead_letters: Family<State, Gauge>,
    /// The states that are shown, so that they can be taken away.
    shown: Arc<Mutex<BTreeSet<State>>>,
}

/// How many alerts or dead letters there are in each state.
type ByState = BTreeMap<String, i64>;

/// How far back the source stream of a pipeline goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Horizon {
    /// The age of its oldest message, in seconds.
    pub seconds: f64,
    /// Sequences from that message up to the position of the worker: how many may leave the stream
    /// before one leaves it unread. Negative when some have.
    pub above: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Pipeline {
    namespace: String,
    name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
struct State {
    namespace: String,
    name: String,
    state: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

impl OperatorMetrics {
    /// Registers all of them.
    pub fn register(registry: &mut Registry) -> Self {
        let pipelines = registry.sub_registry_with_prefix("pipeline");
        let (horizon, above_horizon) = (Family::default(), Family::default());
        pipelines.register_with_unit(
            "replay_horizon",
            "The age of the oldest message in the source stream: how far back a replay can go",
            Unit::Seconds,
            Family::clone(&horizon),
        );
        pipelines.register_with_unit(
            "position_above_horizon",
            "Sequences from the oldest message in the source stream up to the worker's position; below zero events left unread",
            Unit::Other("events".to_owned()),
            Family::clone(&above_horizon),
        );
        let (alerts, dead_letters) = (Family::default(), Family::default());
        pipelines.register("alerts", "Alerts by state", Family::clone(&alerts));
        pipelines.register(
            "dead_letters",
            "Dead letters by state",
            Family::clone(&dead_letters),
        );
        let registry = registry.sub_registry_with_prefix("operator");
        let buckets = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
        let metrics = Self {
            reconcile_seconds: Histogram::new(buckets),
            results: Family::default(),
            leader: Gauge::default(),
            horizon,
            above_horizon,
            alerts,
            dead_letters,
            shown: Arc::default(),
        };
        registry.register_with_unit(
            "reconcile",
            "How long one reconcile takes",
            Unit::Seconds,
            metrics.reconcile_seconds.clone(),
        );
        registry.register(
            "reconciles",
            "Reconciles by result: ok, or the category of the error",
            metrics.results.clone(),
        );
        registry.register(
            "leader",
            "1 while this replica leads",
            metrics.leader.clone(),
        );
        metrics
    }

    /// Counts one reconcile; `result` is `ok` or an error's category.
    pub fn count(&self, result: &'static str) {
        self.results.get_or_create(&Outcome { result }).inc();
    }

    /// Shows how many alerts and dead letters a pipeline has, and of no state beside these.
    pub fn show_counts(&self, key: &PipelineKey, alerts: &ByState, dead_letters: &ByState) {
        self.forget_counts(key.namespace(), key.name());
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        for (family, counts) in [(&self.alerts, alerts), (&self.dead_letters, dead_letters)] {
            for (state, count) in counts {
                let state = State {
                    namespace: key.namespace().to_owned(),
                    name: key.name().to_owned(),
                    state: state.clone(),
                };
                family.get_or_create(&state).set(*count);
                shown.insert(state);
            }
        }
    }

    /// Shows the horizon of a pipeline, or nothing while it is not known.
    pub fn show(&self, key: &PipelineKey, horizon: Option<Horizon>) {
        let Some(Horizon { seconds, above }) = horizon else {
            return self.forget_horizon(key.namespace(), key.name());
        };
        let pipeline = Pipeline::new(key.namespace(), key.name());
        self.horizon.get_or_create(&pipeline).set(seconds);
        if let Some(above) = above {
            self.above_horizon.get_or_create(&pipeline).set(above);
        } else {
            self.above_horizon.remove(&pipeline);
        }
    }

    /// Shows nothing more of a pipeline.
    pub fn forget(&self, namespace: &str, name: &str) {
        self.forget_horizon(namespace, name);
        self.forget_counts(namespace, name);
    }

    fn forget_horizon(&self, namespace: &str, name: &str) {
        let pipeline = Pipeline::new(namespace, name);
        self.horizon.remove(&pipeline);
        self.above_horizon.remove(&pipeline);
    }

    fn forget_counts(&self, namespace: &str, name: &str) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        shown.retain(|state| {
            let gone = (&*state.namespace, &*state.name) == (namespace, name);
            if gone {
                self.alerts.remove(state);
                self.dead_letters.remove(state);
            }
            !gone
        });
    }
}

impl Pipeline {
    fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::metrics;

    #[test]
    fn results_are_counted_by_category() {
        let mut registry = metrics::registry();
        OperatorMetrics::register(&mut registry).count("Apply");
        let page = metrics::encode(&registry);
        let line = "lookback_operator_reconciles_total{result=\"Apply\"} 1";
        assert!(page.contains(line), "{page}");
    }

    #[test]
    fn a_pipeline_is_shown_until_it_goes() {
        let mut registry = metrics::registry();
        let metrics = OperatorMetrics::register(&mut registry);
        let key = PipelineKey::new("detections", "edr").unwrap();
        let shown = |seconds, above| metrics.show(&key, Some(Horizon { seconds, above }));
        let labels = "{namespace=\"detections\",name=\"edr\"}";
        let horizon = format!("lookback_pipeline_replay_horizon_seconds{labels} 90.5");
        let above = format!("lookback_pipeline_position_above_horizon_events{labels} -3");
        shown(90.5, Some(-3));
        let page = metrics::encode(&registry);
        assert!(page.contains(&horizon) && page.contains(&above), "{page}");
        shown(90.5, None);
        let page = metrics::encode(&registry);
        assert!(
            page.contains(&horizon) && !page.contains(labels_of(&above)),
            "{page}"
        );
        metrics.show(&key, None);
        assert!(
            !metrics::encode(&registry).contains(labels),
            "it is still shown"
        );
        shown(1.0, Some(1));
        metrics.forget("detections", "edr");
        assert!(
            !metrics::encode(&registry).contains(labels),
            "it is still shown"
        );
    }

    #[test]
    fn counts_are_shown_by_state_and_a_state_that_is_gone_is_not() {
        let mut registry = metrics::registry();
        let metrics = OperatorMetrics::register(&mut registry);
        let key = PipelineKey::new("detections", "edr").unwrap();
        let by = |states: &[(&str, i64)]| -> ByState {
            let states = states.iter();
            states.map(|(state, n)| ((*state).to_owned(), *n)).collect()
        };
        let letters = by(&[("parked", 2)]);
        metrics.show_counts(&key, &by(&[("new", 3), ("waiting", 1)]), &letters);
        metrics.show_counts(&key, &by(&[("new", 4)]), &letters);
        let page = metrics::encode(&registry);
        let labels = "{namespace=\"detections\",name=\"edr\",state=";
        let alerts = format!("lookback_pipeline_alerts{labels}\"new\"}} 4");
        let parked = format!("lookback_pipeline_dead_letters{labels}\"parked\"}} 2");
        assert!(page.contains(&alerts) && page.contains(&parked), "{page}");
        assert!(!page.contains("waiting"), "{page}");
        metrics.forget("detections", "edr");
        let page = metrics::encode(&registry);
        assert!(!page.contains(labels), "{page}");
    }

    /// The line of a sample without its value.
    fn labels_of(line: &str) -> &str {
        line.rsplit_once(' ').map_or(line, |(labels, _)| labels)
    }
}
