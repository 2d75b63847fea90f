//! The operator: level-triggered, DetectionPipeline -> StatefulSet, volume, configuration and
//! JetStream objects.
//!
//! # Layout
//! - [`lease`]: one leader among the replicas.
//! - [`controller`]: what triggers a reconcile, and what follows one.
//! - [`pipeline`]: the reconcile itself, step by step.
//! - [`nats_pool`]: connections to NATS, shared by pipelines with the same credentials.
//! - `checkpoint_watch`: which pipelines have something new to say there.
//! - [`audit`]: what it did, once each, in the audit.
//! - [`backoff`]: how long to wait before an object is tried again.
//! - `settings`: flags, and what lasts how long.
//! - [`report`], [`metrics`]: Events and numbers.

pub mod audit;
pub mod backoff;
mod checkpoint_watch;
pub mod controller;
pub mod lease;
pub mod metrics;
pub mod nats_pool;
pub mod pipeline;
pub mod report;
mod settings;

pub use self::settings::{OperatorArgs, Pace, Settings};

use std::io;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info, info_span, warn};
use uuid::Uuid;

use crate::operator::audit::Auditor;
use crate::operator::backoff::Backoffs;
use crate::operator::controller::Context;
use crate::operator::lease::{Candidate, Leadership, LeaseError};
use crate::operator::metrics::OperatorMetrics;
use crate::operator::nats_pool::NatsPool;
use crate::operator::pipeline::dereference::Tallies;
use crate::operator::pipeline::facts;
use crate::operator::report::Reporter;
use crate::runtime::admin::{self, AdminError, Gate, Readiness};
use crate::runtime::telemetry::chain;
use crate::runtime::{metrics as registry, shutdown};

/// The field manager of everything the operator applies.
pub const FIELD_MANAGER: &str = "lookback";
const LEASE: &str = "lookback-operator";
/// The namespace whose uid tells clusters apart: it lives as long as the cluster does.
const CLUSTER_NAMESPACE: &str = "kube-system";
const RETRY: Duration = Duration::from_secs(2);
/// Checkpoints that may wait for the controller; beyond it the watch of NATS waits.
const TRIGGERS: usize = 1024;

/// Why the operator ended.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The handlers of SIGTERM and SIGINT could not be installed.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    /// There is no usable kubeconfig or service account.
    #[error("cannot find out how to reach the API server")]
    Client(#[source] Box<kube::Error>),
    /// The admin server.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// Another replica leads; this process must not go on.
    #[error("leadership is lost")]
    Lease(#[source] LeaseError),
}

/// `lookback operator`, until a signal ends it.
///
/// # Errors
/// [`OperatorError`] says why it could not start or go on.
pub async fn main(args: OperatorArgs) -> Result<(), OperatorError> {
    let shutdown = shutdown::on_signal().map_err(OperatorError::Signals)?;
    let client = Client::try_default()
        .await
        .map_err(|source| OperatorError::Client(Box::new(source)))?;
    let listener = admin::bind(args.admin_addr).await?;
    run(client, Settings::from(args), listener, shutdown).await
}

/// Runs one replica until `shutdown`, or until it loses leadership.
///
/// # Errors
/// [`OperatorError::Lease`] when another replica took over; the process must end then.
pub async fn run(
    client: Client,
    settings: Settings,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), OperatorError> {
    let mut registry = registry::registry();
    let metrics = OperatorMetrics::register(&mut registry);
    let readiness = Readiness::default();
    let gates = Gates {
        api_server: readiness.gate("api server", "an answer about the cluster's id"),
        caches: readiness.gate("caches", "the first look at the API server"),
    };
    let served = CancellationToken::new();
    let stop = served.clone().cancelled_owned();
    let server = admin::serve(listener, Arc::new(registry), readiness, stop);
    let server = tokio::spawn(server.instrument(info_span!("admin")));
    let result = lead(client, settings, &gates, metrics, shutdown).await;
    served.cancel();
    match server.await {
        Ok(ended) => ended?,
        Err(error) => warn!(%error, "The admin server did not end well"),
    }
    result
}

struct Gates {
    api_server: Gate,
    caches: Gate,
}

async fn lead(
    client: Client,
    settings: Settings,
    gates: &Gates,
    metrics: OperatorMetrics,
    shutdown: CancellationToken,
) -> Result<(), OperatorError> {
    let Some(cluster) = shutdown
        .run_until_cancelled(cluster_id(&client, &settings))
        .await
    else {
        return Ok(());
    };
    gates.api_server.open();
    let Some(timing) = settings.election else {
        let leadership = Leadership::unconditional();
        control(
            client, settings, cluster, gates, metrics, leadership, shutdown,
        )
        .await;
        return Ok(());
    };
    // A replica that stands by has no caches to wait for.
    gates.caches.open();
    let leases = Api::<Lease>::namespaced(client.clone(), &settings.namespace);
    let me = format!("{}_{}", settings.instance, Uuid::now_v7());
    let mut candidate = Candidate::new(leases, LEASE, &me, timing);
    let Some(leadership) = shutdown.run_until_cancelled(candidate.acquire()).await else {
        return Ok(());
    };
    gates.caches.close("the first look at the API server");
    metrics.leader.set(1);
    let controller = control(
        client,
        settings,
        cluster,
        gates,
        metrics.clone(),
        leadership.clone(),
        shutdown,
    );
    tokio::select! {
        () = controller => {}
        error = candidate.keep(&leadership) => {
            metrics.leader.set(0);
            return Err(OperatorError::Lease(error));
        }
    }
    metrics.leader.set(0);
    if let Err(error) = candidate.release().await {
        warn!(error = %chain(&error), "Cannot release leadership, it will expire");
    }
    Ok(())
}

async fn control(
    client: Client,
    settings: Settings,
    cluster: String,
    gates: &Gates,
    metrics: OperatorMetrics,
    leadership: Leadership,
    shutdown: CancellationToken,
) {
    let (changed, changes) = mpsc::channel(TRIGGERS);
    info!(cluster, image = settings.image, "Controlling pipelines");
    let context = Context {
        reporter: Reporter::new(client.clone(), &settings.instance),
        nats: NatsPool::new(cluster.clone(), changed),
        client,
        settings: facts::Settings {
            cluster,
            image: settings.image,
        },
        pace: settings.pace,
        limits: settings.limits,
        metrics,
        leadership,
        tallies: Tallies::default(),
        auditor: Auditor::default(),
        compiler: Arc::default(),
        backoffs: Backoffs::default(),
    };
    controller::run(
        Arc::new(context),
        settings.scope,
        changes,
        &gates.caches,
        shutdown,
    )
    .await;
}

/// The given id, else the uid of kube-system; without an API server there is nothing to do but wait.
async fn cluster_id(client: &Client, settings: &Settings) -> String {
    if let Some(cluster) = &settings.cluster {
        return cluster.clone();
    }
    let namespaces = Api::<Namespace>::all(client.clone());
    loop {
        match namespaces.get(CLUSTER_NAMESPACE).await {
            Ok(namespace) => match namespace.metadata.uid {
                Some(uid) => return uid,
                None => warn!("Namespace kube-system has no uid; set --cluster-id"),
            },
            Err(error) => warn!(error = %chain(&error), "Cannot read namespace kube-system yet"),
        }
        sleep(RETRY).await;
    }
}
