//! The command line: parse and dispatch. Only here may the program print.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is where a program answers its caller"
)]

use std::error::Error as StdError;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lookback_protocol::termination::ExitReason;

use crate::api::crd;
use crate::runtime::telemetry::{self, LogArgs, chain};

/// Stateful, replayable Sigma detections on NATS JetStream
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    #[command(flatten)]
    log: LogArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print the CustomResourceDefinitions
    Crds,
}

impl Cli {
    /// Runs the command. The exit codes are those of [`ExitReason`].
    pub async fn run(self) -> ExitCode {
        if let Err(error) = telemetry::init(&self.log) {
            return failed(ExitReason::BadConfig, &error);
        }
        match self.command {
            Command::Crds => {
                print!("{}", crd::crds());
                ExitCode::SUCCESS
            }
        }
    }
}

fn failed(reason: ExitReason, error: &dyn StdError) -> ExitCode {
    eprintln!("lookback: {}", chain(error));
    ExitCode::from(reason.exit_code())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
