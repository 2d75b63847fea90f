//! `kubectl lookback rules`.

use super::output::Format;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {}

pub(super) fn run(command: Command, format: Format) -> anyhow::Result<()> {
    todo!("{command:?} {format:?}")
}
