//! A namespace of a real API server, a NATS server, and an operator in this process. Nothing runs the
//! pods; a test that needs a worker says what the kubelet and the worker would have said.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use async_nats::jetstream;
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Pod};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::ErrorResponse;
use kube::{Client, Resource};
use lookback::api::crd::crds;
use lookback::api::status::{Condition, ConditionStatus, Phase};
use lookback::api::{DetectionPipeline, DetectionPipelineStatus};
use lookback::operator::controller::Scope;
use lookback::operator::lease::Timing;
use lookback::operator::{self, OperatorError, Pace, Settings};
use lookback::runtime::admin;
use lookback_dev::support::{ApiServer, NatsServer, eventually};
use lookback_protocol::names::PipelineKey;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// For what servers do at once, on a machine that builds beside it.
pub(crate) const SOON: Duration = Duration::from_secs(60);
pub(crate) const STREAM: &str = "EVENTS";
pub(crate) const NAME: &str = "edr";
pub(crate) const CLUSTER: &str = "test-cluster";
pub(crate) const RULE: &str = "\
title: Whoami
id: 3f0b5a5c-0000-4000-8000-000000000001
logsource: {product: windows}
detection: {selection: {CommandLine: whoami}, condition: selection}
level: low
";

pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) nats: NatsServer,
}

pub(crate) struct Operator {
    stop: CancellationToken,
    task: JoinHandle<Result<(), OperatorError>>,
    pub(crate) admin: String,
}

impl Operator {
    /// Ends as on SIGTERM.
    pub(crate) async fn end(self) -> Result<()> {
        self.stop.cancel();
        Ok(self.task.await??)
    }

    /// Ends as on SIGKILL: nothing is released or finished.
    pub(crate) async fn kill(self) {
        self.task.abort();
        // An aborted task always ends with an error.
        self.task.await.ok();
    }

    /// Waits until it ends by itself.
    pub(crate) async fn ended(self) -> Result<Result<(), OperatorError>> {
        let ended = tokio::time::timeout(SOON, self.task).await;
        Ok(ended.context("the operator goes on")??)
    }
}

impl World {
    /// A namespace of the shared API server, with rules, and NATS with a source stream.
    pub(crate) async fn new() -> Result<Self> {
        let world = Self::bare(ApiServer::shared().await?).await?;
        world.create_source().await?;
        world.create_rules("rules", RULE).await?;
        Ok(world)
    }

    /// A namespace with nothing in it, and a NATS with nothing in it.
    pub(crate) async fn bare(api: &ApiServer) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let client = api.client().await?;
        install_definition(&client).await?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("t-{}-{number}", std::process::id());
        let object = Namespace {
            metadata: ObjectMeta {
                name: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        Api::all(client.clone())
            .create(&PostParams::default(), &object)
            .await?;
        Ok(Self {
            client,
            namespace,
            nats: NatsServer::start().await?,
        })
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            cluster: Some(CLUSTER.to_owned()),
            namespace: self.namespace.clone(),
            instance: "operator-0".to_owned(),
            image: "lookback.dev/lookback:test".to_owned(),
            election: None,
            scope: Scope {
                namespace: Some(self.namespace.clone()),
                concurrency: 4,
            },
            pace: Pace {
                resync: Duration::from_secs(1),
                waiting: Duration::from_millis(500),
                cleanup_deadline: Duration::from_secs(300),
            },
        }
    }

    /// An operator that leads without asking.
    pub(crate) async fn operator(&self) -> Result<Operator> {
        self.operator_with(self.settings()).await
    }

    pub(crate) async fn operator_with(&self, settings: Settings) -> Result<Operator> {
        let listener = admin::bind(([127, 0, 0, 1], 0).into()).await?;
        let admin = format!("http://{}", listener.local_addr()?);
        let stop = CancellationToken::new();
        let run = operator::run(self.client.clone(), settings, listener, stop.clone());
        Ok(Operator {
            stop,
            task: tokio::spawn(run),
            admin,
        })
    }

    pub(crate) fn key(&self) -> PipelineKey {
        PipelineKey::new(&self.namespace, NAME).expect("names of tests are valid")
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) async fn js(&self) -> Result<jetstream::Context> {
        Ok(jetstream::new(self.nats.client().await?))
    }

    pub(crate) async fn create_source(&self) -> Result<()> {
        let config = jetstream::stream::Config {
            name: STREAM.to_owned(),
            subjects: vec!["events.>".to_owned()],
            ..Default::default()
        };
        self.js().await?.create_stream(config).await?;
        Ok(())
    }

    pub(crate) async fn create_rules(&self, name: &str, text: &str) -> Result<()> {
        let config_map: ConfigMap = serde_json::from_value(json!({
            "metadata": {"name": name}, "data": {"rules.yml": text},
        }))?;
        self.api()
            .create(&PostParams::default(), &config_map)
            .await?;
        Ok(())
    }

    pub(crate) async fn change_rules(&self, name: &str, text: &str) -> Result<()> {
        let patch = json!({"data": {"rules.yml": text}});
        self.merge::<ConfigMap>(name, patch).await
    }

    /// The spec most tests start from.
    pub(crate) fn spec(&self) -> Value {
        json!({
            "nats": {"urls": [self.nats.url()]},
            "source": {"stream": STREAM, "logsource": {"product": "windows"}},
            "rules": {"configMaps": [{"name": "rules"}]},
            "state": {"storage": {"size": "1Gi"}},
        })
    }

    pub(crate) async fn create(&self, spec: Value) -> Result<DetectionPipeline> {
        Ok(self.try_create(NAME, spec).await?)
    }

    pub(crate) async fn try_create(
        &self,
        name: &str,
        spec: Value,
    ) -> Result<DetectionPipeline, kube::Error> {
        let object = json!({
            "apiVersion": "lookback.dev/v1alpha1", "kind": "DetectionPipeline",
            "metadata": {"name": name}, "spec": spec,
        });
        let object = serde_json::from_value(object).map_err(kube::Error::SerdeError)?;
        self.api().create(&PostParams::default(), &object).await
    }

    pub(crate) async fn pipeline(&self) -> Result<DetectionPipeline> {
        Ok(self.api().get(NAME).await?)
    }

    pub(crate) async fn merge<K>(&self, name: &str, patch: Value) -> Result<()>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned,
    {
        self.api::<K>()
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(())
    }

    /// Waits until a condition stands as said, and returns it.
    pub(crate) async fn condition(
        &self,
        name: &str,
        status: &str,
        reason: &str,
    ) -> Result<Condition> {
        let what = format!("{name}={status}/{reason}");
        eventually(SOON, &what, async || {
            let current = self.status().await?;
            let found = find(&current, name)?;
            let stands = format!("{:?}", found.status) == status && found.reason == reason;
            ensure!(stands, "conditions are {:#?}", current.conditions);
            Ok(found)
        })
        .await
    }

    pub(crate) async fn phase(&self, phase: Phase) -> Result<DetectionPipelineStatus> {
        eventually(SOON, &format!("phase {phase:?}"), async || {
            let status = self.status().await?;
            ensure!(status.phase == Some(phase), "status is {status:#?}");
            Ok(status)
        })
        .await
    }

    pub(crate) async fn status(&self) -> Result<DetectionPipelineStatus> {
        self.pipeline().await?.status.context("no status yet")
    }

    /// Waits for an Event of the pipeline with this reason, and returns its note.
    pub(crate) async fn event(&self, reason: &str) -> Result<String> {
        eventually(SOON, &format!("event {reason}"), async || {
            let events = self.api::<Event>().list(&ListParams::default()).await?;
            let mut ours = events.items.into_iter();
            let found = ours.find(|event| event.reason.as_deref() == Some(reason));
            found.and_then(|event| event.note).context("no such event")
        })
        .await
    }
}

pub(crate) fn find(status: &DetectionPipelineStatus, name: &str) -> Result<Condition> {
    let mut conditions = status.conditions.iter();
    let found = conditions.find(|condition| condition.r#type == name);
    found
        .cloned()
        .with_context(|| format!("no condition {name}"))
}

async fn install_definition(client: &Client) -> Result<()> {
    let definition: CustomResourceDefinition = serde_saphyr::from_str(&crds())?;
    let name = definition.metadata.name.clone().context("no name")?;
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    let parameters = PatchParams::apply("lookback-test").force();
    api.patch(&name, &parameters, &Patch::Apply(&definition))
        .await?;
    let established = kube::runtime::conditions::is_crd_established();
    let wait = kube::runtime::wait::await_condition(api, &name, established);
    tokio::time::timeout(SOON, wait).await??;
    Ok(())
}
