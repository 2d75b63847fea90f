//! The store's operations beside raw ones to the same server, stream and connection in one run, and how
//! they grow with the number of alerts.
//!
//! Operations take turns one by one, so that whatever else the machine does hits all of them: what is
//! worth comparing is the ratio within a round.
//!
//! # Layout
//! - `stage`: servers, what the operator makes for a pipeline, and alerts.
//! - `operations`: each operation, raw and ours.
//! - `growth`: the same questions to pipelines of different sizes.
//! - `samples`: times and what is said of them.
//! - `report`: the tables.

mod growth;
mod operations;
mod report;
mod samples;
mod stage;

use anyhow::{Result, ensure};
use clap::Args;

use self::report::Report;
use self::stage::Servers;

/// What to measure.
#[derive(Args, Clone, Debug)]
pub struct StoreArgs {
    /// Rounds; each has a ratio of its own.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How often each operation is done in a round.
    #[arg(long, default_value_t = 200)]
    times: usize,
    /// Alerts of the pipelines that are compared with each other; none to leave that out.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 10_000, 100_000])]
    sizes: Vec<u64>,
}

/// Measures, telling `progress` each step, and gives the tables.
///
/// # Errors
/// When a server does not start, or an operation fails.
pub async fn run(args: &StoreArgs, mut progress: impl FnMut(&str)) -> Result<String> {
    ensure!(args.rounds > 0, "there must be at least one round");
    ensure!(args.times > 0, "each operation must be done at least once");
    let mut measured = Vec::new();
    for servers in [Servers::one().await?, Servers::three().await?] {
        progress(&format!("{servers}: operations"));
        measured.push(operations::measure(&servers, args.rounds, args.times).await?);
        progress(&measured[measured.len() - 1].summary());
    }
    let growth = growth::measure(&args.sizes, args.times, &mut progress).await?;
    let report = Report {
        rounds: args.rounds,
        times: args.times,
        measured: &measured,
        growth: &growth,
    };
    Ok(report.to_string())
}
