//! The oracle: the same segments over the same log, uninterrupted, in one process. What it finds is
//! what a pipeline must have stored, whatever crashed meanwhile.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use async_nats::jetstream;
use futures::TryStreamExt;
use jiff::Timestamp;
use lookback_engine::{
    At, Correlator, Decoder, Detector, EngineOptions, RuleFile, RuleSet, Scratch, state_digest,
};
use lookback_protocol::config::WorkerConfig;
use lookback_protocol::ids::{EventOrigin, alert_id, dead_letter_id};
use lookback_protocol::position::StreamSeq;
use serde::{Deserialize, Serialize};

use crate::stream::{Reader, SourceEvent};

/// One stretch of the log under one set of rules.
#[derive(Debug)]
pub struct Segment {
    /// Its first sequence.
    pub start: StreamSeq,
    /// The rules and settings in force.
    pub rules: Arc<RuleSet>,
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

/// A pass over events, one at a time.
pub struct Oracle {
    partition: u32,
    segments: std::vec::IntoIter<Segment>,
    next: Option<Segment>,
    decoder: Decoder,
    engine: Option<(Detector, Correlator)>,
    scratch: Scratch,
    findings: Findings,
}

impl Oracle {
    /// An oracle that begins with the first of `segments`, which are in order of their start.
    #[must_use]
    pub fn new(partition: u32, segments: Vec<Segment>) -> Self {
        let mut segments = segments.into_iter();
        let next = segments.next();
        let findings = Findings {
            position: StreamSeq(0),
            events: 0,
            state_digest: String::new(),
            alerts: BTreeSet::new(),
            dead_letters: BTreeSet::new(),
        };
        Self {
            partition,
            segments,
            next,
            decoder: Decoder::default(),
            engine: None,
            scratch: Scratch::default(),
            findings,
        }
    }

    /// Applies the next event of the log.
    ///
    /// # Errors
    /// When the event comes before the first segment, or windows cannot be carried over an edit of
    /// the rules.
    pub fn apply(
        &mut self,
        stream_created: Timestamp,
        sequence: StreamSeq,
        published: Timestamp,
        payload: &[u8],
    ) -> Result<()> {
        while let Some(segment) = self.next.take_if(|segment| segment.start <= sequence) {
            self.enter(segment)?;
        }
        let Some((detector, correlator)) = &mut self.engine else {
            bail!("sequence {sequence} comes before the first segment");
        };
        let origin = EventOrigin {
            stream_created,
            sequence,
            published,
        };
        match self.decoder.decode(payload) {
            Ok(event) => {
                let matches = detector.detect(&event, &mut self.scratch);
                let alerts = correlator.apply(
                    At {
                        sequence,
                        published,
                    },
                    &event,
                    &matches,
                );
                let ids = alerts
                    .iter()
                    .map(|a| alert_id(&a.rule.id, &a.group_key, &origin));
                self.findings.alerts.extend(ids);
            }
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

    /// What was found.
    ///
    /// # Errors
    /// When a segment after the last event cannot take the windows over.
    pub fn finish(mut self) -> Result<Findings> {
        if let Some((_, correlator)) = &mut self.engine {
            self.findings.state_digest = state_digest(correlator.rows());
        }
        Ok(self.findings)
    }

    fn enter(&mut self, segment: Segment) -> Result<()> {
        let rows: Vec<_> = match &self.engine {
            Some((_, correlator)) => correlator.rows().collect(),
            None => Vec::new(),
        };
        let correlator = Correlator::restore(Arc::clone(&segment.rules), rows)
            .map_err(|error| anyhow::anyhow!("windows at sequence {}: {error}", segment.start))?;
        self.engine = Some((Detector::new(segment.rules), correlator));
        self.next = self.segments.next();
        Ok(())
    }
}

/// Reads the source stream through `through` and runs the oracle over it.
///
/// # Errors
/// When the stream cannot be read, or its incarnation is not the one of the configuration.
pub async fn run(
    jetstream: &jetstream::Context,
    config: &WorkerConfig,
    segments: Vec<Segment>,
    through: StreamSeq,
) -> Result<Findings> {
    let start = segments
        .first()
        .context("a lineage has at least one segment")?
        .start;
    let source = &config.source;
    let reader = Reader::open(jetstream, &source.stream.name, &source.subjects, start).await?;
    if reader.created() != source.stream.created {
        bail!(
            "stream {} was created {}, the configuration says {}",
            source.stream.name,
            reader.created(),
            source.stream.created
        );
    }
    let created = reader.created();
    let mut oracle = Oracle::new(config.partition, segments);
    let mut events = std::pin::pin!(reader.through(through));
    while let Some(SourceEvent {
        sequence,
        published,
        payload,
    }) = events.try_next().await?
    {
        oracle.apply(created, sequence, published, &payload)?;
    }
    oracle.finish()
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
