//! `kubectl lookback rules`: Sigma rules without a cluster, through the engine that workers run.
//!
//! # Layout
//! - [`files`]: paths -> rule files. [`settings`]: flags or a manifest -> what decides alerts with them.
//! - [`lint`], [`explain`]: what is wrong with rules, and what each of them needs.
//! - [`test`]: rules over a file of events; [`events`] reads it, [`expect`] compares the counts.

mod events;
mod expect;
mod explain;
mod files;
mod lint;
mod settings;
mod test;

use super::output::Format;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Compile rules as operator and worker do, and name what cannot be used
    #[command(after_help = "Exit code 1 when a document cannot be used.

Examples:
  kubectl lookback rules lint rules/ --product windows
  kubectl lookback rules lint rules/ -f pipeline.yaml --hints")]
    Lint(lint::Args),
    /// Say in words what rules need
    #[command(after_help = "Examples:
  kubectl lookback rules explain rules/ --product windows --rule \"Discovery Burst\"
  kubectl lookback rules explain rules/ -f pipeline.yaml")]
    Explain(explain::Args),
    /// Run rules over a file of events: which fire, how often, on what, and how fast
    #[command(
        after_help = "Events are taken in their order. Each counts as published at the time that it \
names itself, or at that of the event before when that is later or it names none, so every run gives the same. \
Exit code 1 when there is no event, when none can be applied, and when --expect expects something else.

Examples:
  kubectl lookback rules test rules/ --events events.ndjson --product windows
  kubectl lookback rules test rules/ --events events.ndjson -f pipeline.yaml --expect expected.yaml
  kubectl lookback rules test rules/ --events - --product windows < events.ndjson"
    )]
    Test(test::Args),
}

pub(super) fn run(command: Command, format: Format) -> anyhow::Result<()> {
    match command {
        Command::Lint(args) => lint::run(&args, format),
        Command::Explain(args) => explain::run(&args, format),
        Command::Test(args) => test::run(&args, format),
    }
}
