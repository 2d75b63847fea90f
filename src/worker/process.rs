//! The worker as a process: files, connection, admin server and signals around [`run`], and the
//! termination message after it.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use jiff::Timestamp;
use lookback_engine::RuleFile;
use lookback_protocol::config::{RuleFileRef, WorkerConfig};
use lookback_protocol::termination::{ExitReason, TerminationMessage};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use uuid::Uuid;

use crate::nats::checkpoint::JetStreamCheckpoints;
use crate::nats::connect::{ConnectError, Nats, Options, Target};
use crate::nats::log::JetStreamLog;
use crate::nats::outbox::JetStreamOutbox;
use crate::runtime::admin::{self, AdminError, Readiness};
use crate::runtime::telemetry::chain;
use crate::runtime::{metrics, shutdown};

use super::metrics::Metrics;
use super::patience::{Patience, Shutdown, waits_for};
use super::ports::Unavailable;
use super::run::{Deps, Gates, drained, run};
use super::stop::{Ending, Stop};

/// The state file's name in its directory.
const STATE_FILE: &str = "state.db";

/// The flags of a worker.
#[derive(Args, Clone, Debug)]
pub struct WorkerArgs {
    /// The configuration that the operator wrote
    #[arg(long)]
    config: PathBuf,
    /// The directory of the state file
    #[arg(long, default_value = "/var/lib/lookback")]
    state_dir: PathBuf,
    /// The name under which alerts are written
    #[arg(long, env = "POD_NAME", default_value = "worker")]
    pod: String,
    /// Where /live, /ready and /metrics are served
    #[arg(long, default_value = "0.0.0.0:8080")]
    admin_address: SocketAddr,
    /// Where the reason of the end is written
    #[arg(long, default_value = "/dev/termination-log")]
    termination_log: PathBuf,
}

/// What a process needs before there can be a worker.
#[derive(Debug, thiserror::Error)]
pub(super) enum SetupError {
    #[error("cannot read the configuration {path}")]
    ReadConfig { path: PathBuf, source: io::Error },
    #[error("cannot use the configuration {path}")]
    ParseConfig {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("cannot read rule file {name} at {path}")]
    ReadRules {
        name: String,
        path: String,
        source: io::Error,
    },
    #[error("cannot handle signals")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Connect(ConnectError),
}

impl SetupError {
    pub(super) fn reason(&self) -> ExitReason {
        match self {
            Self::ReadConfig { .. }
            | Self::ParseConfig { .. }
            | Self::ReadRules { .. }
            | Self::Admin(_)
            | Self::Connect(_) => ExitReason::BadConfig,
            Self::Signals(_) => ExitReason::Internal,
        }
    }
}

/// Works until SIGTERM comes or the worker must stop; writes why to the termination log.
pub async fn main(args: &WorkerArgs) -> ExitReason {
    let message = match work(args).await {
        Ok(message) => message,
        Err(Ending::Drain) => drained("nothing was read"),
        Err(Ending::Stop(stop)) => stop.into_message(),
    };
    tell(&message, &args.termination_log);
    message.reason
}

async fn work(args: &WorkerArgs) -> Result<TerminationMessage, Ending> {
    let signal = shutdown::on_signal().map_err(SetupError::Signals)?;
    let config = read_config(&args.config)?;
    let rule_files = read_rules(&config.rules.files)?;
    let mut registry = metrics::registry();
    let metrics = Metrics::register(&mut registry);
    let readiness = Readiness::default();
    let gates = Gates::new(&readiness);
    let listener = admin::bind(args.admin_address)
        .await
        .map_err(SetupError::Admin)?;
    let ended = CancellationToken::new();
    let until = ended.clone().cancelled_owned();
    let server = tokio::spawn(admin::serve(listener, Arc::new(registry), readiness, until));

    let nats = connect(&config, &gates, signal.clone()).await?;
    let key = &config.owner.pipeline;
    let source = &config.source;
    let deps = Deps {
        log: JetStreamLog::new(nats.clone(), &*source.stream.name, &*source.consumer),
        outbox: JetStreamOutbox::new(nats.clone(), key.clone()),
        checkpoints: JetStreamCheckpoints::new(nats, key, config.partition),
        rule_files,
        state_file: args.state_dir.join(STATE_FILE),
        pod: args.pod.clone(),
        incarnation: Uuid::now_v7().to_string(),
        metrics,
        clock: Arc::new(Timestamp::now),
        gates,
        config,
    };
    let message = run(deps, signal.cancelled_owned()).await;
    ended.cancel();
    match server.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => error!(error = chain(&error), "Admin server failed"),
        Err(error) => error!(error = chain(&error), "Admin server panicked"),
    }
    Ok(message)
}

fn read_config(path: &Path) -> Result<WorkerConfig, SetupError> {
    let bytes = std::fs::read(path).map_err(|source| SetupError::ReadConfig {
        path: path.to_owned(),
        source,
    })?;
    serde_json::from_slice(&bytes).map_err(|source| SetupError::ParseConfig {
        path: path.to_owned(),
        source,
    })
}

fn read_rules(files: &[RuleFileRef]) -> Result<Vec<RuleFile>, SetupError> {
    let read = |file: &RuleFileRef| {
        let RuleFileRef { name, path } = file.clone();
        match std::fs::read(&path) {
            Ok(bytes) => Ok(RuleFile { name, bytes }),
            Err(source) => Err(SetupError::ReadRules { name, path, source }),
        }
    };
    files.iter().map(read).collect()
}

/// Connects; a server that is not there yet, or not fit yet, is waited for.
async fn connect(
    config: &WorkerConfig,
    gates: &Gates,
    signal: CancellationToken,
) -> Result<Nats, Ending> {
    let target = Target::from(&config.nats);
    let options = Options::named(format!("lookback worker {}", config.owner.pipeline));
    let mut shutdown = Shutdown::new(signal.cancelled_owned());
    let mut patience = Patience::new();
    loop {
        match Nats::connect(&target, &options).await {
            Ok(nats) => return Ok(nats),
            Err(
                error @ (ConnectError::Unreachable { .. }
                | ConnectError::JetStreamMissing { .. }
                | ConnectError::ServerTooOld { .. }
                | ConnectError::Account { .. }),
            ) => {
                let error = Unavailable {
                    operation: "connect",
                    object: target.urls.join(", "),
                    source: error.into(),
                };
                gates.consumer.close(&waits_for(&error));
                patience.wait(error, &mut shutdown).await?;
            }
            Err(error) => return Err(Stop::Setup(SetupError::Connect(error)).into()),
        }
    }
}

/// Kubernetes keeps what stands in the file; the operator reads it from the pod's status.
fn tell(message: &TerminationMessage, termination_log: &Path) {
    let TerminationMessage {
        v: _,
        reason,
        message: text,
        facts,
    } = message;
    match reason {
        ExitReason::Drained => info!(?reason, message = text, "Worker ended"),
        _ => error!(?reason, message = text, ?facts, "Worker ended"),
    }
    if let Err(error) = std::fs::write(termination_log, message.to_json()) {
        let path = termination_log.display();
        error!(%path, error = chain(&error), "Termination message not written");
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn args(directory: &TempDir) -> WorkerArgs {
        WorkerArgs {
            config: directory.path().join("config.json"),
            state_dir: directory.path().to_owned(),
            pod: "edr-0".to_owned(),
            admin_address: ([127, 0, 0, 1], 0).into(),
            termination_log: directory.path().join("termination-log"),
        }
    }

    async fn ended(args: &WorkerArgs) -> TerminationMessage {
        let reason = main(args).await;
        let written = std::fs::read(&args.termination_log).unwrap();
        let message: TerminationMessage = serde_json::from_slice(&written).unwrap();
        assert_eq!(message.reason, reason);
        message
    }

    #[tokio::test]
    async fn a_missing_configuration_is_named() {
        let directory = TempDir::new().unwrap();
        let args = args(&directory);
        let message = ended(&args).await;
        assert_eq!(message.reason, ExitReason::BadConfig);
        let path = args.config.display().to_string();
        assert!(message.message.contains(&path), "{message:?}");
    }

    #[tokio::test]
    async fn a_configuration_that_cannot_be_parsed_is_named() {
        let directory = TempDir::new().unwrap();
        let args = args(&directory);
        std::fs::write(&args.config, r#"{"v":1}"#).unwrap();
        let message = ended(&args).await;
        assert_eq!(message.reason, ExitReason::BadConfig);
        assert!(message.message.contains("missing field"), "{message:?}");
    }

    #[tokio::test]
    async fn a_rule_file_that_is_not_mounted_is_named() {
        let directory = TempDir::new().unwrap();
        let args = args(&directory);
        let config = crate::worker::fakes::config();
        std::fs::write(&args.config, serde_json::to_vec(&config).unwrap()).unwrap();
        let message = ended(&args).await;
        assert_eq!(message.reason, ExitReason::BadConfig);
        assert!(message.message.contains("rules/process.yml"), "{message:?}");
    }
}
