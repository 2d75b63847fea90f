//! `kubectl lookback rules`: Sigma rules without a cluster, through the engine that workers run.
//!
//! # Layout
//! - [`files`]: paths -> rule files. [`settings`]: flags or a manifest -> what decides alerts with them.
//! - [`lint`], [`explain`]: what is wrong with rules, and what each of them needs.
//! - [`test`]: rules over a file of events; [`events`] reads it, [`expect`] compares the counts.

mod events;
mod expect;
mod explain;
mod files;
mod lint;
mod settings;
mod test;

use super::output::Format;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Compile rules as operator and worker do, and name what cannot be used
    ///
    /// Exit code 1 when a document cannot be used.
    Lint(lint::Args),
    /// Say in words what rules need
    Explain(explain::Args),
    /// Run rules over a file of events: which fire, how often, on what, and how fast
    ///
    /// Events are taken in their order. Each counts as published at the time that it names itself, or at
    /// that of the event before when that is later or it names none, so every run gives the same.
    Test(test::Args),
}

pub(super) fn run(command: Command, format: Format) -> anyhow::Result<()> {
    match command {
        Command::Lint(args) => lint::run(&args, format),
        Command::Explain(args) => explain::run(&args, format),
        Command::Test(args) => test::run(&args, format),
    }
}
