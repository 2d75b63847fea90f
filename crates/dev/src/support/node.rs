//! A full local cluster: real kubelet, containerd and pods, and a NATS server beside them. Needs root.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::Value;

use super::binary;

/// A running cluster; dropped, it is taken down, and it also ends with this process.
#[derive(Debug)]
pub struct Node {
    name: String,
    localcluster: PathBuf,
    facts: Facts,
}

/// Where a cluster is found.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Facts {
    /// Of the host.
    pub kubeconfig: PathBuf,
    /// NATS, from the host.
    pub nats_url: String,
    /// NATS, from pods.
    pub nats_pod_url: String,
    /// Where NATS keeps its data.
    pub nats_store_dir: PathBuf,
}

impl Node {
    /// Starts the cluster `name` with a NATS server; one of that name that runs is taken down first.
    ///
    /// # Errors
    /// When it does not come up; its own message says why.
    pub fn up(name: &str) -> Result<Self> {
        let localcluster = binary("localcluster")?;
        let command = |arguments: &[&str]| {
            let mut command = Command::new(&localcluster);
            command.args(arguments);
            run(&mut command)
        };
        command(&["down", "--name", name])?;
        let pid = std::process::id().to_string();
        let facts = command(&["up", "--name", name, "--nats", "--while", &pid, "--json"])?;
        let facts = serde_json::from_str(&facts).context("read the facts of localcluster up")?;
        Ok(Self {
            name: name.to_owned(),
            localcluster,
            facts,
        })
    }

    /// Where it is found.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Makes the image in `archive` known to the node.
    ///
    /// # Errors
    /// When the node refuses it.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        let archive = archive.to_str().context("a path in UTF-8")?;
        self.localcluster("load-image", &[archive]).map(drop)
    }

    /// Starts, stops, kills (SIGKILL) or restarts NATS; its data stay.
    ///
    /// # Errors
    /// When it does not.
    pub fn nats(&self, verb: &str) -> Result<()> {
        self.localcluster("nats", &[verb]).map(drop)
    }

    /// Runs a command on the node, in its network and process namespaces; an error says what it printed.
    fn exec(&self, command: &[&str]) -> Result<String> {
        let mut arguments = vec!["--"];
        arguments.extend(command);
        self.localcluster("exec", &arguments)
    }

    /// Runs kubectl and gives what it printed.
    ///
    /// # Errors
    /// When it fails, with what it printed.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.localcluster("kubectl", arguments)
    }

    /// An object as JSON.
    ///
    /// # Errors
    /// When there is none.
    pub fn get(&self, namespace: &str, kind: &str, name: &str) -> Result<Value> {
        let text = self.kubectl(&["-n", namespace, "get", kind, name, "-o", "json"])?;
        serde_json::from_str(&text).with_context(|| format!("read {kind} {namespace}/{name}"))
    }

    /// Applies manifests.
    ///
    /// # Errors
    /// When the API server refuses one.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        let mut command = self.command("kubectl", &["apply", "-f", "-"]);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start kubectl apply")?;
        let mut input = child.stdin.take().context("a pipe to kubectl")?;
        input
            .write_all(manifests.as_bytes())
            .context("write to kubectl apply")?;
        drop(input);
        let output = child.wait_with_output().context("wait for kubectl apply")?;
        read("kubectl apply", &output).map(drop)
    }

    /// Kills (SIGKILL) the first container of a pod.
    ///
    /// # Errors
    /// When the pod has no running container.
    pub fn kill(&self, namespace: &str, pod: &str) -> Result<()> {
        let pod = self.get(namespace, "pod", pod)?;
        let id = pod["status"]["containerStatuses"][0]["containerID"].as_str();
        let id = id.and_then(|id| id.strip_prefix("containerd://"));
        let id = id.context("the pod has no container")?;
        self.exec(&["ctr", "tasks", "kill", "--signal", "SIGKILL", id])
            .map(drop)
    }

    fn localcluster(&self, verb: &str, arguments: &[&str]) -> Result<String> {
        run(&mut self.command(verb, arguments))
    }

    fn command(&self, verb: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.localcluster);
        command.args([verb, "--name", &self.name]).args(arguments);
        command
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = self.localcluster("down", &[]) {
            tracing::warn!(cluster = %self.name, %error, "The cluster was not taken down");
        }
    }
}

fn run(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("start {command:?}"))?;
    read(&format!("{command:?}"), &output)
}

fn read(what: &str, output: &Output) -> Result<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{what} failed ({}): {} {}",
            output.status,
            text.trim(),
            errors.trim()
        );
    }
    Ok(text.into_owned())
}
