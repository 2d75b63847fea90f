//! A durable consumer of one's own on the stream of alerts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_nats::client::Request;
use async_nats::{Message, RequestErrorKind, Subscriber};
use bytes::Bytes;
use futures::StreamExt;
use lookback_protocol::consumer::OWNER_KEY;
use lookback_protocol::names::PipelineKey;
use serde_json::json;
use tokio::time::{Instant, timeout_at};

use crate::nats::alerts::store::{StoredAlert, Version, entries};
use crate::nats::api::{ApiError, Code, StoredMessage};
use crate::nats::connect::Nats;
use crate::nats::consumers;
use crate::nats::desired::{DesiredSubscription, nanoseconds};
use crate::nats::entries::{Entries, ReadError, is_tombstone};
use crate::nats::log::{Status, ack_reply, status};

/// How long the server waits for [`Subscription::done`] before it gives an alert out again.
pub const ACK_WAIT: Duration = Duration::from_secs(60);
/// How long the server keeps one request for an alert.
const EXPIRES: Duration = Duration::from_secs(30);
/// How often it says meanwhile that it has one.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Silence after which the request is lost: two heartbeats and the way here.
const SILENCE: Duration = Duration::from_secs(11);

/// A durable subscription: a name of its own for each subscriber, so that two never share a cursor. Two
/// processes that open it under one name share its work: each alert goes to one of them.
///
/// What is not [`done`](Self::done) comes again, after [`ACK_WAIT`] at the earliest. Of an alert that
/// moved meanwhile only the newest version comes, with its history in it, and only if it still is in
/// one of the states. It outlives its processes; whoever needs it no more deletes the consumer
/// `lbsub_<subscriber>`.
#[derive(Debug)]
pub struct Subscription {
    nats: Nats,
    entries: Entries,
    /// Where alerts are asked for.
    subject: String,
    inbox: String,
    messages: Subscriber,
    /// Until when something must be heard of the request that is open.
    open_until: Option<Instant>,
    /// The alert that was given last, and where that is said to be done.
    last: Option<(u64, String)>,
}

/// Where a new subscription begins; one that exists goes on where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// With every alert there is.
    All,
    /// With the next one.
    New,
}

impl Subscription {
    /// Opens the subscription of `subscriber`, a name of `[A-Za-z0-9_-]`, or goes on with it. It brings
    /// alerts that come into one of `states`; without any, all. One that exists takes other states
    /// from now on.
    ///
    /// # Errors
    /// [`ReadError`]: a name or state is none, the consumer is another's or of another kind, or no
    /// answer.
    pub async fn open(
        nats: &Nats,
        key: &PipelineKey,
        subscriber: &str,
        states: &[&str],
        begin: Begin,
    ) -> Result<Self, ReadError> {
        let entries = entries(nats, key);
        let stream = key.alerts_stream();
        let mut filters = BTreeSet::new();
        for state in states {
            entries.check_state(Some(state))?;
            filters.insert(key.alert_subject(state, "*"));
        }
        if filters.is_empty() {
            filters.insert(key.alert_subject("*", "*"));
        }
        if !is_name(subscriber) {
            return Err(ReadError::NotFound {
                noun: "subscriber",
                id: subscriber.to_owned(),
            });
        }
        let desired = DesiredSubscription {
            name: format!("lbsub_{subscriber}"),
            stream: stream.clone(),
            filter_subjects: filters.into_iter().collect(),
            only_new: begin == Begin::New,
            ack_wait: ACK_WAIT,
            metadata: BTreeMap::from([(OWNER_KEY.to_owned(), format!("subscriber/{subscriber}"))]),
        };
        consumers::ensure_subscription(nats, &desired).await?;
        let inbox = nats.client().new_inbox();
        let messages = nats
            .client()
            .subscribe(inbox.clone())
            .await
            .map_err(|error| {
                entries.stream_failed("subscribe to", ApiError::NoAnswer(error.into()))
            })?;
        Ok(Self {
            subject: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{}", desired.name),
            nats: nats.clone(),
            entries,
            inbox,
            messages,
            open_until: None,
            last: None,
        })
    }

    /// The next alert; waits for it. One that cannot be read comes again like any that is not done.
    /// Cancel-safe. After an error it can be called again.
    ///
    /// # Errors
    /// [`ReadError`]: the alert cannot be read, the server is silent, or the consumer is gone.
    pub async fn next(&mut self) -> Result<StoredAlert, ReadError> {
        loop {
            let until = match self.open_until {
                Some(until) => until,
                None => self.ask().await?,
            };
            let Ok(message) = timeout_at(until, self.messages.next()).await else {
                return Err(self.lost(RequestErrorKind::TimedOut));
            };
            let Some(message) = message else {
                return Err(self.lost(RequestErrorKind::Other));
            };
            match delivered(&message) {
                Some((stored, reply)) => {
                    self.open_until = None;
                    if is_tombstone(&stored) {
                        self.settle(&reply).await?;
                        continue;
                    }
                    self.last = Some((stored.sequence, reply));
                    return Ok(Version::read(&self.entries, stored)?.alert);
                }
                None => self.take_status(&message)?,
            }
        }
    }

    /// Says that `alert`, the last one [`Self::next`] gave, is dealt with, and waits until the server
    /// knows.
    ///
    /// # Errors
    /// [`ReadError`]: it is not the last one, or no answer; then it may come again.
    pub async fn done(&mut self, alert: &StoredAlert) -> Result<(), ReadError> {
        let last = self.last.as_ref();
        let Some((_, reply)) = last.filter(|(sequence, _)| *sequence == alert.sequence) else {
            let why = "it is not the alert that came last";
            return Err(self.entries.failed(
                "be done with",
                &alert.id,
                ApiError::Unreadable(why.into()),
            ));
        };
        let request = Request::new().payload(Bytes::from_static(b"+ACK"));
        self.nats
            .client()
            .send_request(reply.clone(), request)
            .await
            .map_err(|error| {
                let source = ApiError::NoAnswer(error);
                self.entries.failed("be done with", &alert.id, source)
            })?;
        self.last = None;
        Ok(())
    }

    /// Asks for one alert: more would wait here while another process has nothing to do.
    async fn ask(&mut self) -> Result<Instant, ReadError> {
        let request = json!({
            "batch": 1,
            "expires": nanoseconds(EXPIRES),
            "idle_heartbeat": nanoseconds(HEARTBEAT),
        });
        let until = Instant::now() + SILENCE;
        self.nats
            .client()
            .publish_with_reply(
                self.subject.clone(),
                self.inbox.clone(),
                Bytes::from(request.to_string()),
            )
            .await
            .map_err(|error| self.failed(ApiError::NoAnswer(error.into())))?;
        self.open_until = Some(until);
        Ok(until)
    }

    /// Nobody waits for the answer: a tombstone that comes again is passed over again.
    async fn settle(&self, reply: &str) -> Result<(), ReadError> {
        self.nats
            .client()
            .publish(reply.to_owned(), Bytes::from_static(b"+ACK"))
            .await
            .map_err(|error| self.failed(ApiError::NoAnswer(error.into())))
    }

    fn take_status(&mut self, message: &Message) -> Result<(), ReadError> {
        let Some(code) = message.status.map(|code| code.as_u16()) else {
            return Ok(());
        };
        let description = message.description.as_deref().unwrap_or_default();
        self.open_until = match status(code, description, |_| None) {
            Status::Heartbeat { .. } => Some(Instant::now() + SILENCE),
            Status::End { .. } | Status::Lost => None,
            Status::Gone | Status::Refused => {
                self.open_until = None;
                return Err(self.failed(ApiError::Refused {
                    code: Code(code.into()),
                    description: description.to_owned(),
                }));
            }
        };
        Ok(())
    }

    fn lost(&mut self, kind: RequestErrorKind) -> ReadError {
        self.open_until = None;
        self.failed(ApiError::NoAnswer(kind.into()))
    }

    fn failed(&self, source: ApiError) -> ReadError {
        self.entries.stream_failed("follow", source)
    }
}

/// The message that a consumer delivers, and where it is acknowledged.
fn delivered(message: &Message) -> Option<(StoredMessage, String)> {
    let reply = message.reply.as_deref()?;
    let ack = ack_reply(reply)?;
    let stored = StoredMessage {
        subject: message.subject.to_string(),
        sequence: ack.sequence.0,
        time: ack.published,
        headers: crate::nats::api::wire_form(message.headers.as_ref()),
        payload: message.payload.clone(),
    };
    Some((stored, reply.to_owned()))
}

fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    !text.is_empty() && text.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscriber_that_is_two_tokens_is_none() {
        for text in ["", "a.b", "*", "a b", "a/b"] {
            assert!(!is_name(text), "{text:?}");
        }
        assert!(is_name("ticket-bot_2"));
    }
}
