//! The `lookback-dev` program.

use std::process::ExitCode;

use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    lookback_dev::cli::run(lookback_dev::cli::Cli::parse()).await
}
