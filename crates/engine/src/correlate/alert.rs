//! What an alert says.

use jiff::Timestamp;
use lookback_protocol::alert::Window;
use lookback_protocol::ids::GroupField;
use serde_json::{Value, json};

use super::group::Group;
use super::{Alert, At, EventPoint, key};
use crate::decode::Event;
use crate::detect::Match;
use crate::rules::{Correlation, RuleSet};

/// The alert of a detection that matched `event`.
pub(super) fn of_detection(
    rules: &RuleSet,
    found: &Match,
    event: &Event,
    at: At,
    time: Timestamp,
) -> Alert {
    Alert {
        rule: rules.rules()[found.rule].clone(),
        group_key: Vec::new(),
        window: None,
        events: vec![EventPoint {
            sequence: at.sequence,
            time,
        }],
        data: json!({"event": event.value, "matched": found.detail}),
    }
}

/// The alert of a correlation whose condition holds for the window of `group`.
pub(super) fn of_correlation(
    correlation: &Correlation,
    key: &[u8],
    group: &Group,
    value: f64,
) -> Alert {
    let compiled = &correlation.compiled;
    let values = key::values(key).expect("keys in memory are encoded here");
    Alert {
        rule: correlation.rule.clone(),
        group_key: compiled
            .group_by
            .iter()
            .zip(values)
            .map(|(field, value)| GroupField {
                field: field.name().to_owned(),
                value,
            })
            .collect(),
        window: Some(span(group)),
        events: group.points.iter().copied().collect(),
        data: json!({
            "type": compiled.correlation_type.as_str(),
            "value": number(value),
            "timespanSeconds": compiled.timespan_secs,
        }),
    }
}

/// From the oldest to the newest entry; a condition that holds for an empty window spans nothing.
fn span(group: &Group) -> Window {
    let second = |second: Option<i64>| {
        Timestamp::from_second(second.unwrap_or(group.newest))
            .expect("seconds in windows come from timestamps")
    };
    Window {
        from: second(group.window.earliest_timestamp()),
        to: second(group.window.latest_timestamp()),
    }
}

/// Whole numbers without a fraction: a count of 3 is `3`, not `3.0`.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the value is whole and small enough to be exact"
)]
fn number(value: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.fract() == 0.0 && value.abs() < EXACT {
        Value::from(value as i64)
    } else {
        Value::from(value)
    }
}
