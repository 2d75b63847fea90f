//! Reading streams without consuming them: ephemeral consumers with AckNone, on Limits streams only.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::RetentionPolicy;
use async_nats::jetstream::{self, Message};
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use jiff::Timestamp;
use lookback_protocol::position::StreamSeq;

/// How long the server keeps a reader that went away.
const INACTIVE: Duration = Duration::from_secs(30);

/// One event of the source stream.
#[derive(Clone, Debug)]
pub struct SourceEvent {
    /// Its sequence.
    pub sequence: StreamSeq,
    /// When JetStream stored it, in nanoseconds.
    pub published: Timestamp,
    /// Its payload.
    pub payload: Bytes,
}

/// A reader of a stream.
pub struct Reader {
    consumer: PullConsumer,
    created: Timestamp,
    pending: u64,
}

impl Reader {
    /// Opens a reader at `start`, under `subjects` unless there are none.
    ///
    /// # Errors
    /// When the stream is missing, or is no Limits stream: there a reader would consume.
    pub async fn open(
        jetstream: &jetstream::Context,
        stream: &str,
        subjects: &[String],
        start: StreamSeq,
    ) -> Result<Self> {
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence {
                start_sequence: start.0.max(1),
            },
            filter_subjects: subjects.to_vec(),
            ..read_only()
        };
        Self::create(jetstream, stream, config).await
    }

    /// Opens a reader of the last message of each subject.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub async fn last_per_subject(
        jetstream: &jetstream::Context,
        stream: &str,
        subject: &str,
    ) -> Result<Self> {
        let config = pull::Config {
            deliver_policy: DeliverPolicy::LastPerSubject,
            filter_subject: subject.to_owned(),
            ..read_only()
        };
        Self::create(jetstream, stream, config).await
    }

    async fn create(
        jetstream: &jetstream::Context,
        name: &str,
        config: pull::Config,
    ) -> Result<Self> {
        let stream = jetstream
            .get_stream(name)
            .await
            .with_context(|| format!("find stream {name}"))?;
        let info = stream.cached_info();
        if info.config.retention != RetentionPolicy::Limits {
            bail!("stream {name} is no Limits stream: reading it would consume it");
        }
        let created = timestamp(info.created)?;
        let consumer = stream
            .create_consumer(config)
            .await
            .with_context(|| format!("create a reader of stream {name}"))?;
        let pending = consumer.cached_info().num_pending;
        Ok(Self {
            consumer,
            created,
            pending,
        })
    }

    /// When the stream was created.
    #[must_use]
    pub fn created(&self) -> Timestamp {
        self.created
    }

    /// Every message that was there when the reader was opened.
    pub fn messages(self) -> impl Stream<Item = Result<Message>> {
        let pending = usize::try_from(self.pending).unwrap_or(usize::MAX);
        futures::stream::once(async move {
            let messages = self.consumer.messages().await.context("pull")?;
            anyhow::Ok(messages.map_err(anyhow::Error::from))
        })
        .try_flatten()
        .take(pending)
    }

    /// Every event up to `through`, of those that were there when the reader was opened.
    pub fn through(self, through: StreamSeq) -> impl Stream<Item = Result<SourceEvent>> {
        self.messages()
            .and_then(|message| async move {
                let info = message.info().map_err(|error| anyhow::anyhow!("{error}"))?;
                let sequence = StreamSeq(info.stream_sequence);
                let published = timestamp(info.published)?;
                Ok(SourceEvent {
                    sequence,
                    published,
                    payload: message.message.payload,
                })
            })
            .try_take_while(move |event| std::future::ready(Ok(event.sequence <= through)))
    }
}

fn read_only() -> pull::Config {
    pull::Config {
        ack_policy: AckPolicy::None,
        memory_storage: true,
        num_replicas: 1,
        inactive_threshold: INACTIVE,
        ..pull::Config::default()
    }
}

fn timestamp(time: time::OffsetDateTime) -> Result<Timestamp> {
    Timestamp::from_nanosecond(time.unix_timestamp_nanos()).context("a time out of range")
}
