//! The worker as the process it is in a pod: its arguments, its signals, and what it leaves behind.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lookback_dev::support::{eventually, ports};
use lookback_protocol::termination::TerminationMessage;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// For everything that a worker does by itself, back-offs and repeated resets included. It only ends a
/// test that hangs.
const DEADLINE: Duration = Duration::from_secs(180);

/// A worker process; killed when dropped.
pub(crate) struct Process {
    child: Child,
    admin: SocketAddr,
    files: TempDir,
}

/// How a process ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// What it wrote to its termination log; empty when nothing.
    pub(crate) said: String,
}

impl Ended {
    /// What it wrote, when that is a termination message.
    pub(crate) fn message(&self) -> Option<TerminationMessage> {
        serde_json::from_str(&self.said).ok()
    }

    /// As a container runtime reports it: 137 for SIGKILL.
    pub(crate) fn exit_code(&self) -> i32 {
        let signal = self.status.signal().unwrap_or_default();
        self.status.code().unwrap_or(128 + signal)
    }
}

impl Process {
    /// Runs the program with `arguments` and its state in `state_dir`. The arguments may name what is
    /// in `files`, which lives as long as the process.
    pub(crate) fn start(files: TempDir, arguments: &[String], state_dir: &Path) -> Result<Self> {
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free_port()?));
        let log = File::create(files.path().join("log"))?;
        let child = Command::new(env!("CARGO_BIN_EXE_lookback"))
            .args(arguments)
            .arg("--state-dir")
            .arg(state_dir)
            .arg("--admin-address")
            .arg(admin.to_string())
            .arg("--termination-log")
            .arg(files.path().join("termination-log"))
            .env("POD_NAME", "edr-0")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start the worker")?;
        Ok(Self {
            child,
            admin,
            files,
        })
    }

    /// `kill -9`. An error when it had ended by itself.
    pub(crate) fn kill(mut self) -> Result<Ended> {
        if let Some(ended) = self.try_ended()? {
            let status = ended.status;
            anyhow::bail!("it ended before it was killed, {status}: {}", self.log());
        }
        self.child.kill()?;
        let status = self.child.wait()?;
        ensure!(status.signal() == Some(9), "{status}");
        self.end(status)
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) -> Result<()> {
        self.signal("-TERM")
    }

    /// SIGSTOP: not one instruction more until [`Self::thaw`].
    pub(crate) async fn freeze(&self) -> Result<()> {
        self.signal("-STOP")?;
        let tasks = format!("/proc/{}/task", self.child.id());
        eventually(DEADLINE, "every thread stands", async || {
            for task in fs::read_dir(&tasks)? {
                let stat = fs::read_to_string(task?.path().join("stat"))?;
                // The name before the state may hold anything, parentheses included.
                let state = stat.rsplit(')').next().unwrap_or_default().trim_start();
                let stands = state.starts_with(['T', 't', 'Z', 'X']);
                ensure!(stands, "a thread is in state {state}");
            }
            Ok(())
        })
        .await
    }

    /// SIGCONT.
    pub(crate) fn thaw(&self) -> Result<()> {
        self.signal("-CONT")
    }

    /// How it ended, if it has.
    pub(crate) fn try_ended(&mut self) -> Result<Option<Ended>> {
        let status = self.child.try_wait()?;
        status.map(|status| self.end(status)).transpose()
    }

    /// Waits until it ends and has said why.
    pub(crate) async fn ended(mut self) -> Result<(ExitStatus, TerminationMessage)> {
        let ended = eventually(2 * DEADLINE, "the process ends", async || {
            self.try_ended()?.context("it runs")
        })
        .await
        .with_context(|| self.log())?;
        Ok((ended.status, serde_json::from_str(&ended.said)?))
    }

    /// Waits until everything up to `sequence` is committed.
    pub(crate) async fn applied(&self, sequence: u64) -> Result<()> {
        eventually(DEADLINE, "the events are applied", async || {
            let position = self.metric("lookback_worker_position").await?;
            ensure!(position >= sequence, "it stands at {position}");
            Ok(())
        })
        .await
        .with_context(|| self.log())
    }

    pub(crate) async fn metric(&self, name: &str) -> Result<u64> {
        let page = self.get("/metrics").await?;
        let value = page
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
            .with_context(|| format!("no {name} in {page}"))?;
        Ok(value.parse()?)
    }

    /// The whole answer, status line first.
    pub(crate) async fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.admin).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// Waits until `path` is answered with `status` and a body that holds `text`.
    pub(crate) async fn answers(&self, path: &str, status: &str, text: &str) -> Result<()> {
        eventually(DEADLINE, path, async || {
            let answer = self.get(path).await?;
            ensure!(
                answer.starts_with(&format!("HTTP/1.1 {status}")),
                "{answer}"
            );
            ensure!(answer.contains(text), "{answer}");
            Ok(())
        })
        .await
        .with_context(|| self.log())
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.files.path().join("log")).unwrap_or_default()
    }

    fn signal(&self, name: &str) -> Result<()> {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([name, &pid]).status()?;
        ensure!(status.success(), "kill: {status}");
        Ok(())
    }

    fn end(&self, status: ExitStatus) -> Result<Ended> {
        let log = self.files.path().join("termination-log");
        let said = match fs::read_to_string(log) {
            Ok(said) => said,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error.into()),
        };
        Ok(Ended { status, said })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
