//! The source stream: a log that can expire from the front, lose single messages, be made again under
//! its name, or lose its tail and use the sequences twice.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use lookback_protocol::position::{StreamIdentity, StreamSeq};
use lookback_protocol::start::{MessageAt, StreamFacts};

/// One stored event.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    pub(crate) sequence: StreamSeq,
    pub(crate) subject: String,
    pub(crate) payload: Bytes,
    pub(crate) published: Timestamp,
}

/// A stream of JetStream with Limits retention.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    identity: StreamIdentity,
    messages: BTreeMap<u64, Message>,
    /// What retention removed.
    expired: BTreeMap<u64, Message>,
    last: u64,
    newest: Timestamp,
}

impl Stream {
    pub(crate) fn new(name: &str, created: Timestamp) -> Self {
        Self {
            identity: StreamIdentity {
                name: name.to_owned(),
                created,
            },
            messages: BTreeMap::new(),
            expired: BTreeMap::new(),
            last: 0,
            newest: created,
        }
    }

    pub(crate) fn identity(&self) -> &StreamIdentity {
        &self.identity
    }

    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// Stores an event. Times are never equal: the server's clock has nanoseconds.
    pub(crate) fn publish(&mut self, subject: &str, payload: Bytes, now: Timestamp) -> u64 {
        self.last += 1;
        self.newest = now.max(self.newest + std::time::Duration::from_nanos(1));
        self.messages.insert(
            self.last,
            Message {
                sequence: StreamSeq(self.last),
                subject: subject.to_owned(),
                payload,
                published: self.newest,
            },
        );
        self.last
    }

    /// Retention removes everything up to `sequence`.
    pub(crate) fn expire_through(&mut self, sequence: u64) {
        let kept = self.messages.split_off(&(sequence + 1));
        self.expired.append(&mut self.messages);
        self.messages = kept;
    }

    /// A person, or `max_msgs_per_subject`, removes one message.
    /// It counts as read.
    pub(crate) fn delete(&mut self, sequence: u64) {
        self.expired.extend(self.messages.remove_entry(&sequence));
    }

    /// This stream as if nothing had ever left it.
    pub(crate) fn history(&self) -> Self {
        let mut whole = self.clone();
        whole.messages.extend(self.expired.clone());
        whole
    }

    /// The server comes back from an older copy of its data: same creation time, a shorter log.
    pub(crate) fn regress_to(&mut self, last: u64) {
        self.messages.split_off(&(last + 1));
        self.last = last;
    }

    pub(crate) fn get(&self, sequence: u64) -> Option<&Message> {
        self.messages.get(&sequence)
    }

    /// The first message at or after `sequence` whose subject begins with `prefix`.
    pub(crate) fn next_from(&self, sequence: u64, prefix: &str) -> Option<&Message> {
        self.messages
            .range(sequence..)
            .map(|(_, message)| message)
            .find(|message| message.subject.starts_with(prefix))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Message> {
        self.messages.values()
    }

    /// Messages after `sequence` under `prefix`.
    pub(crate) fn pending(&self, sequence: u64, prefix: &str) -> u64 {
        self.messages
            .range(sequence + 1..)
            .filter(|(_, message)| message.subject.starts_with(prefix))
            .count() as u64
    }

    pub(crate) fn facts(&self) -> StreamFacts {
        let first = self.messages.keys().next().copied();
        StreamFacts {
            identity: self.identity.clone(),
            first: StreamSeq(first.unwrap_or(self.last + 1)),
            last: StreamSeq(self.last),
        }
    }

    pub(crate) fn message_at(&self, sequence: StreamSeq) -> MessageAt {
        self.messages
            .get(&sequence.0)
            .map_or(MessageAt::Absent, |message| {
                MessageAt::Published(message.published)
            })
    }
}
