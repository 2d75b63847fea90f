//! What the API server holds of a pipeline.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod};
use kube::api::{ListParams, LogParams};
use kube::{Api, Client, Resource, ResourceExt};
use lookback_protocol::names::PipelineKey;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::bundle::Bundle;
use crate::ctl::context::said;
use crate::operator::pipeline::owned_by;

/// The labels of the operator's pods.
const OPERATOR: &str = "app.kubernetes.io/name=lookback,app.kubernetes.io/component=operator";

/// Adds what can be read; `logs` is how many lines of each log.
pub(super) async fn collect(
    client: &Client,
    key: &PipelineKey,
    logs: Option<i64>,
    bundle: &mut Bundle,
) {
    let ours = owned_by(key);
    objects::<StatefulSet>(client, key, &ours, "statefulsets.yaml", bundle).await;
    objects::<PersistentVolumeClaim>(client, key, &ours, "volumes.yaml", bundle).await;
    let pods = objects::<Pod>(client, key, &ours, "pods.yaml", bundle).await;
    let about = [key.name().to_owned()];
    for name in about
        .into_iter()
        .chain(pods.iter().map(ResourceExt::name_any))
    {
        let field = ListParams::default().fields(&format!("involvedObject.name={name}"));
        let file = format!("events/{name}.yaml");
        objects::<Event>(client, key, &field, &file, bundle).await;
    }
    let Some(tail) = logs else {
        return bundle.left_out("logs/", "--logs collects them");
    };
    let labels = ListParams::default().labels(OPERATOR);
    let operators = match Api::<Pod>::all(client.clone()).list(&labels).await {
        Ok(found) => found.items,
        Err(error) => {
            bundle.left_out("logs/ of the operator", said(error).to_string());
            Vec::new()
        }
    };
    for pod in pods.iter().chain(&operators) {
        for previous in [false, true] {
            log(client, pod, tail, previous, bundle).await;
        }
    }
}

async fn objects<K>(
    client: &Client,
    key: &PipelineKey,
    which: &ListParams,
    file: &str,
    bundle: &mut Bundle,
) -> Vec<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize,
{
    let api = Api::<K>::namespaced(client.clone(), key.namespace());
    match api.list(which).await {
        Ok(found) => {
            bundle.object(file, &found.items);
            found.items
        }
        Err(error) => {
            bundle.left_out(file, said(error).to_string());
            Vec::new()
        }
    }
}

/// A pod that was not restarted has no previous log, which is not worth a line.
async fn log(client: &Client, pod: &Pod, tail: i64, previous: bool, bundle: &mut Bundle) {
    let name = pod.name_any();
    let namespace = pod.namespace().unwrap_or_default();
    let suffix = if previous { ".previous" } else { "" };
    let file = format!("logs/{namespace}-{name}{suffix}.log");
    let params = LogParams {
        tail_lines: Some(tail),
        previous,
        ..LogParams::default()
    };
    match Api::<Pod>::namespaced(client.clone(), &namespace)
        .logs(&name, &params)
        .await
    {
        Ok(text) => bundle.text(&file, &text),
        Err(_) if previous => {}
        Err(error) => bundle.left_out(&file, said(error).to_string()),
    }
}
