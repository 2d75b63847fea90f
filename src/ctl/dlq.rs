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
    #[command(after_help = "Examples:
  kubectl lookback dlq list --state parked
  kubectl lookback dlq list --reason NotJson,TooLarge --since 2h")]
    List(list::Args),
    /// One dead letter, with its event
    #[command(after_help = "Examples:
  kubectl lookback dlq show 0-48213-e590fdd3
  kubectl lookback dlq show 0-48213 --raw > event")]
    Show(show::Args),
    /// Send the events of dead letters to their subjects once more
    #[command(
        after_help = "An event is sent once for each redrive, with another message id. What was \
redriven often already is refused: see --max-redrives. Exit code 1 when one of several failed.

Examples:
  kubectl lookback dlq redrive --reason EnginePanic --dry-run
  kubectl lookback dlq redrive --reason EnginePanic --rate 20 --note \"upgraded to 1.4\"
  kubectl lookback dlq redrive 0-48213-e590fdd3"
    )]
    Redrive(work::RedriveArgs),
    /// Let dead letters go: their events will not be applied
    #[command(after_help = "Examples:
  kubectl lookback dlq discard 0-48213-e590fdd3 --note \"a scanner's test\"
  kubectl lookback dlq discard --reason Empty --until 7d --note \"an old shipper\" --yes")]
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
async fn store(context: &Context) -> Result<DeadLetterStore> {
    let reached = context.reach(context.pipeline().await?).await?;
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
