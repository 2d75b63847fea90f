//! `kubectl lookback`: the plugin.

use std::process::ExitCode;

use lookback::ctl::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    Cli::typed().run().await
}
