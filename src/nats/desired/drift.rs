//! How an object differs from what it must look like, and what mends it.

use serde_json::Value;

use super::Config;

/// How an object differs from what it must look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drift {
    /// It does not.
    None,
    /// In these fields, and all of them can be updated in place.
    Update {
        /// Names of JetStream's JSON.
        fields: Vec<String>,
    },
    /// In a field that can only be set at creation. It is never repaired by deleting.
    Immutable {
        /// The name in JetStream's JSON.
        field: String,
        /// What it must be.
        desired: String,
        /// What it is.
        found: String,
    },
}

/// What to send to make `observed` as desired: everything it holds, and over it what is desired. With
/// an empty `observed`, what to send to create it.
#[must_use]
pub fn merged(desired: &Config, observed: &Config) -> Config {
    let mut merged = with_filters_as_list(observed.clone());
    for (field, value) in desired {
        match (value, merged.get_mut(field)) {
            (Value::Null, _) => {
                merged.remove(field);
            }
            (Value::Object(ours), Some(Value::Object(theirs))) => theirs.extend(ours.clone()),
            _ => {
                merged.insert(field.clone(), value.clone());
            }
        }
    }
    merged
}

pub(super) fn drift(desired: &Config, observed: &Config, immutable: &[&str]) -> Drift {
    let mut differing = desired
        .iter()
        .filter(|(field, value)| !holds(value, observed.get(*field)))
        .peekable();
    if differing.peek().is_none() {
        return Drift::None;
    }
    let mut fields = Vec::new();
    for (field, value) in differing {
        // Those of them that are flags can be switched on, but never off.
        if immutable.contains(&field.as_str()) && *value != Value::Bool(true) {
            return Drift::Immutable {
                field: field.clone(),
                desired: value.to_string(),
                found: observed.get(field).unwrap_or(&Value::Null).to_string(),
            };
        }
        fields.push(field.clone());
    }
    Drift::Update { fields }
}

/// Whether what is observed satisfies what is desired. Servers leave zero values out.
fn holds(desired: &Value, observed: Option<&Value>) -> bool {
    match (desired, observed) {
        (Value::Object(ours), Some(theirs)) => ours
            .iter()
            .all(|(key, value)| holds(value, theirs.get(key))),
        (Value::Null, Some(observed)) => is_zero(observed),
        (_, Some(observed)) => desired == observed,
        (_, None) => is_zero(desired),
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty() || text == "none",
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

pub(super) fn with_filters_as_list(mut config: Config) -> Config {
    if let Some(filter) = config.remove("filter_subject")
        && !is_zero(&filter)
    {
        config.insert("filter_subjects".to_owned(), Value::Array(vec![filter]));
    }
    config
}
