//! The model against a real nats-server: schedules that both can do, driven through the same port, and
//! everything that can be seen from outside must agree. What depends on timing in the server (who of
//! two open pulls is served, whether a cut is followed by a redelivery at once) is compared only as
//! far as the server promises anything.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use async_nats::jetstream::{self, consumer, stream};
use lookback::nats::connect::{Nats, Options, Target};
use lookback::nats::log::JetStreamLog;
use lookback::worker::ports::{AckToken, Log, Pulled};
use lookback_dev::support::{NatsServer, TcpProxy, eventually};
use lookback_protocol::position::StreamSeq;

use crate::in_model_time;
use crate::sim::consumer::Pair;
use crate::sim::log::{SimLog, parse};
use crate::sim::rng::Rng;
use crate::sim::{Process, World};

const SCHEDULES: u64 = 50;
const CONSUMER: &str = "c";
const SOON: Duration = Duration::from_secs(60);
const PROCESS: u64 = 1;

/// What both sides do.
#[derive(Clone, Copy, Debug)]
enum Step {
    Publish(u64),
    /// Close the pull, reset, open another.
    Position(u64),
    /// Open another pull and leave the old one as it is.
    OpenBeside,
    /// Read this many deliveries.
    Read(usize),
    /// Ack with the reply of the delivery of this index, counted from the first one of all.
    Ack(usize),
    /// Cut the connection under the pull.
    Cut,
    /// Delete the consumer and make it again.
    Recreate,
}

/// What is seen after a step.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Deliveries(Vec<Pair>),
    Ended(Pulled),
    Facts(Facts),
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Facts {
    delivered: Pair,
    floor: Pair,
    pending: u64,
}

/// One schedule as the model did it.
struct Script {
    seed: u64,
    steps: Vec<(Step, Seen)>,
}

#[test]
fn the_model_agrees_with_a_real_server() {
    let scripts: Vec<Script> = (0..SCHEDULES)
        .map(|seed| in_model_time(script(seed)))
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let outcome = runtime.block_on(async {
        let server = NatsServer::start().await?;
        for script in &scripts {
            let seed = script.seed;
            replay(&server, script)
                .await
                .with_context(|| format!("schedule {seed}"))?;
        }
        anyhow::Ok(())
    });
    outcome.expect("the real server does what the model does");
}

/// Makes up a schedule while the model runs it.
async fn script(seed: u64) -> Script {
    let mut rng = Rng::new(seed);
    let mut model = Model::new();
    let mut steps = Vec::new();
    let first = Step::Position(1);
    steps.push((first, model.take(first).await));
    for _ in 0..rng.between(8, 25) {
        for step in model.choose(&mut rng) {
            steps.push((step, model.take(step).await));
        }
    }
    Script { seed, steps }
}

/// The model's side.
struct Model {
    world: World,
    log: SimLog,
    tokens: Vec<AckToken>,
    /// Only one pull is open, so who is served is no question.
    alone: bool,
}

impl Model {
    fn new() -> Self {
        let world = World::new(0, "EVENTS");
        {
            let mut state = world.lock();
            state.batch = 1_000;
            state.processes.insert(PROCESS, Process::new("".into()));
            state.server.create_consumer("", SOON * 1_000);
        }
        Self {
            log: SimLog::new(&world, PROCESS),
            world,
            tokens: Vec::new(),
            alone: true,
        }
    }

    /// Steps that make sense now.
    fn choose(&self, rng: &mut Rng) -> Vec<Step> {
        let now = self.world.now();
        let (last, waiting) = self.world.look(|state| {
            state.settle(now);
            let inbox = state.processes[&PROCESS].inbox;
            let waiting = inbox.map_or(0, |it| state.server.on_its_way(it));
            (state.server.stream.last(), waiting)
        });
        let anywhere = Step::Position(rng.between(1, last + 1));
        match rng.below(12) {
            0..=2 => vec![Step::Publish(rng.between(1, 20))],
            3..=5 if self.alone && waiting > 0 => {
                let count = usize::try_from(rng.between(1, waiting as u64)).expect("small");
                vec![Step::Read(count)]
            }
            6 | 7 if !self.tokens.is_empty() => {
                let index = rng.below(self.tokens.len() as u64);
                vec![Step::Ack(usize::try_from(index).expect("small"))]
            }
            8 => vec![anywhere],
            // Beyond the end, which the server takes, and skips.
            9 => vec![Step::Position(last + rng.between(2, 4)), Step::Publish(6)],
            10 if self.alone => vec![Step::Cut, anywhere],
            11 if self.alone => vec![Step::OpenBeside, Step::Publish(5), anywhere],
            11 => vec![Step::Recreate, anywhere],
            _ => vec![Step::Publish(1)],
        }
    }

    async fn take(&mut self, step: Step) -> Seen {
        match step {
            Step::Publish(count) => {
                for _ in 0..count {
                    let now = self.world.clock();
                    let mut state = self.world.lock();
                    state.server.stream.publish("ev.a", "{}".into(), now);
                }
            }
            Step::Position(next) => {
                {
                    let mut state = self.world.lock();
                    state.server.close_all();
                    // Not by the port, which checks it against the state file of a worker.
                    state.server.reset(next);
                }
                self.log.open().await.expect("no faults");
                self.alone = true;
            }
            Step::OpenBeside => {
                self.log.open().await.expect("no faults");
                self.alone = false;
            }
            Step::Read(count) => {
                let seen = read(&mut self.log, count, &mut self.tokens).await;
                return Seen::Deliveries(seen.expect("they are on their way"));
            }
            Step::Ack(index) => {
                let token = self.tokens[index].clone();
                let (reply, _) = parse(&token);
                self.world.lock().server.ack(reply);
            }
            Step::Cut => {
                let now = self.world.now();
                {
                    let mut state = self.world.lock();
                    let inbox = state.processes[&PROCESS].inbox.expect("a pull is open");
                    state.server.cut(inbox, false, now);
                }
                return Seen::Ended(end(&mut self.log).await.expect("no faults"));
            }
            Step::Recreate => {
                let mut state = self.world.lock();
                state.server.delete_consumer();
                state.server.create_consumer("", SOON * 1_000);
            }
        }
        let now = self.world.now();
        self.world.look(|state| {
            state.settle(now);
            let stream = &state.server.stream;
            let consumer = state.server.consumer.as_ref().expect("it exists");
            Seen::Facts(Facts {
                delivered: consumer.delivered,
                floor: consumer.floor,
                pending: stream.pending(consumer.delivered.stream, ""),
            })
        })
    }
}

/// Runs a script on the real server and compares after every step.
async fn replay(server: &NatsServer, script: &Script) -> Result<()> {
    let mut real = Real::new(server, &format!("EVENTS{}", script.seed)).await?;
    for (number, (step, expected)) in script.steps.iter().enumerate() {
        real.take(*step, expected)
            .await
            .with_context(|| format!("step {number}, {step:?}, of {:?}", script.steps))?;
    }
    Ok(())
}

/// The real server's side.
struct Real {
    jetstream: jetstream::Context,
    stream: String,
    proxy: TcpProxy,
    nats: Nats,
    log: JetStreamLog,
    /// Pulls that are open and not read.
    beside: Vec<JetStreamLog>,
    tokens: Vec<AckToken>,
}

impl Real {
    async fn new(server: &NatsServer, stream: &str) -> Result<Self> {
        let jetstream = server.jetstream().await?;
        jetstream
            .create_stream(stream::Config {
                name: stream.to_owned(),
                subjects: vec![stream.to_owned()],
                ..Default::default()
            })
            .await?;
        let proxy = TcpProxy::start(server.address()).await?;
        let target = Target {
            urls: vec![format!("nats://{}", proxy.address())],
            ..Target::default()
        };
        let nats = Nats::connect(&target, &Options::named("conformance")).await?;
        let real = Self {
            log: JetStreamLog::new(nats.clone(), stream, CONSUMER),
            jetstream,
            stream: stream.to_owned(),
            proxy,
            nats,
            beside: Vec::new(),
            tokens: Vec::new(),
        };
        real.create_consumer().await?;
        Ok(real)
    }

    async fn create_consumer(&self) -> Result<()> {
        let config = consumer::pull::Config {
            durable_name: Some(CONSUMER.to_owned()),
            ack_policy: consumer::AckPolicy::All,
            ack_wait: Duration::from_secs(600),
            max_ack_pending: -1,
            ..Default::default()
        };
        self.jetstream
            .create_consumer_on_stream(config, &self.stream)
            .await?;
        Ok(())
    }

    async fn take(&mut self, step: Step, expected: &Seen) -> Result<()> {
        match step {
            Step::Publish(count) => {
                for _ in 0..count {
                    self.jetstream
                        .publish(self.stream.clone(), "{}".into())
                        .await?
                        .await?;
                }
            }
            Step::Position(next) => self.position(next).await?,
            Step::OpenBeside => {
                let fresh = JetStreamLog::new(self.nats.clone(), &self.stream, CONSUMER);
                self.beside.push(std::mem::replace(&mut self.log, fresh));
                self.log.open().await?;
            }
            Step::Read(count) => {
                let seen = tokio::time::timeout(SOON, read(&mut self.log, count, &mut self.tokens));
                let seen = Seen::Deliveries(seen.await.context("no deliveries")??);
                ensure!(seen == *expected, "saw {seen:?}, the model {expected:?}");
                return Ok(());
            }
            Step::Ack(index) => self.log.ack(&self.tokens[index]).await?,
            Step::Cut => {
                self.proxy.cut();
                let seen = tokio::time::timeout(SOON, end(&mut self.log));
                let seen = Seen::Ended(seen.await.context("the pull goes on")??);
                ensure!(seen == *expected, "saw {seen:?}, the model {expected:?}");
                return Ok(());
            }
            Step::Recreate => {
                let stream = self.jetstream.get_stream(&self.stream).await?;
                stream.delete_consumer(CONSUMER).await?;
                self.create_consumer().await?;
            }
        }
        let Seen::Facts(expected) = expected else {
            bail!("the model saw {expected:?}, where there are only facts to see");
        };
        // Acks and deliveries take their time.
        eventually(SOON, "the same facts", async || {
            let mut seen = self.facts().await?;
            // Now and then the server goes on to report the floor from before a reset, until an ack.
            // Nothing of ours reads it, so it counts only where acks are what is compared.
            if !matches!(step, Step::Ack(_)) {
                seen.floor = expected.floor;
            }
            ensure!(seen == *expected, "saw {seen:?}, the model {expected:?}");
            Ok(())
        })
        .await
    }

    async fn position(&mut self, next: u64) -> Result<()> {
        for mut old in self.beside.drain(..) {
            old.close().await?;
            // Each log has a connection of its own: an answer over this one shows that the server has
            // seen the end of the pull before the reset comes over the other.
            old.consumer().await?;
        }
        eventually(SOON, "the consumer is positioned", async || {
            self.log.close().await?;
            self.log.reset(StreamSeq(next)).await?;
            let Facts { delivered, .. } = self.facts().await?;
            let reset = Pair {
                consumer: 0,
                stream: next - 1,
            };
            ensure!(
                delivered == reset,
                "it stands at {delivered:?} after a reset to {next}"
            );
            self.log.open().await?;
            Ok(())
        })
        .await
    }

    async fn facts(&self) -> Result<Facts> {
        let stream = self.jetstream.get_stream(&self.stream).await?;
        let info = stream.consumer_info(CONSUMER).await?;
        Ok(Facts {
            delivered: Pair {
                consumer: info.delivered.consumer_sequence,
                stream: info.delivered.stream_sequence,
            },
            floor: Pair {
                consumer: info.ack_floor.consumer_sequence,
                stream: info.ack_floor.stream_sequence,
            },
            pending: info.num_pending,
        })
    }
}

/// Reads `count` deliveries, heartbeats passed over.
async fn read(log: &mut impl Log, count: usize, tokens: &mut Vec<AckToken>) -> Result<Vec<Pair>> {
    let mut seen = Vec::new();
    while seen.len() < count {
        match log.next().await? {
            Pulled::Delivery(delivery) => {
                seen.push(Pair {
                    consumer: delivery.consumer_sequence,
                    stream: delivery.sequence.0,
                });
                tokens.push(delivery.ack);
            }
            Pulled::Heartbeat { .. } => {}
            end => bail!("{end:?} instead of a delivery"),
        }
    }
    Ok(seen)
}

/// What ends the pull.
async fn end(log: &mut impl Log) -> Result<Pulled> {
    loop {
        match log.next().await? {
            Pulled::Delivery(_) | Pulled::Heartbeat { .. } => {}
            end => return Ok(end),
        }
    }
}
