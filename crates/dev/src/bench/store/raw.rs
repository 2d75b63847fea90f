//! The client's own calls to the stream that is measured, with nothing around them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::header::{
    NATS_BATCH_COMMIT, NATS_BATCH_ID, NATS_BATCH_SEQUENCE, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
};
use async_nats::jetstream::{self, message::StreamMessage};
use async_nats::{Client, HeaderMap};
use bytes::Bytes;
use futures::StreamExt;
use lookback::nats::entries::MAX_PAGE;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::stage::Stage;

/// A state of no workflow, for what is written past the store.
const RAW: &str = "raw";
/// After which a list is not going on.
const SILENCE: Duration = Duration::from_secs(5);

/// See the [module](self).
pub(super) struct Raw {
    client: Client,
    jetstream: jetstream::Context,
    stream: String,
    prefix: String,
    listed: String,
}

impl Raw {
    /// What is listed are the messages in a state.
    pub(super) fn new(stage: &Stage, listed: &str) -> Self {
        let client = stage.nats.client().clone();
        Self {
            jetstream: jetstream::new(client.clone()),
            client,
            stream: stage.key.alerts_stream(),
            prefix: stage.key.alert_subject(RAW, ""),
            listed: stage.key.alert_subject(listed, "*"),
        }
    }

    fn subject(&self, id: &str) -> String {
        format!("{}{id}", self.prefix)
    }

    /// One message on a new subject, if it is new.
    pub(super) async fn publish(&self, id: &str, body: Vec<u8>) -> Result<()> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
        let subject = self.subject(id);
        let sent = self
            .jetstream
            .publish_with_headers(subject, headers, body.into());
        sent.await?.await.context("a raw publish")?;
        Ok(())
    }

    /// Two empty messages and one with the body, on new subjects; only the last is answered.
    pub(super) async fn batch(&self, id: &str, body: Vec<u8>) -> Result<()> {
        let part = |number: u8| {
            let mut headers = HeaderMap::new();
            headers.insert(NATS_BATCH_ID, id);
            headers.insert(NATS_BATCH_SEQUENCE, number.to_string());
            (format!("{}-{number}", self.subject(id)), headers)
        };
        for number in 1..=2 {
            let (subject, headers) = part(number);
            let sent = self
                .client
                .publish_with_headers(subject, headers, Bytes::new());
            sent.await?;
        }
        let (subject, mut headers) = part(3);
        headers.insert(NATS_BATCH_COMMIT, "1");
        let answer = self
            .client
            .request_with_headers(subject, headers, body.into())
            .await?;
        let ack: Value = serde_json::from_slice(&answer.payload)?;
        ensure!(ack["count"] == 3, "a batch was answered with {ack}");
        Ok(())
    }

    /// The last message on a subject, from the leader.
    pub(super) async fn get(&self, id: &str) -> Result<StreamMessage> {
        let stream = self.jetstream.get_stream_no_info(&self.stream).await?;
        let subject = self.subject(id);
        let message = stream.get_last_raw_message_by_subject(&subject).await;
        message.context("a raw get")
    }

    /// One request for a thousand messages to whichever copy answers; none of them is looked at.
    pub(super) async fn list(&self) -> Result<()> {
        let inbox = self.client.new_inbox();
        let mut answers = self.client.subscribe(inbox.clone()).await?;
        let by = json!({ "seq": 1, "next_by_subj": self.listed, "batch": MAX_PAGE });
        let subject = format!("$JS.API.DIRECT.GET.{}", self.stream);
        let asked = self
            .client
            .publish_with_reply(subject, inbox, by.to_string().into());
        asked.await?;
        for _ in 0..MAX_PAGE {
            let answer = timeout(SILENCE, answers.next())
                .await
                .context("a raw list")?;
            let status = answer.context("a raw list")?.status;
            ensure!(
                status.is_none(),
                "a raw list was answered with status {status:?}"
            );
        }
        Ok(())
    }
}
