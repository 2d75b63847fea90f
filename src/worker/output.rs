//! Applied events -> stored alerts and dead letters. Nothing is dropped: what a store does not take
//! stays in [`Pending`] until it does.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{StreamExt, stream};
use lookback_protocol::alert::AlertRecord;
use lookback_protocol::checkpoint::{Hold, HoldReason};
use lookback_protocol::config::WorkerConfig;
use lookback_protocol::position::StreamSeq;
use tokio::time::Instant;

use crate::runtime::telemetry::chain;

use super::metrics::{AlertLabels, AlertOutcome, Metrics};
use super::ports::{DeadLetter, Lookup, Outbox, Room, Rooms, StoreError, Stored};
use super::run::Clock;

/// Publishes in flight at once.
const IN_FLIGHT: usize = 256;
/// How old the last look at the streams' sizes may be.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The stores, and what may be in them already.
pub(super) struct Output<O> {
    outbox: O,
    alerts_stream: String,
    dead_letters_stream: String,
    published_through: StreamSeq,
    looked: Option<Instant>,
    metrics: Metrics,
    clock: Clock,
}

/// What a batch still has to store, and what it has stored.
#[derive(Debug)]
pub(super) struct Pending {
    items: Vec<Item>,
    /// What got no answer may be stored all the same, and people may have moved it on since.
    tried: bool,
    pub(super) stored: Tally,
}

/// What the stores answered so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Alerts stored now.
    pub(super) alerts_new: u64,
    /// Alerts stored before.
    pub(super) alerts_known: u64,
    /// Events parked, now or before.
    pub(super) dead_letters: u64,
    /// What each stream acknowledged.
    pub(super) acknowledged: BTreeMap<String, Acknowledged>,
}

/// Sequences that one stream acknowledged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acknowledged {
    pub(super) lowest: u64,
    pub(super) highest: u64,
}

#[derive(Debug)]
enum Item {
    Alert(Box<AlertRecord>),
    DeadLetter(Box<DeadLetter>),
}

impl Pending {
    pub(super) fn new(alerts: Vec<AlertRecord>, dead_letters: Vec<DeadLetter>) -> Self {
        let alerts = alerts
            .into_iter()
            .map(|record| Item::Alert(Box::new(record)));
        let dead_letters = dead_letters
            .into_iter()
            .map(|letter| Item::DeadLetter(Box::new(letter)));
        Self {
            items: dead_letters.chain(alerts).collect(),
            tried: false,
            stored: Tally::default(),
        }
    }

    fn has_alerts(&self) -> bool {
        let alert = |item: &Item| matches!(item, Item::Alert(_));
        self.items.iter().any(alert)
    }

    fn has_dead_letters(&self) -> bool {
        let dead_letter = |item: &Item| matches!(item, Item::DeadLetter(_));
        self.items.iter().any(dead_letter)
    }
}

impl<O: Outbox> Output<O> {
    pub(super) fn new(outbox: O, config: &WorkerConfig, metrics: Metrics, clock: Clock) -> Self {
        Self {
            outbox,
            alerts_stream: config.alerts_stream.clone(),
            dead_letters_stream: config.dead_letters.stream.clone(),
            published_through: StreamSeq(0),
            looked: None,
            metrics,
            clock,
        }
    }

    pub(super) fn outbox(&self) -> &O {
        &self.outbox
    }

    /// Alerts of events up to `sequence` may be stored already.
    pub(super) fn set_published_through(&mut self, sequence: StreamSeq) {
        self.published_through = sequence;
    }

    /// Stores everything in `pending`. When it returns without error, every item is acknowledged.
    ///
    /// # Errors
    /// The first reason why something was not stored; it is still in `pending`.
    pub(super) async fn send(&mut self, pending: &mut Pending) -> Result<(), Hold> {
        if pending.items.is_empty() {
            return Ok(());
        }
        self.look_for_room(pending).await?;
        let tried = std::mem::replace(&mut pending.tried, true);
        let refused = AtomicBool::new(false);
        let this = &*self;
        let refused = &refused;
        let mut answers = stream::iter(std::mem::take(&mut pending.items))
            .map(|item| async move {
                if refused.load(Ordering::Relaxed) {
                    return (item, None);
                }
                let answer = this.store(&item, tried).await;
                refused.fetch_or(answer.is_err(), Ordering::Relaxed);
                (item, Some(answer))
            })
            .buffer_unordered(IN_FLIGHT);
        let mut hold = None;
        while let Some((item, answer)) = answers.next().await {
            match answer {
                Some(Ok(stored)) => this.count(&item, stored, &mut pending.stored),
                Some(Err(error)) => {
                    hold.get_or_insert_with(|| refusal(&item, &error));
                    pending.items.push(item);
                }
                None => pending.items.push(item),
            }
        }
        drop(answers);
        match hold {
            None => Ok(()),
            Some(hold) => {
                self.looked = None;
                Err(hold)
            }
        }
    }

    async fn store(&self, item: &Item, tried: bool) -> Result<Stored, StoreError> {
        match item {
            Item::Alert(record) => {
                let lookup = if tried || self.may_be_stored(record) {
                    Lookup::First
                } else {
                    Lookup::No
                };
                self.outbox.create_alert(record, lookup).await
            }
            Item::DeadLetter(letter) => self.outbox.park(letter).await,
        }
    }

    fn may_be_stored(&self, record: &AlertRecord) -> bool {
        let trigger = record.events.last().map(|event| event.sequence);
        trigger.is_none_or(|sequence| sequence <= self.published_through)
    }

    fn count(&self, item: &Item, stored: Stored, tally: &mut Tally) {
        let stream = match (item, stored) {
            (Item::Alert(record), Stored::New(_)) => {
                tally.alerts_new += 1;
                self.observe_latency(record);
                self.count_alert(AlertOutcome::New);
                &self.alerts_stream
            }
            (Item::Alert(_), Stored::Known) => {
                tally.alerts_known += 1;
                self.count_alert(AlertOutcome::Known);
                &self.alerts_stream
            }
            (Item::DeadLetter(letter), _) => {
                tally.dead_letters += 1;
                self.metrics.count_dead_letter(letter.reason);
                &self.dead_letters_stream
            }
        };
        if let Stored::New(sequence) = stored {
            tally
                .acknowledged
                .entry(stream.clone())
                .and_modify(|seen| {
                    seen.lowest = seen.lowest.min(sequence);
                    seen.highest = seen.highest.max(sequence);
                })
                .or_insert(Acknowledged {
                    lowest: sequence,
                    highest: sequence,
                });
        }
    }

    fn count_alert(&self, outcome: AlertOutcome) {
        self.metrics
            .alerts
            .get_or_create(&AlertLabels { outcome })
            .inc();
    }

    fn observe_latency(&self, record: &AlertRecord) {
        if let Some(created) = record.history.first() {
            let latency = (self.clock)().duration_since(created.time);
            self.metrics
                .alert_latency_seconds
                .observe(latency.as_secs_f64());
        }
    }

    /// People must still be able to move and archive, which needs room, so creates stop before the
    /// server refuses them.
    async fn look_for_room(&mut self, pending: &Pending) -> Result<(), Hold> {
        if self.looked.is_some_and(|at| at.elapsed() < LOOK_AGAIN) {
            return Ok(());
        }
        let Rooms {
            alerts,
            dead_letters,
        } = self.outbox.rooms().await.map_err(|error| Hold {
            reason: HoldReason::StoreUnavailable,
            message: chain(&error),
        })?;
        if alerts.is_short() && pending.has_alerts() {
            return Err(short(HoldReason::AlertsFull, &alerts));
        }
        if dead_letters.is_short() && pending.has_dead_letters() {
            return Err(short(HoldReason::DeadLettersFull, &dead_letters));
        }
        self.looked = Some(Instant::now());
        Ok(())
    }
}

fn short(reason: HoldReason, room: &Room) -> Hold {
    let Room {
        stream,
        last: _,
        bytes,
        max_bytes,
    } = room;
    let max = max_bytes.unwrap_or_default();
    Hold {
        reason,
        message: format!(
            "stream {stream} holds {bytes} of {max} bytes; {}",
            verb(reason)
        ),
    }
}

fn refusal(item: &Item, error: &StoreError) -> Hold {
    let reason = match (error, item) {
        (StoreError::Unavailable(_), _) => HoldReason::StoreUnavailable,
        (StoreError::Full { .. }, Item::Alert(_)) => HoldReason::AlertsFull,
        (StoreError::Full { .. }, Item::DeadLetter(_)) => HoldReason::DeadLettersFull,
    };
    Hold {
        reason,
        message: format!("{}; {}", chain(error), verb(reason)),
    }
}

fn verb(reason: HoldReason) -> &'static str {
    match reason {
        HoldReason::AlertsFull => "raise spec.alerts.maxBytes, or purge alerts that are done with",
        HoldReason::DeadLettersFull => {
            "raise spec.deadLetters.maxBytes, or purge dead letters that are done with"
        }
        HoldReason::StoreUnavailable => "the worker tries again by itself",
    }
}
