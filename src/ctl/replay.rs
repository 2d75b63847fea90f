//! `kubectl lookback replay`: what a replay does before it does it, letting it run, and what there was.
//! A replay is asked for in the spec, never here.

mod approve;
mod history;
mod plan;
mod words;

use anyhow::Result;

use super::context::Context;
use super::output::Format;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Say what the replay in the spec does, or what one would do; changes nothing
    #[command(
        after_help = "With a start, what would come of such a request is planned as the operator \
would, and nothing is written anywhere.

Examples:
  kubectl lookback replay plan
  kubectl lookback replay plan --from-time 2026-11-17T06:00:00Z --state-policy Rebuild
  kubectl lookback replay plan --latest"
    )]
    Plan(plan::Args),
    /// Let the plan that waits run
    #[command(after_help = "Examples:
  kubectl lookback replay approve
  kubectl lookback replay approve -n detections -p edr --plan p-8c47113cea9c")]
    Approve(approve::Args),
    /// The replays there were
    #[command(after_help = "Examples:
  kubectl lookback replay history -n detections -p edr")]
    History,
}

pub(super) async fn run(command: Command, context: &Context, format: Format) -> Result<()> {
    match command {
        Command::Plan(args) => plan::run(args, context, format).await,
        Command::Approve(args) => approve::run(args, context, format).await,
        Command::History => history::run(context, format).await,
    }
}
