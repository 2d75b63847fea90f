//! A message as a stream holds it, however it came.

use async_nats::{HeaderMap, HeaderValue, Message};
use bytes::Bytes;
use data_encoding::BASE64;
use jiff::Timestamp;
use serde::Deserialize;

use super::{ApiError, unreadable};

/// The headers in which a server says where a message stands, and what comes before and after it.
const PLACE: [&str; 6] = [
    "Nats-Stream",
    "Nats-Subject",
    "Nats-Sequence",
    "Nats-Time-Stamp",
    "Nats-Num-Pending",
    "Nats-Last-Sequence",
];

/// A message as a stream holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// Its subject.
    pub subject: String,
    /// Its sequence.
    pub sequence: u64,
    /// When it was stored, in nanoseconds.
    pub time: Timestamp,
    /// Its headers in NATS wire form; empty for none.
    pub headers: Bytes,
    /// Its payload.
    pub payload: Bytes,
}

impl StoredMessage {
    /// The first value of a header, without the space around it. What only Unicode calls a space is
    /// part of it: a subject may end in such a character, and is another without it.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let text = std::str::from_utf8(&self.headers).ok()?;
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.trim_matches([' ', '\t']))
    }

    /// A message that the server sends with its place in headers: to a direct get, or as a stream
    /// publishes it again.
    pub(in crate::nats) fn copied(message: &Message) -> Result<Self, ApiError> {
        let header = |name: &str| {
            let value = message.headers.as_ref().and_then(|it| it.get(name));
            value
                .map(HeaderValue::as_str)
                .ok_or_else(|| ApiError::Unreadable(format!("a message without {name}").into()))
        };
        let mut own = HeaderMap::new();
        for (name, values) in message.headers.iter().flat_map(HeaderMap::iter) {
            for value in values.iter().filter(|_| !PLACE.contains(&name.as_ref())) {
                own.append(name.clone(), value.clone());
            }
        }
        Ok(Self {
            subject: header("Nats-Subject")?.to_owned(),
            sequence: header("Nats-Sequence")?.parse().map_err(unreadable)?,
            time: header("Nats-Time-Stamp")?.parse().map_err(unreadable)?,
            headers: wire_form(Some(&own)),
            payload: message.payload.clone(),
        })
    }

    /// Whether it says that a key of a bucket was deleted, and holds no value.
    pub(in crate::nats) fn is_marker(&self) -> bool {
        matches!(self.header("KV-Operation"), Some("DEL" | "PURGE"))
    }
}

/// A message as the leader writes it in its answer.
#[derive(Deserialize)]
pub(super) struct RawMessage {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
    time: Timestamp,
}

impl RawMessage {
    pub(super) fn decode(self) -> Result<StoredMessage, ApiError> {
        let bytes = |text: String| {
            BASE64
                .decode(text.as_bytes())
                .map(Bytes::from)
                .map_err(unreadable)
        };
        Ok(StoredMessage {
            subject: self.subject,
            sequence: self.seq,
            time: self.time,
            headers: bytes(self.hdrs)?,
            payload: bytes(self.data)?,
        })
    }
}

/// Text as a header may hold it: on one line, without what a client panics on.
pub(in crate::nats) fn header_text(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(plain).collect()
}

/// Headers in NATS wire form, sorted by name; empty for none.
pub(in crate::nats) fn wire_form(headers: Option<&HeaderMap>) -> Bytes {
    let Some(headers) = headers.filter(|headers| !headers.is_empty()) else {
        return Bytes::new();
    };
    let mut lines: Vec<_> = headers.iter().collect();
    lines.sort_by(|(a, _), (b, _)| AsRef::<str>::as_ref(*a).cmp(AsRef::<str>::as_ref(*b)));
    let mut wire = String::from("NATS/1.0\r\n");
    for (name, values) in lines {
        for value in values {
            wire.push_str(&format!("{name}: {}\r\n", value.as_str()));
        }
    }
    wire.push_str("\r\n");
    Bytes::from(wire)
}
