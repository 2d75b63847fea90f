//! `kubectl lookback status`.

use super::context::Context;
use super::output::Format;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The pipeline; may be left out when the namespace has only one
    pipeline: Option<String>,
}

pub(super) async fn run(args: Args, context: &Context, format: Format) -> anyhow::Result<()> {
    let _ = context;
    todo!("{args:?} {format:?}")
}
