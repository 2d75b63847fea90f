//! What a replay is planned from: where a time lies in the source stream, what is first and last under
//! the filter, and how many messages lie between.
//!
//! What it guarantees:
//! - Nothing is consumed and no cursor of anybody moves. Only streams with limits retention may be
//!   surveyed: others delete what a consumer has passed.
//! - Messages are read from the leader, times to the nanosecond, and a sequence whose message was
//!   deleted is passed over.
//! - [`Survey::count`] leaves no consumer behind: it deletes its own, and the server does within
//!   [`IDLE`] when that fails or its future is dropped.
//!
//! JetStream keeps no bytes by range or subject; exact ones would cost a read of every message. For an
//! estimate there is [`Extent::average_bytes`].

mod count;

use jiff::Timestamp;
use lookback_protocol::position::StreamSeq;

pub use self::count::IDLE;
use super::api::{ApiError, StoredMessage};
use super::connect::Nats;
use super::streams;

/// A message of the source stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its sequence.
    pub sequence: StreamSeq,
    /// When JetStream stored it.
    pub published: Timestamp,
}

/// A stream that holds messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The oldest, under any subject: nothing before it can be replayed.
    pub first: Message,
    /// The newest, under any subject.
    pub last: Message,
    /// How many there are.
    pub messages: u64,
    /// What they take in the store, subjects and headers included.
    pub bytes: u64,
}

impl Extent {
    /// Bytes of a message, on average over the whole stream and rounded up.
    #[must_use]
    pub fn average_bytes(&self) -> u64 {
        self.bytes.div_ceil(self.messages.max(1))
    }
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// No answer, or a refusal; [`ApiError::code`] tells a stream that is not there.
    #[error("cannot {operation} of stream {stream}")]
    Api {
        /// What was asked.
        operation: &'static str,
        /// The source stream.
        stream: String,
        /// Why.
        #[source]
        source: ApiError,
    },
    /// Any replica may have to count. It was not as far as the leader, or the message at the end of the
    /// range has been deleted; ask again.
    #[error("cannot count the messages of stream {stream}: its replica holds none at {through}")]
    Behind {
        /// The source stream.
        stream: String,
        /// The end of the range.
        through: StreamSeq,
    },
}

/// The source stream under a pipeline's filter; see the [module](self).
#[derive(Clone, Debug)]
pub struct Survey {
    nats: Nats,
    stream: String,
    filters: Vec<String>,
}

impl Survey {
    /// Under `filters`, which must not overlap; none for the whole stream. Nothing is asked yet.
    #[must_use]
    pub fn new(nats: Nats, stream: impl Into<String>, filters: &[String]) -> Self {
        Self {
            nats,
            stream: stream.into(),
            filters: filters.to_vec(),
        }
    }

    /// What the stream holds, under any subject; `None` when it is empty.
    ///
    /// # Errors
    /// [`SurveyError::Api`].
    pub async fn extent(&self) -> Result<Option<Extent>, SurveyError> {
        let (info, first, last) = futures::try_join!(
            streams::info(&self.nats, &self.stream),
            self.nats.next_of_subject(&self.stream, 1, ">"),
            self.last_of(">"),
        )
        .map_err(self.failed("read the bounds"))?;
        Ok(first.zip(last).map(|(first, last)| Extent {
            first: first.into(),
            last: last.into(),
            messages: info.state.messages,
            bytes: info.state.bytes,
        }))
    }

    /// The first message stored at or after `time`, under any subject; `None` when there is none yet.
    ///
    /// # Errors
    /// [`SurveyError::Api`].
    pub async fn at_or_after(&self, time: Timestamp) -> Result<Option<Message>, SurveyError> {
        let found = self.nats.first_since(&self.stream, time).await;
        let found = found.map_err(self.failed("find a time"))?;
        Ok(found.map(Message::from))
    }

    /// The message at `sequence`, under any subject; `None` when it expired, was deleted, or is yet to
    /// come.
    ///
    /// # Errors
    /// [`SurveyError::Api`].
    pub async fn message_at(&self, sequence: StreamSeq) -> Result<Option<Message>, SurveyError> {
        let found = self.nats.at_sequence(&self.stream, sequence.0).await;
        let found = found.map_err(self.failed("read a message"))?;
        Ok(found.map(Message::from))
    }

    /// The first message under the filter at or after `from`.
    ///
    /// # Errors
    /// [`SurveyError::Api`].
    pub async fn next_under_filter(&self, from: StreamSeq) -> Result<Option<Message>, SurveyError> {
        let next = self.subjects().map(|subject| {
            self.nats
                .next_of_subject(&self.stream, from.0.max(1), subject)
        });
        let found = futures::future::try_join_all(next).await;
        let found = found.map_err(self.failed("find the next message"))?;
        let found = found.into_iter().flatten().map(Message::from);
        Ok(found.min_by_key(|message| message.sequence))
    }

    /// The last message under the filter.
    ///
    /// # Errors
    /// [`SurveyError::Api`].
    pub async fn last_under_filter(&self) -> Result<Option<Message>, SurveyError> {
        let last = self.subjects().map(|subject| self.last_of(subject));
        let found = futures::future::try_join_all(last).await;
        let found = found.map_err(self.failed("find the last message"))?;
        let found = found.into_iter().flatten().map(Message::from);
        Ok(found.max_by_key(|message| message.sequence))
    }

    /// Asked for `>`, the server looks at the last sequence only, whose message may have been deleted;
    /// asked for one token, and for more than one, it looks further.
    async fn last_of(&self, subject: &str) -> Result<Option<StoredMessage>, ApiError> {
        let last = |subject| self.nats.last_of_subject(&self.stream, subject);
        let found = last(subject).await?;
        if found.is_some() || subject != ">" {
            return Ok(found);
        }
        let (one, more) = futures::try_join!(last("*"), last("*.>"))?;
        let found = one.into_iter().chain(more);
        Ok(found.max_by_key(|message| message.sequence))
    }

    fn subjects(&self) -> impl Iterator<Item = &str> {
        let whole = self.filters.is_empty().then_some(">");
        self.filters.iter().map(String::as_str).chain(whole)
    }

    fn failed(&self, operation: &'static str) -> impl FnOnce(ApiError) -> SurveyError {
        let stream = self.stream.clone();
        move |source| SurveyError::Api {
            operation,
            stream,
            source,
        }
    }
}

impl From<StoredMessage> for Message {
    fn from(message: StoredMessage) -> Self {
        Self {
            sequence: StreamSeq(message.sequence),
            published: message.time,
        }
    }
}
