//! Group keys: the group-by values of one event, as the evaluator renders them, each with its length
//! before it.

use rsigma_eval::{Event as _, JsonEvent};

use super::codec::{Reader, Writer};

/// The key of `event`, or `None` when a field is missing, null, an object or an array.
pub(super) fn of(event: &JsonEvent<'_>, fields: &[String]) -> Option<Vec<u8>> {
    let mut out = Writer::default();
    for field in fields {
        let value = event.get_field(field)?;
        out.text(&value.as_str()?);
    }
    Some(out.finish())
}

/// The values in `key`.
pub(super) fn values(key: &[u8]) -> Result<Vec<String>, String> {
    let mut reader = Reader::new(key);
    let mut out = Vec::new();
    while !reader.is_empty() {
        out.push(reader.text()?);
    }
    Ok(out)
}
