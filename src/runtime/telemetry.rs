//! Logs go to standard error, one line each, as text for people or JSON for collectors; an error is
//! logged with its whole chain of causes.

use std::error::Error as StdError;
use std::io::{self, IsTerminal};

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

/// How to log; both programs take these flags.
#[derive(Args, Clone, Debug)]
pub struct LogArgs {
    /// Text for people, or one JSON object a line
    #[arg(
        long,
        global = true,
        env = "LOOKBACK_LOG_FORMAT",
        default_value = "plain"
    )]
    pub log_format: LogFormat,
    /// What to log, for example `info` or `info,lookback::worker=debug`
    #[arg(
        long,
        global = true,
        env = "LOOKBACK_LOG_LEVEL",
        default_value = "info"
    )]
    pub log_level: String,
}

/// The shape of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text.
    Plain,
    /// One JSON object a line.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is no filter.
    #[error("log level {given:?} is not understood; try `info` or `info,lookback=debug`")]
    Filter {
        /// What was given.
        given: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// Another subscriber is in place already.
    #[error("logging was set up twice")]
    Twice(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Sends this process's log to standard error.
///
/// # Errors
/// [`TelemetryError`], before anything is logged.
pub fn init(args: &LogArgs) -> Result<(), TelemetryError> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(&args.log_level)?)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    match args.log_format {
        LogFormat::Plain => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    }
    .map_err(TelemetryError::Twice)
}

/// An error with all its causes on one line; a cause that its effect already spells out is not
/// repeated.
#[must_use]
pub fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

fn filter(given: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::try_new(given).map_err(|source| TelemetryError::Filter {
        given: given.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_is_not_understood_is_named() {
        let error = filter("info,lookback=loud").unwrap_err().to_string();
        assert!(error.contains("info,lookback=loud"), "{error}");
    }

    #[test]
    fn targets_can_be_set_apart() {
        assert!(filter("warn,lookback::worker=debug").is_ok());
    }

    #[derive(Debug, thiserror::Error)]
    #[error("cannot apply service edr-worker")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("connection refused")]
    struct Inner;

    #[test]
    fn the_chain_names_the_operation_and_every_cause() {
        let text = chain(&Outer(Inner));
        assert_eq!(text, "cannot apply service edr-worker: connection refused");
    }

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read: {0}")]
    struct Repeats(#[source] Inner);

    #[test]
    fn a_cause_that_is_spelled_out_already_is_not_repeated() {
        assert_eq!(chain(&Repeats(Inner)), "cannot read: connection refused");
    }
}
