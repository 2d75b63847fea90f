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
    #[command(after_help = "Examples:
  kubectl lookback alerts list --state new --level high,critical
  kubectl lookback alerts list --rule powershell --since 2h
  kubectl lookback alerts list --all -o json")]
    List(list::Args),
    /// Show one alert with its history
    #[command(after_help = "Examples:
  kubectl lookback alerts show 7QK2M4ZT
  kubectl lookback alerts show 7QK2M4ZT -o yaml")]
    Show(show::Args),
    /// Take alerts a step on: to another state, or into the archive
    #[command(after_help = "Examples:
  kubectl lookback alerts move 7QK2M4ZT --to triage --reason checking
  kubectl lookback alerts move 7QK2M4ZT UHZX44YW --to archived --reason \"a drill\"")]
    Move(change::MoveArgs),
    /// Set or take away metadata of an alert; its state stays
    #[command(after_help = "Examples:
  kubectl lookback alerts annotate 7QK2M4ZT ticket=4711 owner=ann
  kubectl lookback alerts annotate 7QK2M4ZT owner-")]
    Annotate(change::AnnotateArgs),
    /// Print alerts as they are stored or moved, until Ctrl-C
    #[command(after_help = "Examples:
  kubectl lookback alerts watch --level high,critical
  kubectl lookback alerts watch --since 1h
  kubectl lookback alerts watch -o json | jq .record.rule.title")]
    Watch(watch::Args),
    /// Count alerts by state, rule or level
    #[command(after_help = "Examples:
  kubectl lookback alerts stats
  kubectl lookback alerts stats --by rule")]
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
