//! `kubectl lookback dlq`: events that could not be applied. Looking changes nothing; `redrive` sends
//! them to their subject once more, `discard` lets them go. Both take ids, or flags that pick.

mod list;
mod selector;
mod show;
mod work;

use anyhow::Result;

use super::context::Context;
use super::output::Format;
use crate::nats::deadletters::DeadLetterStore;
use crate::nats::entries::MIN_PREFIX;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// List dead letters, the oldest first
    List(list::Args),
    /// One dead letter, with its event
    Show(show::Args),
    /// Send the events of dead letters to their subjects once more
    ///
    /// An event is sent once for each redrive, with another message id. What was redriven often already is
    /// refused: see --max-redrives. Exit code 1 when one of several failed.
    Redrive(work::RedriveArgs),
    /// Let dead letters go: their events will not be applied
    Discard(work::DiscardArgs),
}

pub(super) async fn run(command: Command, context: &Context, format: Format) -> Result<()> {
    match command {
        Command::List(args) => list::run(args, context, format).await,
        Command::Show(args) => show::run(args, context, format).await,
        Command::Redrive(args) => work::redrive(args, context, format).await,
        Command::Discard(args) => work::discard(args, context, format).await,
    }
}

/// The dead letters of a pipeline.
async fn store(context: &Context, pipeline: Option<&str>) -> Result<DeadLetterStore> {
    let reached = context.reach(context.pipeline(pipeline).await?).await?;
    Ok(DeadLetterStore::new(reached.nats, reached.owner))
}

/// An id, or enough of its beginning.
fn given_id(text: &str) -> Result<String, String> {
    let id = text.trim();
    match id.len() {
        0..MIN_PREFIX => Err(format!("give at least {MIN_PREFIX} characters of the id")),
        _ => Ok(id.to_owned()),
    }
}
