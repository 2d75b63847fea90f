//! The real program as a child process, from its start until the last event is committed.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use lookback_protocol::position::StreamSeq;
use tokio::process::{Child, Command};

use super::page::{Histogram, Page, get};
use super::process;
use super::stage::Pipeline;
use crate::support::{eventually, ports};

const START: Duration = Duration::from_secs(120);
const WORK: Duration = Duration::from_secs(1800);
const LAST_LINES: usize = 10;

/// What a worker took.
#[derive(Clone, Debug)]
pub(super) struct Work {
    pub(super) events: u64,
    /// From the start of the process until it reads events: rules, state file, NATS.
    pub(super) start: Duration,
    /// From then until the last event is committed.
    pub(super) wall: Duration,
    /// CPU time of all threads within `wall`.
    pub(super) cpu: Duration,
    /// Resident bytes at most, start included.
    pub(super) peak_memory: u64,
    /// Decoding, detection and correlation of a batch.
    pub(super) apply: Histogram,
    /// Transactions of the state file.
    pub(super) commit: Histogram,
}

/// A worker that ends with its value.
struct Running<'a> {
    child: Child,
    admin: SocketAddr,
    directory: &'a Path,
}

/// Runs `program` on a new pipeline until it has committed `last`.
pub(super) async fn measure(program: &Path, pipeline: &Pipeline, last: StreamSeq) -> Result<Work> {
    let began = Instant::now();
    let mut running = Running::start(program, pipeline)?;
    running.until(START, "/ready", |_| Ok(())).await?;
    let (start, pid) = (began.elapsed(), running.pid()?);
    let (began, cpu) = (Instant::now(), process::cpu(pid)?);
    let done = |page: &Page| {
        let position = page.value("lookback_worker_position")?;
        ensure!(position >= last.0 as f64, "it stands at {position}");
        Ok(())
    };
    let page = running.until(WORK, "/metrics", done).await?;
    Ok(Work {
        events: page.value("lookback_worker_events_total")? as u64,
        start,
        wall: began.elapsed(),
        cpu: process::cpu(pid)? - cpu,
        peak_memory: process::peak_memory(pid)?,
        apply: page.histogram("lookback_worker_batch_seconds")?,
        commit: page.histogram("lookback_worker_commit_seconds")?,
    })
}

impl<'a> Running<'a> {
    fn start(program: &Path, pipeline: &'a Pipeline) -> Result<Self> {
        let directory = pipeline.directory();
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free_port()?));
        let log = File::create(log(directory)).context("create the worker's log")?;
        let child = Command::new(program)
            .arg("worker")
            .arg("--config")
            .arg(pipeline.config())
            .arg("--state-dir")
            .arg(directory)
            .arg("--termination-log")
            .arg(directory.join("termination-log"))
            .args(["--admin-address", &admin.to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the worker's log")?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        Ok(Self {
            child,
            admin,
            directory,
        })
    }

    fn pid(&self) -> Result<u32> {
        self.child.id().context("the worker has ended")
    }

    /// Asks for a page until `probe` accepts it.
    async fn until(
        &mut self,
        deadline: Duration,
        path: &str,
        probe: impl Fn(&Page) -> Result<()>,
    ) -> Result<Page> {
        let (child, admin) = (&mut self.child, self.admin);
        let page = eventually(deadline, path, async || {
            if child.try_wait()?.is_some() {
                return Ok(None);
            }
            let page = get(admin, path).await?;
            probe(&page)?;
            Ok(Some(page))
        })
        .await;
        match page {
            Ok(Some(page)) => Ok(page),
            Ok(None) => bail!("the worker ended: {}", self.last_log()),
            Err(error) => Err(error).with_context(|| format!("the worker: {}", self.last_log())),
        }
    }

    fn last_log(&self) -> String {
        let text = fs::read_to_string(log(self.directory)).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
    }
}

fn log(directory: &Path) -> std::path::PathBuf {
    directory.join("worker.log")
}
