//! The I/O of an election: one candidate reads and swaps one Lease.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::{Decision, Leadership, Record, Timing, decide};
use crate::runtime::telemetry::chain;

/// Why a try failed, or why leadership ended.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The API server refused or did not answer.
    #[error("cannot {verb} lease {name}")]
    Api {
        /// What we tried.
        verb: &'static str,
        /// The Lease.
        name: String,
        /// What the API server said.
        #[source]
        source: Box<kube::Error>,
    },
    /// No answer in time.
    #[error("no answer in time for lease {0}")]
    TimedOut(String),
    /// Somebody else holds it.
    #[error("lease {name} was taken by {holder}")]
    Taken {
        /// The Lease.
        name: String,
        /// The new leader.
        holder: String,
    },
    /// We could not renew in time.
    #[error("lease {name} could not be renewed for {} s", .deadline.as_secs())]
    Expired {
        /// The Lease.
        name: String,
        /// For how long we tried.
        deadline: Duration,
    },
}

/// One candidate for one Lease.
#[derive(Debug)]
pub struct Candidate {
    api: Api<Lease>,
    name: String,
    me: String,
    timing: Timing,
    seen: Option<Seen>,
}

/// The last change we saw, by our own clock.
#[derive(Debug)]
struct Seen {
    version: Option<String>,
    at: Instant,
}

impl Candidate {
    /// `me` must be unique to this process: a restarted process is another candidate.
    #[must_use]
    pub fn new(api: Api<Lease>, name: &str, me: &str, timing: Timing) -> Self {
        Self {
            api,
            name: name.to_owned(),
            me: me.to_owned(),
            timing,
            seen: None,
        }
    }

    /// Waits until we lead. Errors are logged and tried again: without an API server there is
    /// nothing to lead. Cancel-safe.
    pub async fn acquire(&mut self) -> Leadership {
        info!(lease = %self.name, me = %self.me, "Waiting for leadership");
        loop {
            let asked = Instant::now();
            match self.attempt().await {
                Ok(None) => {
                    let leadership = Leadership::unconditional();
                    leadership.extend(asked + self.timing.renew_deadline);
                    info!(lease = %self.name, "Leading");
                    return leadership;
                }
                Ok(Some(holder)) => debug!(%holder, "Standing by"),
                Err(error) => warn!(error = %chain(&error), "Cannot stand for leadership yet"),
            }
            sleep(self.timing.retry).await;
        }
    }

    /// Renews until leadership is lost, and returns why. Cancel-safe.
    pub async fn keep(&mut self, leadership: &Leadership) -> LeaseError {
        let mut deadline = Instant::now() + self.timing.renew_deadline;
        loop {
            sleep(self.timing.retry).await;
            let asked = Instant::now();
            match self.attempt().await {
                Ok(None) => {
                    deadline = asked + self.timing.renew_deadline;
                    leadership.extend(deadline);
                }
                Ok(Some(holder)) => {
                    leadership.extend(asked);
                    let name = self.name.clone();
                    return LeaseError::Taken { name, holder };
                }
                Err(error) => warn!(error = %chain(&error), "Cannot renew leadership yet"),
            }
            if deadline <= Instant::now() {
                return LeaseError::Expired {
                    name: self.name.clone(),
                    deadline: self.timing.renew_deadline,
                };
            }
        }
    }

    /// Lets the next candidate take over at once. Only after every act has ended.
    ///
    /// # Errors
    /// [`LeaseError`]; the Lease then simply expires.
    pub async fn release(&mut self) -> Result<(), LeaseError> {
        let Some(mut lease) = self.read().await? else {
            return Ok(());
        };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(&self.me) {
            return Ok(());
        }
        spec.holder_identity = None;
        self.replace(&lease).await.map(|_| ())
    }

    /// One look and one act: `None` when we lead now, else who does.
    async fn attempt(&mut self) -> Result<Option<String>, LeaseError> {
        let lease = self.read().await?;
        let version = lease
            .as_ref()
            .and_then(|lease| lease.metadata.resource_version.clone());
        let unchanged_for = self.observe(version);
        let record = lease.as_ref().map(record);
        let won = match decide(&self.me, record.as_ref(), unchanged_for) {
            Decision::Wait => false,
            Decision::Create => self.create().await?,
            Decision::Renew => {
                self.replace(&self.ours(lease.unwrap_or_default(), false))
                    .await?
            }
            Decision::Take => {
                self.replace(&self.ours(lease.unwrap_or_default(), true))
                    .await?
            }
        };
        let holder = record.map_or_else(|| "another replica".to_owned(), |record| record.holder);
        Ok((!won).then_some(holder))
    }

    fn observe(&mut self, version: Option<String>) -> Duration {
        let now = Instant::now();
        match &self.seen {
            Some(seen) if seen.version == version => now.duration_since(seen.at),
            _ => {
                self.seen = Some(Seen { version, at: now });
                Duration::ZERO
            }
        }
    }

    fn ours(&self, mut lease: Lease, taken: bool) -> Lease {
        let now = MicroTime(Timestamp::now());
        let before = lease.spec.take().unwrap_or_default();
        let transitions = before.lease_transitions.unwrap_or(0) + i32::from(taken);
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(self.timing.duration.as_secs()).ok(),
            acquire_time: if taken {
                Some(now.clone())
            } else {
                before.acquire_time
            },
            renew_time: Some(now),
            lease_transitions: Some(transitions),
            ..before
        });
        lease
    }

    async fn read(&self) -> Result<Option<Lease>, LeaseError> {
        self.ask("read", self.api.get_opt(&self.name)).await
    }

    async fn create(&self) -> Result<bool, LeaseError> {
        let empty = Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                ..ObjectMeta::default()
            },
            spec: None,
        };
        let lease = self.ours(empty, true);
        let parameters = PostParams::default();
        won(self
            .ask("create", self.api.create(&parameters, &lease))
            .await)
    }

    async fn replace(&self, lease: &Lease) -> Result<bool, LeaseError> {
        let parameters = PostParams::default();
        won(self
            .ask("replace", self.api.replace(&self.name, &parameters, lease))
            .await)
    }

    async fn ask<T>(
        &self,
        verb: &'static str,
        call: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, LeaseError> {
        // Half of the deadline, so that a call that hangs leaves room for a second one.
        match timeout(self.timing.renew_deadline / 2, call).await {
            Ok(answer) => answer.map_err(|source| LeaseError::Api {
                verb,
                name: self.name.clone(),
                source: Box::new(source),
            }),
            Err(_) => Err(LeaseError::TimedOut(self.name.clone())),
        }
    }
}

/// A conflict means that another candidate was first, which is an answer and no error.
fn won(result: Result<Lease, LeaseError>) -> Result<bool, LeaseError> {
    match result {
        Ok(_) => Ok(true),
        Err(LeaseError::Api { source, .. }) if matches!(&*source, kube::Error::Api(status) if status.is_conflict() || status.is_already_exists()) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let seconds = spec
        .lease_duration_seconds
        .and_then(|s| u64::try_from(s).ok());
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        duration: Duration::from_secs(seconds.unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {

    use http::{Method, Request, Response, StatusCode};
    use kube::Client;
    use kube::client::Body;
    use serde_json::{Value, json};
    use tower_test::mock::{self, Handle};

    use super::super::NotLeader;
    use super::*;

    type Api = Handle<Request<Body>, Response<Body>>;

    fn candidate(me: &str) -> (Candidate, Api) {
        let (service, handle) = mock::pair::<Request<Body>, Response<Body>>();
        let api = kube::Api::namespaced(Client::new(service, "lookback-system"), "lookback-system");
        (
            Candidate::new(api, "lookback", me, Timing::default()),
            handle,
        )
    }

    fn lease(holder: &str, version: &str) -> Value {
        json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "lookback", "resourceVersion": version},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": 3},
        })
    }

    fn conflict() -> Value {
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
               "message": "changed", "reason": "Conflict", "code": 409})
    }

    async fn answer(api: &mut Api, method: Method, status: StatusCode, body: &Value) -> Value {
        let (request, reply) = api.next_request().await.expect("a request");
        assert_eq!(request.method(), method);
        let sent = request.into_body().collect_bytes().await.expect("a body");
        let body = serde_json::to_vec(body).expect("JSON");
        let response = Response::builder().status(status).body(Body::from(body));
        reply.send_response(response.expect("a response"));
        serde_json::from_slice(&sent).unwrap_or_default()
    }

    #[tokio::test(start_paused = true)]
    async fn taking_over_swaps_the_version_that_was_read_and_counts_a_transition() {
        let (mut candidate, mut api) = candidate("me");
        let server = tokio::spawn(async move {
            answer(&mut api, Method::GET, StatusCode::OK, &lease("", "7")).await;
            answer(&mut api, Method::PUT, StatusCode::OK, &lease("me", "8")).await
        });
        assert_eq!(candidate.attempt().await.unwrap(), None);
        let sent = server.await.unwrap();
        assert_eq!(sent["metadata"]["resourceVersion"], "7");
        assert_eq!(sent["spec"]["holderIdentity"], "me");
        assert_eq!(sent["spec"]["leaseTransitions"], 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_conflict_means_that_somebody_else_leads() {
        let (mut candidate, mut api) = candidate("me");
        let server = tokio::spawn(async move {
            answer(&mut api, Method::GET, StatusCode::OK, &lease("", "7")).await;
            answer(&mut api, Method::PUT, StatusCode::CONFLICT, &conflict()).await;
        });
        assert!(candidate.attempt().await.unwrap().is_some());
        server.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn keeping_ends_when_another_replica_holds_the_lease() {
        let (mut candidate, mut api) = candidate("me");
        let server = tokio::spawn(async move {
            answer(&mut api, Method::GET, StatusCode::OK, &lease("other", "9")).await;
        });
        let leadership = Leadership::unconditional();
        let error = candidate.keep(&leadership).await;
        assert!(matches!(error, LeaseError::Taken { holder, .. } if holder == "other"));
        assert_eq!(leadership.check(), Err(NotLeader));
        server.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn keeping_ends_at_the_deadline_when_the_api_server_is_silent() {
        let (mut candidate, api) = candidate("me");
        let leadership = Leadership::unconditional();
        let error = candidate.keep(&leadership).await;
        assert!(matches!(error, LeaseError::Expired { .. }), "{error}");
        drop(api);
    }
}
