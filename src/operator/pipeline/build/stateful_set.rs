//! The worker. At most one replica: a partition has one state file and one writer.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{
    StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec,
};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PodTemplateSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use lookback_protocol::position::Epoch;

use super::names::{self, CONFIG_ANNOTATION, EPOCH_ANNOTATION, RESTART_ANNOTATION, STATE_VOLUME};
use super::pod;
use crate::api::pipeline::{AccessMode, DeletionPolicy};
use crate::operator::pipeline::validate::{ValidatedPipeline, ValidatedStorage};

const REVISIONS_KEPT: i32 = 2;

/// `config` and `rules` are the names of the ConfigMaps to mount.
pub(super) fn build(pipeline: &ValidatedPipeline, config: &str, rules: &[String]) -> StatefulSet {
    let key = &pipeline.owner.pipeline;
    StatefulSet {
        metadata: names::metadata(pipeline, key.name().to_owned()),
        spec: Some(StatefulSetSpec {
            service_name: Some(names::worker_name(key)),
            replicas: Some(pipeline.turn.replicas),
            pod_management_policy: Some("Parallel".to_owned()),
            revision_history_limit: Some(REVISIONS_KEPT),
            selector: LabelSelector {
                match_labels: Some(names::selector(key)),
                ..LabelSelector::default()
            },
            template: PodTemplateSpec {
                metadata: Some(template_metadata(pipeline, config)),
                spec: Some(pod::build(pipeline, config, rules)),
            },
            volume_claim_templates: Some(vec![claim(pipeline)]),
            persistent_volume_claim_retention_policy: Some(retention(pipeline.deletion_policy)),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}

/// The epoch that `set` is made for; `None` when its template does not say.
#[must_use]
pub fn epoch_of(set: &StatefulSet) -> Option<Epoch> {
    let template = &set.spec.as_ref()?.template;
    names::epoch_in(template.metadata.as_ref()?)
}

fn template_metadata(pipeline: &ValidatedPipeline, config: &str) -> ObjectMeta {
    let key = &pipeline.owner.pipeline;
    let worker = &pipeline.worker;
    let mut labels = worker.labels.clone();
    labels.extend(names::ownership(key));
    labels.extend(names::selector(key));
    let mut annotations = worker.annotations.clone();
    annotations.insert(CONFIG_ANNOTATION.to_owned(), config.to_owned());
    annotations.insert(EPOCH_ANNOTATION.to_owned(), pipeline.turn.epoch.to_string());
    if !pipeline.restart_nonce.is_empty() {
        annotations.insert(
            RESTART_ANNOTATION.to_owned(),
            pipeline.restart_nonce.clone(),
        );
    }
    ObjectMeta {
        labels: Some(labels),
        annotations: Some(annotations),
        ..ObjectMeta::default()
    }
}

/// A volume outlives a scale to zero whatever the policy: only deletion may take it.
fn retention(policy: DeletionPolicy) -> StatefulSetPersistentVolumeClaimRetentionPolicy {
    let when_deleted = match policy {
        DeletionPolicy::Retain => "Retain",
        DeletionPolicy::Delete => "Delete",
    };
    StatefulSetPersistentVolumeClaimRetentionPolicy {
        when_deleted: Some(when_deleted.to_owned()),
        when_scaled: Some("Retain".to_owned()),
    }
}

/// Nothing in here may change after the first apply: Kubernetes refuses it.
fn claim(pipeline: &ValidatedPipeline) -> PersistentVolumeClaim {
    let ValidatedStorage {
        size: _,
        template_size,
        class,
        access_mode,
    } = &pipeline.storage;
    let access_mode = match access_mode {
        AccessMode::ReadWriteOnce => "ReadWriteOnce",
        AccessMode::ReadWriteOncePod => "ReadWriteOncePod",
    };
    let requests = BTreeMap::from([("storage".to_owned(), template_size.to_quantity())]);
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(STATE_VOLUME.to_owned()),
            labels: Some(names::ownership(&pipeline.owner.pipeline)),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec![access_mode.to_owned()]),
            storage_class_name: class.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(requests),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}
