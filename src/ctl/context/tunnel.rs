//! A way into the cluster: a listener on this machine, and for each connection to it a port-forward to
//! a pod that is ready behind the Service at that moment. So a reconnect also finds a pod that came
//! later.

mod behind;
mod names;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::{Pod, Service as ServiceObject};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::task::{JoinHandle, JoinSet};

use self::behind::{Endpoint, behind};
pub use self::names::{Service, service};
use super::said;

/// How long a name may take to be looked up. One that nobody answers for is none of this machine's.
const LOOKUP: Duration = Duration::from_secs(3);

/// The Service that a URL means, if its host means nothing here.
pub(super) async fn needed(url: &str, namespace: &str) -> Option<Service> {
    let service = names::service(url, namespace)?;
    let host = (service.host.clone(), service.port);
    let addresses = tokio::time::timeout(LOOKUP, lookup_host(host)).await;
    let resolves = addresses.is_ok_and(|found| found.is_ok_and(|mut found| found.next().is_some()));
    (!resolves).then_some(service)
}

/// A listener that ends with this value.
#[derive(Debug)]
pub struct Tunnel {
    near: SocketAddr,
    host: String,
    to: String,
    problem: Arc<Mutex<Option<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Tunnel {
    /// Finds a pod and listens; nothing is forwarded before somebody connects.
    ///
    /// # Errors
    /// No pod is ready behind the Service, or a right is missing.
    pub async fn open(client: Client, service: Service) -> Result<Self> {
        let endpoint = find(&client, &service).await?;
        let host = service.host.clone();
        let to = format!("pod {}/{}", service.namespace, endpoint.pod);
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .context("cannot listen on 127.0.0.1")?;
        let near = listener
            .local_addr()
            .context("cannot listen on 127.0.0.1")?;
        let problem = Arc::default();
        let task = tokio::spawn(serve(listener, client, service, Arc::clone(&problem)));
        Ok(Self {
            near,
            host,
            to,
            problem,
            task,
        })
    }

    /// Where to connect to.
    #[must_use]
    pub fn near(&self) -> SocketAddr {
        self.near
    }

    /// Its near end as a NATS URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://{}", self.near)
    }

    /// The name of the server at the far end, as the URL had it.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The pod that was found first, for people.
    pub(super) fn to(&self) -> &str {
        &self.to
    }

    /// Why the last connection was not forwarded, if it was not.
    pub(super) fn problem(&self) -> Option<String> {
        let problem = self.problem.lock();
        problem.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(
    listener: TcpListener,
    client: Client,
    service: Service,
    problem: Arc<Mutex<Option<String>>>,
) {
    // Dropped with this task, it ends what it forwards.
    let mut forwards = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((near, _)) = accepted else { continue };
                let (client, service) = (client.clone(), service.clone());
                let problem = Arc::clone(&problem);
                forwards.spawn(async move {
                    let failed = forward(near, client, &service).await.err();
                    let failed = failed.map(|error| format!("{error:#}"));
                    *problem.lock().unwrap_or_else(PoisonError::into_inner) = failed;
                });
            }
            Some(_) = forwards.join_next() => {}
        }
    }
}

async fn forward(mut near: TcpStream, client: Client, service: &Service) -> Result<()> {
    let Endpoint { pod, port } = find(&client, service).await?;
    let target = format!("port {port} of pod {}/{pod}", service.namespace);
    let api = Api::<Pod>::namespaced(client, &service.namespace);
    let mut forwarder = api
        .portforward(&pod, &[port])
        .await
        .map_err(said)
        .with_context(|| {
            format!("cannot forward to {target}: ask for the right to create pods/portforward, or give --nats-url")
        })?;
    let (Some(mut far), Some(refusal)) = (forwarder.take_stream(port), forwarder.take_error(port))
    else {
        bail!("cannot forward to {target}: the API server gave no stream");
    };
    let copied = copy_bidirectional(&mut near, &mut far).await;
    drop(far);
    forwarder.abort();
    if let Some(refusal) = refusal.await {
        bail!("cannot forward to {target}: {refusal}");
    }
    copied.with_context(|| format!("the way to {target} is broken"))?;
    Ok(())
}

async fn find(client: &Client, service: &Service) -> Result<Endpoint> {
    let Service {
        namespace, name, ..
    } = service;
    let object = Api::<ServiceObject>::namespaced(client.clone(), namespace)
        .get(name)
        .await
        .map_err(said)
        .with_context(|| {
            format!("cannot read Service {namespace}/{name}, and its name means nothing outside the cluster: give --nats-url")
        })?;
    let of_service = format!("kubernetes.io/service-name={name}");
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), namespace)
        .list(&ListParams::default().labels(&of_service))
        .await
        .map_err(said)
        .with_context(|| format!("cannot list the EndpointSlices of Service {namespace}/{name}"))?;
    behind(service, &object, &slices.items).with_context(|| {
        format!("no pod is ready behind Service {namespace}/{name}: start NATS, or give --nats-url")
    })
}
