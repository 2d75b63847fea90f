//! The command line: parse and dispatch. Only here may the program print.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is where a program answers its caller"
)]

use std::error::Error as StdError;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use lookback_protocol::termination::ExitReason;
use serde::Serialize;

use crate::api::crd;
use crate::operator::{self, OperatorArgs};
use crate::runtime::telemetry::{self, LogArgs, chain};
use crate::state;
use crate::worker::process::{self, WorkerArgs};

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
    /// Run the operator
    Operator(OperatorArgs),
    /// Run one worker, as the operator starts it
    Worker(WorkerArgs),
    /// Print the CustomResourceDefinitions
    Crds,
    /// Look at a state file
    #[command(subcommand)]
    State(StateCommand),
}

#[derive(Debug, Subcommand)]
enum StateCommand {
    /// Print position, lineage and digest of a state file as JSON
    Digest {
        /// The state file; no worker may have it open
        file: PathBuf,
    },
}

impl Cli {
    /// Runs the command. The exit codes are those of [`ExitReason`].
    pub async fn run(self) -> ExitCode {
        if let Err(error) = telemetry::init(&self.log) {
            return failed(ExitReason::BadConfig, &error);
        }
        match self.command {
            Command::Operator(args) => finished(operator::main(args).await),
            Command::Worker(args) => ExitCode::from(process::main(&args).await.exit_code()),
            Command::Crds => {
                print!("{}", crd::crds());
                ExitCode::SUCCESS
            }
            Command::State(StateCommand::Digest { file }) => {
                finished(state::digest(&file).map(|digest| print_json(&digest)))
            }
        }
    }
}

fn print_json(value: &impl Serialize) {
    let text = serde_json::to_string_pretty(value).expect("our types are JSON");
    println!("{text}");
}

fn finished<E: StdError>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(ExitReason::Internal, &error),
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
