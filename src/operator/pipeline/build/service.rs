//! The headless service: the StatefulSet's, and where metrics are found.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::names::{self, ADMIN_PORT};
use crate::operator::pipeline::validate::ValidatedPipeline;

pub(super) fn build(pipeline: &ValidatedPipeline) -> Service {
    let key = &pipeline.owner.pipeline;
    Service {
        metadata: names::metadata(pipeline, names::worker_name(key)),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            // A worker that waits is not ready, and its metrics are what people then want to see.
            publish_not_ready_addresses: Some(true),
            selector: Some(names::selector(key)),
            ports: Some(vec![ServicePort {
                name: Some("metrics".to_owned()),
                port: ADMIN_PORT,
                protocol: Some("TCP".to_owned()),
                target_port: Some(IntOrString::Int(ADMIN_PORT)),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}
