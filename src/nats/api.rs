//! Requests to JetStream with the server's own error codes. async-nats' helpers hide them: a lost race
//! on a replicated stream is 10164, which they call "other", and their key-value reads may be stale.
//! Everything here is answered by the leader, but for what `direct` has.

mod batch;
mod direct;

use std::fmt;
use std::time::Duration;

use async_nats::client::{Request, RequestError};
use async_nats::{HeaderMap, HeaderValue, Message};
use bytes::Bytes;
use data_encoding::BASE64;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub(super) use self::batch::Draft;
pub(super) use self::direct::{Copied, MAX_SUBJECTS};
use super::connect::Nats;
use crate::worker::ports::Unavailable;

/// Why a request was not granted.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The server said no; nothing was done.
    #[error("the server refused it: {description} ({code})")]
    Refused {
        /// JetStream's error code.
        code: Code,
        /// JetStream's words.
        description: String,
    },
    /// No answer: it may have been done, or not.
    #[error("no answer")]
    NoAnswer(#[source] RequestError),
    /// An answer that is none.
    #[error("the answer cannot be read")]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server took a write for a repetition of another and did not store it.
    #[error("the server took it for a duplicate of sequence {0} and did not store it")]
    Swallowed(u64),
    /// A direct get that nobody is there to answer.
    #[error(
        "no copy of the stream answers direct gets: it does not exist, or its allow_direct is off"
    )]
    NoCopies,
}

/// An error code of JetStream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Code(pub u64);

impl Code {
    /// More subjects than a server looks up at once; a status, for want of a code.
    pub const TOO_MANY_RESULTS: Self = Self(413);
    /// No such consumer.
    pub const CONSUMER_NOT_FOUND: Self = Self(10014);
    /// No such message.
    pub const MESSAGE_NOT_FOUND: Self = Self(10037);
    /// No such stream.
    pub const STREAM_NOT_FOUND: Self = Self(10059);

    /// Whether a compare-and-swap lost. On replicated streams 10164 only says that another write of
    /// the subject is in process, not that it will succeed.
    #[must_use]
    pub fn is_conflict(self) -> bool {
        matches!(self.0, 10071 | 10164)
    }

    /// Whether room was lacking: in the stream, the account or the server.
    #[must_use]
    pub fn is_full(self) -> bool {
        matches!(self.0, 10002 | 10023 | 10047 | 10077)
    }

    /// Whether this account has no JetStream.
    #[must_use]
    pub fn is_jetstream_missing(self) -> bool {
        matches!(self.0, 10039 | 10076)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl ApiError {
    /// The server's code, when it refused.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::NoAnswer(_) | Self::Unreadable(_) | Self::Swallowed(_) | Self::NoCopies => None,
        }
    }
}

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
    /// The first value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let text = std::str::from_utf8(&self.headers).ok()?;
        text.lines()
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.trim())
    }

    /// A message that the server sends with its place in headers: to a direct get, or as a stream
    /// publishes it again.
    pub(super) fn copied(message: &Message) -> Result<Self, ApiError> {
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
    pub(super) fn is_marker(&self) -> bool {
        matches!(self.header("KV-Operation"), Some("DEL" | "PURGE"))
    }
}

/// The headers in which a server says where a message stands, and what comes before and after it.
const PLACE: [&str; 6] = [
    "Nats-Stream",
    "Nats-Subject",
    "Nats-Sequence",
    "Nats-Time-Stamp",
    "Nats-Num-Pending",
    "Nats-Last-Sequence",
];

/// Text as a header may hold it: on one line, without what a client panics on.
pub(super) fn header_text(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(plain).collect()
}

pub(super) fn unavailable(
    operation: &'static str,
    object: impl Into<String>,
) -> impl FnOnce(ApiError) -> Unavailable {
    let object = object.into();
    move |source| Unavailable {
        operation,
        object,
        source: Box::new(source),
    }
}

/// Headers in NATS wire form, sorted by name; empty for none.
pub(super) fn wire_form(headers: Option<&HeaderMap>) -> Bytes {
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

impl Nats {
    /// One request below `$JS.API.`. A time-out proves nothing: it may have been done.
    pub(super) async fn api<T: DeserializeOwned>(
        &self,
        subject: &str,
        body: &Value,
    ) -> Result<T, ApiError> {
        self.api_within(subject, body, self.request_timeout()).await
    }

    /// As [`Self::api`], for what is known to be answered sooner or later than other requests.
    pub(super) async fn api_within<T: DeserializeOwned>(
        &self,
        subject: &str,
        body: &Value,
        timeout: Duration,
    ) -> Result<T, ApiError> {
        let payload = if body.is_null() {
            Bytes::new()
        } else {
            Bytes::from(body.to_string())
        };
        let request = Request::new().payload(payload).timeout(Some(timeout));
        let message = self
            .client()
            .send_request(format!("$JS.API.{subject}"), request)
            .await
            .map_err(ApiError::NoAnswer)?;
        answer(&message)
    }

    /// Publishes into a stream and waits for its PubAck; the sequence it was stored at.
    pub(super) async fn publish(
        &self,
        subject: String,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<u64, ApiError> {
        stored(answer(&self.send(subject, headers, body).await?)?)
    }

    /// As [`Self::publish`], into this stream: somebody who merely listens on the subject may answer too.
    pub(super) async fn publish_into(
        &self,
        stream: &str,
        subject: String,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<u64, ApiError> {
        let ack: PubAck = answer(&self.send(subject, headers, body).await?)?;
        if ack.stream != stream {
            let other = format!("it is that of stream {}", ack.stream);
            return Err(unreadable(other));
        }
        stored(ack)
    }

    /// Publishes a part of a batch that is not its last; the server answers with nothing, or why not.
    pub(super) async fn publish_part(
        &self,
        subject: String,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<(), ApiError> {
        let message = self.send(subject, headers, body).await?;
        if message.payload.is_empty() {
            return Ok(());
        }
        answer::<Value>(&message).map(drop)
    }

    /// The last message of `subject`, which may hold wildcards.
    pub(super) async fn last_of_subject(
        &self,
        stream: &str,
        subject: &str,
    ) -> Result<Option<StoredMessage>, ApiError> {
        self.leader_get(stream, &json!({ "last_by_subj": subject }))
            .await
    }

    /// The first message at or after `sequence` under `subject`, which may hold wildcards.
    pub(super) async fn next_of_subject(
        &self,
        stream: &str,
        sequence: u64,
        subject: &str,
    ) -> Result<Option<StoredMessage>, ApiError> {
        let by = json!({ "seq": sequence, "next_by_subj": subject });
        self.leader_get(stream, &by).await
    }

    /// The message at `sequence`.
    pub(super) async fn at_sequence(
        &self,
        stream: &str,
        sequence: u64,
    ) -> Result<Option<StoredMessage>, ApiError> {
        self.leader_get(stream, &json!({ "seq": sequence })).await
    }

    /// The first message stored at or after `time`, to the nanosecond. With a time alone the server
    /// may name a deleted message; so it is asked for the next one there is.
    pub(super) async fn first_since(
        &self,
        stream: &str,
        time: Timestamp,
    ) -> Result<Option<StoredMessage>, ApiError> {
        let by = json!({ "start_time": time, "next_by_subj": ">" });
        self.leader_get(stream, &by).await
    }

    async fn leader_get(
        &self,
        stream: &str,
        by: &Value,
    ) -> Result<Option<StoredMessage>, ApiError> {
        let subject = format!("STREAM.MSG.GET.{stream}");
        match self.api::<GetAnswer>(&subject, by).await {
            Ok(answer) => answer.message.decode().map(Some),
            Err(ApiError::Refused { code, .. }) if code == Code::MESSAGE_NOT_FOUND => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn send(
        &self,
        subject: String,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Message, ApiError> {
        let request = Request::new()
            .payload(body)
            .headers(headers)
            .timeout(Some(self.request_timeout()));
        self.client()
            .send_request(subject, request)
            .await
            .map_err(ApiError::NoAnswer)
    }
}

fn answer<T: DeserializeOwned>(message: &Message) -> Result<T, ApiError> {
    let Outcome { error } = serde_json::from_slice(&message.payload).map_err(unreadable)?;
    if let Some(refusal) = error {
        return Err(ApiError::Refused {
            code: refusal.err_code,
            description: refusal.description,
        });
    }
    serde_json::from_slice(&message.payload).map_err(unreadable)
}

fn stored(ack: PubAck) -> Result<u64, ApiError> {
    match ack.duplicate {
        true => Err(ApiError::Swallowed(ack.seq)),
        false => Ok(ack.seq),
    }
}

fn unreadable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ApiError {
    ApiError::Unreadable(error.into())
}

#[derive(Deserialize)]
struct Outcome {
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default = "no_code")]
    err_code: Code,
    #[serde(default)]
    description: String,
}

fn no_code() -> Code {
    Code(0)
}

#[derive(Deserialize)]
struct PubAck {
    #[serde(default)]
    stream: String,
    seq: u64,
    #[serde(default)]
    duplicate: bool,
}

#[derive(Deserialize)]
struct GetAnswer {
    message: RawMessage,
}

#[derive(Deserialize)]
struct RawMessage {
    subject: String,
    seq: u64,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
    time: Timestamp,
}

impl RawMessage {
    fn decode(self) -> Result<StoredMessage, ApiError> {
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
