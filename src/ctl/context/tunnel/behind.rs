//! Which pod stands behind a Service, and at which of its ports.

use k8s_openapi::api::core::v1::Service as ServiceObject;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::Service;

/// A pod's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) pod: String,
    pub(super) port: u16,
}

/// A pod that is ready; `None` when there is none.
pub(super) fn behind(
    wanted: &Service,
    object: &ServiceObject,
    slices: &[EndpointSlice],
) -> Option<Endpoint> {
    let spec = object.spec.as_ref()?;
    let ports = spec.ports.iter().flatten();
    let named = ports
        .filter(|port| port.port == i32::from(wanted.port))
        .map(|port| port.name.clone().unwrap_or_default())
        .next();
    // Behind a headless Service every port of a pod can be reached, also one that it does not name.
    let headless = spec.cluster_ip.as_deref() == Some("None");
    slices.iter().find_map(|slice| {
        let port = match &named {
            Some(name) => {
                let mut ports = slice.ports.iter().flatten();
                let port = ports.find(|port| port.name.clone().unwrap_or_default() == *name)?;
                u16::try_from(port.port?).ok()?
            }
            None if headless => wanted.port,
            None => return None,
        };
        let pod = slice.endpoints.iter().find_map(|endpoint| {
            let ready = endpoint.conditions.as_ref().and_then(|found| found.ready);
            let target = endpoint.target_ref.as_ref()?;
            let name = target.name.clone()?;
            let hostname = endpoint.hostname.as_deref();
            let is_it = match wanted.pod.as_deref() {
                Some(pod) => hostname == Some(pod) || name == pod,
                None => true,
            };
            let is_pod = target.kind.as_deref() == Some("Pod");
            (ready != Some(false) && is_pod && is_it).then_some(name)
        })?;
        Some(Endpoint { pod, port })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(cluster_ip: &str, ports: Value) -> ServiceObject {
        let spec = json!({"clusterIP": cluster_ip, "ports": ports});
        serde_json::from_value(json!({"spec": spec})).unwrap()
    }

    fn slice(endpoints: Value, ports: Value) -> Vec<EndpointSlice> {
        let slice = json!({"addressType": "IPv4", "endpoints": endpoints, "ports": ports});
        vec![serde_json::from_value(slice).unwrap()]
    }

    fn pod(name: &str, ready: bool) -> Value {
        json!({
            "addresses": ["10.0.0.1"], "conditions": {"ready": ready}, "hostname": name,
            "targetRef": {"kind": "Pod", "name": name},
        })
    }

    fn wanted(url: &str) -> Service {
        super::super::names::service(url, "prod").unwrap()
    }

    fn endpoint(pod: &str, port: u16) -> Option<Endpoint> {
        Some(Endpoint {
            pod: pod.to_owned(),
            port,
        })
    }

    #[test]
    fn the_port_of_the_service_is_the_one_of_that_name_at_the_pod() {
        let object = service(
            "10.1.1.1",
            json!([{"name": "web", "port": 80}, {"name": "client", "port": 4222}]),
        );
        let slices = slice(
            json!([pod("nats-0", false), pod("nats-1", true)]),
            json!([{"name": "web", "port": 8080}, {"name": "client", "port": 14222}]),
        );
        let found = behind(&wanted("nats://nats:4222"), &object, &slices);
        assert_eq!(found, endpoint("nats-1", 14222));
        assert_eq!(behind(&wanted("nats://nats:1"), &object, &slices), None);
    }

    #[test]
    fn a_port_may_have_no_name() {
        let object = service("10.1.1.1", json!([{"port": 4222}]));
        let slices = slice(
            json!([pod("nats-0", true)]),
            json!([{"name": "", "port": 4222}]),
        );
        let found = behind(&wanted("nats://nats"), &object, &slices);
        assert_eq!(found, endpoint("nats-0", 4222));
    }

    #[test]
    fn a_headless_service_gives_any_port_of_the_pod_that_is_named() {
        let object = service("None", json!([]));
        let slices = slice(json!([pod("nats-0", true), pod("nats-1", true)]), json!([]));
        let url = wanted("nats://nats-1.nats.prod.svc:4222");
        assert_eq!(behind(&url, &object, &slices), endpoint("nats-1", 4222));
    }

    #[test]
    fn an_endpoint_that_is_no_pod_cannot_be_forwarded_to() {
        let object = service("10.1.1.1", json!([{"port": 4222}]));
        let outside = json!([{"addresses": ["10.0.0.1"]}]);
        let slices = slice(outside, json!([{"port": 4222}]));
        assert_eq!(behind(&wanted("nats://nats"), &object, &slices), None);
    }
}
