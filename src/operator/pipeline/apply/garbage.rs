//! ConfigMaps of earlier revisions. They go once the rollout is over: until then a pod may still be
//! made from the old template, and it must find what that template names.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, PodSpec};
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use lookback_protocol::names::PipelineKey;

use super::Error;
use crate::operator::pipeline::owned_by;

/// Deletes those that are neither desired nor mounted by any pod.
pub(super) async fn collect(
    client: &Client,
    key: &PipelineKey,
    desired: &[ConfigMap],
    pods: &[Pod],
    stateful_set: &StatefulSet,
) -> Result<(), Error> {
    if !rolled_out(stateful_set) {
        return Ok(());
    }
    let mut kept: BTreeSet<String> = desired.iter().map(ResourceExt::name_any).collect();
    kept.extend(
        pods.iter()
            .filter_map(|pod| pod.spec.as_ref())
            .flat_map(mounted),
    );
    let api = Api::<ConfigMap>::namespaced(client.clone(), key.namespace());
    let ours = owned_by(key);
    let failed = |verb, name: &str| {
        let name = name.to_owned();
        move |source: kube::Error| Error::Api {
            verb,
            kind: "ConfigMap".to_owned(),
            name,
            source: Box::new(source),
        }
    };
    let existing = api
        .list_metadata(&ours)
        .await
        .map_err(failed("list", key.name()))?;
    for old in existing
        .items
        .iter()
        .filter(|existing| !kept.contains(&existing.name_any()))
    {
        let name = old.name_any();
        let parameters = DeleteParams::default().preconditions(Preconditions {
            uid: old.uid(),
            resource_version: None,
        });
        match api.delete(&name, &parameters).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
            Err(source) => return Err(failed("delete", &name)(source)),
        }
    }
    Ok(())
}

/// Whether every pod is made from the newest template, and no other will be.
fn rolled_out(stateful_set: &StatefulSet) -> bool {
    let Some(status) = &stateful_set.status else {
        return false;
    };
    let wanted = stateful_set
        .spec
        .as_ref()
        .and_then(|spec| spec.replicas)
        .unwrap_or(1);
    status.observed_generation == stateful_set.metadata.generation
        && status.current_revision == status.update_revision
        && status.updated_replicas.unwrap_or(0) == wanted
}

fn mounted(pod: &PodSpec) -> impl Iterator<Item = String> {
    let volumes = pod.volumes.iter().flatten();
    volumes.flat_map(|volume| {
        let alone = volume.config_map.iter().map(|source| source.name.clone());
        let projected = volume.projected.iter().flat_map(|projected| {
            let sources = projected.sources.iter().flatten();
            sources.filter_map(|source| Some(source.config_map.as_ref()?.name.clone()))
        });
        alone.chain(projected).collect::<Vec<_>>()
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stateful_set(observed: i64, current: &str, updated: i32) -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"generation": 4},
            "spec": {"replicas": 1, "selector": {}, "serviceName": "edr-worker", "template": {}},
            "status": {
                "observedGeneration": observed, "replicas": 1, "currentRevision": current,
                "updateRevision": "new", "updatedReplicas": updated,
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_rollout_is_over_when_the_pods_are_of_the_newest_revision() {
        assert!(rolled_out(&stateful_set(4, "new", 1)));
    }

    #[test]
    fn a_rollout_that_the_controller_has_not_seen_is_not_over() {
        assert!(!rolled_out(&stateful_set(3, "new", 1)));
    }

    #[test]
    fn a_rollout_with_a_pod_of_the_old_revision_is_not_over() {
        assert!(!rolled_out(&stateful_set(4, "old", 0)));
    }

    #[test]
    fn config_maps_are_found_alone_and_projected() {
        let pod: PodSpec = serde_json::from_value(json!({"containers": [], "volumes": [
            {"name": "config", "configMap": {"name": "edr-config-1"}},
            {"name": "rules", "projected": {"sources": [
                {"configMap": {"name": "edr-rules-1-0"}}, {"secret": {"name": "nats"}},
            ]}},
        ]}))
        .unwrap();
        let names: Vec<String> = mounted(&pod).collect();
        assert_eq!(names, ["edr-config-1", "edr-rules-1-0"]);
    }
}
