//! Requests to JetStream with the server's own error codes. async-nats' helpers hide them: a lost race
//! on a replicated stream is 10164, which they call "other", and their key-value reads may be stale.
//! Everything here is answered by the leader, but for what `direct` has.

mod batch;
mod direct;
mod error;
mod message;

use std::time::Duration;

use async_nats::client::Request;
use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub(super) use self::batch::Draft;
pub(super) use self::direct::{Copied, MAX_SUBJECTS};
pub use self::error::{ApiError, Code};
use self::message::RawMessage;
pub use self::message::StoredMessage;
pub(super) use self::message::{header_text, wire_form};
use super::connect::Nats;
use crate::worker::ports::Unavailable;

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
