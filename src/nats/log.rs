//! The source stream and the consumer of one partition and epoch: the worker's [`Log`] over JetStream.
//!
//! What it guarantees:
//! - Every answer about the stream or the consumer comes from its leader; none needs `allow_direct`.
//! - [`Log::open`] pulls on an inbox that was never used before, and [`Log::close`] takes the interest
//!   away at the server and flushes: a pull of ours that outlived a reset would be served, and its
//!   messages lost.
//! - Nothing is hidden. Deliveries carry the server's own numbers, and heartbeats are handed on, since
//!   only they show that the last messages of a stream went to someone else. The client reconnects and
//!   subscribes again without a word; here a lost connection ends the pull with [`Pulled::Dead`].
//! - [`Log::next`] may be dropped at any await: a message is taken from the channel in the same step
//!   that returns it.
//! - Memory is bounded: at most two pulls are open, each limited in messages and in bytes.
//!
//! What it does not: it never resets on its own, never acks on its own, and does not say whether a
//! delivery is the next one. That is the worker's continuity check.

mod pull;
mod wire;

use std::time::Duration;

use bytes::Bytes;
use lookback_protocol::position::StreamSeq;
use lookback_protocol::start::{MessageAt, StreamFacts};
use serde_json::{Value, json};
use tokio::time::timeout;

use self::pull::Pull;
use super::api::{ApiError, Code, TIMEOUT, unavailable};
use super::connect::Nats;
use super::consumers::ObservedConsumer;
use super::streams;
use crate::worker::ports::{AckToken, ConsumerFacts, Log, Pulled, Unavailable};

/// A reset of a consumer that is missing or has no leader is never answered, so waiting is no use.
const RESET_TIMEOUT: Duration = Duration::from_secs(2);

/// See the [module](self).
#[derive(Debug)]
pub struct JetStreamLog {
    nats: Nats,
    stream: String,
    consumer: String,
    pull: Option<Pull>,
}

impl JetStreamLog {
    /// Binds to a stream and a consumer by name. Nothing is asked yet.
    #[must_use]
    pub fn new(nats: Nats, stream: impl Into<String>, consumer: impl Into<String>) -> Self {
        Self {
            nats,
            stream: stream.into(),
            consumer: consumer.into(),
            pull: None,
        }
    }

    fn failed(&self, operation: &'static str, error: impl Into<BoxedError>) -> Unavailable {
        Unavailable {
            operation,
            object: self.consumer.clone(),
            source: error.into(),
        }
    }
}

impl Log for JetStreamLog {
    async fn stream(&mut self) -> Result<StreamFacts, Unavailable> {
        let info = streams::info(&self.nats, &self.stream)
            .await
            .map_err(unavailable("STREAM.INFO", &self.stream))?;
        Ok(info.facts(&self.stream))
    }

    async fn message_at(&mut self, sequence: StreamSeq) -> Result<MessageAt, Unavailable> {
        let found = self
            .nats
            .at_sequence(&self.stream, sequence.0)
            .await
            .map_err(unavailable("STREAM.MSG.GET", &self.stream))?;
        Ok(found.map_or(MessageAt::Absent, |message| {
            MessageAt::Published(message.time)
        }))
    }

    async fn consumer(&mut self) -> Result<Option<ConsumerFacts>, Unavailable> {
        let subject = format!("CONSUMER.INFO.{}.{}", self.stream, self.consumer);
        match self
            .nats
            .api::<ObservedConsumer>(&subject, &Value::Null, TIMEOUT)
            .await
        {
            Ok(info) => Ok(Some(info.facts())),
            Err(ApiError::Refused { code, .. }) if code == Code::CONSUMER_NOT_FOUND => Ok(None),
            Err(error) => Err(unavailable("CONSUMER.INFO", &self.consumer)(error)),
        }
    }

    async fn close(&mut self) -> Result<(), Unavailable> {
        let Some(pull) = self.pull.take() else {
            return Ok(());
        };
        timeout(TIMEOUT, pull.close(self.nats.client()))
            .await
            .map_err(|elapsed| self.failed("UNSUB", elapsed))?
            .map_err(|error| self.failed("UNSUB", error))
    }

    async fn reset(&mut self, next: StreamSeq) -> Result<(), Unavailable> {
        let subject = format!("CONSUMER.RESET.{}.{}", self.stream, self.consumer);
        self.nats
            .api::<Value>(&subject, &json!({ "seq": next }), RESET_TIMEOUT)
            .await
            .map(drop)
            .map_err(unavailable("CONSUMER.RESET", &self.consumer))
    }

    async fn open(&mut self) -> Result<(), Unavailable> {
        self.close().await?;
        let subject = format!(
            "$JS.API.CONSUMER.MSG.NEXT.{}.{}",
            self.stream, self.consumer
        );
        let pull = Pull::open(&self.nats, subject)
            .await
            .map_err(|error| self.failed("CONSUMER.MSG.NEXT", error))?;
        self.pull = Some(pull);
        Ok(())
    }

    async fn next(&mut self) -> Result<Pulled, Unavailable> {
        let Some(pull) = &mut self.pull else {
            return Ok(Pulled::Dead);
        };
        let pulled = pull.next(self.nats.client()).await;
        pulled.map_err(|error| self.failed("CONSUMER.MSG.NEXT", error))
    }

    async fn ack(&mut self, delivery: &AckToken) -> Result<(), Unavailable> {
        self.nats
            .client()
            .publish(delivery.0.clone(), Bytes::new())
            .await
            .map_err(|error| self.failed("ack", error))
    }
}

type BoxedError = Box<dyn std::error::Error + Send + Sync>;
