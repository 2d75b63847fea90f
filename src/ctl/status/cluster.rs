//! What the API server knows beside the pipeline: its worker's pod, and its Events.

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event as Object, Pod};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use lookback_protocol::names::PipelineKey;

use super::view::{Event, Worker};
use crate::ctl::context::said;
use crate::operator::pipeline::build::{PARTITION, names};

/// Events that are shown.
const EVENTS: usize = 5;

/// The worker's pod; `None` when there is none.
pub(super) async fn worker(client: &Client, key: &PipelineKey) -> Result<Option<Worker>> {
    let name = names::pod_name(key, PARTITION);
    let api = Api::<Pod>::namespaced(client.clone(), key.namespace());
    let found = api.get_opt(&name).await.map_err(said);
    let found = found.with_context(|| format!("cannot read pod {name}"))?;
    Ok(found.map(|pod| of_pod(name, &pod)))
}

fn of_pod(name: String, pod: &Pod) -> Worker {
    let status = pod.status.clone().unwrap_or_default();
    let containers = status.container_statuses.unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let ready = conditions
        .iter()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let leaving = pod.metadata.deletion_timestamp.is_some();
    let phase = match leaving {
        true => "Terminating".to_owned(),
        false => status.phase.unwrap_or_default(),
    };
    Worker {
        pod: name,
        phase,
        ready: ready && !leaving,
        restarts: containers
            .iter()
            .map(|container| container.restart_count)
            .sum(),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        started: status.start_time.map(|time| time.0),
    }
}

/// The newest Events of the pipeline.
pub(super) async fn events(client: &Client, key: &PipelineKey) -> Result<Vec<Event>> {
    let of_pipeline = format!(
        "involvedObject.kind=DetectionPipeline,involvedObject.name={}",
        key.name()
    );
    let found = Api::<Object>::namespaced(client.clone(), key.namespace())
        .list(&ListParams::default().fields(&of_pipeline))
        .await
        .map_err(said)
        .with_context(|| format!("cannot list the events of pipeline {key}"))?;
    let mut events: Vec<Event> = found.items.iter().map(event).collect();
    events.sort_by_key(|event| std::cmp::Reverse(event.time));
    events.truncate(EVENTS);
    Ok(events)
}

fn event(object: &Object) -> Event {
    let series = object.series.as_ref();
    let times = [
        series.and_then(|series| series.last_observed_time.as_ref().map(|time| time.0)),
        object.last_timestamp.as_ref().map(|time| time.0),
        object.event_time.as_ref().map(|time| time.0),
        object.creation_timestamp().map(|time| time.0),
    ];
    let time = times.into_iter().flatten().max();
    Event {
        time: time.unwrap_or(Timestamp::UNIX_EPOCH),
        kind: object.type_.clone().unwrap_or_default(),
        reason: object.reason.clone().unwrap_or_default(),
        message: object.message.clone().unwrap_or_default(),
    }
}
