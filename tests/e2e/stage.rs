//! A cluster with NATS and the operator in it, a pipeline, and the oracle beside them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use jiff::SignedDuration;
use lookback::state::FileDigest;
use lookback_dev::compare::{Comparison, stored_alerts, stored_dead_letters};
use lookback_dev::events::{Plan, generate};
use lookback_dev::oracle::{self, Findings, Segment};
use lookback_dev::publish::{ensure_source_stream, publish};
use lookback_dev::support::{Node, eventually, patient};
use lookback_dev::wait::until_applied;
use lookback_engine::RuleSet;
use lookback_protocol::checkpoint::Checkpoint;
use lookback_protocol::config::WorkerConfig;
use lookback_protocol::names::PipelineKey;
use lookback_protocol::position::StreamSeq;
use serde_json::{Value, json};
use tempfile::TempDir;

/// How long anything may take here; a machine with two cores runs all of it, and others beside it. It
/// only ends a test that hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(300);
pub(crate) const NAMESPACE: &str = "detections";
pub(crate) const NAME: &str = "edr";
pub(crate) const STREAM: &str = "EVENTS";
pub(crate) const POD: &str = "edr-0";
/// The storage of a pipeline that asks for nothing else.
const STATE: &str = "  state: {storage: {size: 1Gi, accessMode: ReadWriteOnce}}\n";

pub(crate) struct Stage {
    pub(crate) node: Node,
    pub(crate) jetstream: jetstream::Context,
    pub(crate) key: PipelineKey,
    work: TempDir,
    published: u64,
    runs: Vec<Run>,
}

/// Rules that a pipeline ran, with the configuration the operator made of them.
struct Run {
    config: WorkerConfig,
    rules: Arc<RuleSet>,
}

impl Stage {
    /// Brings up a cluster of its own with the operator of this checkout in it.
    pub(crate) async fn open(name: &str) -> Result<Self> {
        let node = Node::up(&format!("e2e-{name}"))?;
        node.load_image(&checkout().join(".run/image.tar"))?;
        let overlay = checkout().join("deploy/overlays/local");
        node.kubectl(&["apply", "-k", overlay.to_str().context("a path in UTF-8")?])?;
        let rollout = [
            "rollout",
            "status",
            "deployment/lookback-operator",
            "--timeout=300s",
        ];
        node.kubectl(&[&["-n", "lookback-system"], rollout.as_slice()].concat())?;
        node.kubectl(&["create", "namespace", NAMESPACE])?;
        let client = async_nats::connect(&node.facts().nats_url)
            .await
            .context("connect")?;
        let jetstream = patient(client);
        ensure_source_stream(&jetstream, STREAM, "events.>").await?;
        let key = PipelineKey::new(NAMESPACE, NAME)?;
        let work = tempfile::tempdir()?;
        Ok(Self {
            node,
            jetstream,
            key,
            work,
            published: 0,
            runs: Vec::new(),
        })
    }

    /// Publishes the next `count` events of the plan; among them are some that are no JSON.
    pub(crate) async fn publish(&mut self, count: u64, per_second: Option<u32>) -> Result<()> {
        let plan = Plan {
            count: self.published + count,
            seed: 11,
            start: "2026-01-05T08:00:00Z".parse()?,
            step: SignedDuration::from_millis(200),
            poison: 10,
        };
        let skip = usize::try_from(self.published)?;
        publish(&self.jetstream, generate(&plan).skip(skip), per_second).await?;
        self.published += count;
        Ok(())
    }

    pub(crate) fn published(&self) -> StreamSeq {
        StreamSeq(self.published)
    }

    /// Applies the pipeline with the project's own rules; `spec` holds further lines of the spec.
    pub(crate) fn apply_pipeline(&self, spec: &str) -> Result<()> {
        self.apply_pipeline_at(&self.node.facts().nats_pod_url, spec)
    }

    /// The same with another NATS.
    pub(crate) fn apply_pipeline_at(&self, url: &str, spec: &str) -> Result<()> {
        let rules = checkout().join("deploy/examples/rules");
        let from = format!("--from-file={}", rules.display());
        let dry = ["--dry-run=client", "-o", "yaml"];
        let create = ["-n", NAMESPACE, "create", "configmap", "sigma-rules", &from];
        let manifest = self
            .node
            .kubectl(&[create.as_slice(), dry.as_slice()].concat())?;
        self.node.apply(&manifest)?;
        let state = if spec.contains("state:") { "" } else { STATE };
        self.node.apply(&format!(
            "apiVersion: lookback.dev/v1alpha1
kind: DetectionPipeline
metadata: {{name: {NAME}, namespace: {NAMESPACE}}}
spec:
  nats: {{urls: ['{url}']}}
  source: {{stream: {STREAM}, start: Earliest, logsource: {{product: windows}}}}
  rules: {{configMaps: [{{name: sigma-rules}}], processing: [sysmon]}}
{state}{spec}"
        ))
    }

    /// Waits until the pipeline has applied `through`.
    pub(crate) async fn applied(&self, through: StreamSeq) -> Result<Checkpoint> {
        until_applied(&self.jetstream, &self.key, through, DEADLINE, |_| {}).await
    }

    /// Kills the worker (SIGKILL).
    pub(crate) async fn kill_worker(&self) -> Result<()> {
        let kill = async || self.node.kill(NAMESPACE, POD);
        eventually(DEADLINE, "a worker runs and can be killed", kill).await
    }

    pub(crate) fn pipeline(&self) -> Result<Value> {
        self.node.get(NAMESPACE, "detectionpipeline", NAME)
    }

    /// Waits until a condition of the pipeline has this status and reason, and gives its message.
    pub(crate) async fn condition(&self, kind: &str, status: &str, reason: &str) -> Result<String> {
        let what = format!("{kind}={status}/{reason}");
        eventually(DEADLINE, &what, async || {
            let pipeline = self.pipeline()?;
            let conditions = pipeline["status"]["conditions"]
                .as_array()
                .context("no conditions")?;
            let condition = conditions
                .iter()
                .find(|condition| condition["type"] == kind);
            let condition = condition.with_context(|| format!("there is no {kind}"))?;
            let as_wanted = condition["status"] == status
                && (reason.is_empty() || condition["reason"] == reason);
            ensure!(as_wanted, "it is {condition}");
            Ok(condition["message"].as_str().unwrap_or_default().to_owned())
        })
        .await
    }

    /// What the newest template tells the worker.
    pub(crate) fn config(&self) -> Result<WorkerConfig> {
        let set = self.node.get(NAMESPACE, "statefulset", NAME)?;
        let volumes = set["spec"]["template"]["spec"]["volumes"]
            .as_array()
            .context("volumes")?;
        let config = volumes.iter().find(|volume| volume["name"] == "config");
        let config = config.and_then(|volume| volume["configMap"]["name"].as_str());
        let config = self
            .node
            .get(NAMESPACE, "configmap", config.context("a config volume")?)?;
        let text = config["data"]["config.json"]
            .as_str()
            .context("config.json")?;
        serde_json::from_str(text).context("read config.json")
    }

    /// Keeps the rules that the pipeline runs now for the oracle.
    pub(crate) fn remember_rules(&mut self) -> Result<()> {
        let config = self.config()?;
        let directory = self.work.path().join(self.runs.len().to_string());
        std::fs::create_dir(&directory)?;
        let source = self.node.get(NAMESPACE, "configmap", "sigma-rules")?;
        for (key, content) in source["data"].as_object().context("rules")? {
            std::fs::write(
                directory.join(key),
                content.as_str().context("a rule file")?,
            )?;
        }
        let rules = oracle::compile(&config, &directory)?;
        self.runs.push(Run { config, rules });
        Ok(())
    }

    /// Compares alerts, dead letters and windows with one uninterrupted pass over everything
    /// published. The worker must be idle: its file is copied.
    pub(crate) async fn equals_one_uninterrupted_pass(&self) -> Result<()> {
        self.applied(self.published()).await?;
        let state = self.state().await?;
        let findings = self.findings(&state).await?;
        self.stores_equal(&findings).await?;
        ensure!(
            state.state_digest == findings.state_digest,
            "the windows differ at position {}: {} groups, digest {}, the oracle's is {}",
            state.position.sequence,
            state.groups,
            state.state_digest,
            findings.state_digest
        );
        Ok(())
    }

    /// Compares alerts and dead letters alone: the windows may have another history.
    pub(crate) async fn stored_alerts_equal_one_uninterrupted_pass(&self) -> Result<()> {
        self.applied(self.published()).await?;
        let run = self.runs.first().context("remember_rules comes first")?;
        let whole = Segment::whole(&run.config, Arc::clone(&run.rules));
        let findings =
            oracle::run(&self.jetstream, &run.config, &[whole], self.published()).await?;
        self.stores_equal(&findings).await
    }

    async fn findings(&self, state: &FileDigest) -> Result<Findings> {
        let rules: Vec<_> = self.runs.iter().map(|run| Arc::clone(&run.rules)).collect();
        let run = self.runs.first().context("remember_rules comes first")?;
        let segments = oracle::lineage(state, &rules)?;
        oracle::run(&self.jetstream, &run.config, &segments, self.published()).await
    }

    async fn stores_equal(&self, findings: &Findings) -> Result<()> {
        let alerts = stored_alerts(&self.jetstream, &self.key).await?;
        let letters = stored_dead_letters(&self.jetstream, &self.key).await?;
        for comparison in [
            Comparison::new("alerts", &findings.alerts, &alerts),
            Comparison::new("dead letters", &findings.dead_letters, &letters),
        ] {
            ensure!(
                comparison.expected > 0,
                "the events were to make {}",
                comparison.what
            );
            ensure!(comparison.is_exact(), "{comparison}");
        }
        Ok(())
    }

    /// The digest of a copy of the worker's file, once it stands at the last event published.
    pub(crate) async fn state(&self) -> Result<FileDigest> {
        let position = self.published();
        let file = self.volume()?.join("state.db");
        eventually(
            DEADLINE,
            "the state file stands at the last event",
            async || {
                let copy = tempfile::tempdir()?;
                for suffix in ["", "-wal"] {
                    let from = format!("{}{suffix}", file.display());
                    let to = copy.path().join(format!("state.db{suffix}"));
                    std::fs::copy(&from, to).with_context(|| format!("copy {from}"))?;
                }
                let digest = lookback::state::digest(&copy.path().join("state.db"))?;
                let at = digest.position.sequence;
                ensure!(at == position, "it stands at {at}, not at {position}");
                Ok(digest)
            },
        )
        .await
    }

    /// Removes the state file, as a volume that comes back empty would have it.
    pub(crate) fn empty_the_volume(&self) -> Result<()> {
        for file in ["state.db", "state.db-wal", "state.db-shm"] {
            match std::fs::remove_file(self.volume()?.join(file)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error.into());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Gives the operators more flags, and waits until they run with them.
    pub(crate) fn operator_flags(&self, flags: &[&str]) -> Result<()> {
        let additions: Vec<Value> = flags
            .iter()
            .map(|flag| json!({"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": flag}))
            .collect();
        let patch = Value::from(additions).to_string();
        let operator = ["-n", "lookback-system"];
        for command in [
            [
                "patch",
                "deployment",
                "lookback-operator",
                "--type=json",
                "-p",
                &patch,
            ]
            .as_slice(),
            &[
                "rollout",
                "status",
                "deployment/lookback-operator",
                "--timeout=300s",
            ],
        ] {
            self.node
                .kubectl(&[operator.as_slice(), command].concat())?;
        }
        Ok(())
    }

    /// Runs a worker with `config` on this machine, beside the pod and with an empty volume, and gives
    /// its exit code.
    pub(crate) fn run_worker_beside(&self, config: &WorkerConfig) -> Result<i32> {
        let volume = tempfile::tempdir()?;
        let mut config = config.clone();
        config.nats.urls = vec![self.node.facts().nats_url.clone()];
        for file in &mut config.rules.files {
            let key = file.name.rsplit('/').next().context("a key")?;
            let path = self.work.path().join("0").join(key);
            file.path = path.to_str().context("a path in UTF-8")?.to_owned();
        }
        let path = volume.path().join("config.json");
        std::fs::write(&path, serde_json::to_vec(&config)?)?;
        let status = Command::new(env!("CARGO_BIN_EXE_lookback"))
            .arg("worker")
            .arg("--config")
            .arg(&path)
            .arg("--state-dir")
            .arg(volume.path())
            .arg("--termination-log")
            .arg(volume.path().join("termination"))
            .args(["--admin-address", "127.0.0.1:0"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .context("run a worker")?;
        status.code().context("the worker was killed")
    }

    /// The folder of the worker's volume on this machine.
    pub(crate) fn volume(&self) -> Result<PathBuf> {
        let volumes = self
            .node
            .kubectl(&["get", "persistentvolumes", "-o", "json"])?;
        let volumes: Value = serde_json::from_str(&volumes)?;
        let volumes = volumes["items"].as_array().context("volumes")?;
        let ours = volumes.iter().find(|volume| {
            let claim = volume["spec"]["claimRef"]["name"]
                .as_str()
                .unwrap_or_default();
            claim.ends_with(POD)
        });
        let path = ours.and_then(|volume| volume["spec"]["local"]["path"].as_str());
        path.map(PathBuf::from).context("the worker has no volume")
    }
}

fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
