//! One YAML document -> one Sigma rule with an id.

use std::collections::HashMap;

use rsigma_parser::{CorrelationRule, FilterRule, SigmaRule, parse_sigma_yaml};
use serde_json::Value;

use super::source::Document;
use super::{Place, Problems};
use crate::canonical::{self, Hash};

/// A rule, where it stands and the id it has here.
#[derive(Clone, Debug)]
pub(super) struct Item<T> {
    pub(super) place: Place,
    pub(super) id: String,
    pub(super) rule: T,
}

/// Every usable document, by kind, each kind in document order.
#[derive(Debug, Default)]
pub(super) struct Documents {
    pub(super) detections: Vec<Item<SigmaRule>>,
    pub(super) correlations: Vec<Item<CorrelationRule>>,
    pub(super) filters: Vec<Item<FilterRule>>,
}

/// Parses `documents`. An id belongs to the first document that has it; later ones are left out.
pub(super) fn parse(documents: Vec<Document>, problems: &mut Problems) -> Documents {
    let mut out = Documents::default();
    let mut places: HashMap<String, Place> = HashMap::new();
    for Document { place, text } in documents {
        if let Err(message) = parse_one(&place, &text, &mut places, &mut out) {
            problems.document(&place, name(&text), message);
        }
    }
    out
}

fn parse_one(
    place: &Place,
    text: &str,
    places: &mut HashMap<String, Place>,
    out: &mut Documents,
) -> Result<(), String> {
    let mut parsed = parse_sigma_yaml(text).map_err(|error| error.to_string())?;
    if let Some(error) = parsed.errors().next() {
        return Err(error.to_string());
    }
    if let Some(rule) = parsed.rules.pop() {
        let id = own_id(rule.id.as_deref(), text, &["logsource", "detection"])?;
        claim(&id, place, places)?;
        let place = place.clone();
        out.detections.push(Item { place, id, rule });
    } else if let Some(rule) = parsed.correlations.pop() {
        let id = own_id(rule.id.as_deref(), text, &["correlation"])?;
        claim(&id, place, places)?;
        let place = place.clone();
        out.correlations.push(Item { place, id, rule });
    } else if let Some(rule) = parsed.filters.pop() {
        let id = rule.id.clone().unwrap_or_else(|| rule.title.clone());
        let place = place.clone();
        out.filters.push(Item { place, id, rule });
    } else {
        return Err(
            "a collection action ('action: global' or 'reset') is not supported; \
             write each rule out in full: it is left out"
                .to_owned(),
        );
    }
    Ok(())
}

/// Sigma's `id`, else `x-` and a hash of the rule's logic, so that the id outlives a new title.
fn own_id(id: Option<&str>, text: &str, logic: &[&str]) -> Result<String, String> {
    if let Some(id) = id.filter(|id| !id.is_empty()) {
        return Ok(id.to_owned());
    }
    let yaml: Value = serde_saphyr::from_str(text)
        .map_err(|error| format!("the rule has no id, and its logic cannot be hashed: {error}"))?;
    let logic: serde_json::Map<String, Value> = logic
        .iter()
        .map(|key| ((*key).to_owned(), yaml[*key].clone()))
        .collect();
    let mut hash = Hash::new();
    hash.part(canonical::json(&Value::Object(logic)));
    Ok(format!("x-{}", hash.short_hex()))
}

fn claim(id: &str, place: &Place, places: &mut HashMap<String, Place>) -> Result<(), String> {
    if let Some(first) = places.get(id) {
        return Err(format!(
            "duplicate id {id}: already used by {}, document {}; this later one is left out",
            first.file, first.document
        ));
    }
    places.insert(id.to_owned(), place.clone());
    Ok(())
}

/// What the author calls the rule, even when the document is not valid YAML.
pub(super) fn name(text: &str) -> Option<String> {
    let field = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key))
            .map(|value| value.trim().trim_matches(['"', '\'']).to_owned())
            .filter(|value| !value.is_empty())
    };
    field("id:").or_else(|| field("title:"))
}
