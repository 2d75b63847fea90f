//! The pods' identity. They never speak to the API server, so they hold no token.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::names;
use crate::operator::pipeline::validate::ValidatedPipeline;

pub(super) fn build(pipeline: &ValidatedPipeline) -> ServiceAccount {
    ServiceAccount {
        metadata: names::metadata(pipeline, names::worker_name(&pipeline.owner.pipeline)),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}
