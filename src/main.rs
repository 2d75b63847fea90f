//! The `lookback` program.

use std::process::ExitCode;

use clap::Parser;
use lookback::cli::Cli;

// The allocator of musl does not scale over threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    Cli::parse().run().await
}
