//! Listening to what the server publishes again of what it stored.

use async_nats::Subscriber;
use futures::StreamExt;
use lookback_protocol::names::PipelineKey;
use tokio::sync::watch;

use super::Heard;
use crate::nats::alerts::store::{Version, entries};
use crate::nats::api::{ApiError, StoredMessage};
use crate::nats::connect::Nats;
use crate::nats::entries::{Entries, ReadError, is_tombstone};

/// Alerts as they are stored or moved, by the server's republishing. Whoever must miss nothing opens it
/// first, lists what there is, and lists again after each [`Heard::Interrupted`]. What a listener leaves
/// unread beyond the capacity of its connection's subscriptions is dropped.
#[derive(Debug)]
pub struct Live {
    messages: Subscriber,
    disconnects: watch::Receiver<u64>,
    entries: Entries,
}

impl Live {
    /// Listens to alerts that come into `state`, or into any: from when this returns, nothing is missed
    /// but by an interruption.
    ///
    /// # Errors
    /// [`ReadError`]: no answer, or the stream does not publish again what it stores.
    pub async fn open(
        nats: &Nats,
        key: &PipelineKey,
        state: Option<&str>,
    ) -> Result<Self, ReadError> {
        let entries = entries(nats, key);
        entries.check_state(state)?;
        let mut disconnects = nats.disconnects();
        disconnects.mark_unchanged();
        let messages = nats
            .client()
            .subscribe(key.alert_event_subject(state.unwrap_or("*"), "*"))
            .await
            .map_err(|error| {
                entries.stream_failed("listen to", ApiError::NoAnswer(error.into()))
            })?;
        // The leader answers this after it has heard of the subscription, which goes the same way.
        let observed = entries.observed().await?;
        if observed
            .config
            .get("republish")
            .is_none_or(serde_json::Value::is_null)
        {
            let why = "it does not publish again what it stores; the operator sees to that";
            return Err(entries.stream_failed("listen to", ApiError::Unreadable(why.into())));
        }
        Ok(Self {
            messages,
            disconnects,
            entries,
        })
    }

    /// The next one. An interruption comes before all that was heard after it. `None` when the
    /// connection is closed for good. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Heard, ReadError>> {
        loop {
            let message = tokio::select! {
                biased;
                cut = self.disconnects.changed() => return cut.is_ok().then_some(Ok(Heard::Interrupted)),
                message = self.messages.next() => message?,
            };
            let heard = StoredMessage::copied(&message)
                .map_err(|source| self.entries.stream_failed("listen to", source));
            let message = match heard {
                Ok(message) if is_tombstone(&message) => continue,
                Ok(message) => message,
                Err(error) => return Some(Err(error)),
            };
            let version = Version::read(&self.entries, message);
            return Some(version.map(|version| Heard::Alert(Box::new(version.alert))));
        }
    }
}
