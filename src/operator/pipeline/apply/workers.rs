//! The StatefulSet, written only onto the version of it that was found.

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use lookback_protocol::names::PipelineKey;
use serde_json::json;

use super::Error;
use crate::operator::FIELD_MANAGER;
use crate::operator::pipeline::build::epoch_of;

/// `desired`, to be applied only onto what was `found`.
pub(super) fn onto(desired: &StatefulSet, found: Option<&StatefulSet>) -> StatefulSet {
    let mut desired = desired.clone();
    desired.metadata.resource_version = found.and_then(ResourceExt::resource_version);
    desired
}

/// Whether what was `found` has the epoch and the replicas that are desired.
pub(super) fn is_held(found: Option<&StatefulSet>, desired: &StatefulSet) -> bool {
    found.is_some_and(|found| {
        epoch_of(found) == epoch_of(desired) && replicas(found) == replicas(desired)
    })
}

/// Whether there is to be no worker.
pub(super) fn are_unwanted(desired: &StatefulSet) -> bool {
    replicas(desired) == Some(0)
}

/// Scales what was `found` to zero.
pub(super) async fn stop(
    client: &Client,
    key: &PipelineKey,
    found: Option<&StatefulSet>,
) -> Result<(), Error> {
    let Some(found) = found.filter(|found| replicas(found) != Some(0)) else {
        return Ok(());
    };
    let patch = json!({
        "metadata": {"resourceVersion": found.resource_version()},
        "spec": {"replicas": 0},
    });
    let parameters = PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    let name = found.name_any();
    Api::<StatefulSet>::namespaced(client.clone(), key.namespace())
        .patch(&name, &parameters, &Patch::Merge(patch))
        .await
        .map(drop)
        .map_err(|source| Error::Api {
            verb: "stop",
            kind: "StatefulSet".to_owned(),
            name,
            source: Box::new(source),
        })
}

fn replicas(set: &StatefulSet) -> Option<i32> {
    set.spec.as_ref()?.replicas
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(epoch: &str, replicas: i32) -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"name": "edr", "resourceVersion": "7"},
            "spec": {
                "replicas": replicas, "selector": {}, "serviceName": "edr-worker",
                "template": {"metadata": {"annotations": {"lookback.dev/epoch": epoch}}},
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_set_of_the_epoch_that_runs_is_held() {
        assert!(is_held(Some(&set("2", 1)), &set("2", 1)));
    }

    #[test]
    fn a_set_of_another_epoch_or_that_does_not_run_is_not_held() {
        assert!(!is_held(Some(&set("1", 1)), &set("2", 1)));
        assert!(!is_held(Some(&set("2", 0)), &set("2", 1)));
        assert!(!is_held(None, &set("2", 1)));
    }

    #[test]
    fn a_set_is_written_onto_the_version_that_was_found() {
        let mut desired = set("2", 1);
        desired.metadata.resource_version = None;
        let written = onto(&desired, Some(&set("1", 0)));
        assert_eq!(written.metadata.resource_version.as_deref(), Some("7"));
        assert_eq!(onto(&desired, None).metadata.resource_version, None);
    }
}
