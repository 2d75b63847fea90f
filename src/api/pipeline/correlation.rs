//! What a spec may say about time and windows.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration;
use crate::api::Duration;

/// How time and windows are treated.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CorrelationSpec {
    /// Fields that hold the event's own time, first match wins; dots descend.
    #[schemars(length(max = 16), inner(length(min = 1, max = 256)))]
    pub timestamp_fields: Vec<String>,
    /// What to do when none of them does: Published takes the time at which JetStream stored the
    /// event; WallClock the worker's own, which gives up exact replays; Skip leaves windows alone.
    pub timestamp_fallback: TimestampFallback,
    /// How much older than its group's newest event an event may be and still count.
    pub allowed_lateness: Duration,
    /// How far after its published time an event may claim to be and still count.
    pub max_future_skew: Duration,
    /// When a condition that holds gives an alert: when it begins to hold, or on every event.
    pub refire: Refire,
    /// Which matches become alerts.
    pub emit: Emit,
    /// Bounds on what is kept; what is beyond is evicted, oldest first.
    pub limits: LimitsSpec,
}

impl Default for CorrelationSpec {
    fn default() -> Self {
        Self {
            timestamp_fields: vec!["UtcTime".to_owned(), "@timestamp".to_owned()],
            timestamp_fallback: TimestampFallback::default(),
            allowed_lateness: duration("5m"),
            max_future_skew: duration("5m"),
            refire: Refire::default(),
            emit: Emit::default(),
            limits: LimitsSpec::default(),
        }
    }
}

/// The time of an event without a timestamp field.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimestampFallback {
    /// When JetStream stored it.
    #[default]
    Published,
    /// When the worker saw it.
    WallClock,
    /// None: detections only.
    Skip,
}

/// When a condition that holds gives an alert.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Refire {
    /// On the event that makes it true.
    #[default]
    OncePerWindow,
    /// On every event while it is true.
    EveryEvent,
}

/// Which matches become alerts.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Emit {
    /// Detections and correlations.
    #[default]
    All,
    /// Correlations only.
    Correlations,
}

/// Bounds on what a pipeline keeps.
#[derive(JsonSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LimitsSpec {
    /// Groups over all correlations.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub groups: i64,
    /// Entries of one group's window.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub events_per_group: i64,
}

impl Default for LimitsSpec {
    fn default() -> Self {
        Self {
            groups: 1_000_000,
            events_per_group: 10_000,
        }
    }
}
