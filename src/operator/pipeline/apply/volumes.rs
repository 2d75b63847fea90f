//! Claims are made by the StatefulSet, and a claim template cannot change; so the operator grows the
//! claims themselves.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use lookback_protocol::names::PipelineKey;
use serde_json::json;

use super::Error;
use crate::api::conditions::Reason;
use crate::operator::pipeline::build::DesiredVolume;
use crate::operator::pipeline::facts::VolumeFacts;
use crate::operator::pipeline::problem::Problem;

/// Asks for more when the claim exists and asks for less.
pub(super) async fn grow(
    client: &Client,
    key: &PipelineKey,
    desired: &DesiredVolume,
    volumes: &[VolumeFacts],
) -> Result<Result<(), Problem>, Error> {
    if !is_too_small(desired, volumes) {
        return Ok(Ok(()));
    }
    let DesiredVolume { name, size } = desired;
    let patch = json!({"spec": {"resources": {"requests": {"storage": size}}}});
    let claims = Api::<PersistentVolumeClaim>::namespaced(client.clone(), key.namespace());
    match claims
        .patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
    {
        Ok(_) => Ok(Ok(())),
        Err(kube::Error::Api(status)) if status.is_invalid() || status.is_forbidden() => {
            let message = format!(
                "volume claim {name} cannot grow to {size}: {}",
                status.message
            );
            Ok(Err(Problem::new(Reason::ObjectRefused, message)))
        }
        Err(source) => Err(Error::Api {
            verb: "grow",
            kind: "PersistentVolumeClaim".to_owned(),
            name: name.clone(),
            source: Box::new(source),
        }),
    }
}

fn is_too_small(desired: &DesiredVolume, volumes: &[VolumeFacts]) -> bool {
    let claim = volumes.iter().find(|volume| volume.name == desired.name);
    let requested = claim.and_then(|claim| claim.requested.as_ref());
    requested.is_some_and(|requested| requested.bytes() < desired.size.bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_too_small(requested: &str, wanted: &str) -> bool {
        let desired = DesiredVolume {
            name: "state-edr-0".to_owned(),
            size: wanted.parse().unwrap(),
        };
        let claim = VolumeFacts {
            name: "state-edr-0".to_owned(),
            bound: true,
            requested: requested.parse().ok(),
        };
        super::is_too_small(&desired, &[claim])
    }

    #[test]
    fn a_claim_grows_and_never_shrinks() {
        assert!(is_too_small("5Gi", "10Gi"));
        assert!(!is_too_small("10Gi", "5Gi"));
    }

    #[test]
    fn the_same_size_written_differently_is_no_growth() {
        assert!(!is_too_small("1Gi", "1024Mi"));
    }
}
