//! What triggers a reconcile: the pipeline itself, what it owns, its pods, the ConfigMaps its rules
//! are in, and its checkpoint in NATS. Secrets are not watched: the operator may read those that a
//! pipeline names and list none, so a changed Secret is seen at the next resync.
//!
//! Only metadata is watched of all but the pipelines; a reconcile reads what it needs.

use std::future;
use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::controller::{self, Action, Config};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{Controller, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use lookback_protocol::names::{Owner, PipelineKey};
use lookback_protocol::replay::machine::Limits;
use tokio::sync::mpsc::Receiver;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::api::DetectionPipeline;
use crate::nats::connect::Nats;
use crate::operator::Pace;
use crate::operator::audit::{Auditor, Author};
use crate::operator::backoff::Backoffs;
use crate::operator::lease::Leadership;
use crate::operator::metrics::OperatorMetrics;
use crate::operator::nats_pool::NatsPool;
use crate::operator::pipeline::dereference::Tallies;
use crate::operator::pipeline::facts::Settings;
use crate::operator::pipeline::validate::Compiler;
use crate::operator::pipeline::{self, Error};
use crate::operator::report::Reporter;
use crate::runtime::admin::Gate;
use crate::runtime::telemetry::chain;

/// A pipeline, or why what stands in the API server is none: one bad object must not stop the watch.
pub type Guarded = DeserializeGuard<DetectionPipeline>;

/// What every reconcile shares.
pub struct Context {
    /// The API server.
    pub client: Client,
    /// Of the cluster and the image.
    pub settings: Settings,
    /// How often to look.
    pub pace: Pace,
    /// What bounds a replay in time.
    pub limits: Limits,
    /// Events.
    pub reporter: Reporter,
    /// Numbers.
    pub metrics: OperatorMetrics,
    /// The permission to act.
    pub leadership: Leadership,
    /// Connections.
    pub nats: NatsPool,
    /// How many alerts and dead letters there were.
    pub tallies: Tallies,
    /// What the operator did, for people who ask years later.
    pub auditor: Auditor,
    /// Rule sets compiled already.
    pub compiler: Arc<Compiler>,
    /// Failures in a row.
    pub backoffs: Backoffs<ObjectRef<Guarded>>,
}

impl Context {
    /// Who records what is done for `owner`.
    #[must_use]
    pub fn author<'a>(&'a self, nats: &'a Nats, owner: &'a Owner) -> Author<'a> {
        Author {
            nats,
            owner,
            instance: self.reporter.instance(),
        }
    }

    /// Keeps nothing more of a pipeline that is gone.
    pub fn forget(&self, namespace: &str, name: &str) {
        self.metrics.forget(namespace, name);
        self.tallies.forget(namespace, name);
        self.auditor.forget(namespace, name);
    }
}

/// Which pipelines, and how many at the same time.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Only this namespace; `None` for all.
    pub namespace: Option<String>,
    /// Reconciles at the same time.
    pub concurrency: u16,
}

/// Reconciles until `shutdown`, and then until the reconciles that run have ended.
pub async fn run(
    context: Arc<Context>,
    scope: Scope,
    checkpoints: Receiver<PipelineKey>,
    caches: &Gate,
    shutdown: CancellationToken,
) {
    let controller = Controller::new(api::<Guarded>(&context, &scope), watcher::Config::default());
    let store = controller.store();
    let referenced = store.clone();
    let results = controller
        .with_config(Config::default().concurrency(scope.concurrency))
        .owns(metadata::<StatefulSet>(&context, &scope), ours())
        .owns(metadata::<Service>(&context, &scope), ours())
        .owns(metadata::<ServiceAccount>(&context, &scope), ours())
        .owns(metadata::<NetworkPolicy>(&context, &scope), ours())
        .watches(metadata::<Pod>(&context, &scope), ours(), by_label)
        .watches(
            metadata::<PersistentVolumeClaim>(&context, &scope),
            ours(),
            by_label,
        )
        .watches(
            metadata::<ConfigMap>(&context, &scope),
            watcher::Config::default(),
            move |config_map| {
                let referring = referring_to(&config_map, &referenced);
                by_label(config_map)
                    .into_iter()
                    .chain(referring)
                    .collect::<Vec<_>>()
            },
        )
        .reconcile_on(triggers(checkpoints))
        .graceful_shutdown_on(shutdown.clone().cancelled_owned())
        .run(reconcile, error_policy, context.clone())
        .for_each(async |result| settle(result, &context));
    let synced = async {
        tokio::select! {
            biased;
            ready = store.wait_until_ready() => {
                if ready.is_ok() {
                    caches.open();
                    info!(pipelines = store.len(), "Watching");
                }
            }
            // Nothing is reconciled yet, and the results would not end: they wait for the first look,
            // which is not taken any more.
            () = shutdown.cancelled() => return,
        }
        // Joined with the results below, whose end is the end.
        future::pending::<()>().await;
    };
    tokio::select! {
        () = results => {}
        () = synced => {}
    }
}

async fn reconcile(object: Arc<Guarded>, context: Arc<Context>) -> Result<Action, Error> {
    let started = Instant::now();
    let result = match &object.0 {
        Ok(pipeline) => pipeline::reconcile(pipeline, &context).await,
        Err(invalid) => Err(Error::Unreadable(invalid.error.clone())),
    };
    context
        .metrics
        .reconcile_seconds
        .observe(started.elapsed().as_secs_f64());
    match &result {
        Ok(_) => {
            context.metrics.count("ok");
            context.backoffs.forget(&ObjectRef::from_obj(&*object));
        }
        Err(error) => {
            context.metrics.count(error.category());
            let reference = object.object_ref(&());
            context
                .reporter
                .failed(error.category(), error, &reference)
                .await;
        }
    }
    result
}

fn error_policy(object: Arc<Guarded>, error: &Error, context: Arc<Context>) -> Action {
    if error.awaits_change() {
        return Action::await_change();
    }
    let wait = context.backoffs.failed(ObjectRef::from_obj(&*object));
    Action::requeue(wait)
}

/// What is left to say after a reconcile: failures were reported where they happened.
fn settle(
    result: Result<(ObjectRef<Guarded>, Action), controller::Error<Error, watcher::Error>>,
    context: &Context,
) {
    match result {
        Ok((object, action)) => debug!(%object, ?action, "Reconciled"),
        Err(controller::Error::ObjectNotFound(object)) => {
            debug!(%object, "Gone");
            let namespace = object.namespace.as_deref().unwrap_or_default();
            context.forget(namespace, &object.name);
            context.backoffs.forget(&object.into_kind_unchecked(()));
        }
        Err(controller::Error::ReconcilerFailed(..)) => {}
        Err(error) => warn!(error = %chain(&error), "A watch failed, it is started again"),
    }
}

fn api<K>(context: &Context, scope: &Scope) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let client = context.client.clone();
    match &scope.namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    }
}

fn metadata<K>(context: &Context, scope: &Scope) -> Api<PartialObjectMeta<K>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    api(context, scope)
}

fn ours() -> watcher::Config {
    watcher::Config::default().labels(pipeline::OURS)
}

/// What carries our labels names its pipeline, though it may not be owned by it: pods are owned by
/// their StatefulSet, volumes by no one.
fn by_label<K: Resource<DynamicType = ()>>(
    object: PartialObjectMeta<K>,
) -> Option<ObjectRef<Guarded>> {
    let name = object.labels().get(pipeline::INSTANCE)?;
    Some(ObjectRef::new(name).within(&object.namespace()?))
}

fn referring_to(
    config_map: &PartialObjectMeta<ConfigMap>,
    pipelines: &Store<Guarded>,
) -> Vec<ObjectRef<Guarded>> {
    let name = config_map.name_any();
    let refers = |pipeline: &Arc<Guarded>| {
        let Ok(spec) = pipeline.0.as_ref().map(|pipeline| &pipeline.spec) else {
            return false;
        };
        pipeline.namespace() == config_map.namespace()
            && spec
                .rules
                .config_maps
                .iter()
                .any(|wanted| wanted.name == name)
    };
    let referring = pipelines.state().into_iter().filter(refers);
    referring
        .map(|pipeline| ObjectRef::from_obj(&*pipeline))
        .collect()
}

fn triggers(
    checkpoints: Receiver<PipelineKey>,
) -> impl Stream<Item = ObjectRef<Guarded>> + Send + 'static {
    stream::unfold(checkpoints, async |mut checkpoints| {
        let key = checkpoints.recv().await?;
        let object = ObjectRef::new(key.name()).within(key.namespace());
        Some((object, checkpoints))
    })
}
