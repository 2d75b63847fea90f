//! A way to the API server that stops at a request, as when the process that sent it is stopped there.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};
use http::request::Parts;
use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use lookback_dev::support::eventually;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tower_test::mock::{self, SendResponse};

use crate::operator_fixture::SOON;

type Reply = SendResponse<Response<Body>>;
type Rule = Box<dyn FnMut(&Parts, &str) -> bool + Send>;

/// Where the process that uses the client stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The request was not sent.
    Before,
    /// It was carried out, and the answer is on its way.
    After,
}

/// Whether requests pass.
#[derive(Clone)]
pub(crate) struct Gate {
    rule: Arc<Mutex<Option<(Stop, Rule)>>>,
    closed: watch::Sender<bool>,
}

/// A client of the same server behind a gate, which is open.
pub(crate) fn gated(client: Client, namespace: &str) -> (Client, Gate) {
    let (service, mut requests) = mock::pair::<Request<Body>, Response<Body>>();
    let (closed, _) = watch::channel(false);
    let gate = Gate {
        rule: Arc::default(),
        closed,
    };
    let kept = gate.clone();
    tokio::spawn(async move {
        let mut running = JoinSet::new();
        while let Some((request, reply)) = requests.next_request().await {
            running.spawn(kept.clone().forward(client.clone(), request, reply));
            while running.try_join_next().is_some() {}
        }
    });
    (Client::new(service, namespace), gate)
}

impl Gate {
    /// Closes at the first request whose head and body `rule` holds for; from then on nothing passes.
    pub(crate) fn close_at(
        &self,
        stop: Stop,
        rule: impl FnMut(&Parts, &str) -> bool + Send + 'static,
    ) {
        let mut kept = self.rule.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = Some((stop, Box::new(rule)));
    }

    /// Everything passes, also what waits.
    pub(crate) fn open(&self) {
        self.closed.send_replace(false);
    }

    pub(crate) async fn is_closed(&self) -> Result<()> {
        eventually(SOON, "the request is on its way", async || {
            ensure!(*self.closed.borrow(), "not yet");
            Ok(())
        })
        .await
    }

    async fn forward(self, client: Client, request: Request<Body>, reply: Reply) {
        let (parts, body) = request.into_parts();
        // Fails for no body that is held in memory, as all of ours are.
        let body = body.collect_bytes().await.unwrap_or_default();
        let stop = self.stop(&parts, &String::from_utf8_lossy(&body));
        if stop == Some(Stop::Before) {
            self.closed.send_replace(true);
        }
        self.opened().await;
        let answer = client
            .send(Request::from_parts(parts, Body::from(body)))
            .await;
        if stop == Some(Stop::After) {
            self.closed.send_replace(true);
        }
        self.opened().await;
        match answer {
            Ok(answer) => reply.send_response(answer),
            Err(error) => reply.send_error(error),
        }
    }

    /// The stop at this request, which is the last.
    fn stop(&self, parts: &Parts, body: &str) -> Option<Stop> {
        let mut kept = self.rule.lock().unwrap_or_else(PoisonError::into_inner);
        let (stop, mut rule) = kept.take()?;
        if rule(parts, body) {
            return Some(stop);
        }
        *kept = Some((stop, rule));
        None
    }

    async fn opened(&self) {
        // Fails only when the gate is gone, with everything that could open it.
        self.closed
            .subscribe()
            .wait_for(|closed| !closed)
            .await
            .ok();
    }
}

/// Whether a request changes something.
pub(crate) fn is_write(parts: &Parts) -> bool {
    parts.method != Method::GET
}

/// Whether a request writes the status of a pipeline.
pub(crate) fn is_status_write(parts: &Parts) -> bool {
    is_write(parts) && parts.uri.path().ends_with("/detectionpipelines/edr/status")
}

/// Whether a request writes the StatefulSet.
pub(crate) fn is_set_write(parts: &Parts) -> bool {
    is_write(parts) && parts.uri.path().ends_with("/statefulsets/edr")
}
