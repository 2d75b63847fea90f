//! `kubectl lookback dlq`.

use super::context::Context;
use super::output::Format;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {}

pub(super) async fn run(command: Command, context: &Context, format: Format) -> anyhow::Result<()> {
    let _ = context;
    todo!("{command:?} {format:?}")
}
