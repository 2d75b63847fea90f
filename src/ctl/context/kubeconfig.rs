//! The way to the API server.

use std::env;

use anyhow::{Context as _, Result, anyhow, ensure};
use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use k8s_openapi::api::core::v1::Namespace;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};

use super::{Target, said};

/// A client, and the namespace of its context.
pub(super) struct Cluster {
    pub(super) client: Client,
    pub(super) server: Uri,
    pub(super) namespace: String,
}

/// As kubectl: the file that is given, or those of `$KUBECONFIG`, or the one at home; and when nothing
/// is given and there is none, the service account of the pod this runs in.
pub(super) async fn read(target: &Target) -> Result<Cluster> {
    let options = KubeConfigOptions {
        context: target.context.clone(),
        ..KubeConfigOptions::default()
    };
    let file = match &target.kubeconfig {
        Some(path) => Kubeconfig::read_from(path),
        None => Kubeconfig::read(),
    };
    let config = match file {
        Ok(file) => {
            if let Some(name) = &target.context {
                let is_there = file.contexts.iter().any(|it| it.name == *name);
                ensure!(
                    is_there,
                    "the kubeconfig has no context {name}; `kubectl config get-contexts` lists all"
                );
            }
            let of_cluster = proxy_of_cluster(&file, target.context.as_deref());
            let mut config = Config::from_custom_kubeconfig(file, &options)
                .await
                .context("cannot use the kubeconfig")?;
            config.proxy_url = proxy(of_cluster, &config.cluster_url, |name| env::var(name).ok())?;
            config
        }
        Err(error) => {
            let asked = target.kubeconfig.is_some() || target.context.is_some();
            match Config::incluster() {
                Ok(config) if !asked => config,
                _ => {
                    return Err(anyhow!(error).context(
                        "cannot read the kubeconfig: give --kubeconfig, or set KUBECONFIG",
                    ));
                }
            }
        }
    };
    let namespace = config.default_namespace.clone();
    let server = config.cluster_url.clone();
    let client = Client::try_from(config).context("cannot use the kubeconfig")?;
    Ok(Cluster {
        client,
        server,
        namespace,
    })
}

/// The `proxy-url` of the cluster that the context names.
fn proxy_of_cluster(file: &Kubeconfig, context: Option<&str>) -> Option<String> {
    let wanted = context.or(file.current_context.as_deref())?;
    let context = file.contexts.iter().find(|it| it.name == wanted)?;
    let cluster = &context.context.as_ref()?.cluster;
    let cluster = file.clusters.iter().find(|it| it.name == *cluster)?;
    cluster.cluster.as_ref()?.proxy_url.clone()
}

/// The proxy on the way to `server`, as kubectl chooses it. The client's own choice asks `NO_PROXY` about
/// the proxy in place of the server.
fn proxy(
    of_cluster: Option<String>,
    server: &Uri,
    env: impl Fn(&str) -> Option<String>,
) -> Result<Option<Uri>> {
    let given = |names: [&str; 2]| {
        let mut values = names.iter().filter_map(|name| env(name));
        values.find(|value| !value.is_empty())
    };
    let of_cluster = of_cluster.filter(|url| !url.is_empty());
    let url = match (of_cluster, given(["HTTPS_PROXY", "https_proxy"])) {
        (Some(url), _) => url,
        (None, Some(url)) if !avoids_proxy(server, given(["NO_PROXY", "no_proxy"])) => url,
        (None, _) => return Ok(None),
    };
    let url = match url.contains("://") {
        true => url,
        false => format!("http://{url}"),
    };
    // Not the whole of it: there may be a password in it.
    let proxy: Uri = url.parse().context("cannot use the proxy that is set")?;
    let scheme = proxy.scheme_str().unwrap_or_default();
    ensure!(
        ["http", "https", "socks5"].contains(&scheme),
        "cannot use the proxy that is set: its scheme is {scheme}, and must be http, https or socks5"
    );
    Ok(Some(proxy))
}

/// Whether no proxy stands before `server`: it is on this machine, or `NO_PROXY` names it.
fn avoids_proxy(server: &Uri, no_proxy: Option<String>) -> bool {
    let no_proxy = no_proxy.unwrap_or_default();
    let entries: Vec<&str> = no_proxy.split(',').map(str::trim).collect();
    // The matcher takes it for names alone.
    if entries.contains(&"*") {
        return true;
    }
    let port = server.port_u16().unwrap_or(443);
    let loopback = ["localhost", "127.0.0.0/8", "::1"];
    let none: Vec<&str> = loopback
        .into_iter()
        .chain(entries.iter().filter_map(|entry| host_of(entry, port)))
        .collect();
    let some = Matcher::builder()
        .all("http://proxy")
        .no(none.join(","))
        .build();
    some.intercept(server).is_none()
}

/// What an entry of `NO_PROXY` says of a server at `port`, as the matcher knows it: without the star
/// before a domain, and without a port. `None` when it names another port.
fn host_of(entry: &str, port: u16) -> Option<&str> {
    let domain = entry.strip_prefix('*').filter(|rest| rest.starts_with('.'));
    let entry = domain.unwrap_or(entry);
    let number = entry
        .split_once(':')
        .map(|(host, its)| (host, its.parse::<u16>()));
    match number {
        Some((host, Ok(its))) => (port == its).then_some(host),
        Some((_, Err(_))) | None => Some(entry),
    }
}

/// The id of the cluster as the operator makes it when it is given none.
pub(super) async fn cluster_id(client: Client) -> Result<String> {
    let namespace = Api::<Namespace>::all(client).get("kube-system").await;
    let namespace = namespace.map_err(said).context(
        "cannot read the uid of namespace kube-system, which is the cluster's id: give it with --cluster-id",
    )?;
    namespace.uid().context("namespace kube-system has no uid")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROXY: (&str, &str) = ("HTTPS_PROXY", "http://ann:secret@proxy.corp.example:3128");

    fn chosen(of_cluster: Option<&str>, server: &str, env: &[(&str, &str)]) -> Option<String> {
        let server = server.parse().unwrap();
        let env = |wanted: &str| {
            let mut found = env.iter().filter(|(name, _)| *name == wanted);
            found.next().map(|(_, value)| (*value).to_owned())
        };
        let found = proxy(of_cluster.map(str::to_owned), &server, env).unwrap();
        found.map(|url| url.to_string())
    }

    #[test]
    fn the_proxy_of_the_environment_is_used_whole() {
        let found = chosen(None, "https://10.1.2.3:6443", &[PROXY]);
        assert_eq!(found, Some(format!("{}/", PROXY.1)));
        let bare = [("HTTPS_PROXY", ""), ("https_proxy", "proxy:3128")];
        let found = chosen(None, "https://api.example:6443", &bare);
        assert_eq!(found.as_deref(), Some("http://proxy:3128/"));
        assert_eq!(chosen(None, "https://api.example:6443", &[]), None);
    }

    #[test]
    fn no_proxy_is_about_the_api_server_and_not_about_the_proxy() {
        let of = |no: &'static str| [PROXY, ("NO_PROXY", no)];
        for no in ["10.0.0.0/8", "10.1.2.3", "*", "a.example, 10.1.2.3"] {
            assert_eq!(chosen(None, "https://10.1.2.3:6443", &of(no)), None, "{no}");
        }
        for near in [".corp.example", "*.corp.example", "api.corp.example:443"] {
            let near = of(near);
            assert_eq!(chosen(None, "https://api.corp.example", &near), None);
            assert!(chosen(None, "https://10.1.2.3:6443", &near).is_some());
        }
        let other_port = of("api.corp.example:6443");
        assert!(chosen(None, "https://api.corp.example", &other_port).is_some());
    }

    #[test]
    fn a_proxy_of_an_unknown_kind_is_refused_without_its_password() {
        let server = "https://10.1.2.3:6443".parse().unwrap();
        let url = "socks5h://ann:secret@bastion:1080".to_owned();
        let error = proxy(Some(url), &server, |_| None).unwrap_err().to_string();
        assert!(error.contains("its scheme is socks5h"), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn a_server_on_this_machine_has_no_proxy_before_it() {
        for server in [
            "https://127.0.0.1:6443",
            "https://localhost:1",
            "https://[::1]:1",
        ] {
            assert_eq!(chosen(None, server, &[PROXY]), None, "{server}");
        }
    }

    #[test]
    fn the_proxy_of_the_kubeconfig_is_used_whatever_the_environment_says() {
        let env = [PROXY, ("NO_PROXY", "*")];
        let found = chosen(Some("socks5://bastion:1080"), "https://127.0.0.1:1", &env);
        assert_eq!(found.as_deref(), Some("socks5://bastion:1080/"));
    }
}
