//! One object after the other by server-side apply. An apply that changes nothing writes nothing, so
//! a pipeline that is as it should be keeps its resourceVersions.

use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt};
use lookback_protocol::names::PipelineKey;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Error;
use crate::api::conditions::Reason;
use crate::operator::FIELD_MANAGER;
use crate::operator::pipeline::build::names;
use crate::operator::pipeline::problem::Problem;

/// Applies `object`, unless one of its name exists that is not the pipeline's. What the API server
/// refuses for good is a problem, since only a person can end it.
pub(super) async fn apply<K>(
    client: &Client,
    key: &PipelineKey,
    object: &K,
) -> Result<Result<K, Problem>, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned,
{
    let kind = K::kind(&());
    let name = object.name_any();
    let api = Api::<K>::namespaced(client.clone(), key.namespace());
    let failed = |verb| {
        let (kind, name) = (kind.to_string(), name.clone());
        move |source: kube::Error| Error::Api {
            verb,
            kind,
            name,
            source: Box::new(source),
        }
    };
    let existing = api.get_metadata_opt(&name).await.map_err(failed("read"))?;
    if existing.is_some_and(|existing| !names::are_ours(existing.meta(), key)) {
        let message = format!(
            "{kind} {name} exists and does not carry the labels of pipeline {key}; it is left alone"
        );
        return Ok(Err(Problem::new(Reason::ForeignObject, message)));
    }
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    match api.patch(&name, &parameters, &Patch::Apply(object)).await {
        Ok(applied) => Ok(Ok(applied)),
        Err(kube::Error::Api(status)) if status.is_invalid() || status.is_forbidden() => {
            let message = format!("the API server refuses {kind} {name}: {}", status.message);
            Ok(Err(Problem::new(Reason::ObjectRefused, message)))
        }
        Err(source) => Err(failed("apply")(source)),
    }
}
