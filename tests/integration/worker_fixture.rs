//! A whole worker: the real loop on a real state file against a real server, with everything the
//! operator makes for it, and the oracle beside it.
//!
//! Each worker has a thread and a runtime of its own, as it has a process of its own in production: a
//! crash drops the loop at whichever await it stands, and its connections with it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use async_nats::jetstream;
use jiff::{SignedDuration, Timestamp};
use lookback::nats::checkpoint::JetStreamCheckpoints;
use lookback::nats::connect::{Nats, Options};
use lookback::nats::deadletters::{self, StoredDeadLetter};
use lookback::nats::desired::{DesiredConsumer, DesiredStream};
use lookback::nats::log::JetStreamLog;
use lookback::nats::outbox::JetStreamOutbox;
use lookback::nats::{consumers, streams};
use lookback::runtime::admin::Readiness;
use lookback::runtime::metrics::registry;
use lookback::state::{FileDigest, StateFile};
use lookback::worker::metrics::Metrics;
use lookback::worker::ports::Checkpoints;
use lookback::worker::{Deps, Gates, run};
use lookback_dev::compare::{Comparison, stored_alerts, stored_dead_letters};
use lookback_dev::events::{Generated, Plan, generate};
use lookback_dev::oracle;
use lookback_dev::publish::{ensure_source_stream, publish};
use lookback_dev::support::{NatsServer, Settings, TcpProxy, eventually};
use lookback_engine::{EngineOptions, RuleFile, RuleSet};
use lookback_protocol::checkpoint::Checkpoint;
use lookback_protocol::config::{
    self, CommitConfig, CorrelationConfig, Cursor, DeadLettersConfig, Emit, Limits, LogSource,
    NatsConfig, Refire, RuleFileRef, RulesConfig, SourceConfig, TimestampFallback, WorkerConfig,
};
use lookback_protocol::consumer::ConsumerMetadata;
use lookback_protocol::ids::{EventOrigin, dead_letter_id};
use lookback_protocol::names::Owner;
use lookback_protocol::position::{Epoch, StreamIdentity, StreamSeq};
use lookback_protocol::termination::{ExitReason, TerminationMessage};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::nats_fixture::{CONSUMER, OWNER, STREAM, connect, key, target};

/// For everything that a worker does by itself, back-offs and repeated resets included. It only ends a
/// test that hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(180);
pub(crate) const SUBJECT: &str = "events.windows.test";
pub(crate) const EPOCH: Epoch = Epoch(1);

/// A detection that gives an alert for `{"kind":"alarm"}`, and a correlation that gives one for the
/// third `{"kind":"step"}` of one user.
pub(crate) const RULES: &str = "
title: Alarm
id: 11111111-0000-4000-8000-000000000001
logsource: {product: windows}
detection:
  selection: {kind: alarm}
  condition: selection
---
title: Step
id: 11111111-0000-4000-8000-000000000002
logsource: {product: windows}
detection:
  selection: {kind: step}
  condition: selection
---
title: Three steps
id: 11111111-0000-4000-8000-000000000003
correlation:
  type: event_count
  rules: [11111111-0000-4000-8000-000000000002]
  group-by: [user]
  timespan: 1h
  condition: {gte: 3}
";

/// What may differ from one rig to the next.
pub(crate) struct Setup {
    pub(crate) rules: Vec<RuleFile>,
    /// The filter; empty for the whole stream.
    pub(crate) subjects: Vec<String>,
    pub(crate) alerts_max_bytes: u64,
    pub(crate) dead_letters_max_bytes: u64,
    pub(crate) commit_events: u64,
    pub(crate) max_attempts: u32,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            rules: vec![rule_file("test.yml", RULES)],
            subjects: Vec::new(),
            alerts_max_bytes: 1 << 30,
            dead_letters_max_bytes: 1 << 30,
            commit_events: 200,
            max_attempts: 3,
        }
    }
}

impl Setup {
    /// With the rules that the generated events set off.
    pub(crate) fn story() -> Result<Self> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples/rules");
        let mut rules = Vec::new();
        for entry in std::fs::read_dir(&directory)? {
            let entry = entry?;
            rules.push(RuleFile {
                name: format!("rules/{}", entry.file_name().to_string_lossy()),
                bytes: std::fs::read(entry.path())?,
            });
        }
        rules.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self {
            rules,
            ..Self::default()
        })
    }
}

pub(crate) fn rule_file(name: &str, text: &str) -> RuleFile {
    RuleFile {
        name: format!("rules/{name}"),
        bytes: text.as_bytes().to_vec(),
    }
}

/// A server with everything one pipeline needs, and a volume.
pub(crate) struct Rig {
    pub(crate) server: NatsServer,
    /// The operator's connection.
    pub(crate) nats: Nats,
    pub(crate) js: jetstream::Context,
    pub(crate) config: WorkerConfig,
    rule_files: Vec<RuleFile>,
    /// Everything that ever ran here.
    pub(crate) rule_sets: Vec<Arc<RuleSet>>,
    volume: TempDir,
    state_dir: PathBuf,
    published: usize,
}

/// How one worker is started.
pub(crate) struct Launch {
    pub(crate) url: String,
    pub(crate) subscription_capacity: usize,
    pub(crate) state_file: PathBuf,
}

/// A worker that runs, or has ended by itself.
pub(crate) struct Running {
    thread: Option<JoinHandle<Option<TerminationMessage>>>,
    shutdown: CancellationToken,
    kill: CancellationToken,
    pub(crate) metrics: Metrics,
    pub(crate) readiness: Readiness,
}

impl Rig {
    pub(crate) async fn new() -> Result<Self> {
        Self::with(Setup::default()).await
    }

    pub(crate) async fn with(setup: Setup) -> Result<Self> {
        let server = NatsServer::start_with(Settings::default()).await?;
        let nats = connect(server.url()).await?;
        let js = server.jetstream().await?;
        ensure_source_stream(&js, STREAM, "events.>").await?;
        let config = config(&server, created(&nats).await?, &setup);
        let volume = tempfile::tempdir()?;
        let mut rig = Self {
            state_dir: volume.path().to_owned(),
            server,
            nats,
            js,
            config,
            rule_files: Vec::new(),
            rule_sets: Vec::new(),
            volume,
            published: 0,
        };
        rig.load(setup.rules);
        rig.create_stores(setup.alerts_max_bytes, setup.dead_letters_max_bytes)
            .await?;
        rig.create_consumer().await?;
        Ok(rig)
    }

    /// A rig with the example rules, `events` generated events and some poison among them.
    pub(crate) async fn with_story(events: usize) -> Result<Self> {
        let mut rig = Self::with(Setup::story()?).await?;
        rig.publish_story(events).await?;
        Ok(rig)
    }

    /// A rollout: the next worker runs these rules.
    pub(crate) fn load(&mut self, rules: Vec<RuleFile>) {
        let options = EngineOptions {
            processing: Vec::new(),
            logsource: self.config.source.logsource.clone(),
            correlation: self.config.correlation.clone(),
        };
        let (set, problems) = RuleSet::compile(&rules, &options);
        assert_eq!(problems, []);
        self.config.rules = RulesConfig {
            files: rules.iter().map(reference).collect(),
            processing: Vec::new(),
            engine_digest: set.digest().to_owned(),
        };
        self.rule_sets.push(Arc::new(set));
        self.rule_files = rules;
    }

    /// The pipeline's own streams and the bucket, as the operator makes and repairs them.
    pub(crate) async fn create_stores(
        &self,
        alerts_max_bytes: u64,
        dead_letters_max_bytes: u64,
    ) -> Result<()> {
        let (key, owner) = (key(), OWNER.to_owned());
        let desired = [
            DesiredStream::alerts(&key, Some(alerts_max_bytes), None, 1, owner.clone()),
            DesiredStream::store(
                key.dead_letters_stream(),
                key.dead_letter_subjects(),
                Some(dead_letters_max_bytes),
                None,
                1,
                owner,
            ),
            DesiredStream::state_bucket(1),
        ];
        for stream in desired {
            streams::ensure(&self.nats, &stream).await?;
        }
        Ok(())
    }

    /// The consumer, as the operator makes it.
    pub(crate) async fn create_consumer(&self) -> Result<()> {
        consumers::ensure(&self.nats, &self.desired_consumer()).await?;
        Ok(())
    }

    pub(crate) fn desired_consumer(&self) -> DesiredConsumer {
        let source = &self.config.source;
        DesiredConsumer {
            stream: STREAM.to_owned(),
            name: source.consumer.clone(),
            filter_subjects: source.subjects.clone(),
            metadata: ConsumerMetadata {
                cursor: self.config.cursor.clone(),
                ..ConsumerMetadata::new(&self.config.owner, self.config.epoch, source.start)
            }
            .to_map(),
            adopt: None,
        }
    }

    /// The next `events` events of the one long story.
    pub(crate) async fn publish_story(&mut self, events: usize) -> Result<()> {
        publish(&self.js, story(self.published, events)?, None).await?;
        self.published += events;
        Ok(())
    }

    /// Publishes one event and gives its sequence.
    pub(crate) async fn publish(&self, payload: impl Into<bytes::Bytes>) -> Result<u64> {
        let ack = self.js.publish(SUBJECT, payload.into()).await?.await?;
        Ok(ack.sequence)
    }

    pub(crate) async fn publish_all(&self, payload: &str, times: usize) -> Result<()> {
        for _ in 0..times {
            self.publish(payload.to_owned()).await?;
        }
        Ok(())
    }

    /// The source stream's last sequence.
    pub(crate) async fn last(&self) -> Result<u64> {
        let observed = streams::read(&self.nats, STREAM).await?;
        Ok(observed.context("no source stream")?.state.last_seq)
    }

    pub(crate) fn rule_files(&self) -> &[RuleFile] {
        &self.rule_files
    }

    pub(crate) fn volume(&self) -> &Path {
        self.volume.path()
    }

    pub(crate) fn state_file(&self) -> PathBuf {
        self.state_dir.join("state.db")
    }

    /// The next worker has its state file in another directory.
    pub(crate) fn move_state_to(&mut self, directory: &Path) {
        self.state_dir = directory.to_owned();
    }

    pub(crate) fn launch(&self) -> Launch {
        Launch {
            url: self.server.url(),
            subscription_capacity: Options::named("worker").subscription_capacity,
            state_file: self.state_file(),
        }
    }

    pub(crate) fn start(&self) -> Running {
        self.start_with(self.launch())
    }

    pub(crate) fn start_via(&self, proxy: &TcpProxy) -> Running {
        self.start_with(Launch {
            url: format!("nats://{}", proxy.address()),
            ..self.launch()
        })
    }

    pub(crate) fn start_with(&self, launch: Launch) -> Running {
        let (config, rule_files) = (self.config.clone(), self.rule_files.clone());
        let metrics = Metrics::register(&mut registry());
        let readiness = Readiness::default();
        let gates = Gates::new(&readiness);
        let (shutdown, kill) = (CancellationToken::new(), CancellationToken::new());
        let worker = Worker {
            launch,
            config,
            rule_files,
            metrics: metrics.clone(),
            gates,
            shutdown: shutdown.clone(),
        };
        let killed = kill.clone().cancelled_owned();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime needs only file descriptors");
            runtime.block_on(async move {
                tokio::select! {
                    message = worker.work() => Some(message),
                    () = killed => None,
                }
            })
        });
        Running {
            thread: Some(thread),
            shutdown,
            kill,
            metrics,
            readiness,
        }
    }

    /// Waits until everything in the stream is applied, drains the worker and compares.
    pub(crate) async fn finish(&self, worker: Running) -> Result<FileDigest> {
        worker.applied(self.last().await?).await?;
        worker.drain().await?;
        self.equals_oracle().await
    }

    /// Whether alerts, dead letters, windows and counters are those of an uninterrupted run. No worker
    /// may run.
    pub(crate) async fn equals_oracle(&self) -> Result<FileDigest> {
        equals_oracle(&self.js, &self.config, &self.rule_sets, &self.state_file()).await
    }

    pub(crate) async fn checkpoint(&self) -> Result<Checkpoint> {
        let mut checkpoints = JetStreamCheckpoints::new(self.nats.clone(), &key(), 0);
        let found = checkpoints.load().await?;
        Ok(found.context("no checkpoint")?.0)
    }

    pub(crate) async fn alerts(&self) -> Result<usize> {
        Ok(stored_alerts(&self.js, &key()).await?.len())
    }

    pub(crate) async fn dead_letters(&self) -> Result<usize> {
        Ok(stored_dead_letters(&self.js, &key()).await?.len())
    }

    /// The dead letter of the event at `sequence`, whole.
    pub(crate) async fn dead_letter(&self, sequence: u64) -> Result<StoredDeadLetter> {
        // The client's own call fails on headers that it cannot read.
        let subject = format!("STREAM.MSG.GET.{STREAM}");
        let event: Value = self
            .js
            .request(subject, &json!({ "seq": sequence }))
            .await?;
        let published: Timestamp = serde_json::from_value(event["message"]["time"].clone())?;
        let origin = EventOrigin::new(&self.config.source.stream, StreamSeq(sequence), published);
        let found = deadletters::read(&self.nats, &key(), &dead_letter_id(0, &origin)).await?;
        found.with_context(|| format!("no dead letter of event {sequence}"))
    }

    /// What the consumer has delivered and what was acknowledged: (delivered, ack floor).
    pub(crate) async fn cursor(&self) -> Result<(u64, u64)> {
        let stream = self.js.get_stream_no_info(STREAM).await?;
        let info = stream.consumer_info(&self.config.source.consumer).await?;
        Ok((
            info.delivered.stream_sequence,
            info.ack_floor.stream_sequence,
        ))
    }

    /// Waits until everything that was delivered, up to `sequence`, counts as acknowledged: the server
    /// works acks off by and by.
    pub(crate) async fn acknowledged(&self, sequence: u64) -> Result<()> {
        eventually(DEADLINE, "everything is acknowledged", async || {
            let (delivered, floor) = self.cursor().await?;
            ensure!(delivered == sequence, "{delivered} are delivered");
            ensure!(floor == sequence, "the floor is {floor}");
            Ok(())
        })
        .await
    }
}

/// Whether alerts, dead letters, windows and counters are those of an uninterrupted run over the
/// lineage of a state file that no worker has open.
pub(crate) async fn equals_oracle(
    js: &jetstream::Context,
    config: &WorkerConfig,
    rule_sets: &[Arc<RuleSet>],
    state_file: &Path,
) -> Result<FileDigest> {
    let key = &config.owner.pipeline;
    let state = lookback::state::digest(state_file)?;
    let segments = oracle::lineage(&state, rule_sets)?;
    let through = state.position.sequence;
    let findings = oracle::run(js, config, &segments, through).await?;
    let alerts = stored_alerts(js, key).await?;
    let alerts = Comparison::new("alerts", &findings.alerts, &alerts);
    ensure!(alerts.is_exact(), "{alerts}");
    let dead_letters = stored_dead_letters(js, key).await?;
    let dead_letters = Comparison::new("dead letters", &findings.dead_letters, &dead_letters);
    ensure!(dead_letters.is_exact(), "{dead_letters}");
    ensure!(
        state.state_digest == findings.state_digest,
        "the windows at {through} differ"
    );
    let applied = StateFile::open(state_file)?.counters()?.events;
    ensure!(
        applied == findings.events,
        "{applied} events applied, there are {}",
        findings.events
    );
    Ok(state)
}

/// `events` events of one long story with some poison in it, after the first `skip`.
pub(crate) fn story(skip: usize, events: usize) -> Result<impl Iterator<Item = Generated>> {
    let plan = Plan {
        count: u64::MAX,
        seed: 7,
        start: "2026-01-05T08:00:00Z".parse()?,
        step: SignedDuration::from_millis(200),
        poison: 20,
    };
    Ok(generate(&plan).skip(skip).take(events))
}

/// What a worker's thread is made of.
struct Worker {
    launch: Launch,
    config: WorkerConfig,
    rule_files: Vec<RuleFile>,
    metrics: Metrics,
    gates: Gates,
    shutdown: CancellationToken,
}

impl Worker {
    async fn work(self) -> TerminationMessage {
        let options = Options {
            subscription_capacity: self.launch.subscription_capacity,
            ..Options::named("worker")
        };
        let nats = Nats::connect(&target(self.launch.url), &options)
            .await
            .expect("NATS runs when a worker is started");
        let source = &self.config.source;
        let deps = Deps {
            log: JetStreamLog::new(nats.clone(), &source.stream.name, &source.consumer),
            outbox: JetStreamOutbox::new(nats.clone(), key()),
            checkpoints: JetStreamCheckpoints::new(nats, &key(), 0),
            config: self.config,
            rule_files: self.rule_files,
            state_file: self.launch.state_file,
            pod: "edr-0".to_owned(),
            incarnation: uuid::Uuid::now_v7().to_string(),
            metrics: self.metrics,
            clock: Arc::new(Timestamp::now),
            gates: self.gates,
        };
        run(deps, self.shutdown.cancelled_owned()).await
    }
}

impl Running {
    pub(crate) fn position(&self) -> u64 {
        u64::try_from(self.metrics.position.get()).expect("a sequence is not negative")
    }

    /// Waits until everything up to `sequence` is committed.
    pub(crate) async fn applied(&self, sequence: u64) -> Result<()> {
        self.until(&format!("event {sequence} is applied"), || {
            ensure!(
                self.position() >= sequence,
                "it stands at {}",
                self.position()
            );
            Ok(())
        })
        .await
    }

    /// Waits until `probe` succeeds while the worker runs.
    pub(crate) async fn until(&self, what: &str, probe: impl Fn() -> Result<()>) -> Result<()> {
        let ended = eventually(DEADLINE, what, async || match probe() {
            Ok(()) => Ok(false),
            Err(_) if self.has_ended() => Ok(true),
            Err(error) => Err(error),
        })
        .await?;
        ensure!(!ended, "the worker ended before {what}");
        Ok(())
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// SIGTERM.
    pub(crate) async fn drain(self) -> Result<()> {
        self.shutdown.cancel();
        let message = self.ended().await?;
        ensure!(message.reason == ExitReason::Drained, "{message:?}");
        Ok(())
    }

    /// `kill -9`, as far as one process can do that to a part of itself.
    pub(crate) async fn crash(mut self) -> Result<()> {
        self.kill.cancel();
        match self.join().await? {
            None => Ok(()),
            Some(message) => Err(anyhow!(
                "the worker ended before it was killed: {message:?}"
            )),
        }
    }

    /// Waits until the worker ends by itself.
    pub(crate) async fn ended(mut self) -> Result<TerminationMessage> {
        self.join().await?.context("the worker was killed")
    }

    async fn join(&mut self) -> Result<Option<TerminationMessage>> {
        eventually(2 * DEADLINE, "the worker ends", async || {
            ensure!(self.has_ended());
            Ok(())
        })
        .await?;
        let thread = self.thread.take().context("joined already")?;
        thread.join().map_err(|_| anyhow!("the worker panicked"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill.cancel();
        if let Some(thread) = self.thread.take() {
            // The test fails for a better reason than this one.
            thread.join().ok();
        }
    }
}

fn config(server: &NatsServer, created: Timestamp, setup: &Setup) -> WorkerConfig {
    WorkerConfig {
        v: config::VERSION,
        owner: Owner {
            cluster: "cluster".to_owned(),
            pipeline: key(),
        },
        partition: 0,
        epoch: EPOCH,
        cursor: Cursor::default(),
        adopt: None,
        nats: NatsConfig {
            urls: vec![server.url()],
            ..NatsConfig::default()
        },
        source: SourceConfig {
            stream: StreamIdentity {
                name: STREAM.to_owned(),
                created,
            },
            consumer: CONSUMER.to_owned(),
            subjects: setup.subjects.clone(),
            logsource: LogSource {
                product: "windows".to_owned(),
                ..LogSource::default()
            },
            start: StreamSeq(1),
        },
        rules: RulesConfig {
            files: Vec::new(),
            processing: Vec::new(),
            engine_digest: String::new(),
        },
        correlation: CorrelationConfig {
            timestamp_fields: vec!["UtcTime".to_owned(), "@timestamp".to_owned()],
            timestamp_fallback: TimestampFallback::Published,
            allowed_lateness_seconds: 300,
            max_future_skew_seconds: 300,
            refire: Refire::OncePerWindow,
            emit: Emit::All,
            limits: Limits {
                groups: 1_000_000,
                events_per_group: 10_000,
            },
        },
        commit: CommitConfig {
            interval_ms: 50,
            events: setup.commit_events,
        },
        alerts_stream: key().alerts_stream(),
        dead_letters: DeadLettersConfig {
            stream: key().dead_letters_stream(),
            max_attempts: setup.max_attempts,
        },
    }
}

fn reference(file: &RuleFile) -> RuleFileRef {
    RuleFileRef {
        name: file.name.clone(),
        path: format!("/rules/{}", file.name),
    }
}

async fn created(nats: &Nats) -> Result<Timestamp> {
    let observed = streams::read(nats, STREAM).await?;
    Ok(observed.context("no source stream")?.created)
}
