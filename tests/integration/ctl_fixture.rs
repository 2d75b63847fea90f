//! The plugin as people run it: the real binary, beside an API server and NATS.

use std::path::PathBuf;
use std::process::{Output, Stdio};

use anyhow::{Context, Result, ensure};
use lookback::api::status::Phase;
use lookback_dev::support::ApiServer;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::operator_fixture::{SOON, World};
use crate::stand::Stand;

/// An event that is an alert of a detection.
pub(crate) const ALARM: &str = r#"{"kind":"alarm"}"#;

/// Runs `kubectl-lookback` in one namespace.
#[derive(Clone, Debug)]
pub(crate) struct Plugin {
    pub(crate) kubeconfig: PathBuf,
    pub(crate) namespace: String,
}

/// What a run printed.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A run that goes on until it is interrupted.
pub(crate) struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Plugin {
    /// With all rights.
    pub(crate) async fn of(world: &World) -> Result<Self> {
        Ok(Self {
            kubeconfig: ApiServer::shared().await?.kubeconfig().to_owned(),
            namespace: world.namespace.clone(),
        })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-lookback"));
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(["--namespace", &self.namespace])
            .args(arguments)
            .stdin(Stdio::null())
            .env_remove("KUBECONFIG")
            .kill_on_drop(true);
        for name in [
            "LOOKBACK_NATS_URL",
            "LOOKBACK_NATS_CREDS",
            "LOOKBACK_NATS_CA",
        ] {
            command.env_remove(name);
        }
        command
    }

    /// Runs it to its end, whatever that is.
    pub(crate) async fn run<'a>(&self, arguments: impl AsRef<[&'a str]>) -> Result<Ran> {
        let output = tokio::time::timeout(SOON, self.command(arguments.as_ref()).output());
        let output = output.await.context("the plugin does not end")??;
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).context("UTF-8");
        let Output {
            status,
            stdout,
            stderr,
        } = output;
        Ok(Ran {
            code: status.code(),
            stdout: text(stdout)?,
            stderr: text(stderr)?,
        })
    }

    /// What it prints when it does not fail.
    pub(crate) async fn says<'a>(&self, arguments: impl AsRef<[&'a str]>) -> Result<String> {
        let arguments = arguments.as_ref();
        let ran = self.run(arguments).await?;
        ensure!(ran.code == Some(0), "{arguments:?}: {ran:#?}");
        Ok(ran.stdout)
    }

    /// The same with `-o json`.
    pub(crate) async fn json<'a>(&self, arguments: impl AsRef<[&'a str]>) -> Result<Value> {
        let arguments = [arguments.as_ref(), &["-o", "json"]].concat();
        let output = self.command(&arguments).output().await?;
        ensure!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).context("JSON")
    }

    /// What it says on standard error when it fails.
    pub(crate) async fn fails<'a>(&self, arguments: impl AsRef<[&'a str]>) -> Result<String> {
        let arguments = arguments.as_ref();
        let ran = self.run(arguments).await?;
        ensure!(ran.code == Some(1), "{arguments:?}: {ran:#?}");
        ensure!(ran.stderr.lines().count() == 1, "{ran:#?}");
        Ok(ran.stderr)
    }

    /// Starts it, and reads what it prints line by line.
    pub(crate) fn start<'a>(&self, arguments: impl AsRef<[&'a str]>) -> Result<Running> {
        let mut child = self
            .command(arguments.as_ref())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().context("a pipe")?;
        Ok(Running {
            child,
            lines: BufReader::new(stdout).lines(),
        })
    }
}

impl Running {
    /// The next line.
    pub(crate) async fn line(&mut self) -> Result<String> {
        let line = tokio::time::timeout(SOON, self.lines.next_line());
        line.await.context("no line")??.context("it ended")
    }

    /// The next line as JSON.
    pub(crate) async fn next(&mut self) -> Result<Value> {
        serde_json::from_str(&self.line().await?).context("JSON")
    }

    /// Presses Ctrl-C; its exit code.
    pub(crate) async fn interrupt(mut self) -> Result<Option<i32>> {
        let pid = self.child.id().context("it ended")?;
        let pid = pid.to_string();
        let kill = Command::new("kill").args(["-INT", &pid]).status().await?;
        ensure!(kill.success(), "cannot interrupt {pid}");
        let ended = tokio::time::timeout(SOON, self.child.wait());
        Ok(ended.await.context("it goes on")??.code())
    }
}

/// A pipeline that runs, with so many alerts in state new.
pub(crate) async fn with_alerts(alerts: usize) -> Result<(Stand, Plugin)> {
    let mut stand = Stand::new().await?;
    stand.start_operator().await?;
    stand.apply(&stand.spec()).await?;
    stand.publish_all(ALARM, alerts).await?;
    stand.phase(Phase::Running).await?;
    stand.caught_up().await?;
    let plugin = Plugin::of(&stand.world).await?;
    Ok((stand, plugin))
}
