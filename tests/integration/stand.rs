//! Everything together without a container: a real API server with Kubernetes' own controllers, a real
//! nats-server, the real operator in this process, and real worker processes. Only the node is a
//! stand-in, [`Kubelet`], which does to worker and volume what a test asks for.
//!
//! ```ignore
//! let mut stand = Stand::new().await?;                 // NATS, source stream, rules, a node
//! stand.start_operator().await?;
//! let mut spec = stand.spec();                         // fast commits
//! stand.apply(&spec).await?;
//! stand.phase(Phase::Running).await?;                  // everything of `World` is there, too
//!
//! stand.publish_all(STEP, 3).await?;
//! stand.caught_up().await?;                            // the checkpoint has the last sequence
//! stand.kubelet.kill().await?;                         // kill -9; it is started again
//! spec["replay"] = json!({"id": "again", "fromSequence": 1, "statePolicy": "Rebuild"});
//! stand.apply(&spec).await?;
//! stand.kill_operator().await?;                        // at whatever await it is
//! stand.start_operator().await?;
//! stand.condition("ReplayInProgress", "False", "Completed").await?;
//! stand.equals_oracle().await                          // alerts, dead letters, windows, counters
//! ```
//!
//! - A worker's crash points: send it through a proxy, `stand.kubelet.route(Some(url))`, freeze the
//!   proxy at a text (`proxy.freeze_at("...")`), and kill or release the worker there.
//! - The operator's: kill it when the status says so; or send it through a proxy by `spec.nats.urls`,
//!   and the worker past it by `route`.
//! - A pod that cannot be made: a ResourceQuota in the namespace. One that cannot start: [`Hold`].
//! - A claim that is deleted, with its pod, comes back with an empty volume, as in a cluster.
//! - Which bytes a test looks at are those of a copy: neither [`Stand::digest`] nor
//!   [`Stand::equals_oracle`] stops the worker for longer than the copy takes.

mod container;
mod kubelet;
mod mounts;
mod pod_status;
mod puppet;
mod verdict;
mod volumes;

use std::ops::Deref;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use async_nats::jetstream::context::ConsumerInfoErrorKind;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use lookback::api::DetectionPipeline;
use lookback::operator::Settings;
use lookback_dev::publish::publish;
use lookback_dev::support::{ApiServer, eventually};
use lookback_dev::wait;
use lookback_engine::RuleFile;
use lookback_protocol::checkpoint::Checkpoint;
use lookback_protocol::position::Epoch;
use serde_json::{Value, json};

pub(crate) use kubelet::{Hold, Kubelet};

use crate::operator_fixture::{NAME, Operator, SOON, STREAM, World};
use crate::worker_fixture::{RULES, SUBJECT, Setup, rule_file, story};

/// The ConfigMap that the spec names.
const RULES_NAME: &str = "rules";
const POD: &str = "edr-0";
const CLAIM: &str = "state-edr-0";

/// One namespace with one pipeline; see the top of this file.
pub(crate) struct Stand {
    pub(crate) world: World,
    pub(crate) kubelet: Kubelet,
    pub(crate) js: jetstream::Context,
    operator: Option<Operator>,
    told: usize,
}

impl Deref for Stand {
    type Target = World;

    fn deref(&self) -> &World {
        &self.world
    }
}

impl Stand {
    /// With rules for `{"kind":"alarm"}`, which is an alert, and `{"kind":"step","user":...}`, of
    /// which the third of one user within an hour is an alert; see [`RULES`].
    pub(crate) async fn new() -> Result<Self> {
        Self::with_rules(&[rule_file("test.yml", RULES)]).await
    }

    /// With the example rules, for [`Self::publish_story`].
    pub(crate) async fn with_story_rules() -> Result<Self> {
        Self::with_rules(&Setup::story()?.rules).await
    }

    async fn with_rules(rules: &[RuleFile]) -> Result<Self> {
        let world = World::bare(ApiServer::shared().await?).await?;
        world.create_source().await?;
        let data = rules.iter().map(|file| {
            let key = file.name.rsplit('/').next().unwrap_or(&file.name);
            (key.to_owned(), String::from_utf8_lossy(&file.bytes))
        });
        let data: std::collections::BTreeMap<_, _> = data.collect();
        let config_map: ConfigMap =
            serde_json::from_value(json!({"metadata": {"name": RULES_NAME}, "data": data}))?;
        world
            .api()
            .create(&PostParams::default(), &config_map)
            .await?;
        Ok(Self {
            kubelet: Kubelet::new(world.client.clone(), &world.namespace).await?,
            js: world.js().await?,
            world,
            operator: None,
            told: 0,
        })
    }

    /// Starts the operator that [`Self::kill_operator`] kills. More of them: `World::operator_with`.
    pub(crate) async fn start_operator(&mut self) -> Result<()> {
        self.start_operator_with(self.world.settings()).await
    }

    pub(crate) async fn start_operator_with(&mut self, settings: Settings) -> Result<()> {
        ensure!(self.operator.is_none(), "an operator runs already");
        self.operator = Some(self.world.operator_with(settings).await?);
        Ok(())
    }

    /// The same with another way to the API server.
    pub(crate) async fn start_operator_as(&mut self, client: Client) -> Result<()> {
        ensure!(self.operator.is_none(), "an operator runs already");
        let settings = self.world.settings();
        self.operator = Some(self.world.operator_as(client, settings).await?);
        Ok(())
    }

    /// Waits until the operator came so many more times to the end of a reconcile.
    pub(crate) async fn reconciles(&self, more: u64) -> Result<()> {
        let operator = self.operator.as_ref().context("no operator runs")?;
        operator.reconciles(more).await
    }

    /// Ends the operator at whatever await it is.
    pub(crate) async fn kill_operator(&mut self) -> Result<()> {
        let operator = self.operator.take().context("no operator runs")?;
        operator.kill().await;
        Ok(())
    }

    /// The spec most tests start from.
    pub(crate) fn spec(&self) -> Value {
        let mut spec = self.world.spec();
        spec["source"]["start"] = json!("Earliest");
        spec["commit"] = json!({"interval": "50ms", "events": 200});
        spec
    }

    /// `kubectl apply --server-side`: what `spec` does not name any more is gone.
    pub(crate) async fn apply(&self, spec: &Value) -> Result<DetectionPipeline> {
        let object = json!({
            "apiVersion": "lookback.dev/v1alpha1", "kind": "DetectionPipeline",
            "metadata": {"name": NAME}, "spec": spec,
        });
        let parameters = PatchParams::apply("person").force();
        let api = self.api::<DetectionPipeline>();
        Ok(api.patch(NAME, &parameters, &Patch::Apply(object)).await?)
    }

    /// Replaces the rules of [`Self::new`].
    pub(crate) async fn change_rules(&self, text: &str) -> Result<()> {
        let patch = json!({"data": {"test.yml": text}});
        self.merge::<ConfigMap>(RULES_NAME, patch).await
    }

    /// Sets an annotation of the pipeline, such as `lookback.dev/approve`.
    pub(crate) async fn annotate(&self, key: &str, value: &str) -> Result<()> {
        let patch = json!({"metadata": {"annotations": {key: value}}});
        self.merge::<DetectionPipeline>(NAME, patch).await
    }

    /// Deletes the pipeline, and waits until its worker is gone.
    pub(crate) async fn delete(&self) -> Result<()> {
        self.api::<DetectionPipeline>()
            .delete(NAME, &DeleteParams::default())
            .await?;
        self.disappears::<DetectionPipeline>(NAME).await?;
        self.disappears::<StatefulSet>(NAME).await?;
        self.disappears::<Pod>(POD).await
    }

    /// Publishes one event and gives its sequence.
    pub(crate) async fn publish(&self, payload: &str) -> Result<u64> {
        let payload = payload.to_owned().into();
        Ok(self.js.publish(SUBJECT, payload).await?.await?.sequence)
    }

    pub(crate) async fn publish_all(&self, payload: &str, times: usize) -> Result<()> {
        for _ in 0..times {
            self.publish(payload).await?;
        }
        Ok(())
    }

    /// The next `events` events of the one long story, with some poison among them.
    pub(crate) async fn publish_story(&mut self, events: usize) -> Result<()> {
        publish(&self.js, story(self.told, events)?, None).await?;
        self.told += events;
        Ok(())
    }

    /// The source stream's last sequence.
    pub(crate) async fn last(&self) -> Result<u64> {
        let mut stream = self.js.get_stream(STREAM).await?;
        Ok(stream.info().await?.state.last_sequence)
    }

    /// The checkpoint, once there is one.
    pub(crate) async fn checkpoint(&self) -> Result<Checkpoint> {
        eventually(SOON, "a checkpoint", async || {
            let found = wait::checkpoint(&self.js, &self.key()).await?;
            found.context("there is none")
        })
        .await
    }

    /// Waits until the checkpoint's position is `sequence` or beyond.
    pub(crate) async fn drained_to(&self, sequence: u64) -> Result<Checkpoint> {
        let what = format!("the checkpoint is at {sequence}");
        let reached = eventually(SOON, &what, async || {
            let checkpoint = self.checkpoint().await?;
            let position = checkpoint.position.sequence.0;
            ensure!(position >= sequence, "it is at {position}");
            Ok(checkpoint)
        })
        .await;
        match reached {
            Ok(checkpoint) => Ok(checkpoint),
            Err(error) => Err(error.context(self.kubelet.story().await)),
        }
    }

    /// Waits until everything in the source stream is applied.
    pub(crate) async fn caught_up(&self) -> Result<Checkpoint> {
        self.drained_to(self.last().await?).await
    }

    /// The consumer of an epoch.
    pub(crate) async fn consumer(&self, epoch: u64) -> Result<Option<jetstream::consumer::Info>> {
        let name = self.key().consumer(0, Epoch(epoch));
        let stream = self.js.get_stream_no_info(STREAM).await?;
        match stream.consumer_info(name).await {
            Ok(info) => Ok(Some(info)),
            Err(error) if error.kind() == ConsumerInfoErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}
