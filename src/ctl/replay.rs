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
    ///
    /// With a start, what would come of such a request is planned as the operator would, and nothing is
    /// written anywhere.
    Plan(plan::Args),
    /// Let the plan that waits run
    Approve(approve::Args),
    /// The replays there were
    History(history::Args),
}

pub(super) async fn run(command: Command, context: &Context, format: Format) -> Result<()> {
    match command {
        Command::Plan(args) => plan::run(args, context, format).await,
        Command::Approve(args) => approve::run(args, context, format).await,
        Command::History(args) => history::run(args, context, format).await,
    }
}
