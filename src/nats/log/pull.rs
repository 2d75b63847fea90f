//! An open pull: requests are renewed on one inbox before they run dry.

use std::time::Duration;

use async_nats::{Client, Message, PublishError, StatusCode, SubscribeError, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::wire::{self, AckReply, Status};
use crate::nats::api::wire_form;
use crate::nats::connect::Nats;
use crate::nats::desired::nanoseconds;
use crate::worker::ports::{AckToken, Delivery, Pulled};

/// Messages of one request.
const BATCH: u64 = 1000;
/// The next request is sent when fewer than this are still to come.
const RENEW_BELOW: u64 = BATCH / 2;
/// Bytes of one request, unless two of the largest messages need more.
const MAX_BYTES: usize = 16 * 1024 * 1024;
/// How long the server keeps one request: what a half-open client can still swallow is bounded by it.
const EXPIRES: Duration = Duration::from_secs(8);
/// How often the server shows that a request without messages is alive.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Silence after which the pull is dead: two heartbeats and the way here.
const SILENCE: Duration = Duration::from_millis(2500);
/// What a caller who was away too long still waits: the messages may be here but not yet handed over.
const GRACE: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
pub(super) enum PullError {
    #[error("cannot subscribe")]
    Subscribe(#[from] SubscribeError),
    #[error("cannot send the request")]
    Publish(#[from] PublishError),
    #[error("cannot unsubscribe")]
    Unsubscribe(#[from] async_nats::UnsubscribeError),
    #[error("cannot flush")]
    Flush(#[from] async_nats::client::FlushError),
    #[error("the server refused the request: {code} {description}")]
    Refused { code: u16, description: String },
}

#[derive(Debug)]
pub(super) struct Pull {
    client: Client,
    messages: Subscriber,
    disconnects: watch::Receiver<u64>,
    /// Those of the connection over which the rest of the worker speaks.
    others: watch::Receiver<u64>,
    subject: String,
    inbox: String,
    request: Bytes,
    /// Messages that were requested and have neither come nor been declared unused.
    open: u64,
    deadline: Instant,
    graced: bool,
}

impl Pull {
    pub(super) async fn open(
        nats: &Nats,
        shared: &Nats,
        subject: String,
    ) -> Result<Self, PullError> {
        let client = nats.client();
        let mut disconnects = nats.disconnects();
        disconnects.mark_unchanged();
        let mut others = shared.disconnects();
        others.mark_unchanged();
        let inbox = client.new_inbox();
        let max_bytes = MAX_BYTES.max(2 * nats.max_payload());
        let request = json!({
            "batch": BATCH,
            "max_bytes": max_bytes,
            "expires": nanoseconds(EXPIRES),
            "idle_heartbeat": nanoseconds(HEARTBEAT),
        });
        let mut pull = Self {
            client: client.clone(),
            messages: client.subscribe(inbox.clone()).await?,
            disconnects,
            others,
            subject,
            inbox,
            request: Bytes::from(request.to_string()),
            open: 0,
            deadline: Instant::now() + SILENCE,
            graced: false,
        };
        pull.renew().await?;
        Ok(pull)
    }

    pub(super) async fn close(mut self) -> Result<(), PullError> {
        self.messages.unsubscribe().await?;
        self.client.flush().await?;
        Ok(())
    }

    /// See [`crate::worker::ports::Log::next`]. After each await either nothing was taken from the
    /// channel, or what was taken is returned or noted without another await.
    pub(super) async fn next(&mut self) -> Result<Pulled, PullError> {
        if Instant::now() >= self.deadline && !self.graced {
            self.graced = true;
            self.deadline = Instant::now() + GRACE;
        }
        loop {
            let lost = is_lost(&self.disconnects) || is_lost(&self.others);
            if !lost && self.open < RENEW_BELOW {
                self.renew().await?;
            }
            // What came before the connection was lost is handed on first: if it is an event that
            // costs us the connection, the next pull must begin with it.
            let message = tokio::select! {
                biased;
                message = self.messages.next() => message,
                _ = self.disconnects.changed() => return Ok(self.dead()),
                _ = self.others.changed() => return Ok(self.dead()),
                () = sleep_until(self.deadline) => return Ok(Pulled::Dead),
            };
            let Some(message) = message else {
                return Ok(Pulled::Dead);
            };
            self.deadline = Instant::now() + SILENCE;
            self.graced = false;
            if let Some(pulled) = self.take(message)? {
                return Ok(pulled);
            }
        }
    }

    async fn renew(&mut self) -> Result<(), PullError> {
        self.client
            .publish_with_reply(
                self.subject.clone(),
                self.inbox.clone(),
                self.request.clone(),
            )
            .await?;
        self.open += BATCH;
        Ok(())
    }

    /// Stays dead: a change that was seen is not seen again.
    fn dead(&mut self) -> Pulled {
        self.disconnects.mark_changed();
        Pulled::Dead
    }

    fn take(&mut self, message: Message) -> Result<Option<Pulled>, PullError> {
        // First of all a delivery: whoever publishes events can give one a status of the server's.
        let ack = message.reply.as_deref().and_then(wire::ack_reply);
        match (ack, message.status) {
            (Some(ack), _) => {
                self.open = self.open.saturating_sub(1);
                Ok(Some(Pulled::Delivery(delivery(message, &ack))))
            }
            (None, Some(code)) => self.take_status(code, &message),
            (None, None) => {
                tracing::warn!(
                    inbox = self.inbox,
                    "Message on a pull's inbox is no delivery, ignored"
                );
                Ok(None)
            }
        }
    }

    fn take_status(
        &mut self,
        code: StatusCode,
        message: &Message,
    ) -> Result<Option<Pulled>, PullError> {
        let description = message.description.as_deref().unwrap_or_default();
        let header = |name: &str| message.headers.as_ref()?.get(name)?.as_str().parse().ok();
        match wire::status(code.as_u16(), description, header) {
            Status::Heartbeat { last_consumer } => Ok(Some(Pulled::Heartbeat { last_consumer })),
            Status::End { unused } => {
                self.open = unused.map_or(0, |unused| self.open.saturating_sub(unused));
                Ok(None)
            }
            Status::Gone => Ok(Some(Pulled::Gone)),
            Status::Lost => Ok(Some(self.dead())),
            Status::Refused => Err(PullError::Refused {
                code: code.as_u16(),
                description: description.to_owned(),
            }),
        }
    }
}

fn is_lost(disconnects: &watch::Receiver<u64>) -> bool {
    disconnects.has_changed().unwrap_or(true)
}

fn delivery(message: Message, ack: &AckReply) -> Delivery {
    Delivery {
        consumer_sequence: ack.consumer_sequence,
        sequence: ack.sequence,
        published: ack.published,
        subject: message.subject.to_string(),
        headers: wire_form(message.headers.as_ref()),
        payload: message.payload,
        pending: ack.pending,
        ack: AckToken(message.reply.map(|it| it.to_string()).unwrap_or_default()),
    }
}
