//! A namespace of a real API server, a NATS server, and an operator in this process. Nothing runs the
//! pods; a test that needs a worker says what the kubelet and the worker would have said.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolume, Pod};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use lookback::api::crd::crds;
use lookback::api::status::{Condition, Phase};
use lookback::api::{DetectionPipeline, DetectionPipelineStatus};
use lookback::nats::checkpoint::JetStreamCheckpoints;
use lookback::nats::connect::Nats;
use lookback::nats::consumers;
use lookback::nats::desired::DesiredConsumer;
use lookback::operator::controller::Scope;
use lookback::operator::{self, OperatorError, Pace, Settings};
use lookback::runtime::admin;
use lookback::worker::ports::Checkpoints;
use lookback_dev::support::{ApiServer, NatsServer, eventually};
use lookback_protocol::checkpoint::{self, Checkpoint};
use lookback_protocol::consumer::ConsumerMetadata;
use lookback_protocol::names::{Owner, PipelineKey};
use lookback_protocol::position::{Epoch, Position, StreamIdentity, StreamSeq};
use lookback_protocol::replay::machine::Limits;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::nats_fixture;

/// For what servers do at once, on a machine that builds beside it; it only ends a test that hangs.
pub(crate) const SOON: Duration = Duration::from_secs(180);
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
    admin: SocketAddr,
}

impl Operator {
    /// What the admin server answers, status line and all.
    pub(crate) async fn get(&self, path: &str) -> Result<String> {
        let mut stream = TcpStream::connect(self.admin).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// Waits until so many more reconciles came to their end.
    pub(crate) async fn reconciles(&self, more: u64) -> Result<()> {
        let before = self.reconciled().await?;
        eventually(SOON, "more reconciles", async || {
            let now = self.reconciled().await?;
            ensure!(before + more <= now, "{now} reconciles, {before} before");
            Ok(())
        })
        .await
    }

    pub(crate) async fn reconciled(&self) -> Result<u64> {
        let page = self.get("/metrics").await?;
        let name = "lookback_operator_reconciles_total{result=\"ok\"} ";
        let count = page.lines().find_map(|line| line.strip_prefix(name));
        Ok(count.map_or(Ok(0), str::parse)?)
    }

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
            limits: Limits {
                min_interval: SignedDuration::from_secs(1),
                // Longer than a test takes on a slow machine.
                step_timeout: SignedDuration::from_hours(1),
                keep_consumers: SignedDuration::from_hours(1),
            },
        }
    }

    /// An operator that leads without asking.
    pub(crate) async fn operator(&self) -> Result<Operator> {
        self.operator_with(self.settings()).await
    }

    pub(crate) async fn operator_with(&self, settings: Settings) -> Result<Operator> {
        self.operator_as(self.client.clone(), settings).await
    }

    pub(crate) async fn operator_as(&self, client: Client, settings: Settings) -> Result<Operator> {
        let listener = admin::bind(([127, 0, 0, 1], 0).into()).await?;
        let admin = listener.local_addr()?;
        let stop = CancellationToken::new();
        let run = operator::run(client, settings, listener, stop.clone());
        Ok(Operator {
            stop,
            task: tokio::spawn(run),
            admin,
        })
    }

    /// What the kubelet and the volume's provisioner would say once a worker is ready.
    pub(crate) async fn worker_becomes_ready(&self) -> Result<()> {
        self.bind_volume().await?;
        let running = json!({
            "name": "worker", "image": "i", "imageID": "i", "ready": true, "started": true,
            "restartCount": 0, "state": {"running": {}},
        });
        self.pod_says(json!({
            "phase": "Running", "containerStatuses": [running],
            "conditions": [{"type": "Ready", "status": "True"}],
        }))
        .await?;
        eventually(SOON, "the StatefulSet has its pod", async || {
            let set: StatefulSet = self.api().get(NAME).await?;
            let ready = set.status.and_then(|status| status.ready_replicas);
            ensure!(ready == Some(1), "{ready:?} pods are ready");
            Ok(())
        })
        .await
    }

    /// Sets the pod's status, once there is a pod.
    pub(crate) async fn pod_says(&self, status: Value) -> Result<()> {
        let name = format!("{NAME}-0");
        let patch = Patch::Merge(json!({"status": status}));
        eventually(SOON, "the worker's pod", async || {
            let pods = self.api::<Pod>();
            pods.patch_status(&name, &PatchParams::default(), &patch)
                .await?;
            Ok(())
        })
        .await
    }

    async fn bind_volume(&self) -> Result<()> {
        let volume: PersistentVolume = serde_json::from_value(json!({
            "metadata": {"name": self.namespace},
            "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                "hostPath": {"path": "/nowhere"},
                "claimRef": {"namespace": self.namespace, "name": format!("state-{NAME}-0")},
            },
        }))?;
        match Api::all(self.client.clone())
            .create(&PostParams::default(), &volume)
            .await
        {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A checkpoint as the worker of this pipeline writes it.
    pub(crate) async fn checkpoint(&self, phase: checkpoint::Phase) -> Result<Checkpoint> {
        let mut stream = self.js().await?.get_stream(STREAM).await?;
        let created = stream.info().await?.created.unix_timestamp_nanos();
        Ok(Checkpoint {
            v: checkpoint::VERSION,
            incarnation: "0199-test".to_owned(),
            owner: Owner {
                cluster: CLUSTER.to_owned(),
                pipeline: self.key(),
            },
            epoch: Epoch(1),
            phase,
            stream: StreamIdentity {
                name: STREAM.to_owned(),
                created: Timestamp::from_nanosecond(created)?,
            },
            position: Position::before(StreamSeq(1)),
            published_through: StreamSeq(0),
            engine_digest: "digest".to_owned(),
            groups: 0,
            gaps: Vec::new(),
            counters: checkpoint::Counters::default(),
            request: None,
            applied: None,
            resumes: None,
            held: None,
            time: Timestamp::now(),
        })
    }

    /// Writes a checkpoint in the worker's place.
    pub(crate) async fn write(&self, checkpoint: &Checkpoint) -> Result<()> {
        let nats = self.connect().await?;
        let mut store = JetStreamCheckpoints::new(nats, &self.key(), 0);
        let before = store.load().await?.map(|(_, revision)| revision);
        store.store(checkpoint, before).await?;
        Ok(())
    }

    /// A consumer as an earlier epoch of this pipeline left it.
    pub(crate) async fn create_consumer(&self, epoch: Epoch) -> Result<()> {
        let owner = Owner {
            cluster: CLUSTER.to_owned(),
            pipeline: self.key(),
        };
        let desired = DesiredConsumer {
            stream: STREAM.to_owned(),
            name: self.key().consumer(0, epoch),
            filter_subjects: Vec::new(),
            metadata: ConsumerMetadata::new(&owner, epoch, StreamSeq(1)).to_map(),
            adopt: None,
        };
        consumers::ensure(&self.connect().await?, &desired).await?;
        Ok(())
    }

    pub(crate) async fn connect(&self) -> Result<Nats> {
        nats_fixture::connect(self.nats.url()).await
    }

    /// Waits for an object of this name.
    pub(crate) async fn appears<K>(&self, name: &str) -> Result<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        eventually(SOON, &format!("{} {name}", K::kind(&())), async || {
            Ok(self.api::<K>().get(name).await?)
        })
        .await
    }

    /// Waits until the object of this name is gone.
    pub(crate) async fn disappears<K>(&self, name: &str) -> Result<()>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        eventually(SOON, &format!("no {} {name}", K::kind(&())), async || {
            let found = self.api::<K>().get_opt(name).await?;
            ensure!(found.is_none(), "it is there");
            Ok(())
        })
        .await
    }

    pub(crate) async fn has_stream(&self, name: &str) -> Result<bool> {
        let found = self.js().await?.get_stream(name).await;
        Ok(found.is_ok())
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
        self.nats.jetstream().await
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
            + Debug
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
