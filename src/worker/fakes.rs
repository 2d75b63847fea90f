//! The three ports over one small world in memory, for tests of single facts: it delivers in order
//! and does what it is told to go wrong, once. The rules of JetStream under any schedule are the
//! business of the model tests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use lookback_engine::{EngineOptions, RuleFile, RuleSet};
use lookback_protocol::alert::AlertRecord;
use lookback_protocol::checkpoint::Checkpoint;
use lookback_protocol::config::{
    self, CommitConfig, CorrelationConfig, Cursor, DeadLettersConfig, Emit, Limits, LogSource,
    NatsConfig, Refire, RuleFileRef, RulesConfig, SourceConfig, TimestampFallback, WorkerConfig,
};
use lookback_protocol::names::{Owner, PipelineKey};
use lookback_protocol::position::{Epoch, Position, StreamIdentity, StreamSeq};
use lookback_protocol::start::{FileState, MessageAt, OutputRule, StreamFacts};
use lookback_protocol::termination::TerminationMessage;
use prometheus_client::registry::Registry;
use tempfile::TempDir;

use crate::runtime::admin::Readiness;
use crate::state::StateFile;

use super::metrics::Metrics;
use super::ports::{
    AckToken, CheckpointError, Checkpoints, ConsumerFacts, DeadLetter, Delivery, Log, Lookup,
    Outbox, Pulled, Revision, Room, Rooms, StoreError, Stored, Unavailable,
};
use super::run::{Deps, Gates, run};

/// A rule that matches every event with `EventID: 1`.
const RULE: &str = "title: Process created
id: 7a3c0b5e-6d0e-4b7b-9a53-0f1f5d8c2b11
status: test
level: high
logsource: {product: windows}
detection:
  selection: {EventID: 1}
  condition: selection
";

/// By the paused clock; all is quiet long before.
const QUIET: Duration = Duration::from_secs(20);

/// Everything outside of one worker, shared by its three ports.
#[derive(Clone)]
pub(super) struct World(Arc<Mutex<Inner>>);

pub(super) struct Inner {
    pub(super) config: WorkerConfig,
    pub(super) events: Vec<Bytes>,
    pub(super) first: u64,
    pub(super) consumer: Option<ConsumerFacts>,
    open: bool,
    /// The next delivery goes to someone else.
    pub(super) steal: bool,
    /// Retention takes everything before the second sequence when the first is delivered.
    pub(super) expire: Option<(u64, u64)>,
    /// So many resets get no answer and do not happen.
    pub(super) deaf_resets: u32,
    pub(super) alerts: BTreeMap<String, AlertRecord>,
    /// How many creates were taken: more than there are alerts when one was stored twice.
    pub(super) alerts_stored: u64,
    /// Alerts that people moved on, so long ago that only a lookup finds them.
    pub(super) moved: BTreeSet<String>,
    pub(super) lookups: Vec<Lookup>,
    pub(super) alerts_full: u32,
    pub(super) dead_letters: Vec<DeadLetter>,
    pub(super) checkpoint: Option<(Checkpoint, Revision)>,
    pub(super) checkpoints: Vec<Checkpoint>,
    /// The next checkpoint is written, and its answer lost.
    pub(super) lose_checkpoint_answer: bool,
    /// Someone else writes this just before the next checkpoint.
    pub(super) overtaken_by: Option<Checkpoint>,
    /// What happened outside, in order.
    pub(super) journal: Vec<Step>,
}

/// Something that happened outside, with the stream sequence it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Reset(u64),
    Alert(u64),
    Checkpoint(u64),
    Ack(u64),
}

/// A world and a volume.
pub(super) struct Bench {
    pub(super) world: World,
    volume: TempDir,
    incarnations: u32,
}

impl Bench {
    /// A stream with one event for each payload.
    pub(super) fn new(payloads: &[&str]) -> Self {
        Self {
            world: World(Arc::new(Mutex::new(Inner {
                config: config(),
                events: payloads
                    .iter()
                    .map(|text| Bytes::copy_from_slice(text.as_bytes()))
                    .collect(),
                first: 1,
                consumer: Some(ConsumerFacts {
                    delivered_consumer: 0,
                    delivered: StreamSeq(0),
                    pending: 0,
                    applied: false,
                }),
                open: false,
                steal: false,
                expire: None,
                deaf_resets: 0,
                alerts: BTreeMap::new(),
                alerts_stored: 0,
                moved: BTreeSet::new(),
                lookups: Vec::new(),
                alerts_full: 0,
                dead_letters: Vec::new(),
                checkpoint: None,
                checkpoints: Vec::new(),
                lose_checkpoint_answer: false,
                overtaken_by: None,
                journal: Vec::new(),
            }))),
            volume: TempDir::new().unwrap(),
            incarnations: 0,
        }
    }

    pub(super) fn world(&self) -> MutexGuard<'_, Inner> {
        self.world.lock()
    }

    /// A rollout: the next worker is of `epoch`, with a consumer of its own.
    pub(super) fn roll_out(&self, epoch: u64, cursor: Cursor) {
        let mut inner = self.world();
        inner.config.epoch = Epoch(epoch);
        inner.config.cursor = cursor;
        inner.consumer = Some(ConsumerFacts {
            delivered_consumer: 0,
            delivered: StreamSeq(0),
            pending: 0,
            applied: false,
        });
    }

    /// The volume comes back empty.
    pub(super) fn lose_volume(&mut self) {
        self.volume = TempDir::new().unwrap();
    }

    /// The state file, which no worker may have open.
    pub(super) fn file(&self) -> StateFile {
        StateFile::open(&self.volume.path().join("state.db")).unwrap()
    }

    /// Runs a worker until SIGTERM comes, at a time by the paused clock when all is quiet.
    pub(super) async fn run(&mut self) -> TerminationMessage {
        self.run_for(QUIET).await
    }

    async fn run_for(&mut self, virtual_time: Duration) -> TerminationMessage {
        let deps = self.deps();
        run(deps, tokio::time::sleep(virtual_time)).await
    }

    /// Runs a worker and kills it the `awaits`th time it waits; whether it was alive until then.
    pub(super) async fn run_and_kill(&mut self, awaits: u32) -> bool {
        let deps = self.deps();
        let mut worker = Box::pin(run(deps, tokio::time::sleep(QUIET)));
        let mut left = awaits;
        std::future::poll_fn(|context| {
            if left == 0 {
                return Poll::Ready(true);
            }
            left -= 1;
            worker.as_mut().poll(context).map(|_| false)
        })
        .await
    }

    pub(super) fn deps(&mut self) -> Deps<World, World, World> {
        self.incarnations += 1;
        Deps {
            config: self.world().config.clone(),
            rule_files: rule_files(),
            state_file: self.volume.path().join("state.db"),
            pod: "edr-0".to_owned(),
            incarnation: format!("incarnation-{}", self.incarnations),
            log: self.world.clone(),
            outbox: self.world.clone(),
            checkpoints: self.world.clone(),
            metrics: Metrics::register(&mut Registry::default()),
            clock: Arc::new(|| published(0)),
            gates: Gates::new(&Readiness::default()),
        }
    }
}

/// When event `sequence` was published.
pub(super) fn published(sequence: u64) -> Timestamp {
    let seconds = i64::try_from(sequence).unwrap();
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_700_000_000 + seconds)
}

/// Panics in place of the engine when the payload asks for it.
pub(super) fn trip(payload: &[u8]) {
    assert!(!payload.starts_with(b"{\"trip\""), "tripped");
}

/// A delivery as the fake log makes them.
pub(super) fn delivery(consumer_sequence: u64, sequence: u64, payload: &Bytes) -> Delivery {
    Delivery {
        consumer_sequence,
        sequence: StreamSeq(sequence),
        published: published(sequence),
        subject: "events.windows".to_owned(),
        headers: Bytes::new(),
        payload: payload.clone(),
        pending: 0,
        ack: AckToken(format!("{consumer_sequence}:{sequence}")),
    }
}

/// A file of [`config`]'s in which nothing was applied.
pub(super) fn file_state() -> FileState {
    let config = config();
    FileState {
        owner: config.owner,
        partition: config.partition,
        stream: config.source.stream,
        epoch: config.epoch,
        position: Position::before(config.source.start),
        published_through: StreamSeq(0),
        gaps: Vec::new(),
        ledger: Vec::new(),
        output: OutputRule::default(),
    }
}

pub(super) fn config() -> WorkerConfig {
    let pipeline = PipelineKey::new("prod", "edr").unwrap();
    let mut config = WorkerConfig {
        v: config::VERSION,
        partition: 0,
        epoch: Epoch(1),
        cursor: Cursor::default(),
        adopt: None,
        nats: NatsConfig::default(),
        source: SourceConfig {
            stream: StreamIdentity {
                name: "EVENTS".to_owned(),
                created: Timestamp::UNIX_EPOCH,
            },
            consumer: pipeline.consumer(0, Epoch(1)),
            subjects: Vec::new(),
            logsource: LogSource {
                product: "windows".to_owned(),
                ..LogSource::default()
            },
            start: StreamSeq(1),
        },
        rules: RulesConfig {
            files: vec![RuleFileRef {
                name: "rules/process.yml".to_owned(),
                path: "/rules/process.yml".to_owned(),
            }],
            processing: Vec::new(),
            engine_digest: String::new(),
        },
        correlation: CorrelationConfig {
            timestamp_fields: Vec::new(),
            timestamp_fallback: TimestampFallback::Published,
            allowed_lateness_seconds: 300,
            max_future_skew_seconds: 300,
            refire: Refire::OncePerWindow,
            emit: Emit::All,
            limits: Limits {
                groups: 1000,
                events_per_group: 1000,
            },
        },
        commit: CommitConfig {
            interval_ms: 1000,
            events: 5,
        },
        alerts_stream: pipeline.alerts_stream(),
        dead_letters: DeadLettersConfig {
            stream: pipeline.dead_letters_stream(),
            max_attempts: 3,
        },
        owner: Owner {
            cluster: "cluster-1".to_owned(),
            pipeline,
        },
    };
    let options = EngineOptions {
        processing: Vec::new(),
        logsource: config.source.logsource.clone(),
        correlation: config.correlation.clone(),
    };
    let (rules, problems) = RuleSet::compile(&rule_files(), &options);
    assert_eq!(problems, []);
    rules.digest().clone_into(&mut config.rules.engine_digest);
    config
}

fn rule_files() -> Vec<RuleFile> {
    vec![RuleFile {
        name: "rules/process.yml".to_owned(),
        bytes: RULE.as_bytes().to_vec(),
    }]
}

impl World {
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }
}

impl Inner {
    fn last(&self) -> u64 {
        self.events.len() as u64
    }

    fn reset(&mut self, next: StreamSeq) -> Result<(), Unavailable> {
        if self.deaf_resets > 0 {
            self.deaf_resets -= 1;
            return Err(unavailable("CONSUMER.RESET"));
        }
        self.journal.push(Step::Reset(next.0));
        let pending = (self.last() + 1).saturating_sub(next.0.max(self.first));
        self.consumer = self.consumer.map(|consumer| ConsumerFacts {
            delivered_consumer: 0,
            delivered: next.previous(),
            pending,
            ..consumer
        });
        Ok(())
    }

    fn create(&mut self, record: &AlertRecord, lookup: Lookup) -> Result<Stored, StoreError> {
        if self.alerts_full > 0 {
            self.alerts_full -= 1;
            let stream = self.config.alerts_stream.clone();
            return Err(StoreError::Full { stream });
        }
        self.lookups.push(lookup);
        let hidden = lookup == Lookup::No && self.moved.contains(&record.id);
        if self.alerts.contains_key(&record.id) && !hidden {
            return Ok(Stored::Known);
        }
        let trigger = record.events.last().unwrap().sequence;
        self.journal.push(Step::Alert(trigger.0));
        self.alerts.insert(record.id.clone(), record.clone());
        self.alerts_stored += 1;
        Ok(Stored::New(self.alerts_stored))
    }

    fn swap(&mut self, checkpoint: &Checkpoint) -> Revision {
        let revision = self
            .checkpoint
            .as_ref()
            .map_or(1, |(_, stored)| stored.0 + 1);
        self.checkpoint = Some((checkpoint.clone(), Revision(revision)));
        self.checkpoints.push(checkpoint.clone());
        self.journal
            .push(Step::Checkpoint(checkpoint.position.sequence.0));
        Revision(revision)
    }

    fn deliver(&mut self) -> Option<Pulled> {
        let last = self.last();
        let first = self.first;
        let Some(consumer) = &mut self.consumer else {
            return Some(Pulled::Gone);
        };
        assert!(self.open, "a pull is open");
        let next = consumer.delivered.next().0.max(first);
        if next > last {
            return None;
        }
        consumer.delivered = StreamSeq(next);
        consumer.delivered_consumer += 1;
        let index = usize::try_from(next - 1).unwrap();
        let mut delivery = delivery(consumer.delivered_consumer, next, &self.events[index]);
        delivery.pending = last - next;
        if let Some((_, first)) = self.expire.take_if(|(at, _)| *at == next) {
            self.first = first;
        }
        if std::mem::take(&mut self.steal) {
            return self.deliver();
        }
        Some(Pulled::Delivery(delivery))
    }
}

impl Log for World {
    async fn stream(&mut self) -> Result<StreamFacts, Unavailable> {
        hop().await;
        let inner = self.lock();
        Ok(StreamFacts {
            identity: inner.config.source.stream.clone(),
            first: StreamSeq(inner.first),
            last: StreamSeq(inner.last()),
        })
    }

    async fn message_at(&mut self, sequence: StreamSeq) -> Result<MessageAt, Unavailable> {
        hop().await;
        let inner = self.lock();
        Ok(if (inner.first..=inner.last()).contains(&sequence.0) {
            MessageAt::Published(published(sequence.0))
        } else {
            MessageAt::Absent
        })
    }

    async fn consumer(&mut self) -> Result<Option<ConsumerFacts>, Unavailable> {
        hop().await;
        Ok(self.lock().consumer)
    }

    async fn close(&mut self) -> Result<(), Unavailable> {
        hop().await;
        self.lock().open = false;
        Ok(())
    }

    async fn reset(&mut self, next: StreamSeq) -> Result<(), Unavailable> {
        hop().await;
        self.lock().reset(next)?;
        hop().await;
        Ok(())
    }

    async fn open(&mut self) -> Result<(), Unavailable> {
        self.lock().open = true;
        Ok(())
    }

    async fn next(&mut self) -> Result<Pulled, Unavailable> {
        if let Some(pulled) = self.lock().deliver() {
            return Ok(pulled);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let consumer = self.lock().consumer;
        Ok(consumer.map_or(Pulled::Gone, |consumer| Pulled::Heartbeat {
            last_consumer: consumer.delivered_consumer,
        }))
    }

    async fn ack(&mut self, delivery: &AckToken) -> Result<(), Unavailable> {
        hop().await;
        let (_, sequence) = delivery.0.split_once(':').unwrap();
        let step = Step::Ack(sequence.parse().unwrap());
        self.lock().journal.push(step);
        Ok(())
    }
}

impl Outbox for World {
    async fn create_alert(
        &self,
        record: &AlertRecord,
        lookup: Lookup,
    ) -> Result<Stored, StoreError> {
        hop().await;
        let stored = self.lock().create(record, lookup);
        hop().await;
        stored
    }

    async fn park(&self, letter: &DeadLetter) -> Result<Stored, StoreError> {
        hop().await;
        let mut inner = self.lock();
        inner.dead_letters.push(letter.clone());
        Ok(Stored::New(inner.dead_letters.len() as u64))
    }

    async fn rooms(&self) -> Result<Rooms, Unavailable> {
        hop().await;
        let inner = self.lock();
        let room = |stream: &str, last: u64| Room {
            stream: stream.to_owned(),
            last,
            bytes: 0,
            max_bytes: None,
        };
        Ok(Rooms {
            alerts: room(&inner.config.alerts_stream, inner.alerts_stored),
            dead_letters: room(
                &inner.config.dead_letters.stream,
                inner.dead_letters.len() as u64,
            ),
        })
    }
}

impl Checkpoints for World {
    async fn load(&mut self) -> Result<Option<(Checkpoint, Revision)>, CheckpointError> {
        hop().await;
        Ok(self.lock().checkpoint.clone())
    }

    async fn store(
        &mut self,
        checkpoint: &Checkpoint,
        expected: Option<Revision>,
    ) -> Result<Revision, CheckpointError> {
        hop().await;
        let (revision, lost) = {
            let mut inner = self.lock();
            if let Some(other) = inner.overtaken_by.take() {
                inner.swap(&other);
            }
            let stored = inner.checkpoint.as_ref().map(|(_, revision)| *revision);
            if stored != expected {
                return Err(CheckpointError::Conflict);
            }
            let lost = std::mem::take(&mut inner.lose_checkpoint_answer);
            (inner.swap(checkpoint), lost)
        };
        hop().await;
        if lost {
            return Err(unavailable("compare-and-swap").into());
        }
        Ok(revision)
    }
}

/// A place where the process can die.
async fn hop() {
    tokio::task::yield_now().await;
}

fn unavailable(operation: &'static str) -> Unavailable {
    Unavailable {
        operation,
        object: "the fake world".to_owned(),
        source: "no answer".into(),
    }
}
