//! Scheduler, volume provisioner and kubelet of the one node of a [`Stand`], for one pod. The
//! StatefulSet controller, the volume binder and the garbage collector are Kubernetes' own.
//!
//! [`Stand`]: super::Stand

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::container::Container;
use super::mounts::{self, Configured, Mounts};
use super::pod_status;
use super::volumes::Volumes;
use super::{CLAIM, Hold, POD};
use crate::process_fixture::{Ended, Process};

/// A node that is silent for longer than 40 s is taken for lost.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// The kubelet's own is longer; a process that says nothing for so long is not ready.
const PROBE: Duration = Duration::from_secs(1);

pub(super) struct Puppet {
    client: Client,
    namespace: String,
    beat: Option<Instant>,
    pub(super) hold: Option<Hold>,
    /// Where workers find NATS, instead of where their configuration says.
    pub(super) route: Option<String>,
    pub(super) volumes: Volumes,
    pub(super) container: Option<Container>,
    /// Processes whose pod object is gone, asked to end.
    leaving: Vec<Process>,
    /// Every configuration that was mounted, the first of each engine digest.
    pub(super) configured: Vec<Configured>,
    pub(super) ended: Vec<Ended>,
    pub(super) journal: Vec<String>,
}

impl Puppet {
    pub(super) async fn new(client: Client, namespace: &str) -> Result<Self> {
        let node: Node = serde_json::from_value(json!({"metadata": {"name": namespace}}))?;
        Api::all(client.clone())
            .create(&PostParams::default(), &node)
            .await?;
        Ok(Self {
            client,
            namespace: namespace.to_owned(),
            beat: None,
            hold: None,
            route: None,
            volumes: Volumes::new()?,
            container: None,
            leaving: Vec::new(),
            configured: Vec::new(),
            ended: Vec::new(),
            journal: Vec::new(),
        })
    }

    pub(super) fn note(&mut self, what: impl Into<String>) {
        let what = what.into();
        let last = self.journal.last().and_then(|line| line.split_once(' '));
        if last.is_none_or(|(_, last)| last != what) {
            self.journal.push(format!("{} {what}", Timestamp::now()));
        }
    }

    /// One look at the pod and the process, and the next step for each.
    pub(super) async fn sync(&mut self) -> Result<()> {
        self.heartbeat().await?;
        self.leaving
            .retain_mut(|process| matches!(process.try_ended(), Ok(None)));
        if self.hold == Some(Hold::LostNode) {
            return Ok(());
        }
        let volume = self.provide().await?;
        let found = self.pods().get_opt(POD).await?;
        let uid = found.as_ref().and_then(ResourceExt::uid);
        if self.container.as_ref().map(|it| &it.uid) != uid.as_ref() {
            self.evict()?;
        }
        let Some(pod) = found else { return Ok(()) };
        let spec = pod.spec.as_ref().context("a pod without spec")?;
        if spec.node_name.is_none() {
            return self.schedule(&pod).await;
        }
        if self.container.is_none() {
            let image = mounts::image(spec).to_owned();
            self.container = Some(Container::new(uid.context("a pod without uid")?, image));
        }
        if let Some(container) = &mut self.container {
            container.volume = volume.or_else(|| container.volume.take());
        }
        self.observe().await?;
        if pod.metadata.deletion_timestamp.is_some() {
            self.terminate(&pod).await
        } else {
            self.run(&pod).await
        }
    }

    /// The process of the container was killed, or ended by itself.
    pub(super) fn stopped(&mut self, ended: Ended) {
        let code = ended.exit_code();
        self.note(format!("the worker ended with {code}: {}", ended.said));
        self.ended.push(ended.clone());
        if let Some(container) = &mut self.container {
            container.stopped(ended);
        }
    }

    pub(super) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Deletes the pod object at once, as the kubelet does last.
    pub(super) async fn remove_pod(&mut self) -> Result<()> {
        let uid = self
            .container
            .as_ref()
            .map(|container| container.uid.clone());
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid,
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        self.pods().delete(POD, &parameters).await?;
        self.note("the pod is removed");
        Ok(())
    }

    async fn heartbeat(&mut self) -> Result<()> {
        if self.beat.is_some_and(|beat| beat.elapsed() < HEARTBEAT) {
            return Ok(());
        }
        let ready = json!({
            "type": "Ready", "status": "True", "reason": "KubeletReady",
            "lastHeartbeatTime": Timestamp::now(),
        });
        let patch = Patch::Merge(json!({"status": {"conditions": [ready]}}));
        Api::<Node>::all(self.client.clone())
            .patch_status(&self.namespace, &PatchParams::default(), &patch)
            .await?;
        self.beat = Some(Instant::now());
        Ok(())
    }

    /// The pod object is gone, or another one: what ran for it is asked to end.
    fn evict(&mut self) -> Result<()> {
        let gone = self.container.take();
        if let Some(process) = gone.and_then(|container| container.process) {
            process.thaw()?;
            process.terminate()?;
            self.note("the pod went while its worker ran");
            self.leaving.push(process);
        }
        Ok(())
    }

    /// The volume of the claim, as soon as it has one; a claim that is in use stays what it is.
    async fn provide(&mut self) -> Result<Option<PathBuf>> {
        let container = self.container.as_ref();
        if container.is_some_and(|it| it.volume.is_some()) {
            return Ok(None);
        }
        let claims = Api::<PersistentVolumeClaim>::namespaced(self.client.clone(), &self.namespace);
        match claims.get_opt(CLAIM).await? {
            Some(claim) => self.volumes.provide(&claim, &self.client).await,
            None => Ok(None),
        }
    }

    async fn schedule(&mut self, pod: &Pod) -> Result<()> {
        if self.hold == Some(Hold::Unschedulable) {
            let said = pod.status.as_ref().and_then(|it| it.conditions.as_ref());
            if said.is_none_or(Vec::is_empty) {
                self.write(&pod_status::unschedulable()).await?;
                self.note("no node for the pod");
            }
            return Ok(());
        }
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": {"name": POD},
            "target": {"apiVersion": "v1", "kind": "Node", "name": self.namespace},
        });
        self.pods()
            .create_subresource::<Value, Value>("binding", POD, &PostParams::default(), &binding)
            .await?;
        self.note("the pod is bound to the node");
        Ok(())
    }

    /// What the process came to since the last look.
    async fn observe(&mut self) -> Result<()> {
        let Some(container) = &mut self.container else {
            return Ok(());
        };
        let Some(process) = &mut container.process else {
            return Ok(());
        };
        if let Some(ended) = process.try_ended()? {
            self.stopped(ended);
            return Ok(());
        }
        let answer = tokio::time::timeout(PROBE, process.get("/ready"));
        let is_ready = !container.is_frozen
            && matches!(answer.await, Ok(Ok(answer)) if answer.starts_with("HTTP/1.1 200"));
        container.is_ready = is_ready;
        Ok(())
    }

    /// Towards a running container.
    async fn run(&mut self, pod: &Pod) -> Result<()> {
        let hold = self.hold;
        let waits = |container: &Container| {
            container.process.is_some()
                || Instant::now() < container.next_start
                || hold == Some(Hold::Image)
        };
        let started = if self.container.as_ref().is_some_and(waits) {
            Ok(())
        } else {
            self.start(pod).await
        };
        self.report().await?;
        started
    }

    async fn start(&mut self, pod: &Pod) -> Result<()> {
        let container = self.container.as_mut().context("no container")?;
        if container.mounts.is_none() {
            let config_maps = Api::namespaced(self.client.clone(), &self.namespace);
            container.mounts = Some(Mounts::read(pod, &config_maps).await?);
        }
        let Some((mounts, volume)) = container.mounts.as_ref().zip(container.volume.as_ref())
        else {
            return Ok(());
        };
        let (files, arguments) = mounts.write(self.route.as_deref())?;
        let process = Process::start(files, &arguments, volume)?;
        let configured = mounts.configured.clone();
        container.started = Timestamp::now();
        container.process = Some(process);
        container.restarts += u32::from(container.last.is_some());
        let (epoch, digest) = (
            configured.config.epoch,
            configured.config.rules.engine_digest.clone(),
        );
        let known = |it: &Configured| it.config.rules.engine_digest == digest;
        if !self.configured.iter().any(known) {
            self.configured.push(configured);
        }
        self.note(format!("a worker of epoch {epoch} is started"));
        Ok(())
    }

    /// Towards a container that has ended and a pod object that is gone.
    async fn terminate(&mut self, pod: &Pod) -> Result<()> {
        let deadline = pod.metadata.deletion_timestamp.as_ref().map(|time| time.0);
        let is_late = deadline.is_some_and(|deadline| deadline < Timestamp::now());
        let container = self.container.as_mut().context("no container")?;
        let is_asked = std::mem::replace(&mut container.is_terminating, true);
        if is_late && let Some(process) = container.process.take() {
            let ended = process.kill()?;
            self.stopped(ended);
        } else if !is_asked && let Some(process) = &container.process {
            process.terminate()?;
            self.note("the pod is deleted, its worker is asked to end");
        }
        self.report().await?;
        let runs = self
            .container
            .as_ref()
            .is_some_and(|it| it.process.is_some());
        if runs {
            Ok(())
        } else {
            self.remove_pod().await
        }
    }

    /// Writes what the container's pod is to say.
    async fn report(&mut self) -> Result<()> {
        let hold = self.hold;
        let status = self.container.as_ref().map(|it| it.status(hold));
        match status {
            Some(status) => self.write(&status).await,
            None => Ok(()),
        }
    }

    /// Writes the pod's status, unless it stands there already.
    async fn write(&mut self, status: &Value) -> Result<()> {
        let written = self.container.as_ref().and_then(|it| it.written.as_ref());
        if written == Some(status) {
            return Ok(());
        }
        let patch = Patch::Merge(json!({"status": status}));
        self.pods()
            .patch_status(POD, &PatchParams::default(), &patch)
            .await?;
        if let Some(container) = &mut self.container {
            container.written = Some(status.clone());
        }
        Ok(())
    }
}
