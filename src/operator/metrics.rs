//! The operator's metrics.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// What the operator counts. Labels come from closed sets; no object's name is among them.
#[derive(Clone, Debug)]
pub struct OperatorMetrics {
    /// How long reconciles take.
    pub reconcile_seconds: Histogram,
    results: Family<Outcome, Counter>,
    /// 1 while this replica leads.
    pub leader: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    result: &'static str,
}

impl OperatorMetrics {
    /// Registers all of them.
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("operator");
        let buckets = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
        let metrics = Self {
            reconcile_seconds: Histogram::new(buckets),
            results: Family::default(),
            leader: Gauge::default(),
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
}
