//! The worker over JetStream, beside the evaluator alone, on the same rules and events in one run.
//!
//! The two take turns, because a machine that is busy with something else is so in some rounds and
//! not in others: what is worth comparing is the ratio within a round.
//!
//! # Layout
//! - `input`: rules and events.
//! - `evaluator`: `rsigma-eval` alone, on one thread, keeping nothing.
//! - `stage`: a NATS server that holds the events, and what the operator makes for a worker.
//! - `worker`: the real program, from its start to the last event.
//! - `process`, `page`: what the kernel and the worker's metrics say of it.
//! - `report`: the tables.
//! - [`store`]: a bench of its own, of what people and the worker ask of the store.

mod evaluator;
mod input;
mod page;
mod process;
mod report;
mod stage;
pub mod store;
mod worker;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use clap::Args;
use tokio::task::spawn_blocking;

pub use self::stage::engine_options;

use self::evaluator::Evaluator;
use self::input::{Events, Rules};
use self::report::{Report, Round};
use self::stage::Stage;
use crate::compare::Comparison;

/// What to measure.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// Sigma rules: a .tar.gz of YAML files, or a folder of them. The project's own rules are added, so
    /// that there are windows to keep; alone they are the default.
    #[arg(long)]
    rules: Option<PathBuf>,
    /// Events, one JSON object a line; generated unless given.
    #[arg(long, conflicts_with = "count")]
    events: Option<PathBuf>,
    /// How many events to generate.
    #[arg(long, default_value_t = 60_000)]
    count: u64,
    /// How often evaluator and worker take turns.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How many events the worker commits at once, as `spec.commit.events`.
    #[arg(long, default_value_t = 5_000)]
    commit_events: u64,
    /// The `lookback` program; the one beside this program unless given.
    #[arg(long)]
    worker: Option<PathBuf>,
}

/// Measures, telling `progress` each step, and gives the tables and whether every worker stored exactly
/// the alerts of one uninterrupted pass.
///
/// # Errors
/// When rules or events cannot be used, a server does not start, or a worker ends early; with its log.
pub async fn run(args: &BenchArgs, mut progress: impl FnMut(&str)) -> Result<(String, bool)> {
    ensure!(args.rounds > 0, "there must be at least one round");
    let program = match &args.worker {
        Some(program) => program.clone(),
        None => std::env::current_exe()
            .context("find this program")?
            .with_file_name("lookback"),
    };
    let rules = Rules::load(args.rules.as_deref())?;
    let events = Arc::new(Events::load(args.events.as_deref(), args.count)?);
    let evaluator = Arc::new(Evaluator::load(rules.directory())?);
    progress(&format!("publishing {} events", events.payloads.len()));
    let stage = Stage::start(&rules, &events, args.commit_events).await?;
    let mut rounds = Vec::new();
    for number in 1..=args.rounds {
        progress(&format!("round {number}: the evaluator alone"));
        let (engine, payloads) = (Arc::clone(&evaluator), Arc::clone(&events));
        let detection = spawn_blocking(move || engine.detect(&payloads.payloads)).await??;
        let (engine, payloads) = (Arc::clone(&evaluator), Arc::clone(&events));
        let correlation = spawn_blocking(move || engine.correlate(&payloads.payloads)).await??;
        progress(&format!("round {number}: the worker"));
        let pipeline = stage.pipeline(number).await?;
        let worker = worker::measure(&program, &pipeline, stage.last()).await?;
        let round = Round {
            detection,
            correlation,
            worker,
        };
        progress(&format!("round {number}: {round}"));
        rounds.push(round);
    }
    progress("comparing what was stored with one uninterrupted pass");
    let stored = stage.compare(args.rounds).await?;
    let exact = stored.iter().all(Comparison::is_exact);
    let report = Report {
        rules: stage.rules(),
        evaluated: evaluator.size(),
        events: &events,
        commit_events: args.commit_events,
        rounds: &rounds,
        stored: &stored,
    };
    Ok((report.to_string(), exact))
}
