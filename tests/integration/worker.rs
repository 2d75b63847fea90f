//! The worker's loop on a real server: killed, cut off, restarted under it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use lookback::nats::checkpoint::JetStreamCheckpoints;
use lookback::nats::connect::Nats;
use lookback::nats::consumers;
use lookback::nats::desired::DesiredStream;
use lookback::nats::log::JetStreamLog;
use lookback::nats::outbox::JetStreamOutbox;
use lookback::nats::streams;
use lookback::runtime::admin::Readiness;
use lookback::state::StateFile;
use lookback::worker::metrics::Metrics;
use lookback::worker::ports::{Checkpoints, Log};
use lookback::worker::{Deps, Gates, run};
use lookback_dev::support::{TcpProxy, eventually};
use lookback_engine::{EngineOptions, RuleFile, RuleSet};
use lookback_protocol::checkpoint::Checkpoint;
use lookback_protocol::config::{self, WorkerConfig};
use lookback_protocol::names::Owner;
use lookback_protocol::position::{Epoch, StreamSeq};
use lookback_protocol::termination::{ExitReason, TerminationMessage};
use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::nats_fixture::{CONSUMER, Fixture, OWNER, STREAM, connect, desired_consumer, key};

const LONG: Duration = Duration::from_secs(60);
/// One event in so many matches the rule.
const ONE_IN: u64 = 10;
const RULE: &str = "title: Process created
id: 7a3c0b5e-6d0e-4b7b-9a53-0f1f5d8c2b11
status: test
level: high
logsource: {product: windows}
detection:
  selection: {EventID: 1}
  condition: selection
";

/// A server with everything a pipeline owns, and a volume.
struct Stage {
    fixture: Fixture,
    volume: TempDir,
    config: WorkerConfig,
    incarnations: u32,
}

/// A worker in a task; dropping the task's future is the kill.
struct Running {
    task: JoinHandle<TerminationMessage>,
    sigterm: CancellationToken,
}

impl Stage {
    async fn with_events(events: u64) -> Result<Self> {
        let fixture = Fixture::bare().await?;
        fixture.create_events_stream().await?;
        consumers::ensure(&fixture.nats, &desired_consumer()).await?;
        let (letters, subjects) = (key().dead_letters_stream(), key().dead_letter_subjects());
        let (room, owner) = (Some(1 << 26), OWNER.to_owned());
        for desired in [
            DesiredStream::state_bucket(1),
            DesiredStream::alerts(&key(), room, None, 1, owner.clone()),
            DesiredStream::store(letters, subjects, room, None, 1, owner),
        ] {
            streams::ensure(&fixture.nats, &desired).await?;
        }
        let config = config(&fixture.nats).await?;
        let stage = Self {
            fixture,
            volume: TempDir::new()?,
            config,
            incarnations: 0,
        };
        stage.publish(events).await?;
        Ok(stage)
    }

    async fn publish(&self, events: u64) -> Result<()> {
        let js = &self.fixture.js;
        stream::iter(0..events)
            .map(|n| async move {
                let id = if n % ONE_IN == 0 { 1 } else { 2 };
                let body = format!("{{\"EventID\":{id},\"n\":{n}}}");
                js.publish("ev.a", body.into()).await?.await?;
                anyhow::Ok(())
            })
            .buffered(256)
            .try_collect()
            .await
    }

    async fn start(&mut self, url: String) -> Result<Running> {
        self.incarnations += 1;
        let nats = connect(url).await?;
        let deps = Deps {
            config: self.config.clone(),
            rule_files: rule_files(),
            state_file: self.volume.path().join("state.db"),
            pod: "edr-0".to_owned(),
            incarnation: format!("incarnation-{}", self.incarnations),
            log: JetStreamLog::new(nats.clone(), STREAM, CONSUMER),
            outbox: JetStreamOutbox::new(nats.clone(), key()),
            checkpoints: JetStreamCheckpoints::new(nats, &key(), 0),
            metrics: Metrics::register(&mut Registry::default()),
            clock: Arc::new(Timestamp::now),
            gates: Gates::new(&Readiness::default()),
        };
        let sigterm = CancellationToken::new();
        let task = tokio::spawn(run(deps, sigterm.clone().cancelled_owned()));
        Ok(Running { task, sigterm })
    }

    async fn checkpoint(&self) -> Result<Checkpoint> {
        let mut checkpoints = JetStreamCheckpoints::new(self.fixture.nats.clone(), &key(), 0);
        let (checkpoint, _) = checkpoints.load().await?.context("no checkpoint yet")?;
        Ok(checkpoint)
    }

    async fn reached(&self, sequence: u64) -> Result<()> {
        let what = format!("position {sequence}");
        eventually(LONG, &what, async || {
            let at = self.checkpoint().await?.position.sequence;
            ensure!(at >= StreamSeq(sequence), "at {at}");
            Ok(())
        })
        .await
    }

    async fn alerts(&self) -> Result<u64> {
        let stored = self.fixture.js.get_stream(key().alerts_stream()).await?;
        Ok(stored.cached_info().state.messages)
    }

    /// What the file must hold when every event was applied once, and nothing else stored.
    async fn is_exact_after(&self, events: u64) -> Result<()> {
        let file = StateFile::open(&self.volume.path().join("state.db"))?;
        ensure!(file.position()?.sequence == StreamSeq(events));
        let applied = file.counters()?.events;
        ensure!(applied == events, "{applied} of {events} applied");
        let stored = self.alerts().await?;
        ensure!(stored == events / ONE_IN, "{stored} alerts stored");
        Ok(())
    }
}

impl Running {
    async fn kill(self) -> Result<()> {
        self.task.abort();
        let ended = self.task.await;
        ensure!(
            ended.is_err_and(|error| error.is_cancelled()),
            "it had ended"
        );
        Ok(())
    }

    async fn stop(self) -> Result<TerminationMessage> {
        self.sigterm.cancel();
        Ok(self.task.await?)
    }
}

async fn config(nats: &Nats) -> Result<WorkerConfig> {
    let mut log = JetStreamLog::new(nats.clone(), STREAM, CONSUMER);
    let stream = log.stream().await?.identity;
    let mut config: WorkerConfig = serde_json::from_value(serde_json::json!({
        "v": config::VERSION,
        "owner": Owner { cluster: "cluster".to_owned(), pipeline: key() },
        "partition": 0,
        "epoch": Epoch(1),
        "nats": { "urls": [] },
        "source": {
            "stream": stream,
            "consumer": CONSUMER,
            "subjects": ["ev.>"],
            "logsource": { "product": "windows" },
            "start": 1,
        },
        "rules": { "files": [], "processing": [], "engineDigest": "" },
        "correlation": {
            "timestampFields": [],
            "timestampFallback": "Published",
            "allowedLatenessSeconds": 300,
            "maxFutureSkewSeconds": 300,
            "refire": "OncePerWindow",
            "emit": "All",
            "limits": { "groups": 1000, "eventsPerGroup": 1000 },
        },
        "commit": { "intervalMs": 100, "events": 100 },
        "alertsStream": key().alerts_stream(),
        "deadLetters": { "stream": key().dead_letters_stream(), "maxAttempts": 3 },
    }))?;
    let options = EngineOptions {
        processing: Vec::new(),
        logsource: config.source.logsource.clone(),
        correlation: config.correlation.clone(),
    };
    let (rules, problems) = RuleSet::compile(&rule_files(), &options);
    ensure!(problems.is_empty(), "{problems:?}");
    rules.digest().clone_into(&mut config.rules.engine_digest);
    Ok(config)
}

fn rule_files() -> Vec<RuleFile> {
    vec![RuleFile {
        name: "rules/process.yml".to_owned(),
        bytes: RULE.as_bytes().to_vec(),
    }]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_again_and_again_is_exact() -> Result<()> {
    let mut stage = Stage::with_events(6000).await?;
    for sequence in [1, 1000, 2500, 4000] {
        let running = stage.start(stage.fixture.server.url()).await?;
        stage.reached(sequence).await?;
        running.kill().await?;
    }
    let running = stage.start(stage.fixture.server.url()).await?;
    stage.reached(6000).await?;
    let ended = running.stop().await?;
    assert_eq!(ended.reason, ExitReason::Drained, "{ended:?}");
    stage.is_exact_after(6000).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_in_mid_batch_loses_and_repeats_nothing() -> Result<()> {
    let mut stage = Stage::with_events(6000).await?;
    let proxy = TcpProxy::start(stage.fixture.server.address()).await?;
    let running = stage.start(format!("nats://{}", proxy.address())).await?;
    for sequence in [1, 1500, 3000, 4500] {
        stage.reached(sequence).await?;
        proxy.cut_after(20_000);
    }
    stage.reached(6000).await?;
    let ended = running.stop().await?;
    assert_eq!(ended.reason, ExitReason::Drained, "{ended:?}");
    stage.is_exact_after(6000).await
}

#[tokio::test(flavor = "multi_thread")]
async fn h20_a_consumer_deleted_under_the_worker_ends_it_with_a_reason() -> Result<()> {
    let mut stage = Stage::with_events(100).await?;
    let running = stage.start(stage.fixture.server.url()).await?;
    stage.reached(100).await?;
    stage
        .fixture
        .js
        .delete_consumer_from_stream(CONSUMER, STREAM)
        .await?;
    let ended = running.task.await?;
    assert_eq!(ended.reason, ExitReason::ConsumerMissing, "{ended:?}");
    assert_eq!(ended.reason.exit_code(), 75);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn h07_a_consumer_made_anew_is_positioned_behind_the_file() -> Result<()> {
    let mut stage = Stage::with_events(1000).await?;
    let running = stage.start(stage.fixture.server.url()).await?;
    stage.reached(500).await?;
    running.kill().await?;
    let js = &stage.fixture.js;
    js.delete_consumer_from_stream(CONSUMER, STREAM).await?;
    consumers::ensure(&stage.fixture.nats, &desired_consumer()).await?;
    let running = stage.start(stage.fixture.server.url()).await?;
    stage.reached(1000).await?;
    running.stop().await?;
    stage.is_exact_after(1000).await
}

#[tokio::test(flavor = "multi_thread")]
async fn h21_the_second_worker_on_a_file_is_refused() -> Result<()> {
    let mut stage = Stage::with_events(100).await?;
    let running = stage.start(stage.fixture.server.url()).await?;
    stage.reached(100).await?;
    let second = stage.start(stage.fixture.server.url()).await?;
    let ended = second.task.await?;
    assert_eq!(ended.reason, ExitReason::StateLocked, "{ended:?}");
    let ended = running.stop().await?;
    assert_eq!(ended.reason, ExitReason::Drained, "{ended:?}");
    Ok(())
}
