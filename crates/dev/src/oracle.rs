//! The oracle: the same segments over the same log, uninterrupted, in one process. What it finds is
//! what a pipeline must have stored, whatever crashed meanwhile. Where a request led the pipeline back,
//! it goes back too: what was found under all segments is stored, and the windows are those at the end.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail, ensure};
use async_nats::jetstream;
use futures::TryStreamExt;
use jiff::Timestamp;
use lookback::state::FileDigest;
use lookback_engine::{
    At, Correlator, Decoder, Detector, EngineOptions, RuleFile, RuleSet, Scratch, state_digest,
};
use lookback_protocol::config::WorkerConfig;
use lookback_protocol::ids::{EventOrigin, alert_id, dead_letter_id};
use lookback_protocol::position::StreamSeq;
use lookback_protocol::start::{Fate, OutputRule};
use serde::{Deserialize, Serialize};

use crate::stream::{Reader, SourceEvent};

/// One stretch of the log under one filter and one set of rules.
#[derive(Clone, Debug)]
pub struct Segment {
    /// Its first sequence.
    pub start: StreamSeq,
    /// Its last sequence; absent for the one that goes on to the end.
    pub last: Option<StreamSeq>,
    /// It begins without the windows of the segments before it.
    pub dropped: bool,
    /// What becomes of what is found.
    pub output: OutputRule,
    /// The subjects read; empty for the whole stream.
    pub filter: Vec<String>,
    /// The rules and settings in force.
    pub rules: Arc<RuleSet>,
}

impl Segment {
    /// Everything from the start that `config` says.
    #[must_use]
    pub fn whole(config: &WorkerConfig, rules: Arc<RuleSet>) -> Self {
        Self {
            start: config.source.start,
            last: None,
            dropped: false,
            output: OutputRule::default(),
            filter: config.source.subjects.clone(),
            rules,
        }
    }
}

/// What one uninterrupted pass finds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Findings {
    /// The last sequence applied.
    pub position: StreamSeq,
    /// Events applied, parked ones included.
    pub events: u64,
    /// The windows at that position; see [`state_digest`].
    pub state_digest: String,
    /// Ids of every alert.
    pub alerts: BTreeSet<String>,
    /// Ids of every dead letter.
    pub dead_letters: BTreeSet<String>,
}

/// Reads the source stream through `through` and makes one pass over it.
///
/// # Errors
/// When the stream cannot be read, or its incarnation is not the one of the configuration.
pub async fn run(
    jetstream: &jetstream::Context,
    config: &WorkerConfig,
    segments: &[Segment],
    through: StreamSeq,
) -> Result<Findings> {
    let stream = &config.source.stream;
    let mut pass = Pass::new(config.partition, stream.created);
    for segment in segments {
        let end = segment.last.unwrap_or(through);
        pass.enter(segment)?;
        if end < segment.start {
            continue;
        }
        let reader = Reader::open(jetstream, &stream.name, &segment.filter, segment.start).await?;
        let created = reader.created();
        ensure!(
            created == stream.created,
            "stream {} was created {created}, the configuration says {}",
            stream.name,
            stream.created
        );
        let mut events = std::pin::pin!(reader.through(end));
        while let Some(event) = events.try_next().await? {
            pass.apply(&event)?;
        }
    }
    Ok(pass.finish())
}

/// The segments of a state file's lineage, each with the rules of the configuration that has its
/// engine digest.
///
/// # Errors
/// When no configuration has the digest of a segment.
pub fn lineage(state: &FileDigest, rules: &[Arc<RuleSet>]) -> Result<Vec<Segment>> {
    let segments = state.lineage.iter().map(|segment| {
        let digest = segment.engine_digest.as_str();
        let rules = rules.iter().find(|rules| rules.digest() == digest);
        let rules = rules.with_context(|| format!("no configuration has digest {digest}"))?;
        let lookback::state::Segment {
            epoch: _,
            start,
            last,
            filter,
            engine_digest: _,
            dropped,
            output,
        } = segment.clone();
        Ok(Segment {
            start,
            last,
            dropped,
            output,
            filter,
            rules: Arc::clone(rules),
        })
    });
    segments.collect()
}

/// Compiles the rules of `config` from files under `directory`, laid out as `<configMap>/<key>`, or
/// as `<key>` when there is but one ConfigMap.
///
/// # Errors
/// When a file is missing, or the digest is not the one the operator wrote.
pub fn compile(config: &WorkerConfig, directory: &Path) -> Result<Arc<RuleSet>> {
    let files = config.rules.files.iter().map(|file| {
        let path = rule_path(directory, &file.name);
        let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(RuleFile {
            name: file.name.clone(),
            bytes,
        })
    });
    let files = files.collect::<Result<Vec<_>>>()?;
    let options = EngineOptions {
        processing: config.rules.processing.clone(),
        logsource: config.source.logsource.clone(),
        correlation: config.correlation.clone(),
    };
    let (rules, _problems) = RuleSet::compile(&files, &options);
    if rules.digest() != config.rules.engine_digest {
        bail!(
            "the rules under {} have digest {}, the pipeline runs {}",
            directory.display(),
            rules.digest(),
            config.rules.engine_digest
        );
    }
    Ok(Arc::new(rules))
}

fn rule_path(directory: &Path, name: &str) -> PathBuf {
    let nested = directory.join(name);
    match name.split_once('/') {
        Some((_, key)) if !nested.exists() => directory.join(key),
        _ => nested,
    }
}

/// A pass over events, one at a time.
struct Pass {
    partition: u32,
    stream_created: Timestamp,
    decoder: Decoder,
    engine: Option<(Detector, Correlator)>,
    output: OutputRule,
    scratch: Scratch,
    findings: Findings,
}

impl Pass {
    fn new(partition: u32, stream_created: Timestamp) -> Self {
        Self {
            partition,
            stream_created,
            decoder: Decoder::default(),
            engine: None,
            output: OutputRule::default(),
            scratch: Scratch::default(),
            findings: Findings {
                position: StreamSeq(0),
                events: 0,
                state_digest: String::new(),
                alerts: BTreeSet::new(),
                dead_letters: BTreeSet::new(),
            },
        }
    }

    /// Goes on under the rules of `segment`, with the windows they leave, unless it drops them.
    fn enter(&mut self, segment: &Segment) -> Result<()> {
        let rows: Vec<_> = self
            .engine
            .iter()
            .filter(|_| !segment.dropped)
            .flat_map(|(_, correlator)| correlator.rows())
            .collect();
        let correlator = Correlator::restore(Arc::clone(&segment.rules), rows)
            .map_err(|error| anyhow!("windows at sequence {}: {error}", segment.start))?;
        self.engine = Some((Detector::new(Arc::clone(&segment.rules)), correlator));
        self.output = segment.output;
        self.findings.position = segment.start.previous();
        Ok(())
    }

    fn apply(&mut self, event: &SourceEvent) -> Result<()> {
        let (detector, correlator) = self
            .engine
            .as_mut()
            .context("a pass begins with a segment")?;
        let (sequence, published) = (event.sequence, event.published);
        let origin = EventOrigin {
            stream_created: self.stream_created,
            sequence,
            published,
        };
        let (alerts_stored, letters_stored) = match self.output.fate(sequence) {
            Fate::Stored | Fate::Tagged => (true, true),
            Fate::NoAlerts => (false, true),
            Fate::Nothing => (false, false),
        };
        match self.decoder.decode(&event.payload) {
            Ok(decoded) => {
                let matches = detector.detect(&decoded, &mut self.scratch);
                let alerts = correlator.apply(
                    At {
                        sequence,
                        published,
                        received: published,
                    },
                    &decoded,
                    &matches,
                );
                let ids = alerts
                    .iter()
                    .map(|a| alert_id(&a.rule.id, &a.group_key, &origin));
                self.findings.alerts.extend(ids.filter(|_| alerts_stored));
            }
            Err(_) if !letters_stored => {}
            Err(_) => {
                self.findings
                    .dead_letters
                    .insert(dead_letter_id(self.partition, &origin));
            }
        }
        self.findings.position = sequence;
        self.findings.events += 1;
        Ok(())
    }

    fn finish(mut self) -> Findings {
        let rows: Vec<_> = self
            .engine
            .iter()
            .flat_map(|(_, correlator)| correlator.rows())
            .collect();
        self.findings.state_digest = state_digest(rows);
        self.findings
    }
}
