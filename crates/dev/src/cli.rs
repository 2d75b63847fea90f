//! The command line of `lookback-dev`.
#![allow(
    clippy::print_stdout,
    reason = "printing is what these commands are for"
)]

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use clap::{Args, Parser, Subcommand};
use jiff::{SignedDuration, Timestamp};
use lookback::state::FileDigest;
use lookback_protocol::checkpoint::Checkpoint;
use lookback_protocol::config::WorkerConfig;
use lookback_protocol::names::PipelineKey;
use lookback_protocol::position::StreamSeq;
use serde::de::DeserializeOwned;

use crate::bench::store::{self, StoreArgs};
use crate::bench::{self, BenchArgs};
use crate::compare::{Comparison, stored_alerts, stored_dead_letters};
use crate::events::{Plan, generate};
use crate::oracle::{self, Findings, Segment, compile, lineage};
use crate::publish::{ensure_source_stream, publish};
use crate::wait::until_applied;

/// Tools for tests, the demo and benches of Lookback.
#[derive(Debug, Parser)]
#[command(name = "lookback-dev", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print generated Windows events, one a line.
    Events(EventsArgs),
    /// Publish generated Windows events to a stream.
    Publish(PublishArgs),
    /// Run one uninterrupted pass over a source stream and print what it finds, as JSON.
    Oracle(OracleArgs),
    /// Wait until a pipeline has applied a sequence, showing its position.
    Wait(WaitArgs),
    /// Compare what a pipeline stored with the oracle's findings; exit code 0 only if they are equal.
    Compare(CompareArgs),
    /// Measure the worker over JetStream beside the evaluator alone, and print Markdown tables.
    Bench(BenchArgs),
    /// Measure the store's operations beside raw ones, and print Markdown tables.
    BenchStore(StoreArgs),
}

#[derive(Debug, Args)]
struct EventsArgs {
    /// How many events.
    #[arg(long, default_value_t = 10_000)]
    count: u64,
    /// Equal seeds give equal events.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many events of the plan to leave out at its beginning.
    #[arg(long, default_value_t = 0)]
    skip: usize,
    /// The event time of the first.
    #[arg(long, default_value = "2026-01-05T08:00:00Z")]
    start: Timestamp,
    /// Milliseconds of event time between two events.
    #[arg(long, default_value_t = 200)]
    step_ms: u32,
    /// How many of 10,000 events are no JSON.
    #[arg(long, default_value_t = 0)]
    poison: u32,
}

#[derive(Debug, Args)]
struct NatsArgs {
    /// The server, with user and password in it if it wants them.
    #[arg(
        long,
        env = "NATS_URL",
        default_value = "nats://127.0.0.1:4222",
        hide_env_values = true
    )]
    nats: String,
}

#[derive(Debug, Args)]
struct PublishArgs {
    #[command(flatten)]
    nats: NatsArgs,
    #[command(flatten)]
    events: EventsArgs,
    /// The stream; created for `events.>` unless it is there.
    #[arg(long, default_value = "EVENTS")]
    stream: String,
    /// Refuse a stream that is there already.
    #[arg(long)]
    new: bool,
    /// Events a second; as fast as the server takes them unless given.
    #[arg(long)]
    rate: Option<u32>,
}

#[derive(Debug, Args)]
struct OracleArgs {
    #[command(flatten)]
    nats: NatsArgs,
    /// The worker's `config.json`; after a change of rules, one for each set.
    #[arg(long, required = true)]
    config: Vec<PathBuf>,
    /// The folder with the rules of the configuration at the same place.
    #[arg(long, required = true)]
    rules: Vec<PathBuf>,
    /// What `lookback state digest` printed: its lineage is repeated, up to its position.
    #[arg(long, required_unless_present = "through")]
    state: Option<PathBuf>,
    /// The last sequence to apply, when there is no state: all of it under the first configuration.
    #[arg(long)]
    through: Option<u64>,
}

#[derive(Debug, Args)]
struct WaitArgs {
    #[command(flatten)]
    nats: NatsArgs,
    /// The pipeline, `<namespace>/<name>`.
    #[arg(long)]
    pipeline: String,
    /// The sequence.
    #[arg(long)]
    through: u64,
    /// Seconds after which to give up.
    #[arg(long, default_value_t = 300)]
    deadline: u64,
}

#[derive(Debug, Args)]
struct CompareArgs {
    #[command(flatten)]
    nats: NatsArgs,
    /// The pipeline, `<namespace>/<name>`.
    #[arg(long)]
    pipeline: String,
    /// What `oracle` printed.
    #[arg(long)]
    oracle: PathBuf,
    /// What `lookback state digest` printed: its windows are compared, too.
    #[arg(long)]
    state: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// With the whole chain of causes, for people.
pub async fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Events(args) => print_events(&args),
        Command::Publish(args) => publish_events(&args).await,
        Command::Oracle(args) => print_findings(&args).await,
        Command::Wait(args) => wait(&args).await,
        Command::Compare(args) => compare(&args).await,
        Command::Bench(args) => measure(&args).await,
        Command::BenchStore(args) => measure_store(&args).await,
    }
}

impl EventsArgs {
    fn plan(&self) -> Plan {
        Plan {
            count: self.count,
            seed: self.seed,
            start: self.start,
            step: SignedDuration::from_millis(i64::from(self.step_ms)),
            poison: self.poison,
        }
    }
}

async fn connect(args: &NatsArgs) -> Result<jetstream::Context> {
    let client = async_nats::connect(&args.nats)
        .await
        .context("connect to NATS")?;
    Ok(jetstream::new(client))
}

fn print_events(args: &EventsArgs) -> Result<ExitCode> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    for event in generate(&args.plan()).skip(args.skip) {
        out.write_all(&event.payload)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

async fn publish_events(args: &PublishArgs) -> Result<ExitCode> {
    let jetstream = connect(&args.nats).await?;
    if args.new {
        let found = jetstream.get_stream(&args.stream).await;
        ensure!(
            found.is_err(),
            "stream {} exists already: delete it, or name another one",
            args.stream
        );
    }
    ensure_source_stream(&jetstream, &args.stream, "events.>").await?;
    let events = generate(&args.events.plan()).skip(args.events.skip);
    let count = publish(&jetstream, events, args.rate).await?;
    println!("published {count} events to {}", args.stream);
    Ok(ExitCode::SUCCESS)
}

async fn print_findings(args: &OracleArgs) -> Result<ExitCode> {
    ensure!(
        args.config.len() == args.rules.len(),
        "each --config needs a --rules"
    );
    let configs: Vec<WorkerConfig> = args
        .config
        .iter()
        .map(|path| read_json(path))
        .collect::<Result<_>>()?;
    let compiled = configs
        .iter()
        .zip(&args.rules)
        .map(|(config, rules)| compile(config, rules));
    let rules = compiled.collect::<Result<Vec<_>>>()?;
    let (config, first) = configs
        .first()
        .zip(rules.first())
        .context("at least one --config")?;
    let (segments, through) = match &args.state {
        Some(path) => {
            let state: FileDigest = read_json(path)?;
            (lineage(&state, &rules)?, state.position.sequence)
        }
        None => {
            let segment = Segment::whole(config, Arc::clone(first));
            (vec![segment], StreamSeq(args.through.unwrap_or(u64::MAX)))
        }
    };
    let jetstream = connect(&args.nats).await?;
    let findings = oracle::run(&jetstream, config, &segments, through).await?;
    println!("{}", serde_json::to_string_pretty(&findings)?);
    Ok(ExitCode::SUCCESS)
}

async fn compare(args: &CompareArgs) -> Result<ExitCode> {
    let findings: Findings = read_json(&args.oracle)?;
    let (namespace, name) = args
        .pipeline
        .split_once('/')
        .context("--pipeline is <namespace>/<name>")?;
    let pipeline = PipelineKey::new(namespace, name)?;
    let jetstream = connect(&args.nats).await?;
    let dead_letters = stored_dead_letters(&jetstream, &pipeline).await?;
    let dead_letters = Comparison::new("dead letters", &findings.dead_letters, &dead_letters);
    let alerts = stored_alerts(&jetstream, &pipeline).await?;
    let alerts = Comparison::new("alerts", &findings.alerts, &alerts);
    let windows = match &args.state {
        Some(path) => compare_windows(&read_json(path)?, &findings),
        None => true,
    };
    println!("{dead_letters}\n{alerts}");
    Ok(verdict(
        windows && dead_letters.is_exact() && alerts.is_exact(),
    ))
}

fn compare_windows(state: &FileDigest, findings: &Findings) -> bool {
    let equal =
        state.state_digest == findings.state_digest && state.position.sequence == findings.position;
    let verdict = if equal { "equal" } else { "different" };
    println!(
        "windows: {} groups at position {}, the oracle's at {}: {verdict}",
        state.groups, state.position.sequence, findings.position
    );
    equal
}

async fn measure(args: &BenchArgs) -> Result<ExitCode> {
    let (report, exact) = bench::run(args, |step| println!("bench: {step}")).await?;
    println!("\n{report}");
    Ok(verdict(exact))
}

async fn measure_store(args: &StoreArgs) -> Result<ExitCode> {
    let report = store::run(args, |step| println!("bench: {step}")).await?;
    println!("{report}");
    Ok(ExitCode::SUCCESS)
}

fn verdict(exact: bool) -> ExitCode {
    if exact {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn wait(args: &WaitArgs) -> Result<ExitCode> {
    let pipeline = parse_pipeline(&args.pipeline)?;
    let jetstream = connect(&args.nats).await?;
    let deadline = Duration::from_secs(args.deadline);
    let mut shown = StreamSeq(0);
    let progress = |checkpoint: &Checkpoint| {
        if checkpoint.position.sequence != shown {
            shown = checkpoint.position.sequence;
            println!("{pipeline}: position {shown} of {}", args.through);
        }
    };
    let through = StreamSeq(args.through);
    let last = until_applied(&jetstream, &pipeline, through, deadline, progress).await?;
    println!("{pipeline}: position {}", last.position.sequence);
    Ok(ExitCode::SUCCESS)
}

fn parse_pipeline(text: &str) -> Result<PipelineKey> {
    let (namespace, name) = text
        .split_once('/')
        .context("--pipeline is <namespace>/<name>")?;
    Ok(PipelineKey::new(namespace, name)?)
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("read the JSON of {}", path.display()))
}
