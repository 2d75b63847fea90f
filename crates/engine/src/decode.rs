//! Payload -> event, with limits on depth and size.

use lookback_protocol::deadletter::Reason;
use serde_json::Value;

/// `serde_json` itself goes no deeper than this.
const PARSER_DEPTH: usize = 127;

/// One decoded event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The JSON object.
    pub value: serde_json::Value,
}

/// A payload that is no event; the message says what is wrong where.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct DecodeError {
    /// Why it is parked.
    pub reason: Reason,
    /// The error in words.
    pub message: String,
}

/// Decodes payloads within limits.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// The deepest nesting taken; the object itself is depth 1. Above 127 the parser's own limit holds.
    pub max_depth: usize,
    /// The largest payload taken, in bytes.
    pub max_bytes: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            max_depth: 64,
            max_bytes: 8 * 1024 * 1024,
        }
    }
}

impl Decoder {
    /// Decodes one payload: exactly one JSON object; of duplicate keys the last wins.
    ///
    /// # Errors
    /// [`DecodeError`] with the reason under which the event is parked.
    pub fn decode(&self, payload: &[u8]) -> Result<Event, DecodeError> {
        if payload.len() > self.max_bytes {
            return Err(DecodeError {
                reason: Reason::TooLarge,
                message: format!(
                    "the payload has {} bytes, more than the {} an event may have",
                    payload.len(),
                    self.max_bytes
                ),
            });
        }
        if payload.trim_ascii().is_empty() {
            return Err(DecodeError {
                reason: Reason::Empty,
                message: "the payload is empty".to_owned(),
            });
        }
        let limit = self.max_depth.min(PARSER_DEPTH);
        if deeper_than(payload, limit) {
            return Err(DecodeError {
                reason: Reason::TooDeep,
                message: format!("the payload is nested deeper than {limit} levels"),
            });
        }
        let value: Value = serde_json::from_slice(payload).map_err(|error| DecodeError {
            reason: Reason::NotJson,
            message: format!("the payload is no JSON: {error}"),
        })?;
        if !value.is_object() {
            return Err(DecodeError {
                reason: Reason::NotObject,
                message: format!("the payload is no JSON object but {}", kind(&value)),
            });
        }
        Ok(Event { value })
    }
}

/// Whether brackets outside of strings nest deeper than `limit`, without recursion.
fn deeper_than(payload: &[u8], limit: usize) -> bool {
    // Nearly every event has fewer brackets than the limit, and counting them is far cheaper than
    // following strings and escapes.
    let opening = |b: &&u8| matches!(b, b'{' | b'[');
    if payload.iter().filter(opening).count() <= limit {
        return false;
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for &byte in payload {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(payload: &[u8]) -> Reason {
        Decoder::default().decode(payload).unwrap_err().reason
    }

    #[test]
    fn a_payload_that_is_no_event_has_its_reason() {
        for (payload, expected) in [
            (&b""[..], Reason::Empty),
            (b" \r\n\t", Reason::Empty),
            (b"{", Reason::NotJson),
            (b"{} {}", Reason::NotJson),
            (b"{\"a\":\"\xff\"}", Reason::NotJson),
            (b"\xef\xbb\xbf{}", Reason::NotJson),
            (b"<Event/>", Reason::NotJson),
            (b"[1]", Reason::NotObject),
            (b"null", Reason::NotObject),
            (b"\"text\"", Reason::NotObject),
        ] {
            assert_eq!(reason(payload), expected, "{payload:?}");
        }
    }

    #[test]
    fn of_duplicate_keys_the_last_wins() {
        let event = Decoder::default().decode(br#"{"a":1,"a":2}"#).unwrap();
        assert_eq!(event.value["a"], 2);
    }

    #[test]
    fn depth_is_counted_from_the_object_itself() {
        let nested = |depth: usize| format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
        let decoder = Decoder::default();
        assert!(decoder.decode(nested(64).as_bytes()).is_ok());
        assert_eq!(reason(nested(65).as_bytes()), Reason::TooDeep);
        assert_eq!(reason(nested(1_000_000).as_bytes()), Reason::TooDeep);
    }

    #[test]
    fn a_depth_above_the_parsers_own_limit_is_still_too_deep() {
        let decoder = Decoder {
            max_depth: 10_000,
            ..Decoder::default()
        };
        let error = decoder.decode(r#"{"a":"#.repeat(128).as_bytes());
        assert_eq!(error.unwrap_err().reason, Reason::TooDeep);
    }

    #[test]
    fn brackets_in_strings_are_no_depth() {
        let text = format!(r#"{{"a":"\"{}"}}"#, "[".repeat(500));
        assert!(Decoder::default().decode(text.as_bytes()).is_ok());
    }

    #[test]
    fn a_payload_over_the_limit_is_too_large_whatever_it_holds() {
        let decoder = Decoder {
            max_bytes: 4,
            ..Decoder::default()
        };
        assert!(decoder.decode(b"{  }").is_ok());
        let error = decoder.decode(b"{   }").unwrap_err();
        assert_eq!(error.reason, Reason::TooLarge);
    }
}
