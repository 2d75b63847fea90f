//! `kubectl lookback`: what people do with pipelines, from outside the cluster and with their own
//! rights. It reads the DetectionPipeline from the API server, finds NATS through it, and uses the same
//! adapters as worker and operator. Only what prints an answer may print.
//!
//! # Layout
//! - [`context`]: the API server, the pipelines a verb is about, and the way to their NATS.
//! - [`output`]: tables, JSON and YAML.
//! - one file or folder a verb; `given`: arguments as people give them; `ask`: asking before something
//!   is done; `complete`: words for shells.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is where a program answers its caller"
)]

pub mod context;
pub mod output;

mod alerts;
mod ask;
mod audit;
mod complete;
mod dlq;
mod given;
mod replay;
mod report;
mod rules;
mod state;
mod status;
#[cfg(test)]
mod usage;

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};

use self::context::{Context, Target};
use self::output::Format;
use crate::runtime::telemetry::chain;

/// Look after Lookback's detection pipelines
#[derive(Debug, Parser)]
#[command(name = "kubectl-lookback", bin_name = "kubectl lookback", version)]
#[command(after_help = "Examples:
  kubectl get detectionpipelines -A                               # which pipelines there are
  kubectl lookback status -n detections -p edr                    # how one of them does
  kubectl lookback alerts list -n detections --level high,critical
  kubectl lookback rules test rules/ --events events.ndjson --product windows  # without a cluster

Every verb shows examples of its own: kubectl lookback alerts list --help")]
pub struct Cli {
    /// How to print: tables are for people, the others for programs
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "table|json|yaml",
        // After what a verb has of its own.
        display_order = 900,
        hide_possible_values = true
    )]
    output: Format,
    #[command(flatten)]
    target: Target,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One pipeline on one screen
    #[command(after_help = "Examples:
  kubectl lookback status -n detections -p edr
  kubectl lookback status --watch
  kubectl lookback status -o json")]
    Status(status::Args),
    /// Alerts: list, show, move, watch, count
    #[command(subcommand)]
    Alerts(alerts::Command),
    /// Dead letters: list, show, redrive, discard
    #[command(subcommand)]
    Dlq(dlq::Command),
    /// Replays: plan, approve, history
    #[command(subcommand)]
    Replay(replay::Command),
    /// Sigma rules without a cluster: lint, explain, test
    #[command(subcommand)]
    Rules(rules::Command),
    /// The state of a pipeline's worker
    #[command(subcommand)]
    State(state::Command),
    /// What was done to a pipeline and by whom
    #[command(after_help = "Examples:
  kubectl lookback audit -n detections -p edr --since 7d
  kubectl lookback audit --kind deadLetter -o json")]
    Audit(audit::Args),
    /// Collect what a bug report needs, without secrets
    #[command(after_help = "Examples:
  kubectl lookback report -n detections -p edr --logs
  kubectl lookback report --logs --tail 500 --file report.tar.gz")]
    Report(report::Args),
    /// Print the completions of a shell
    #[command(
        after_help = "These are for the name kubectl-lookback. For `kubectl lookback` put the program \
kubectl_complete-lookback, which comes with the plugin, into your PATH.

Examples:
  kubectl lookback completions bash > ~/.local/share/bash-completion/completions/kubectl-lookback
  kubectl lookback completions zsh > ~/.zfunc/_kubectl-lookback
  kubectl lookback completions fish > ~/.config/fish/completions/kubectl-lookback.fish"
    )]
    Completions {
        /// The shell
        shell: complete::Shell,
    },
    /// What kubectl_complete-lookback prints for kubectl
    #[command(name = "__complete", hide = true)]
    Complete {
        /// What was typed, the last word unfinished
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

impl Cli {
    /// What was typed. A program that cannot understand it says so and ends.
    #[must_use]
    pub fn typed() -> Self {
        Self::try_parse().unwrap_or_else(|error| with_tip(error).exit())
    }

    /// Runs the verb. Exit codes: 0 done, 1 failed, 2 wrong usage.
    pub async fn run(self) -> ExitCode {
        let Self {
            target,
            output,
            command,
        } = self;
        let context = Context::new(target);
        let result: anyhow::Result<()> = match command {
            Command::Status(args) => status::run(args, &context, output).await,
            Command::Alerts(command) => alerts::run(command, &context, output).await,
            Command::Dlq(command) => dlq::run(command, &context, output).await,
            Command::Replay(command) => replay::run(command, &context, output).await,
            Command::Rules(command) => rules::run(command, output),
            Command::State(command) => state::run(command, &context, output).await,
            Command::Audit(args) => audit::run(args, &context, output).await,
            Command::Report(args) => report::run(args, &context).await,
            Command::Completions { shell } => {
                let script = shell.script().as_bytes();
                io::stdout().write_all(script).map_err(Into::into)
            }
            Command::Complete { words } => complete::run(Self::command(), &words).await,
        };
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) if output::is_closed_pipe(&error) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {}", output::plain(&chain(error.as_ref())));
                match error.is::<Usage>() {
                    true => ExitCode::from(2),
                    false => ExitCode::FAILURE,
                }
            }
        }
    }
}

/// Who gives a bare name where none is taken means a pipeline, more often than not.
fn with_tip(mut error: clap::Error) -> clap::Error {
    if let (ErrorKind::UnknownArgument, Some(ContextValue::String(word))) =
        (error.kind(), error.get(ContextKind::InvalidArg))
        && !word.starts_with('-')
    {
        let tip = format!("a pipeline is named with -p: -p {word}");
        let tips = ContextValue::StyledStrs(vec![tip.into()]);
        error.insert(ContextKind::Suggested, tips);
    }
    error
}

/// The arguments cannot be meant: exit code 2.
#[derive(Debug)]
pub struct Usage(pub String);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const KREW: &str = include_str!("../deploy/krew/lookback.yaml");
    const BUILD: &str = include_str!("../tools/plugin.sh");

    #[test]
    fn the_arguments_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_bare_name_is_answered_with_how_a_pipeline_is_named() {
        let tip = |arguments: &[&str]| {
            let all = ["kubectl-lookback"].iter().chain(arguments);
            with_tip(Cli::try_parse_from(all).unwrap_err()).to_string()
        };
        let error = tip(&["status", "edr"]);
        assert!(
            error.contains("tip: a pipeline is named with -p: -p edr"),
            "{error}"
        );
        let error = tip(&["status", "--pipelin", "edr"]);
        assert!(!error.contains("is named with"), "{error}");
    }

    #[test]
    fn the_manifest_for_krew_names_every_file_of_the_archive() {
        let filled = KREW
            .replace("${VERSION}", env!("CARGO_PKG_VERSION"))
            .replace("${SHA256}", &"0".repeat(64));
        assert!(!filled.contains("${"), "{filled}");
        let manifest: Value = serde_saphyr::from_str(&filled).unwrap();
        assert_eq!(manifest["metadata"]["name"], "lookback");
        let platform = &manifest["spec"]["platforms"][0];
        assert_eq!(platform["bin"], "kubectl-lookback");
        let files = platform["files"].as_array().unwrap();
        let named: Vec<&str> = files
            .iter()
            .map(|file| file["from"].as_str().unwrap())
            .collect();
        let line = BUILD
            .lines()
            .find(|line| line.starts_with("files=("))
            .unwrap();
        let shipped = line.trim_start_matches("files=(").trim_end_matches(')');
        let shipped = shipped.replace("$built", "target/kubectl-lookback");
        let shipped: Vec<&str> = shipped
            .split_whitespace()
            .map(|path| path.rsplit('/').next().unwrap())
            .collect();
        assert_eq!(named, shipped);
    }
}
