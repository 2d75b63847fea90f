//! Which names mean something inside the cluster only.

use std::net::IpAddr;

/// The port of NATS where a URL names none.
const PORT: u16 = 4222;

/// A Service of the cluster, as a URL names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// As the URL has it.
    pub host: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The pod, where a headless Service gives each a name of its own.
    pub pod: Option<String>,
    /// Its port.
    pub port: u16,
}

/// The Service that a NATS URL may mean for a pod in `namespace`; `None` for what can only be an
/// address or a name of the world outside.
#[must_use]
pub fn service(url: &str, namespace: &str) -> Option<Service> {
    let (_, place) = url.split_once("://")?;
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) => (host, port.parse().ok()?),
        None => (place, PORT),
    };
    let bare = host.trim_end_matches('.').to_ascii_lowercase();
    if host.starts_with('[') || bare.parse::<IpAddr>().is_ok() || bare == "localhost" {
        return None;
    }
    let labels: Vec<&str> = bare.split('.').collect();
    if labels.iter().any(|label| label.is_empty()) {
        return None;
    }
    let inside = labels.iter().position(|&label| label == "svc");
    let (pod, name, space) = match (labels.as_slice(), inside) {
        ([name], None) => (None, *name, namespace),
        ([name, space], None) => (None, *name, *space),
        ([name, space, ..], Some(2)) => (None, *name, *space),
        ([pod, name, space, ..], Some(3)) => (Some((*pod).to_owned()), *name, *space),
        _ => return None,
    };
    Some(Service {
        host: host.to_owned(),
        namespace: space.to_owned(),
        name: name.to_owned(),
        pod,
        port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(url: &str) -> Option<(String, Option<String>, u16)> {
        let service = service(url, "prod")?;
        let name = format!("{}/{}", service.namespace, service.name);
        Some((name, service.pod, service.port))
    }

    #[test]
    fn addresses_and_names_of_the_world_outside_need_no_tunnel() {
        for url in [
            "nats://10.0.0.1:4222",
            "nats://127.0.0.1:1",
            "nats://[::1]:4222",
            "nats://localhost:4222",
            "tls://nats.example.com:4222",
            "tls://a.b.c.d.svc.example.com:4222",
            "nats://..:1",
            "no url",
        ] {
            assert_eq!(found(url), None, "{url}");
        }
    }

    #[test]
    fn a_bare_name_is_a_service_of_the_pipelines_namespace() {
        let expected = ("prod/nats".to_owned(), None, 4222);
        assert_eq!(found("nats://nats:4222"), Some(expected.clone()));
        assert_eq!(found("nats://nats"), Some(expected));
    }

    #[test]
    fn a_name_with_a_namespace_is_a_service_there() {
        for url in [
            "nats://nats.infra:4333",
            "nats://nats.infra.svc:4333",
            "nats://nats.infra.svc.cluster.local:4333",
            "nats://NATS.infra.svc.cluster.local.:4333",
            "tls://nats.infra.svc.corp.example:4333",
        ] {
            let expected = ("infra/nats".to_owned(), None, 4333);
            assert_eq!(found(url), Some(expected), "{url}");
        }
    }

    #[test]
    fn a_pod_of_a_headless_service_has_a_name_of_its_own() {
        let expected = ("infra/nats".to_owned(), Some("nats-1".to_owned()), 4222);
        assert_eq!(
            found("nats://nats-1.nats.infra.svc.cluster.local:4222"),
            Some(expected)
        );
    }
}
