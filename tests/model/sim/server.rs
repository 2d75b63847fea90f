//! The server between the stream and its clients: pulls that are served in no particular order, that
//! outlive a reset, a crash of their client or the network, and deliveries that are on their way when
//! any of this happens.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::consumer::{Consumer, Pair};
use super::rng::Rng;
use super::stream::{Message, Stream};

/// How often an idle pull hears from the server.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(1);
/// How long a pull request lives at the server.
pub(crate) const PULL_EXPIRES: Duration = Duration::from_secs(5);

/// One client's inbox and the pull requests that feed it.
pub(crate) type InboxId = u64;

/// A delivery on its way to a client.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sent {
    pub(crate) pair: Pair,
    pub(crate) message: Message,
    pub(crate) pending: u64,
    /// The consumer's resets when it was sent.
    pub(crate) resets: u64,
}

/// What a client finds in its inbox.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Found {
    Sent(Box<Sent>),
    Heartbeat(u64),
    Dead,
    Gone,
    /// Nothing until then, unless something happens.
    Nothing(Duration),
}

/// JetStream as far as one consumer and its clients can see it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) stream: Stream,
    pub(crate) consumer: Option<Consumer>,
    /// Deliveries that a client's subscription holds; more are dropped by the client.
    pub(crate) capacity: usize,
    inboxes: BTreeMap<InboxId, Inbox>,
    opened: u64,
    late_resets: Vec<(Duration, u64)>,
    resets: u64,
}

#[derive(Debug)]
struct Inbox {
    on_its_way: VecDeque<Sent>,
    batch: u64,
    left: u64,
    expires: Duration,
    heard: Duration,
    client: Client,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Client {
    /// Reads, and renews its pull.
    Reading,
    /// Its connection was cut: it will notice by missed heartbeats; the server has not noticed yet.
    CutOff,
    /// Its consumer was deleted.
    Refused,
    /// Its process is gone, or frozen: what is sent to it is lost.
    Absent,
}

impl Server {
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            consumer: None,
            capacity: usize::MAX,
            inboxes: BTreeMap::new(),
            opened: 0,
            late_resets: Vec::new(),
            resets: 0,
        }
    }

    pub(crate) fn open(&mut self, batch: u64, now: Duration) -> InboxId {
        self.opened += 1;
        let client = if self.consumer.is_some() {
            Client::Reading
        } else {
            Client::Refused
        };
        self.inboxes.insert(
            self.opened,
            Inbox {
                on_its_way: VecDeque::new(),
                batch,
                left: batch,
                expires: now + PULL_EXPIRES,
                heard: now,
                client,
            },
        );
        self.opened
    }

    pub(crate) fn close(&mut self, inbox: InboxId) {
        self.inboxes.remove(&inbox);
    }

    /// Every client unsubscribes.
    pub(crate) fn close_all(&mut self) {
        self.inboxes.clear();
    }

    /// An ack arrives.
    pub(crate) fn ack(&mut self, reply: Pair) {
        if let Some(consumer) = &mut self.consumer {
            consumer.ack(reply);
        }
    }

    /// The client's process died. Its pull stays open until it expires, unless `noticed`.
    pub(crate) fn abandon(&mut self, inbox: InboxId, noticed: bool) {
        if noticed {
            self.close(inbox);
        } else if let Some(inbox) = self.inboxes.get_mut(&inbox) {
            inbox.client = Client::Absent;
            inbox.on_its_way.clear();
        }
    }

    /// The connection of `inbox` breaks: what was on its way is lost. With `silent` the client
    /// reconnects and goes on without an error; else its pull is dead and, until it expires, may
    /// take more with it.
    pub(crate) fn cut(&mut self, inbox: InboxId, silent: bool, now: Duration) {
        if let Some(inbox) = self.inboxes.get_mut(&inbox) {
            inbox.on_its_way.clear();
            if silent {
                inbox.renew(now);
            } else {
                inbox.client = Client::CutOff;
                inbox.heard = now;
            }
        }
    }

    /// Every connection breaks and every pull dies with the server's process.
    pub(crate) fn restart(&mut self, now: Duration) {
        for inbox in self.inboxes.values_mut() {
            inbox.on_its_way.clear();
            inbox.left = 0;
            if inbox.client == Client::Reading {
                inbox.client = Client::CutOff;
                inbox.heard = now;
            }
        }
    }

    /// Makes the durable, with DeliverAll. No reply of an earlier one is from after its last reset.
    pub(crate) fn create_consumer(&mut self, filter: &str, ack_wait: Duration) {
        let mut consumer = Consumer::new(filter, ack_wait);
        consumer.resets = self.resets + 1;
        self.consumer = Some(consumer);
    }

    pub(crate) fn delete_consumer(&mut self) {
        self.resets = self.consumer.take().map_or(self.resets, |it| it.resets);
        for inbox in self.inboxes.values_mut() {
            inbox.left = 0;
            if inbox.client == Client::Reading {
                inbox.client = Client::Refused;
            }
        }
    }

    pub(crate) fn reset(&mut self, next: u64) {
        if let Some(consumer) = &mut self.consumer {
            consumer.reset(next);
        }
    }

    /// A reset whose client has given up waiting, carried out at `at` all the same.
    pub(crate) fn reset_later(&mut self, next: u64, at: Duration) {
        self.late_resets.push((at, next));
    }

    pub(crate) fn forget_late_resets(&mut self) {
        self.late_resets.clear();
    }

    /// The `index`th delivery on its way to `inbox` is dropped by a full channel.
    pub(crate) fn drop_delivery(&mut self, inbox: InboxId, index: usize) {
        if let Some(inbox) = self.inboxes.get_mut(&inbox) {
            inbox.on_its_way.remove(index);
        }
    }

    /// Two deliveries on their way to `inbox` change places.
    pub(crate) fn swap_deliveries(&mut self, inbox: InboxId, a: usize, b: usize) {
        if let Some(inbox) = self.inboxes.get_mut(&inbox)
            && a < inbox.on_its_way.len()
            && b < inbox.on_its_way.len()
        {
            inbox.on_its_way.swap(a, b);
        }
    }

    pub(crate) fn on_its_way(&self, inbox: InboxId) -> usize {
        self.inboxes
            .get(&inbox)
            .map_or(0, |inbox| inbox.on_its_way.len())
    }

    /// Everything the server does by itself until `now`.
    pub(crate) fn settle(&mut self, now: Duration, rng: &mut Rng) {
        let (due, later) = self.late_resets.iter().partition(|(at, _)| *at <= now);
        self.late_resets = later;
        let due: Vec<(Duration, u64)> = due;
        for (_, next) in due {
            self.reset(next);
        }
        self.inboxes
            .retain(|_, inbox| inbox.client != Client::Absent || inbox.expires > now);
        for inbox in self.inboxes.values_mut() {
            match inbox.client {
                Client::Reading if inbox.expires <= now || inbox.drained() => inbox.renew(now),
                Client::CutOff | Client::Absent if inbox.expires <= now => inbox.left = 0,
                Client::Reading | Client::CutOff | Client::Refused | Client::Absent => {}
            }
        }
        self.deliver(now, rng);
    }

    fn deliver(&mut self, now: Duration, rng: &mut Rng) {
        let Some(consumer) = &mut self.consumer else {
            return;
        };
        consumer.expire_acks(now);
        loop {
            let open: Vec<InboxId> = self
                .inboxes
                .iter()
                .filter(|(_, inbox)| inbox.left > 0)
                .map(|(id, _)| *id)
                .collect();
            if open.is_empty() {
                return;
            }
            let Some((pair, pending)) = consumer.deliver(&self.stream, now) else {
                return;
            };
            let chosen = rng.pick(&open);
            let inbox = self.inboxes.get_mut(chosen).expect("one of the open ones");
            inbox.left -= 1;
            if inbox.client == Client::Reading && inbox.on_its_way.len() < self.capacity {
                let message = self.stream.get(pair.stream).expect("just delivered");
                inbox.on_its_way.push_back(Sent {
                    pair,
                    message: message.clone(),
                    pending,
                    resets: consumer.resets,
                });
            }
        }
    }

    /// What the client of `inbox` reads at `now`, after [`Self::settle`].
    pub(crate) fn read(&mut self, inbox: InboxId, now: Duration) -> Found {
        let last = self.consumer.as_ref().map(|it| it.delivered.consumer);
        let next_event = self.next_event();
        let Some(inbox) = self.inboxes.get_mut(&inbox) else {
            return Found::Dead;
        };
        if let Some(sent) = inbox.on_its_way.pop_front() {
            inbox.heard = now;
            return Found::Sent(Box::new(sent));
        }
        let missed = 2 * HEARTBEAT;
        match (inbox.client, last) {
            (Client::Refused, _) | (Client::Reading, None) => Found::Gone,
            (Client::CutOff | Client::Absent, _) if inbox.heard + missed <= now => Found::Dead,
            (Client::CutOff | Client::Absent, _) => Found::Nothing(inbox.heard + missed),
            (Client::Reading, Some(last)) if inbox.heard + HEARTBEAT <= now => {
                inbox.heard = now;
                Found::Heartbeat(last)
            }
            (Client::Reading, Some(_)) => {
                let heartbeat = inbox.heard + HEARTBEAT;
                Found::Nothing(next_event.map_or(heartbeat, |at| at.min(heartbeat)))
            }
        }
    }

    fn next_event(&self) -> Option<Duration> {
        let resets = self.late_resets.iter().map(|(at, _)| *at);
        let acks = self.consumer.as_ref().and_then(Consumer::next_expiry);
        resets.chain(acks).min()
    }
}

impl Inbox {
    fn drained(&self) -> bool {
        self.left == 0 && self.on_its_way.is_empty()
    }

    fn renew(&mut self, now: Duration) {
        self.left = self.batch;
        self.expires = now + PULL_EXPIRES;
    }
}
