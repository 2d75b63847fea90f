//! What one event adds to a window, as the evaluator reads it.

use rsigma_eval::{CompiledCorrelation, Event as _, EventValue, JsonEvent};
use rsigma_parser::CorrelationType;

/// What is counted for one event.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Counted {
    /// The event itself.
    Event,
    /// A value of which distinct ones are counted.
    Distinct(String),
    /// A number.
    Number(f64),
    /// The event lacks the value: it moves the window and adds nothing to it.
    Nothing,
}

/// What `event` adds to a window of `correlation`.
pub(super) fn of(event: &JsonEvent<'_>, correlation: &CompiledCorrelation) -> Counted {
    let fields = correlation.condition.field.as_deref().unwrap_or_default();
    match correlation.correlation_type {
        CorrelationType::EventCount
        | CorrelationType::Temporal
        | CorrelationType::TemporalOrdered => Counted::Event,
        CorrelationType::ValueCount => {
            distinct(event, fields).map_or(Counted::Nothing, Counted::Distinct)
        }
        CorrelationType::ValueSum
        | CorrelationType::ValueAvg
        | CorrelationType::ValuePercentile
        | CorrelationType::ValueMedian => fields
            .first()
            .and_then(|field| event.get_field(field)?.as_f64())
            .map_or(Counted::Nothing, Counted::Number),
    }
}

/// The values of all fields, joined by the ASCII unit separator; a null is the value `null`.
fn distinct(event: &JsonEvent<'_>, fields: &[String]) -> Option<String> {
    let mut out = String::new();
    for (index, field) in fields.iter().enumerate() {
        if index > 0 {
            out.push('\u{1f}');
        }
        match event.get_field(field)? {
            EventValue::Null => out.push_str("null"),
            value => out.push_str(&value.as_str()?),
        }
    }
    Some(out)
}
