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
//! - An event that the client cannot read (headers that are no UTF-8 make it drop the connection, and
//!   anyone who may publish events can send some) is taken from the leader instead: it is handed on
//!   alone, then the pull is dead. So it costs a positioning, and does not stop the pipeline. As some
//!   headers end the client for good, the log has a connection of its own, and makes it anew.
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
pub(super) use self::wire::{Status, ack_reply, status};
use super::api::{ApiError, Code, StoredMessage, unavailable};
use super::connect::Nats;
use super::consumers::ObservedConsumer;
use super::streams;
use crate::worker::ports::{AckToken, ConsumerFacts, Delivery, Log, Pulled, Unavailable};

/// A reset of a consumer that is missing or has no leader is never answered, so waiting is no use.
const RESET_TIMEOUT: Duration = Duration::from_secs(2);

/// See the [module](self).
#[derive(Debug)]
pub struct JetStreamLog {
    /// The connection of the rest of the worker; never pulled over.
    shared: Nats,
    own: Option<Nats>,
    stream: String,
    consumer: String,
    open: Open,
}

#[derive(Debug)]
enum Open {
    Closed,
    Pulling(Box<Pull>),
    /// The next event, which the client could not read; `None` once it is handed on.
    Alone(Option<Box<Delivery>>),
}

impl JetStreamLog {
    /// Binds to a stream and a consumer by name, over another connection like `shared`. Nothing is asked
    /// yet. A loss of either connection ends a pull.
    #[must_use]
    pub fn new(shared: Nats, stream: impl Into<String>, consumer: impl Into<String>) -> Self {
        Self {
            shared,
            own: None,
            stream: stream.into(),
            consumer: consumer.into(),
            open: Open::Closed,
        }
    }

    /// Our connection, made anew if it has ended.
    async fn nats(&mut self) -> Result<Nats, Unavailable> {
        if let Some(own) = self.own.as_ref().filter(|own| !own.is_closed()) {
            return Ok(own.clone());
        }
        let own = self
            .shared
            .again()
            .await
            .map_err(|error| self.failed("connect", error))?;
        self.own = Some(own.clone());
        Ok(own)
    }

    /// The event that a pull would bring first, if the client could not read it.
    async fn unreadable(&self, nats: &Nats) -> Result<Option<Delivery>, Unavailable> {
        let Some(consumer) = self.observed(nats).await? else {
            return Ok(None);
        };
        let facts = consumer.facts();
        let mut first: Option<StoredMessage> = None;
        for filter in consumer.filters() {
            let found = nats
                .next_of_subject(&self.stream, facts.delivered.next().0, filter)
                .await
                .map_err(unavailable("STREAM.MSG.GET", &self.stream))?;
            let earlier = |it: &StoredMessage| {
                first
                    .as_ref()
                    .is_none_or(|first| it.sequence < first.sequence)
            };
            if let Some(message) = found.filter(earlier) {
                first = Some(message);
            }
        }
        let unreadable = first.filter(|it| !wire::is_readable(&it.subject, &it.headers));
        Ok(unreadable.map(|message| {
            tracing::warn!(
                sequence = message.sequence,
                "Event has headers that cannot be pulled, read from the stream instead"
            );
            Delivery {
                consumer_sequence: facts.delivered_consumer + 1,
                sequence: StreamSeq(message.sequence),
                published: message.time,
                subject: message.subject,
                headers: message.headers,
                payload: message.payload,
                pending: facts.pending.saturating_sub(1),
                ack: AckToken(String::new()),
            }
        }))
    }

    async fn observed(&self, nats: &Nats) -> Result<Option<ObservedConsumer>, Unavailable> {
        let subject = format!("CONSUMER.INFO.{}.{}", self.stream, self.consumer);
        match nats.api(&subject, &Value::Null).await {
            Ok(info) => Ok(Some(info)),
            Err(ApiError::Refused { code, .. }) if code == Code::CONSUMER_NOT_FOUND => Ok(None),
            Err(error) => Err(unavailable("CONSUMER.INFO", &self.consumer)(error)),
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
        let info = streams::info(&self.nats().await?, &self.stream)
            .await
            .map_err(unavailable("STREAM.INFO", &self.stream))?;
        Ok(info.facts(&self.stream))
    }

    async fn message_at(&mut self, sequence: StreamSeq) -> Result<MessageAt, Unavailable> {
        let found = self
            .nats()
            .await?
            .at_sequence(&self.stream, sequence.0)
            .await
            .map_err(unavailable("STREAM.MSG.GET", &self.stream))?;
        Ok(found.map_or(MessageAt::Absent, |message| {
            MessageAt::Published(message.time)
        }))
    }

    async fn consumer(&mut self) -> Result<Option<ConsumerFacts>, Unavailable> {
        let nats = self.nats().await?;
        Ok(self.observed(&nats).await?.map(|consumer| consumer.facts()))
    }

    async fn close(&mut self) -> Result<(), Unavailable> {
        let Open::Pulling(pull) = std::mem::replace(&mut self.open, Open::Closed) else {
            return Ok(());
        };
        timeout(self.shared.request_timeout(), pull.close())
            .await
            .map_err(|elapsed| self.failed("UNSUB", elapsed))?
            .map_err(|error| self.failed("UNSUB", error))
    }

    async fn reset(&mut self, next: StreamSeq) -> Result<(), Unavailable> {
        let subject = format!("CONSUMER.RESET.{}.{}", self.stream, self.consumer);
        self.nats()
            .await?
            .api_within::<Value>(&subject, &json!({ "seq": next }), RESET_TIMEOUT)
            .await
            .map(drop)
            .map_err(unavailable("CONSUMER.RESET", &self.consumer))
    }

    async fn open(&mut self) -> Result<(), Unavailable> {
        self.close().await?;
        let nats = self.nats().await?;
        if let Some(event) = self.unreadable(&nats).await? {
            self.open = Open::Alone(Some(Box::new(event)));
            return Ok(());
        }
        let subject = format!(
            "$JS.API.CONSUMER.MSG.NEXT.{}.{}",
            self.stream, self.consumer
        );
        let pull = Pull::open(&nats, &self.shared, subject)
            .await
            .map_err(|error| self.failed("CONSUMER.MSG.NEXT", error))?;
        self.open = Open::Pulling(Box::new(pull));
        Ok(())
    }

    async fn next(&mut self) -> Result<Pulled, Unavailable> {
        let pulled = match &mut self.open {
            Open::Closed => return Ok(Pulled::Dead),
            Open::Alone(event) => {
                let event = event.take().map(|event| Pulled::Delivery(*event));
                return Ok(event.unwrap_or(Pulled::Dead));
            }
            Open::Pulling(pull) => pull.next().await,
        };
        pulled.map_err(|error| self.failed("CONSUMER.MSG.NEXT", error))
    }

    async fn ack(&mut self, delivery: &AckToken) -> Result<(), Unavailable> {
        if delivery.0.is_empty() {
            // Read from the stream, not delivered by the consumer.
            return Ok(());
        }
        let nats = self.nats().await?;
        let client = nats.client();
        client
            .publish(delivery.0.clone(), Bytes::new())
            .await
            .map_err(|error| self.failed("ack", error))?;
        // The process may end right after this.
        timeout(nats.request_timeout(), client.flush())
            .await
            .map_err(|elapsed| self.failed("ack", elapsed))?
            .map_err(|error| self.failed("ack", error))
    }
}

type BoxedError = Box<dyn std::error::Error + Send + Sync>;
