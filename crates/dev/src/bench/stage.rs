//! A NATS server that holds the events, and for each round a pipeline as the operator would make it,
//! with the defaults of the CRD, but for
//! stores without a limit: JetStream sets the space of a limit aside.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use lookback::nats::connect::{Nats, Options, Target};
use lookback::nats::desired::{DesiredConsumer, DesiredStream};
use lookback::nats::{consumers, streams};
use lookback_engine::{EngineOptions, RuleFile, RuleSet};
use lookback_protocol::config::{
    self, CommitConfig, CorrelationConfig, Cursor, DeadLettersConfig, Emit, Limits, LogSource,
    NatsConfig, Refire, RuleFileRef, RulesConfig, SourceConfig, TimestampFallback, WorkerConfig,
};
use lookback_protocol::consumer::ConsumerMetadata;
use lookback_protocol::names::{Owner, PipelineKey};
use lookback_protocol::position::{Epoch, StreamIdentity, StreamSeq};
use tempfile::TempDir;

use super::input::{Events, Rules};
use crate::compare::{Comparison, stored_alerts};
use crate::oracle::{self, Segment};
use crate::publish::{ensure_source_stream, publish};
use crate::support::NatsServer;

pub(super) const PRODUCT: &str = "windows";
pub(super) const PROCESSING: &str = "sysmon";
pub(super) const TIMESTAMP_FIELDS: [&str; 2] = ["UtcTime", "@timestamp"];

const SOURCE: &str = "EVENTS";
const EPOCH: Epoch = Epoch(1);
const PARTITION: u32 = 0;

/// See the [module](self).
pub(super) struct Stage {
    server: NatsServer,
    nats: Nats,
    source: StreamIdentity,
    last: StreamSeq,
    rules: Arc<RuleSet>,
    rule_files: Vec<RuleFileRef>,
    commit_events: u64,
}

/// What one worker is given.
pub(super) struct Pipeline {
    volume: TempDir,
}

impl Stage {
    /// Starts the server and publishes `events`.
    pub(super) async fn start(rules: &Rules, events: &Events, commit_events: u64) -> Result<Self> {
        let server = NatsServer::start().await?;
        let target = Target {
            urls: vec![server.url()],
            ..Target::default()
        };
        let nats = Nats::connect(&target, &Options::named("bench")).await?;
        let jetstream = jetstream::new(nats.client().clone());
        ensure_source_stream(&jetstream, SOURCE, "events.>").await?;
        publish(&jetstream, events.generated(), None).await?;
        let observed = streams::read(&nats, SOURCE).await?;
        let facts = observed.context("no source stream")?.facts(SOURCE);
        let files: Vec<RuleFile> = rules.files().iter().map(|(file, _)| file.clone()).collect();
        let (compiled, _problems) = RuleSet::compile(&files, &engine_options());
        let reference = |(file, path): &(RuleFile, PathBuf)| RuleFileRef {
            name: file.name.clone(),
            path: path.display().to_string(),
        };
        Ok(Self {
            server,
            nats,
            source: facts.identity,
            last: facts.last,
            rules: Arc::new(compiled),
            rule_files: rules.files().iter().map(reference).collect(),
            commit_events,
        })
    }

    /// The sequence of the last event.
    pub(super) fn last(&self) -> StreamSeq {
        self.last
    }

    /// The rules as the worker compiles them.
    pub(super) fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// Makes the pipeline of a round, with everything the operator would make for it in JetStream.
    pub(super) async fn pipeline(&self, round: usize) -> Result<Pipeline> {
        let config = self.config(round)?;
        let key = &config.owner.pipeline;
        let owner = config.owner.to_string();
        let (letters, subjects) = (key.dead_letters_stream(), key.dead_letter_subjects());
        for desired in [
            DesiredStream::state_bucket(1),
            DesiredStream::alerts(key, None, None, 1, owner.clone()),
            DesiredStream::store(letters, subjects, None, None, 1, owner),
        ] {
            streams::ensure(&self.nats, &desired).await?;
        }
        let consumer = DesiredConsumer {
            stream: SOURCE.to_owned(),
            name: config.source.consumer.clone(),
            filter_subjects: Vec::new(),
            metadata: ConsumerMetadata::new(&config.owner, EPOCH, config.source.start).to_map(),
            adopt: None,
        };
        consumers::ensure(&self.nats, &consumer).await?;
        let pipeline = Pipeline {
            volume: TempDir::new().context("make a folder for the worker")?,
        };
        let text = serde_json::to_vec_pretty(&config)?;
        fs::write(pipeline.config(), text).context("write config.json")?;
        Ok(pipeline)
    }

    /// Compares the alerts of each round with one uninterrupted pass over the events.
    pub(super) async fn compare(&self, rounds: usize) -> Result<Vec<Comparison>> {
        let jetstream = jetstream::new(self.nats.client().clone());
        let config = self.config(1)?;
        let segment = Segment::whole(&config, Arc::clone(&self.rules));
        let findings = oracle::run(&jetstream, &config, &[segment], self.last).await?;
        ensure!(
            findings.position == self.last,
            "the oracle ended at {}",
            findings.position
        );
        let mut comparisons = Vec::new();
        for round in 1..=rounds {
            let stored = stored_alerts(&jetstream, &key(round)?).await?;
            comparisons.push(Comparison::new("alerts", &findings.alerts, &stored));
        }
        Ok(comparisons)
    }

    fn config(&self, round: usize) -> Result<WorkerConfig> {
        let key = key(round)?;
        Ok(WorkerConfig {
            v: config::VERSION,
            partition: PARTITION,
            epoch: EPOCH,
            cursor: Cursor::default(),
            adopt: None,
            nats: NatsConfig {
                urls: vec![self.server.url()],
                ..NatsConfig::default()
            },
            source: SourceConfig {
                stream: self.source.clone(),
                consumer: key.consumer(PARTITION, EPOCH),
                subjects: Vec::new(),
                logsource: engine_options().logsource,
                start: StreamSeq(1),
            },
            rules: RulesConfig {
                files: self.rule_files.clone(),
                processing: engine_options().processing,
                engine_digest: self.rules.digest().to_owned(),
            },
            correlation: engine_options().correlation,
            commit: CommitConfig {
                interval_ms: 1_000,
                events: self.commit_events,
            },
            alerts_stream: key.alerts_stream(),
            dead_letters: DeadLettersConfig {
                stream: key.dead_letters_stream(),
                max_attempts: 3,
            },
            owner: Owner {
                cluster: "bench".to_owned(),
                pipeline: key,
            },
        })
    }
}

impl Pipeline {
    /// The worker's configuration.
    pub(super) fn config(&self) -> PathBuf {
        self.volume.path().join("config.json")
    }

    /// The folder of its state file; it takes its log as well.
    pub(super) fn directory(&self) -> &std::path::Path {
        self.volume.path()
    }
}

fn key(round: usize) -> Result<PipelineKey> {
    Ok(PipelineKey::new("bench", &format!("round-{round}"))?)
}

/// What the project's own rules are compiled with, over the events that this crate generates.
#[must_use]
pub fn engine_options() -> EngineOptions {
    EngineOptions {
        processing: vec![PROCESSING.to_owned()],
        logsource: LogSource {
            product: PRODUCT.to_owned(),
            ..LogSource::default()
        },
        correlation: CorrelationConfig {
            timestamp_fields: TIMESTAMP_FIELDS.map(str::to_owned).to_vec(),
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
    }
}
