//! What decides alerts together with the rules: from a manifest, else from flags with the defaults of
//! the resource.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use lookback_engine::EngineOptions;
use serde_json::Value;

use crate::api::pipeline::{CorrelationSpec, Emit, LogSourceSpec, Refire, TimestampFallback};
use crate::api::{DetectionPipeline, Duration};
use crate::ctl::Usage;
use crate::ctl::given::named;
use crate::operator::pipeline::validate::engine_options;

/// What decides alerts together with the rules.
#[derive(Debug, clap::Args)]
pub(super) struct Settings {
    /// Take rules.processing, source.logsource and correlation from this DetectionPipeline
    #[arg(short = 'f', long, value_name = "FILE", conflicts_with_all = [
        "product", "service", "category", "processing", "timestamp_fields", "timestamp_fallback",
        "allowed_lateness", "max_future_skew", "refire", "emit",
    ])]
    from_pipeline: Option<PathBuf>,
    /// The product of the events, for example windows
    #[arg(long)]
    product: Option<String>,
    /// The service of the events
    #[arg(long, requires = "product")]
    service: Option<String>,
    /// The category of the events
    #[arg(long, requires = "product")]
    category: Option<String>,
    /// A processing pipeline: the name of a built-in one, or a file; may be given several times
    #[arg(long, value_name = "NAME|FILE")]
    processing: Vec<String>,
    /// A field that holds the event's own time; may be given several times
    #[arg(long = "timestamp-field", value_name = "FIELD")]
    timestamp_fields: Vec<String>,
    /// What to do when none of them does: Published, WallClock or Skip
    #[arg(long, value_parser = named::<TimestampFallback>)]
    timestamp_fallback: Option<TimestampFallback>,
    /// How much older than its group's newest event an event may be and still count
    #[arg(long, value_name = "DURATION")]
    allowed_lateness: Option<Duration>,
    /// How far after its published time an event may claim to be and still count
    #[arg(long, value_name = "DURATION")]
    max_future_skew: Option<Duration>,
    /// When a condition that holds gives an alert: OncePerWindow or EveryEvent
    #[arg(long, value_parser = named::<Refire>)]
    refire: Option<Refire>,
    /// Which matches become alerts: All or Correlations
    #[arg(long, value_parser = named::<Emit>)]
    emit: Option<Emit>,
}

impl Settings {
    /// Whether a log source is given; without one, rules can be read but not run.
    pub(super) fn has_logsource(&self) -> bool {
        self.from_pipeline.is_some() || self.product.is_some()
    }

    /// The options to read rules with.
    pub(super) fn options(&self) -> Result<EngineOptions> {
        if let Some(path) = &self.from_pipeline {
            let spec = manifest(path)?.spec;
            let logsource = &spec.source.logsource;
            let processing = &spec.rules.processing;
            return Ok(engine_options(processing, logsource, &spec.correlation));
        }
        let logsource = LogSourceSpec {
            product: self.product.clone().unwrap_or_default(),
            service: self.service.clone(),
            category: self.category.clone(),
        };
        let correlation = self.correlation();
        Ok(engine_options(&self.processing, &logsource, &correlation))
    }

    /// The options to run rules with.
    pub(super) fn options_to_run(&self) -> Result<EngineOptions> {
        if !self.has_logsource() {
            return Err(Usage(
                "cannot run rules without a log source, because those of every product would run on these events: give --product, or --from-pipeline with a manifest"
                    .to_owned(),
            )
            .into());
        }
        self.options()
    }

    fn correlation(&self) -> CorrelationSpec {
        let mut spec = CorrelationSpec::default();
        if !self.timestamp_fields.is_empty() {
            spec.timestamp_fields.clone_from(&self.timestamp_fields);
        }
        let set = &self.timestamp_fallback;
        spec.timestamp_fallback = set.unwrap_or(spec.timestamp_fallback);
        spec.refire = self.refire.unwrap_or(spec.refire);
        spec.emit = self.emit.unwrap_or(spec.emit);
        if let Some(lateness) = &self.allowed_lateness {
            spec.allowed_lateness = lateness.clone();
        }
        if let Some(skew) = &self.max_future_skew {
            spec.max_future_skew = skew.clone();
        }
        spec
    }
}

/// The DetectionPipeline in a file, which may hold other objects.
fn manifest(path: &Path) -> Result<DetectionPipeline> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the manifest {}", path.display()))?;
    parse_manifest(&text).with_context(|| format!("cannot use the manifest {}", path.display()))
}

fn parse_manifest(text: &str) -> Result<DetectionPipeline> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)?;
    let mut pipelines = documents
        .into_iter()
        .filter(|document| document["kind"] == "DetectionPipeline");
    match (pipelines.next(), pipelines.next()) {
        (Some(one), None) => Ok(serde_json::from_value(one)?),
        (None, _) => bail!("it holds no DetectionPipeline"),
        (Some(_), Some(_)) => bail!("it holds several DetectionPipelines: give a file with one"),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use lookback_protocol::config;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        settings: Settings,
    }

    fn settings(args: &[&str]) -> Result<Settings, clap::Error> {
        let args = ["test"].iter().chain(args);
        Line::try_parse_from(args).map(|line| line.settings)
    }

    const MANIFEST: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\n\
        apiVersion: lookback.dev/v1alpha1\nkind: DetectionPipeline\nmetadata: {name: edr}\nspec:\n  \
        nats: {urls: ['nats://n:4222']}\n  source: {stream: E, logsource: {product: windows, service: sysmon}}\n  \
        rules: {configMaps: [{name: r}], processing: [sysmon]}\n  \
        correlation: {allowedLateness: 1m, refire: EveryEvent}\n";

    #[test]
    fn a_manifest_decides_what_it_says_and_the_resource_the_rest() {
        let spec = parse_manifest(MANIFEST).unwrap().spec;
        let options = engine_options(
            &spec.rules.processing,
            &spec.source.logsource,
            &spec.correlation,
        );
        assert_eq!(options.processing, ["sysmon"]);
        assert_eq!(options.logsource.service.as_deref(), Some("sysmon"));
        assert_eq!(options.correlation.allowed_lateness_seconds, 60);
        assert_eq!(options.correlation.max_future_skew_seconds, 300);
        assert_eq!(options.correlation.refire, config::Refire::EveryEvent);
    }

    #[test]
    fn flags_and_a_manifest_exclude_each_other() {
        assert!(settings(&["-f", "a.yaml", "--product", "windows"]).is_err());
        assert!(settings(&["-f", "a.yaml", "--refire", "EveryEvent"]).is_err());
        assert!(settings(&["-f", "a.yaml"]).is_ok());
    }

    #[test]
    fn flags_take_the_words_of_the_resource() {
        let settings = settings(&["--product", "linux", "--emit", "Correlations"]).unwrap();
        let options = settings.options_to_run().unwrap();
        assert_eq!(options.correlation.emit, config::Emit::Correlations);
        assert_eq!(
            options.correlation.timestamp_fields,
            ["UtcTime", "@timestamp"]
        );
        assert!(self::settings(&["--emit", "Everything"]).is_err());
    }

    #[test]
    fn rules_are_not_run_without_a_log_source() {
        let error = settings(&[]).unwrap().options_to_run().unwrap_err();
        assert!(error.to_string().contains("--product"), "{error}");
    }

    #[test]
    fn a_file_with_no_or_several_pipelines_is_refused() {
        let none = parse_manifest("kind: ConfigMap\n").unwrap_err();
        assert_eq!(none.to_string(), "it holds no DetectionPipeline");
        let two = format!("{MANIFEST}---\n{MANIFEST}");
        assert!(
            parse_manifest(&two)
                .unwrap_err()
                .to_string()
                .contains("several")
        );
    }
}
