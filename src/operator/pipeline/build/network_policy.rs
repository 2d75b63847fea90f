//! What a worker's pod may reach, by port: NATS and DNS. And who may reach it: whoever reads metrics.
//! Where NATS is cannot be said by address: it may be outside the cluster, and servers of a NATS
//! cluster tell clients about each other.

use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::names::{self, ADMIN_PORT};
use crate::operator::pipeline::validate::ValidatedPipeline;

const DNS_PORT: i32 = 53;

pub(super) fn build(pipeline: &ValidatedPipeline) -> NetworkPolicy {
    let key = &pipeline.owner.pipeline;
    let nats = pipeline.nats.ports.iter();
    let egress = [
        nats.map(|&number| port("TCP", i32::from(number))).collect(),
        vec![port("UDP", DNS_PORT), port("TCP", DNS_PORT)],
    ];
    NetworkPolicy {
        metadata: names::metadata(pipeline, names::worker_name(key)),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector {
                match_labels: Some(names::selector(key)),
                ..LabelSelector::default()
            }),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(vec![NetworkPolicyIngressRule {
                ports: Some(vec![port("TCP", ADMIN_PORT)]),
                ..NetworkPolicyIngressRule::default()
            }]),
            egress: Some(egress.map(to_anywhere).into()),
        }),
    }
}

fn to_anywhere(ports: Vec<NetworkPolicyPort>) -> NetworkPolicyEgressRule {
    NetworkPolicyEgressRule {
        ports: Some(ports),
        ..NetworkPolicyEgressRule::default()
    }
}

fn port(protocol: &str, number: i32) -> NetworkPolicyPort {
    NetworkPolicyPort {
        protocol: Some(protocol.to_owned()),
        port: Some(IntOrString::Int(number)),
        ..NetworkPolicyPort::default()
    }
}
