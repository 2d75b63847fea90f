//! `rsigma-eval` alone, as its users run it in process: JSON, then detection routed by product, then its
//! own correlation. One thread; nothing is stored, and everything is forgotten at the end.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rsigma_eval::{
    CorrelationConfig, CorrelationEngine, Engine, JsonEvent, LogSourceExtractor, Pipeline,
    TimestampFallback, compile_rule, resolve_builtin_pipeline, transform_rule,
};
use rsigma_parser::{LogSource, SigmaCollection, parse_sigma_directory};
use serde_json::Value;

use super::process;
use super::stage::{PROCESSING, PRODUCT, TIMESTAMP_FIELDS};

/// Rules ready to be compiled.
pub(super) struct Evaluator {
    pipeline: Pipeline,
    rules: SigmaCollection,
}

/// One pass over all events.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pass {
    pub(super) events: u64,
    pub(super) wall: Duration,
    pub(super) cpu: Duration,
}

impl Evaluator {
    /// The rules under `directory`, without those that the evaluator cannot compile.
    pub(super) fn load(directory: &Path) -> Result<Self> {
        let pipeline = resolve_builtin_pipeline(PROCESSING)
            .with_context(|| format!("the evaluator has no pipeline {PROCESSING}"))?
            .map_err(|error| anyhow!("pipeline {PROCESSING}: {error}"))?;
        let mut rules = parse_sigma_directory(directory)
            .map_err(|error| anyhow!("parse the rules: {error}"))?;
        let pipelines = std::slice::from_ref(&pipeline);
        rules.rules.retain(|rule| {
            transform_rule(pipelines, rule).is_ok_and(|rule| compile_rule(&rule.rule).is_ok())
        });
        Ok(Self { pipeline, rules })
    }

    /// How many detections and correlations it runs.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.rules.rules.len(), self.rules.correlations.len())
    }

    /// JSON and detection.
    pub(super) fn detect(&self, events: &[Vec<u8>]) -> Result<Pass> {
        let mut engine = Engine::with_logsource_extractor(routed());
        engine.add_pipeline(self.pipeline.clone());
        engine
            .add_collection(&self.rules)
            .map_err(|error| anyhow!("compile the rules: {error}"))?;
        time(events, |event| engine.evaluate(event).len())
    }

    /// JSON, detection and correlation in memory.
    pub(super) fn correlate(&self, events: &[Vec<u8>]) -> Result<Pass> {
        let config = CorrelationConfig {
            timestamp_fields: TIMESTAMP_FIELDS.map(str::to_owned).to_vec(),
            timestamp_fallback: TimestampFallback::WallClock,
            ..CorrelationConfig::default()
        };
        let mut engine = CorrelationEngine::with_logsource_extractor(config, routed());
        engine.add_pipeline(self.pipeline.clone());
        engine
            .add_collection(&self.rules)
            .map_err(|error| anyhow!("compile the rules: {error}"))?;
        time(events, |event| engine.process_event(event).len())
    }
}

fn routed() -> LogSourceExtractor {
    LogSourceExtractor::new().with_defaults(LogSource {
        product: Some(PRODUCT.to_owned()),
        ..LogSource::default()
    })
}

/// Events that are no JSON are parsed in vain, as the worker does.
fn time(events: &[Vec<u8>], mut evaluate: impl FnMut(&JsonEvent<'_>) -> usize) -> Result<Pass> {
    let (began, cpu) = (Instant::now(), process::thread_cpu()?);
    let mut results = 0;
    for payload in events {
        if let Ok(value) = serde_json::from_slice::<Value>(payload) {
            results += evaluate(&JsonEvent::borrow(&value));
        }
    }
    let pass = Pass {
        events: events.len() as u64,
        wall: began.elapsed(),
        cpu: process::thread_cpu()? - cpu,
    };
    // Without a reader the compiler could leave out what is measured.
    std::hint::black_box(results);
    Ok(pass)
}
