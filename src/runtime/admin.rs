//! The admin HTTP server: `/live` while the process runs, `/ready` once every gate is open (and
//! until then what it waits for), `/metrics` as OpenMetrics text. It holds nothing secret.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::runtime::metrics;

/// Why the admin server cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address is taken, or not ours.
    #[error("cannot listen on {address} for the admin server")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It stopped while running.
    #[error("the admin server stopped")]
    Serve(#[source] io::Error),
}

/// What `/ready` waits for. A process is ready when every gate that was ever made is open.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    waits: Arc<Mutex<BTreeMap<&'static str, Option<String>>>>,
}

/// One thing that must hold for the process to be ready; closed when made.
#[derive(Clone, Debug)]
pub struct Gate {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// A closed gate. `waits_for` completes the sentence "not ready: waiting for ...".
    #[must_use]
    pub fn gate(&self, name: &'static str, waits_for: &str) -> Gate {
        self.lock().insert(name, Some(waits_for.to_owned()));
        Gate {
            name,
            readiness: self.clone(),
        }
    }

    /// The closed gates, each `name: what it waits for`; empty when the process is ready.
    #[must_use]
    pub fn waiting(&self) -> Vec<String> {
        let waits = self.lock();
        let closed = waits
            .iter()
            .filter_map(|(name, wait)| Some((name, wait.as_ref()?)));
        closed
            .map(|(name, wait)| format!("{name}: {wait}"))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Option<String>>> {
        // A panic elsewhere cannot leave the map half changed: each change is one insert.
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate {
    /// What it waited for is there.
    pub fn open(&self) {
        self.readiness.lock().insert(self.name, None);
    }

    /// It is gone again.
    pub fn close(&self, waits_for: &str) {
        let wait = Some(waits_for.to_owned());
        self.readiness.lock().insert(self.name, wait);
    }
}

/// Binds the address; port 0 picks a free one.
///
/// # Errors
/// [`AdminError::Bind`] names the address.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, AdminError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| AdminError::Bind { address, source })
}

/// Serves until `shutdown` resolves.
///
/// # Errors
/// [`AdminError::Serve`] when the listener breaks.
pub async fn serve(
    listener: TcpListener,
    registry: Arc<Registry>,
    readiness: Readiness,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), AdminError> {
    let router = Router::new()
        .route("/live", get(live))
        .route("/ready", get(ready).with_state(readiness))
        .route("/metrics", get(page).with_state(registry));
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown)
        .await
        .map_err(AdminError::Serve)
}

async fn live() -> &'static str {
    "alive\n"
}

async fn ready(State(readiness): State<Readiness>) -> (StatusCode, String) {
    let waiting = readiness.waiting();
    if waiting.is_empty() {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    let body = format!("not ready, waiting for\n{}\n", waiting.join("\n"));
    (StatusCode::SERVICE_UNAVAILABLE, body)
}

async fn page(State(registry): State<Arc<Registry>>) -> impl IntoResponse {
    let page = metrics::encode(&registry);
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], page)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[test]
    fn a_process_without_gates_is_ready() {
        assert_eq!(Readiness::default().waiting(), Vec::<String>::new());
    }

    #[test]
    fn every_closed_gate_says_what_it_waits_for() {
        let readiness = Readiness::default();
        let caches = readiness.gate("caches", "the first list of pipelines");
        let _lease = readiness.gate("consumer", "a position");
        caches.open();
        assert_eq!(readiness.waiting(), ["consumer: a position"]);
    }

    #[test]
    fn a_gate_can_close_again() {
        let readiness = Readiness::default();
        let gate = readiness.gate("consumer", "a position");
        gate.open();
        gate.close("NATS to answer");
        assert_eq!(readiness.waiting(), ["consumer: NATS to answer"]);
    }

    async fn answer(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_server_answers_its_three_paths_and_ends_on_shutdown() {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let readiness = Readiness::default();
        let gate = readiness.gate("caches", "the first list");
        let stop = CancellationToken::new();
        let registry = Arc::new(metrics::registry());
        let server = serve(
            listener,
            registry,
            readiness,
            stop.clone().cancelled_owned(),
        );
        let server = tokio::spawn(server);

        assert!(answer(address, "/live").await.starts_with("HTTP/1.1 200"));
        let waiting = answer(address, "/ready").await;
        assert!(waiting.starts_with("HTTP/1.1 503"), "{waiting}");
        assert!(waiting.contains("caches: the first list"), "{waiting}");
        gate.open();
        assert!(answer(address, "/ready").await.starts_with("HTTP/1.1 200"));
        let page = answer(address, "/metrics").await;
        assert!(page.contains("lookback_build_info"), "{page}");
        stop.cancel();
        server.await.unwrap().unwrap();
    }
}
