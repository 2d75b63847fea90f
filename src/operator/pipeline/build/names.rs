//! Names, labels and paths that the built objects share, and by which they are found again.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use lookback_protocol::names::PipelineKey;
use lookback_protocol::position::Epoch;
use sha2::{Digest, Sha256};

use crate::operator::pipeline::validate::ValidatedPipeline;

/// The port of `/live`, `/ready` and `/metrics`.
pub const ADMIN_PORT: i32 = 8080;
/// The worker's container.
pub const CONTAINER: &str = "worker";
/// The volume with the config ConfigMap.
pub const CONFIG_VOLUME: &str = "config";
/// The key of the config ConfigMap.
pub const CONFIG_KEY: &str = "config.json";
/// Where it is mounted.
pub const CONFIG_DIR: &str = "/etc/lookback/config";
/// The volume with the rules ConfigMaps.
pub const RULES_VOLUME: &str = "rules";
/// Where they are mounted.
pub const RULES_DIR: &str = "/etc/lookback/rules";
/// Where credentials are mounted.
pub const AUTH_DIR: &str = "/etc/lookback/nats-auth";
/// Where the CA is mounted.
pub const CA_DIR: &str = "/etc/lookback/nats-ca";
/// The volume, and the claim template, with the state file.
pub const STATE_VOLUME: &str = "state";
/// Where it is mounted.
pub const STATE_DIR: &str = "/var/lib/lookback";
/// Marks the pod template, and so every pod, with the epoch it works in.
pub const EPOCH_ANNOTATION: &str = "lookback.dev/epoch";
/// Marks the pod template with `spec.restartNonce`, so that another one is another pod.
pub const RESTART_ANNOTATION: &str = "lookback.dev/restart";
/// Marks the pod template with the name of its config ConfigMap, so that a rollout is seen.
pub const CONFIG_ANNOTATION: &str = "lookback.dev/config";

const HASH_LENGTH: usize = 10;

/// Labels by which pods are selected; they never change, because a selector cannot.
#[must_use]
pub fn selector(key: &PipelineKey) -> BTreeMap<String, String> {
    labels([
        ("app.kubernetes.io/name", "lookback"),
        ("app.kubernetes.io/component", "worker"),
        ("app.kubernetes.io/instance", key.name()),
    ])
}

/// Labels of everything in Kubernetes that one pipeline owns; unique in its namespace.
#[must_use]
pub fn ownership(key: &PipelineKey) -> BTreeMap<String, String> {
    labels([
        ("app.kubernetes.io/name", "lookback"),
        ("app.kubernetes.io/managed-by", "lookback"),
        ("app.kubernetes.io/instance", key.name()),
    ])
}

/// Whether `existing` carries the labels of everything the pipeline owns. Not the owner's uid: what a
/// deleted pipeline left is adopted by one of the same name.
#[must_use]
pub fn are_ours(existing: &ObjectMeta, key: &PipelineKey) -> bool {
    let labels = existing.labels.as_ref();
    let wanted = ownership(key);
    let has = |(label, value): (&String, &String)| {
        labels.is_some_and(|labels| labels.get(label) == Some(value))
    };
    wanted.iter().all(has)
}

/// The pod of one partition, as the StatefulSet names it.
#[must_use]
pub fn pod_name(key: &PipelineKey, partition: u32) -> String {
    format!("{}-{partition}", key.name())
}

/// The service, service account and network policy.
#[must_use]
pub fn worker_name(key: &PipelineKey) -> String {
    format!("{}-worker", key.name())
}

/// The claim of one partition's volume, as the StatefulSet names it.
#[must_use]
pub fn claim_name(key: &PipelineKey, partition: u32) -> String {
    format!("{STATE_VOLUME}-{}-{partition}", key.name())
}

/// The epoch that the annotation of a pod or of its template names.
#[must_use]
pub fn epoch_in(metadata: &ObjectMeta) -> Option<Epoch> {
    let epoch = metadata.annotations.as_ref()?.get(EPOCH_ANNOTATION)?;
    epoch.parse().ok().map(Epoch)
}

pub(super) fn metadata(pipeline: &ValidatedPipeline, name: String) -> ObjectMeta {
    let key = &pipeline.owner.pipeline;
    let mut labels = ownership(key);
    labels.extend(selector(key));
    ObjectMeta {
        name: Some(name),
        namespace: Some(key.namespace().to_owned()),
        labels: Some(labels),
        owner_references: Some(vec![pipeline.owner_reference.clone()]),
        ..ObjectMeta::default()
    }
}

/// Short enough for a name, long enough that two contents of one pipeline never share it.
pub(super) fn content_hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut text = data_encoding::HEXLOWER.encode(&hash.finalize());
    text.truncate(HASH_LENGTH);
    text
}

fn labels<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}
