//! One durable pull consumer with AckAll, as nats-server 2.14 and newer treats it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::stream::Stream;

/// A pair of consumer sequence and stream sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) consumer: u64,
    pub(crate) stream: u64,
}

/// The durable's state.
#[derive(Clone, Debug)]
pub(crate) struct Consumer {
    /// Subjects begin with this; empty for all.
    pub(crate) filter: String,
    pub(crate) ack_wait: Duration,
    pub(crate) delivered: Pair,
    pub(crate) floor: Pair,
    /// Counts resets, to tell replies from before one.
    pub(crate) resets: u64,
    /// Its metadata says that its epoch has begun on a state file.
    pub(crate) applied: bool,
    unacked: BTreeMap<u64, Unacked>,
    redeliver: VecDeque<u64>,
}

#[derive(Clone, Copy, Debug)]
struct Unacked {
    consumer: u64,
    since: Duration,
}

impl Consumer {
    pub(crate) fn new(filter: &str, ack_wait: Duration) -> Self {
        Self {
            filter: filter.to_owned(),
            ack_wait,
            delivered: Pair::default(),
            floor: Pair::default(),
            resets: 0,
            applied: false,
            unacked: BTreeMap::new(),
            redeliver: VecDeque::new(),
        }
    }

    /// `CONSUMER.RESET`: any sequence is taken, also beyond the end of the stream.
    pub(crate) fn reset(&mut self, next: u64) {
        let before = Pair {
            consumer: 0,
            stream: next.saturating_sub(1),
        };
        self.delivered = before;
        self.floor = before;
        self.resets += 1;
        self.unacked.clear();
        self.redeliver.clear();
    }

    /// An AckAll, from whatever time its reply is: taken when both its sequences are above the floor
    /// and its stream sequence was delivered. A reply from before a reset can so freeze the floor.
    pub(crate) fn ack(&mut self, reply: Pair) {
        if reply.stream > self.delivered.stream
            || reply.consumer <= self.floor.consumer
            || reply.stream <= self.floor.stream
        {
            return;
        }
        self.floor = reply;
        self.unacked = self.unacked.split_off(&(reply.stream + 1));
        self.redeliver.retain(|sequence| *sequence > reply.stream);
    }

    pub(crate) fn unacked(&self) -> Vec<u64> {
        self.unacked.keys().copied().collect()
    }

    /// Queues `sequences` for delivery before anything new, in the order given.
    pub(crate) fn redeliver(&mut self, sequences: impl IntoIterator<Item = u64>) {
        for sequence in sequences {
            if self.unacked.contains_key(&sequence) && !self.redeliver.contains(&sequence) {
                self.redeliver.push_back(sequence);
            }
        }
    }

    /// Queues what was not acknowledged within `ack_wait`.
    pub(crate) fn expire_acks(&mut self, now: Duration) {
        let due: Vec<u64> = self
            .unacked
            .iter()
            .filter(|(_, entry)| entry.since + self.ack_wait <= now)
            .map(|(sequence, _)| *sequence)
            .collect();
        self.redeliver(due);
    }

    /// When the next `ack_wait` ends.
    pub(crate) fn next_expiry(&self) -> Option<Duration> {
        let waiting = self
            .unacked
            .iter()
            .filter(|(sequence, _)| !self.redeliver.contains(sequence));
        waiting.map(|(_, entry)| entry.since + self.ack_wait).min()
    }

    /// What a pull is given next: the pair it carries and the messages pending after it.
    pub(crate) fn deliver(&mut self, stream: &Stream, now: Duration) -> Option<(Pair, u64)> {
        while let Some(sequence) = self.redeliver.pop_front() {
            if stream.get(sequence).is_some() {
                return Some(self.count(sequence, stream, now));
            }
            self.unacked.remove(&sequence);
        }
        let next = stream.next_from(self.delivered.stream + 1, &self.filter)?;
        let sequence = next.sequence.0;
        self.delivered.stream = sequence;
        Some(self.count(sequence, stream, now))
    }

    fn count(&mut self, sequence: u64, stream: &Stream, now: Duration) -> (Pair, u64) {
        self.delivered.consumer += 1;
        let consumer = self.delivered.consumer;
        let entry = self.unacked.entry(sequence).or_insert(Unacked {
            consumer,
            since: now,
        });
        // As in the server, a redelivery starts the wait anew and keeps the first consumer sequence.
        entry.since = now;
        debug_assert!(entry.consumer <= consumer);
        let pending = stream.pending(self.delivered.stream, &self.filter);
        (
            Pair {
                consumer,
                stream: sequence,
            },
            pending,
        )
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use jiff::Timestamp;

    use super::*;

    const NOW: Duration = Duration::ZERO;

    fn stream(messages: u64) -> Stream {
        let mut stream = Stream::new("EVENTS", Timestamp::UNIX_EPOCH);
        for _ in 0..messages {
            stream.publish("ev.a", Bytes::new(), Timestamp::UNIX_EPOCH);
        }
        stream
    }

    fn pair(consumer: u64, stream: u64) -> Pair {
        Pair { consumer, stream }
    }

    /// A consumer that delivered `count` messages from `first` since its last reset.
    fn after(stream: &Stream, first: u64, count: u64) -> Consumer {
        let mut consumer = Consumer::new("", Duration::from_secs(600));
        consumer.reset(first);
        for _ in 0..count {
            consumer.deliver(stream, NOW).unwrap();
        }
        consumer
    }

    #[test]
    fn a_reset_wipes_what_was_delivered_and_counts_from_one() {
        let stream = stream(100);
        let mut consumer = after(&stream, 1, 50);
        consumer.reset(31);
        assert_eq!(
            (consumer.delivered, consumer.floor),
            (pair(0, 30), pair(0, 30))
        );
        assert_eq!(consumer.deliver(&stream, NOW), Some((pair(1, 31), 69)));
    }

    #[test]
    fn a_reset_beyond_the_end_skips_silently() {
        let mut stream = stream(101);
        let mut consumer = after(&stream, 105, 0);
        for _ in 0..4 {
            stream.publish("ev.a", Bytes::new(), Timestamp::UNIX_EPOCH);
        }
        assert_eq!(consumer.deliver(&stream, NOW), Some((pair(1, 105), 0)));
    }

    #[test]
    fn a_stale_ack_freezes_the_floor_until_a_higher_consumer_sequence() {
        let stream = stream(100);
        let mut consumer = after(&stream, 31, 20);
        consumer.ack(pair(40, 40));
        assert_eq!(consumer.floor, pair(40, 40));
        for good in [pair(15, 45), pair(20, 50)] {
            consumer.ack(good);
            assert_eq!(consumer.floor, pair(40, 40));
        }
    }

    #[test]
    fn a_stale_ack_can_move_the_floor_past_what_was_applied() {
        let stream = stream(100);
        let mut consumer = after(&stream, 31, 25);
        consumer.ack(pair(5, 55));
        assert_eq!(consumer.floor, pair(5, 55));
    }

    #[test]
    fn an_ack_beyond_what_was_delivered_is_not_taken() {
        let stream = stream(100);
        let mut consumer = after(&stream, 1, 10);
        consumer.ack(pair(11, 11));
        assert_eq!(consumer.floor, pair(0, 0));
    }

    #[test]
    fn what_is_not_acked_comes_again_with_a_new_consumer_sequence() {
        let stream = stream(3);
        let mut consumer = after(&stream, 1, 3);
        consumer.ack(pair(1, 1));
        consumer.expire_acks(Duration::from_secs(600));
        assert_eq!(consumer.deliver(&stream, NOW).unwrap().0, pair(4, 2));
        assert_eq!(consumer.deliver(&stream, NOW).unwrap().0, pair(5, 3));
        assert_eq!(consumer.deliver(&stream, NOW), None);
    }
}
