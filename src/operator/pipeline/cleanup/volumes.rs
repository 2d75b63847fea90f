//! The volumes go with the StatefulSet, by its retention policy. A pipeline whose policy was changed
//! to Delete and that was deleted at once may have had no reconcile between the two: the StatefulSet
//! is given the policy first, and stays until its controller has taken the claims over.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use lookback_protocol::names::PipelineKey;
use serde_json::json;

use super::{Error, api_error};
use crate::operator::controller::Context;
use crate::operator::pipeline::owned_by;

/// Makes the volumes go with `sets`; why they would not yet, if so.
pub(super) async fn bind(
    sets: &[StatefulSet],
    key: &PipelineKey,
    context: &Context,
) -> Result<Option<String>, Error> {
    if sets.is_empty() {
        return Ok(None);
    }
    let client = &context.client;
    let api = Api::<StatefulSet>::namespaced(client.clone(), key.namespace());
    let patch = json!({"spec": {"persistentVolumeClaimRetentionPolicy": {
        "whenDeleted": "Delete", "whenScaled": "Retain",
    }}});
    for set in sets.iter().filter(|set| !takes_volumes(set)) {
        let parameters = PatchParams::default();
        api.patch(&set.name_any(), &parameters, &Patch::Merge(&patch))
            .await
            .map_err(api_error(
                key,
                "set the retention policy of",
                "the StatefulSet",
            ))?;
    }
    let claims = Api::<PersistentVolumeClaim>::namespaced(client.clone(), key.namespace())
        .list(&owned_by(key))
        .await
        .map_err(api_error(key, "list", "volume claims"))?;
    let staying = staying(sets, &claims.items);
    Ok((!staying.is_empty()).then(|| {
        let staying = staying.join(", ");
        format!("volume claim {staying} does not go with the StatefulSet yet")
    }))
}

fn takes_volumes(set: &StatefulSet) -> bool {
    let spec = set.spec.as_ref();
    let policy = spec.and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
    policy.and_then(|policy| policy.when_deleted.as_deref()) == Some("Delete")
}

/// Claims that would outlive the sets.
fn staying(sets: &[StatefulSet], claims: &[PersistentVolumeClaim]) -> Vec<String> {
    let is_owned = |claim: &PersistentVolumeClaim| {
        let mut owners = claim.owner_references().iter().map(|owner| &owner.uid);
        owners.any(|owner| sets.iter().any(|set| set.uid().as_ref() == Some(owner)))
    };
    claims
        .iter()
        .filter(|claim| claim.metadata.deletion_timestamp.is_none() && !is_owned(claim))
        .map(ResourceExt::name_any)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(when_deleted: &str) -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"name": "edr", "uid": "1"},
            "spec": {
                "selector": {}, "serviceName": "edr-worker", "template": {},
                "persistentVolumeClaimRetentionPolicy": {"whenDeleted": when_deleted},
            },
        }))
        .unwrap()
    }

    fn claim(owner: &str) -> PersistentVolumeClaim {
        serde_json::from_value(
            json!({"metadata": {"name": "state-edr-0", "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "edr", "uid": owner},
            ]}}),
        )
        .unwrap()
    }

    #[test]
    fn a_set_that_retains_does_not_take_its_volumes_along() {
        assert!(takes_volumes(&set("Delete")));
        assert!(!takes_volumes(&set("Retain")));
    }

    #[test]
    fn a_claim_stays_until_it_belongs_to_the_set() {
        let sets = [set("Delete")];
        assert_eq!(staying(&sets, &[claim("2")]), ["state-edr-0"]);
        assert!(staying(&sets, &[claim("1")]).is_empty());
    }
}
