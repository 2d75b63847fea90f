//! How the status is written, against an API server that answers what a test wants.

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use lookback_protocol::names::PipelineKey;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tower_test::mock::{self, Handle};

use super::*;
use crate::api::DetectionPipelineStatus;
use crate::nats::ensure::ObjectError;
use crate::operator::Pace;
use crate::operator::audit::Auditor;
use crate::operator::backoff::Backoffs;
use crate::operator::lease::{Leadership, NotLeader};
use crate::operator::metrics::OperatorMetrics;
use crate::operator::nats_pool::NatsPool;
use crate::operator::pipeline::dereference::Tallies;
use crate::operator::report::Reporter;
use crate::runtime::metrics;

type ApiServer = Handle<Request<Body>, Response<Body>>;

fn context() -> (Context, ApiServer) {
    let (service, api) = mock::pair::<Request<Body>, Response<Body>>();
    let client = Client::new(service, "detections");
    let (changed, _) = mpsc::channel(1);
    let context = Context {
        reporter: Reporter::new(client.clone(), "operator-0"),
        nats: NatsPool::new("c1".to_owned(), changed),
        client,
        settings: test_support::settings(),
        pace: Pace::default(),
        limits: test_support::limits(),
        metrics: OperatorMetrics::register(&mut metrics::registry()),
        leadership: Leadership::unconditional(),
        tallies: Tallies::default(),
        auditor: Auditor::default(),
        compiler: Arc::default(),
        backoffs: Backoffs::default(),
    };
    (context, api)
}

fn pipeline() -> DetectionPipeline {
    let mut pipeline = test_support::pipeline(test_support::MINIMAL);
    pipeline.metadata.resource_version = Some("42".to_owned());
    pipeline
}

fn pending() -> DetectionPipelineStatus {
    DetectionPipelineStatus {
        phase: Some(Phase::Pending),
        ..DetectionPipelineStatus::default()
    }
}

async fn answer(api: &mut ApiServer, status: StatusCode, body: &Value) -> (String, Value) {
    let (request, reply) = api.next_request().await.expect("a request");
    let asked = format!("{} {}", request.method(), request.uri().path());
    let sent = request.into_body().collect_bytes().await.expect("a body");
    let body = Body::from(serde_json::to_vec(body).expect("JSON"));
    let response = Response::builder().status(status).body(body);
    reply.send_response(response.expect("a response"));
    (asked, serde_json::from_slice(&sent).unwrap_or_default())
}

#[tokio::test]
async fn a_status_that_says_nothing_new_is_not_written() {
    let (context, mut api) = context();
    let mut pipeline = pipeline();
    pipeline.status = Some(pending());
    write::status(&pipeline, &pending(), &context)
        .await
        .unwrap();
    drop(context);
    assert!(api.next_request().await.is_none(), "something was asked");
}

#[tokio::test]
async fn a_status_is_written_onto_the_version_it_was_decided_from() {
    let (context, mut api) = context();
    let written = serde_json::to_value(pipeline()).unwrap();
    let server = tokio::spawn(async move { answer(&mut api, StatusCode::OK, &written).await });
    write::status(&pipeline(), &pending(), &context)
        .await
        .unwrap();
    let (asked, sent) = server.await.unwrap();
    let path = "/apis/lookback.dev/v1alpha1/namespaces/detections/detectionpipelines/edr/status";
    assert_eq!(asked, format!("PATCH {path}"));
    assert_eq!(sent["metadata"]["resourceVersion"], "42");
    assert_eq!(sent["status"]["phase"], "Pending");
}

#[tokio::test]
async fn a_conflict_makes_the_decision_void_and_no_event_tells_of_it() {
    let (context, mut api) = context();
    let conflict = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
        "message": "changed", "reason": "Conflict", "code": 409});
    let server = tokio::spawn(async move {
        answer(&mut api, StatusCode::CONFLICT, &conflict).await;
        api
    });
    let error = write::status(&pipeline(), &pending(), &context)
        .await
        .unwrap_err();
    assert!(error.is_conflict(), "{error:?}");
    drop(context);
    let mut api = server.await.unwrap();
    assert!(
        api.next_request().await.is_none(),
        "something else was asked"
    );
}

#[tokio::test]
async fn without_leadership_nothing_is_applied() {
    let (mut context, mut api) = context();
    context.leadership = Leadership::ended();
    let found = dereference::Found {
        pipeline: pipeline(),
        set: None,
        facts: test_support::facts(&pipeline()),
        nats: None,
        pods: Vec::new(),
    };
    let desired = test_support::desired(test_support::MINIMAL);
    let key = PipelineKey::new("detections", "edr").unwrap();
    let error = apply::apply(&desired, &found, &key, &context)
        .await
        .unwrap_err();
    assert!(matches!(error, apply::Error::NotLeader { .. }), "{error:?}");
    drop(context);
    assert!(api.next_request().await.is_none(), "something was asked");
}

#[tokio::test]
async fn the_categories_of_errors_are_a_closed_set() {
    let pipeline = || "detections/edr".to_owned();
    let source = || Box::new(kube::Error::LinesCodecMaxLineLengthExceeded);
    let aborted = tokio::spawn(std::future::pending::<()>());
    aborted.abort();
    let categories = [
        Error::Unreadable(String::new()),
        Error::Name(NameError::Name(String::new())),
        Error::Dereference(dereference::Error::List {
            kind: "pods".to_owned(),
            pipeline: pipeline(),
            source: source(),
        }),
        Error::Validate(aborted.await.unwrap_err()),
        Error::Replay(replay::EffectError::AuditStream(ObjectError::Foreign {
            kind: "stream",
            name: "LOOKBACK_AUDIT".to_owned(),
            owner: None,
            ours: "lookback".to_owned(),
        })),
        Error::Apply(apply::Error::NotLeader {
            pipeline: pipeline(),
            source: NotLeader,
        }),
        Error::Cleanup(cleanup::Error::NotLeader {
            pipeline: pipeline(),
            source: NotLeader,
        }),
        Error::Write {
            what: "status",
            source: source(),
        },
    ]
    .map(|error| error.category());
    let expected = [
        "UnreadableObject",
        "InvalidName",
        "DereferenceFailed",
        "ValidateFailed",
        "ReplayStepFailed",
        "ApplyFailed",
        "CleanupFailed",
        "WriteFailed",
    ];
    assert_eq!(categories, expected);
}
