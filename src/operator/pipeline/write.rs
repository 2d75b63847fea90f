//! What is written onto the pipeline itself. Everything is conditional on the version it was decided
//! from, so that a decision that was overtaken changes nothing.

use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;

use super::{Error, notices};
use crate::api::{DetectionPipeline, DetectionPipelineStatus};
use crate::operator::FIELD_MANAGER;
use crate::operator::controller::Context;
use crate::operator::report::Notice;

/// Those it should have, onto the object they were decided from.
pub(super) async fn finalizers(
    pipeline: &DetectionPipeline,
    finalizers: &[String],
    context: &Context,
) -> Result<(), Error> {
    let patch = json!({"metadata": {
        "resourceVersion": pipeline.resource_version(),
        "finalizers": finalizers,
    }});
    api(pipeline, context)
        .patch(
            &pipeline.name_any(),
            &PatchParams::default(),
            &Patch::Merge(patch),
        )
        .await
        .map(drop)
        .map_err(|source| Error::Write {
            what: "finalizers",
            source: Box::new(source),
        })
}

/// Only when it says something new, and only onto the object it was decided from.
pub(super) async fn status(
    pipeline: &DetectionPipeline,
    status: &DetectionPipelineStatus,
    context: &Context,
) -> Result<(), Error> {
    if pipeline.status.as_ref() == Some(status) {
        return Ok(());
    }
    let patch = json!({
        "apiVersion": DetectionPipeline::api_version(&()),
        "kind": DetectionPipeline::kind(&()),
        "metadata": {"resourceVersion": pipeline.resource_version()},
        "status": status,
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    api(pipeline, context)
        .patch_status(&pipeline.name_any(), &parameters, &Patch::Apply(patch))
        .await
        .map_err(|source| Error::Write {
            what: "status",
            source: Box::new(source),
        })?;
    let notices = notices::changes(pipeline.status.as_ref(), status);
    events(pipeline, &notices, context).await;
    Ok(())
}

/// Tells people.
pub(super) async fn events(pipeline: &DetectionPipeline, notices: &[Notice], context: &Context) {
    let object = pipeline.object_ref(&());
    for notice in notices {
        context.reporter.publish(notice, &object).await;
    }
}

fn api(pipeline: &DetectionPipeline, context: &Context) -> Api<DetectionPipeline> {
    let namespace = pipeline.namespace().unwrap_or_default();
    Api::namespaced(context.client.clone(), &namespace)
}
