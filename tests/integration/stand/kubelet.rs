//! What a test does to the node, the worker's process and the volume.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kube::Client;
use lookback_dev::support::eventually;
use lookback_protocol::termination::ExitReason;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use super::mounts::Configured;
use super::puppet::Puppet;
use super::volumes::{self, Snapshot};
use crate::operator_fixture::SOON;
use crate::process_fixture::{Ended, Process};

/// How often the puppet looks at its pod; a real kubelet has a watch.
const INTERVAL: Duration = Duration::from_millis(50);

/// What the node does not do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// A pod that has no node yet finds none.
    Unschedulable,
    /// A container that does not run is not started: its image cannot be pulled.
    Image,
    /// Nobody hears of the node: what runs there runs on, a pod that is deleted stays Terminating,
    /// and a new one finds no node.
    LostNode,
}

/// The node, on which workers run as processes. It ends with this value.
///
/// Every verb is one step: nothing is started, restarted or removed in the midst of it.
pub(crate) struct Kubelet {
    puppet: Arc<Mutex<Puppet>>,
    task: JoinHandle<()>,
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Kubelet {
    pub(super) async fn new(client: Client, namespace: &str) -> Result<Self> {
        let puppet = Arc::new(Mutex::new(Puppet::new(client, namespace).await?));
        let shared = Arc::clone(&puppet);
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let mut puppet = shared.lock().await;
                if let Err(error) = puppet.sync().await {
                    puppet.note(format!("failed: {error:#}"));
                }
            }
        });
        Ok(Self { puppet, task })
    }

    /// SIGKILL, as soon as a worker runs. The kubelet starts it again, after a growing back-off.
    pub(crate) async fn kill(&self) -> Result<()> {
        eventually(SOON, "a worker to kill", async || {
            let killed = Self::kill_running(&mut *self.puppet.lock().await)?;
            ensure!(killed, "none runs");
            Ok(())
        })
        .await
    }

    /// SIGSTOP: the worker stands still, with its connections, until it is thawed or ends.
    pub(crate) async fn freeze(&self) -> Result<()> {
        eventually(SOON, "a worker to freeze", async || {
            let mut puppet = self.puppet.lock().await;
            let container = puppet.container.as_mut().context("no pod")?;
            container
                .process
                .as_ref()
                .context("none runs")?
                .freeze()
                .await?;
            container.is_frozen = true;
            Ok(())
        })
        .await
    }

    /// SIGCONT.
    pub(crate) async fn thaw(&self) -> Result<()> {
        let mut puppet = self.puppet.lock().await;
        let container = puppet.container.as_mut().context("no pod")?;
        container.process.as_ref().context("none runs")?.thaw()?;
        container.is_frozen = false;
        Ok(())
    }

    /// See [`Hold`]; until [`Self::release`], or another hold.
    pub(crate) async fn hold(&self, hold: Hold) {
        self.puppet.lock().await.hold = Some(hold);
    }

    /// The node does everything again.
    pub(crate) async fn release(&self) {
        self.puppet.lock().await.hold = None;
    }

    /// Workers that are started from now on find NATS at `url`, such as that of a proxy which
    /// freezes or cuts at a message; `None` is what their configuration says.
    pub(crate) async fn route(&self, url: Option<String>) {
        self.puppet.lock().await.route = url;
    }

    /// Parts the worker from its pod object, which is removed at once, as when a pod of a lost node
    /// is deleted by force and its volume attached elsewhere. The worker runs on, on the volume it
    /// has; the next pod gets a copy of that.
    pub(crate) async fn zombie(&self) -> Result<Process> {
        let mut puppet = self.puppet.lock().await;
        let container = puppet.container.as_mut().context("no pod")?;
        let process = container.process.take().context("none runs")?;
        let volume = container.volume.clone().context("no volume")?;
        process.freeze().await?;
        puppet.volumes.detach(&volume)?;
        process.thaw()?;
        puppet.note("the worker is parted from its pod");
        puppet.remove_pod().await?;
        puppet.container = None;
        Ok(process)
    }

    /// The directory of the worker's volume.
    pub(crate) async fn volume(&self) -> Result<PathBuf> {
        Self::volume_of(&*self.puppet.lock().await)
    }

    /// Kills the worker, if one runs, and empties its volume.
    pub(crate) async fn lose_volume(&self) -> Result<()> {
        let mut puppet = self.puppet.lock().await;
        Self::kill_running(&mut puppet)?;
        volumes::empty(&Self::volume_of(&puppet)?)
    }

    /// A copy of the volume; a worker that runs stands still meanwhile.
    pub(crate) async fn snapshot_volume(&self) -> Result<Snapshot> {
        let puppet = self.puppet.lock().await;
        let volume = Self::volume_of(&puppet)?;
        let container = puppet.container.as_ref();
        let running = container.and_then(|it| (!it.is_frozen).then_some(it.process.as_ref()?));
        if let Some(process) = running {
            process.freeze().await?;
        }
        let copy = Snapshot::of(&volume);
        if let Some(process) = running {
            process.thaw()?;
        }
        copy
    }

    /// Kills the worker, if one runs, and puts a copy of an earlier time into its volume.
    pub(crate) async fn restore_volume(&self, copy: &Snapshot) -> Result<()> {
        let mut puppet = self.puppet.lock().await;
        Self::kill_running(&mut puppet)?;
        volumes::restore(&Self::volume_of(&puppet)?, copy)
    }

    /// How every worker ended so far, oldest first; zombies excepted.
    pub(crate) async fn terminations(&self) -> Vec<Ended> {
        self.puppet.lock().await.ended.clone()
    }

    /// Waits until a worker has ended for this reason, and gives its message.
    pub(crate) async fn terminated(&self, reason: ExitReason) -> Result<String> {
        eventually(SOON, &format!("a worker ends: {reason:?}"), async || {
            let ended = self.terminations().await;
            let mut messages = ended.iter().filter_map(Ended::message);
            let found = messages.find(|message| message.reason == reason);
            Ok(found.context("none did")?.message)
        })
        .await
    }

    /// Every configuration a worker was started with, the first of each engine digest.
    pub(crate) async fn configured(&self) -> Vec<Configured> {
        self.puppet.lock().await.configured.clone()
    }

    /// What happened on the node, a line each; and the log of the worker that runs. For people.
    pub(crate) async fn story(&self) -> String {
        let puppet = self.puppet.lock().await;
        let process = puppet.container.as_ref().and_then(|it| it.process.as_ref());
        let log = process.map_or_else(String::new, Process::log);
        format!("node:\n{}\nworker:\n{log}", puppet.journal.join("\n"))
    }

    fn kill_running(puppet: &mut Puppet) -> Result<bool> {
        let process = puppet.container.as_mut().and_then(|it| it.process.take());
        let Some(mut process) = process else {
            return Ok(false);
        };
        let ended = match process.try_ended()? {
            Some(ended) => ended,
            None => process.kill()?,
        };
        puppet.stopped(ended);
        Ok(true)
    }

    fn volume_of(puppet: &Puppet) -> Result<PathBuf> {
        let container = puppet.container.as_ref().context("no pod")?;
        container.volume.clone().context("no worker had it yet")
    }
}
