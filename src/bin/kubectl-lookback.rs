//! `kubectl lookback`: the plugin.

use std::process::ExitCode;

use clap::Parser;
use lookback::ctl::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    Cli::parse().run().await
}
