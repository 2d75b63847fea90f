//! `kubectl lookback alerts`.

mod change;
mod find;
mod list;
mod show;
mod stats;
mod view;
mod watch;

use clap::Subcommand;

use super::context::Context;
use super::output::Format;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List alerts, the longest untouched first
    List(list::Args),
    /// Show one alert with its history
    Show(show::Args),
    /// Take alerts a step on: to another state, or into the archive
    Move(change::MoveArgs),
    /// Set or take away metadata of an alert; its state stays
    Annotate(change::AnnotateArgs),
    /// Print alerts as they are stored or moved, until Ctrl-C
    Watch(watch::Args),
    /// Count alerts by state, rule or level
    Stats(stats::Args),
}

pub(super) async fn run(command: Command, context: &Context, format: Format) -> anyhow::Result<()> {
    match command {
        Command::List(args) => list::run(args, context, format).await,
        Command::Show(args) => show::run(args, context, format).await,
        Command::Move(args) => change::take_steps(args, context, format).await,
        Command::Annotate(args) => change::annotate(args, context, format).await,
        Command::Watch(args) => watch::run(args, context, format).await,
        Command::Stats(args) => stats::run(args, context, format).await,
    }
}
