//! The log port over the modelled server.

use bytes::Bytes;
use lookback::worker::ports::{AckToken, ConsumerFacts, Delivery, Log, Pulled, Unavailable};
use lookback_protocol::position::StreamSeq;
use lookback_protocol::start::{MessageAt, StreamFacts};

use super::consumer::Pair;
use super::server::{Found, Sent};
use super::{Faults, Way, World, unavailable};
use crate::invariants;

/// One process's view of the source stream and the consumer.
#[derive(Debug)]
pub(crate) struct SimLog {
    world: World,
    process: u64,
}

impl SimLog {
    pub(crate) fn new(world: &World, process: u64) -> Self {
        Self {
            world: world.clone(),
            process,
        }
    }

    async fn request<T>(
        &self,
        operation: &'static str,
        carry_out: impl FnOnce(&mut super::State) -> T,
    ) -> Result<T, Unavailable> {
        self.request_over(operation, lost, carry_out).await
    }

    async fn request_over<T>(
        &self,
        operation: &'static str,
        lost: fn(&Faults) -> (u64, u64),
        carry_out: impl FnOnce(&mut super::State) -> T,
    ) -> Result<T, Unavailable> {
        let way = self.world.travel(self.process, lost).await;
        if way == Way::Lost {
            self.note(|| format!("{operation} lost"));
            return Err(unavailable(operation, "EVENTS"));
        }
        let now = self.world.now();
        let answer = {
            let mut state = self.world.lock();
            state.settle(now);
            carry_out(&mut state)
        };
        self.world.travel_back(self.process, way).await;
        if way == Way::Unanswered {
            self.note(|| format!("{operation} unanswered"));
            return Err(unavailable(operation, "EVENTS"));
        }
        Ok(answer)
    }

    fn note(&self, what: impl FnOnce() -> String) {
        let process = self.process;
        self.world.note(|| format!("w{process} {}", what()));
    }

    fn inbox(&self) -> Option<u64> {
        self.world.look(|state| {
            let process = state.processes.get(&self.process);
            process.and_then(|process| process.inbox)
        })
    }

    fn set_inbox(&self, state: &mut super::State, inbox: Option<u64>) {
        let process = state.processes.get_mut(&self.process);
        process.expect("the process is known").inbox = inbox;
    }
}

impl Log for SimLog {
    async fn stream(&mut self) -> Result<StreamFacts, Unavailable> {
        self.request("STREAM.INFO", |state| state.server.stream.facts())
            .await
    }

    async fn message_at(&mut self, sequence: StreamSeq) -> Result<MessageAt, Unavailable> {
        self.request("STREAM.MSG.GET", |state| {
            state.server.stream.message_at(sequence)
        })
        .await
    }

    async fn consumer(&mut self) -> Result<Option<ConsumerFacts>, Unavailable> {
        let facts = self
            .request("CONSUMER.INFO", |state| {
                let stream = &state.server.stream;
                state.server.consumer.as_ref().map(|it| ConsumerFacts {
                    delivered_consumer: it.delivered.consumer,
                    delivered: StreamSeq(it.delivered.stream),
                    pending: stream.pending(it.delivered.stream, &it.filter),
                    applied: it.applied,
                })
            })
            .await?;
        self.note(|| format!("info {facts:?}"));
        Ok(facts)
    }

    async fn close(&mut self) -> Result<(), Unavailable> {
        let Some(inbox) = self.inbox() else {
            return Ok(());
        };
        self.note(|| "close".to_owned());
        self.world.crash_point(self.process).await;
        let mut state = self.world.lock();
        state.server.close(inbox);
        self.set_inbox(&mut state, None);
        Ok(())
    }

    async fn reset(&mut self, next: StreamSeq) -> Result<(), Unavailable> {
        let now = self.world.now();
        let late = self.world.look(|state| {
            let late = state.faults.late_reset;
            let is_late = state.rng.chance(late);
            is_late.then(|| now + std::time::Duration::from_millis(state.rng.between(200, 3000)))
        });
        self.note(|| format!("reset {next} late {late:?}"));
        invariants::reset_is_covered(&self.world, self.process, next.0);
        if let Some(at) = late {
            self.world.crash_point(self.process).await;
            self.world.lock().server.reset_later(next.0, at);
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            self.world.crash_point(self.process).await;
            return Err(unavailable("CONSUMER.RESET", "consumer"));
        }
        let exists = self
            .request_over("CONSUMER.RESET", reset_lost, |state| {
                state.server.reset(next.0);
                state.server.consumer.is_some()
            })
            .await?;
        // A reset of a consumer that does not exist is never answered.
        if exists {
            Ok(())
        } else {
            tokio::time::sleep(std::time::Duration::from_secs(2)).await;
            Err(unavailable("CONSUMER.RESET", "consumer"))
        }
    }

    async fn open(&mut self) -> Result<(), Unavailable> {
        self.note(|| "open".to_owned());
        self.world.crash_point(self.process).await;
        let now = self.world.now();
        {
            let mut state = self.world.lock();
            let old = state.processes.get(&self.process).and_then(|it| it.inbox);
            if let Some(old) = old {
                // Nobody reads it any more, and nobody closed it.
                state.server.abandon(old, false);
            }
            let batch = state.batch;
            let inbox = state.server.open(batch, now);
            let resets = state.server.consumer.as_ref().map_or(0, |it| it.resets);
            self.set_inbox(&mut state, Some(inbox));
            let process = state.processes.get_mut(&self.process);
            process.expect("the process is known").resets = resets;
        }
        self.world.crash_point(self.process).await;
        Ok(())
    }

    async fn next(&mut self) -> Result<Pulled, Unavailable> {
        self.world.crash_point(self.process).await;
        let mut changes = self.world.changes();
        loop {
            changes.mark_unchanged();
            let Some(inbox) = self.inbox() else {
                return Ok(Pulled::Dead);
            };
            let now = self.world.now();
            let found = self.world.look(|state| {
                state.settle(now);
                state.server.read(inbox, now)
            });
            let pulled = match found {
                Found::Sent(sent) => Pulled::Delivery(delivery(*sent)),
                Found::Heartbeat(last_consumer) => Pulled::Heartbeat { last_consumer },
                Found::Dead => Pulled::Dead,
                Found::Gone => Pulled::Gone,
                Found::Nothing(until) => {
                    let until = self.world.instant(until);
                    tokio::select! {
                        biased;
                        _ = changes.changed() => {}
                        () = tokio::time::sleep_until(until) => {}
                    }
                    continue;
                }
            };
            self.note(|| match &pulled {
                Pulled::Delivery(it) => format!("got c{}:s{}", it.consumer_sequence, it.sequence),
                other => format!("got {other:?}"),
            });
            return Ok(pulled);
        }
    }

    async fn ack(&mut self, delivery: &AckToken) -> Result<(), Unavailable> {
        self.note(|| format!("ack {}", delivery.0));
        self.world.crash_point(self.process).await;
        let (pair, _) = parse(delivery);
        {
            let mut state = self.world.lock();
            let lost = state.faults.ack_lost;
            if !state.rng.chance(lost) {
                state.server.ack(pair);
            }
        }
        invariants::ack_is_covered(&self.world, self.process, delivery);
        self.world.crash_point(self.process).await;
        Ok(())
    }
}

fn lost(faults: &Faults) -> (u64, u64) {
    (faults.log_lost, faults.log_unanswered)
}

fn reset_lost(faults: &Faults) -> (u64, u64) {
    (
        faults.log_lost.max(faults.reset_lost),
        faults.log_unanswered,
    )
}

fn delivery(sent: Sent) -> Delivery {
    let Sent {
        pair,
        message,
        pending,
        resets,
    } = sent;
    Delivery {
        consumer_sequence: pair.consumer,
        sequence: message.sequence,
        published: message.published,
        subject: message.subject,
        headers: Bytes::new(),
        payload: message.payload,
        pending,
        ack: AckToken(format!("{}.{}.{}", pair.consumer, pair.stream, resets)),
    }
}

/// The pair in a reply subject, and the consumer's resets when it was sent.
pub(crate) fn parse(token: &AckToken) -> (Pair, u64) {
    let mut parts = token
        .0
        .split('.')
        .map(|part| part.parse().expect("a number"));
    let mut next = || parts.next().expect("three parts");
    let pair = Pair {
        consumer: next(),
        stream: next(),
    };
    (pair, next())
}
