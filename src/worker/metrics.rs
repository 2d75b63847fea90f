//! What a worker counts. Everything is counted in batches, and every label comes from a closed set.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use lookback_protocol::deadletter::Reason;

/// The metrics of one worker; clones share their values.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Events applied, parked ones included.
    pub events: Counter,
    /// Detections that matched.
    pub matches: Counter,
    /// Alerts by whether they were stored now, known already, or not to be stored.
    pub alerts: Family<AlertLabels, Counter>,
    /// Events parked, by reason.
    pub dead_letters: Family<DeadLetterLabels, Counter>,
    /// Decode, detect and correlate one batch.
    pub batch_seconds: Histogram,
    /// One transaction of the state file.
    pub commit_seconds: Histogram,
    /// From the triggering event's published time to the answer that stored its alert.
    pub alert_latency_seconds: Histogram,
    /// The epoch it works in.
    pub epoch: Gauge,
    /// The last stream sequence committed.
    pub position: Gauge,
    /// Events under the filter that are not yet delivered.
    pub lag: Gauge,
    /// Groups that hold a window.
    pub groups: Gauge,
    /// How often the consumer was positioned, by cause.
    pub repositionings: Family<CauseLabels, Counter>,
    /// Events older than their group allowed.
    pub late: Counter,
    /// Events too far ahead of their published time.
    pub skewed: Counter,
    /// Sequences that left the source stream before they were read.
    pub expired_unread: Counter,
    /// When the checkpoint was last written; its age is the scrape's time minus this.
    pub checkpoint_timestamp_seconds: Gauge<f64, std::sync::atomic::AtomicU64>,
    /// 1 while the worker waits for something outside with no pull open.
    pub held: Gauge,
}

/// Why the consumer was positioned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Cause {
    /// The process began.
    Start,
    /// A delivery jumped: the one before it went to someone else.
    Hole,
    /// A heartbeat showed a delivery that went to someone else.
    HoleAtTail,
    /// The pull died: heartbeats were missed, or the connection was cut.
    PullDead,
    /// The consumer was deleted under the pull.
    ConsumerGone,
    /// A hold ended.
    HoldEnded,
}

/// Labels of [`Metrics::alerts`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AlertLabels {
    /// What the store said.
    pub outcome: AlertOutcome,
}

/// What the store said of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum AlertOutcome {
    /// Stored now.
    New,
    /// Stored before.
    Known,
    /// Not stored, as the request that moved the file wants it.
    Suppressed,
}

/// Labels of [`Metrics::dead_letters`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct DeadLetterLabels {
    /// A [`Reason`].
    pub reason: String,
}

/// Labels of [`Metrics::repositionings`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CauseLabels {
    /// Why.
    pub cause: Cause,
}

impl Metrics {
    /// Makes the metrics known to `registry` under the prefix `worker`.
    pub fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("worker");
        let metrics = Self {
            events: Counter::default(),
            matches: Counter::default(),
            alerts: Family::default(),
            dead_letters: Family::default(),
            batch_seconds: seconds(),
            commit_seconds: seconds(),
            alert_latency_seconds: seconds(),
            epoch: Gauge::default(),
            position: Gauge::default(),
            lag: Gauge::default(),
            groups: Gauge::default(),
            repositionings: Family::default(),
            late: Counter::default(),
            skewed: Counter::default(),
            expired_unread: Counter::default(),
            checkpoint_timestamp_seconds: Gauge::default(),
            held: Gauge::default(),
        };
        metrics.register_counters(registry);
        metrics.register_gauges(registry);
        metrics.register_times(registry);
        metrics
    }

    /// Counts a parked event.
    pub fn count_dead_letter(&self, reason: Reason) {
        let labels = DeadLetterLabels {
            reason: reason.to_string(),
        };
        self.dead_letters.get_or_create(&labels).inc();
    }

    fn register_counters(&self, registry: &mut Registry) {
        registry.register("events", "Events applied", self.events.clone());
        registry.register("matches", "Detections that matched", self.matches.clone());
        registry.register("alerts", "Alerts by outcome", self.alerts.clone());
        registry.register(
            "dead_letters",
            "Events parked by reason",
            self.dead_letters.clone(),
        );
        registry.register(
            "repositionings",
            "Positionings of the consumer by cause",
            self.repositionings.clone(),
        );
        registry.register(
            "late_events",
            "Events older than their group allowed",
            self.late.clone(),
        );
        registry.register(
            "skewed_events",
            "Events too far ahead of their published time",
            self.skewed.clone(),
        );
        registry.register(
            "expired_unread_events",
            "Sequences that left the source stream unread",
            self.expired_unread.clone(),
        );
    }

    fn register_gauges(&self, registry: &mut Registry) {
        registry.register("epoch", "Epoch the worker works in", self.epoch.clone());
        registry.register(
            "position",
            "Last stream sequence committed",
            self.position.clone(),
        );
        registry.register(
            "lag_events",
            "Events under the filter not yet delivered",
            self.lag.clone(),
        );
        registry.register("groups", "Groups that hold a window", self.groups.clone());
        registry.register(
            "held",
            "1 while the worker waits for something outside",
            self.held.clone(),
        );
        registry.register(
            "checkpoint_timestamp_seconds",
            "Unix time of the last checkpoint written",
            self.checkpoint_timestamp_seconds.clone(),
        );
    }

    fn register_times(&self, registry: &mut Registry) {
        let times = [
            ("batch", "Time to apply one batch", &self.batch_seconds),
            (
                "commit",
                "Time of one transaction of the state file",
                &self.commit_seconds,
            ),
            (
                "alert_latency",
                "From the event's published time to its stored alert",
                &self.alert_latency_seconds,
            ),
        ];
        for (name, help, histogram) in times {
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        }
    }
}

/// From half a millisecond to about half a minute.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 17))
}

#[cfg(test)]
mod tests {
    use crate::runtime::metrics::{encode, registry};

    use super::*;

    #[test]
    fn metrics_carry_the_documented_names() {
        let mut registry = registry();
        let metrics = Metrics::register(&mut registry);
        metrics.count_dead_letter(Reason::NotJson);
        metrics
            .repositionings
            .get_or_create(&CauseLabels { cause: Cause::Hole })
            .inc();
        let text = encode(&registry);
        for line in [
            "lookback_worker_events_total 0",
            "lookback_worker_epoch 0",
            "lookback_worker_dead_letters_total{reason=\"NotJson\"} 1",
            "lookback_worker_repositionings_total{cause=\"Hole\"} 1",
            "lookback_worker_commit_seconds_count 0",
        ] {
            assert!(text.contains(line), "no {line} in\n{text}");
        }
    }
}
