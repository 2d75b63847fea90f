//! How to connect: what flags give, else what the pipeline names, read with the person's rights.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use lookback_protocol::names::PipelineKey;

use super::tunnel::{self, Tunnel};
use super::{Context, Target, said};
use crate::api::pipeline::NatsSpec;
use crate::api::{self, DetectionPipeline};
use crate::nats::connect::{self, Auth, Material, Nats, Options, Timeouts};

/// Shown by the server to its people.
const NAME: &str = "kubectl-lookback";

impl Context {
    /// The connection of a pipeline; the one there is, if another pipeline was reached in the same way.
    pub(super) async fn nats(
        &self,
        pipeline: &DetectionPipeline,
        key: &PipelineKey,
    ) -> Result<Nats> {
        let spec = &pipeline.spec.nats;
        let wanted = self.wanted(spec, key).await?;
        let mut connections = self.connections.lock().await;
        if let Some(nats) = connections.get(&wanted) {
            return Ok(nats.clone());
        }
        let nats = self.connect(&wanted, key).await?;
        connections.insert(wanted, nats.clone());
        Ok(nats)
    }

    async fn wanted(&self, spec: &NatsSpec, key: &PipelineKey) -> Result<connect::Target> {
        let target = &self.target;
        let mut wanted = connect::Target {
            urls: match &target.nats_url {
                Some(url) => vec![url.clone()],
                None => spec.urls.clone(),
            },
            auth: target
                .nats_creds
                .as_deref()
                .map(|path| Auth::Credentials(file(path))),
            ca: target.nats_ca.as_deref().map(file),
            tls_required: spec.tls.required,
            timeouts: timeouts(spec),
        };
        let secrets = match needs_secrets(target, spec) {
            true => Some(Secrets {
                client: self.kube().await?,
                namespace: key.namespace(),
            }),
            false => None,
        };
        if let Some(secrets) = &secrets {
            if wanted.auth.is_none() {
                wanted.auth = secrets.auth(spec).await?;
            }
            if let (None, Some(ca)) = (&wanted.ca, &spec.tls.ca_secret_ref) {
                wanted.ca = Some(secrets.key(&ca.name, &ca.key, "--nats-ca").await?);
            }
        }
        Ok(wanted)
    }

    async fn connect(&self, wanted: &connect::Target, key: &PipelineKey) -> Result<Nats> {
        let mut target = wanted.clone();
        let mut options = Options::named(NAME);
        let tunnels = self.tunnels(&mut target, key).await?;
        options.behind = tunnels.iter().map(|it| it.host().to_owned()).collect();
        let connected = Nats::connect(&target, &options).await;
        let nats = match (connected, tunnels.first()) {
            (Ok(nats), _) => nats,
            (Err(error), None) => return Err(error.into()),
            (Err(error), Some(tunnel)) => {
                let way = tunnel.to().to_owned();
                let error = match tunnel.problem() {
                    Some(problem) => anyhow::anyhow!(problem),
                    None => error.into(),
                };
                return Err(error.context(format!(
                    "cannot reach {} by port-forward to {way}",
                    wanted.urls.join(", ")
                )));
            }
        };
        self.tunnels.lock().await.extend(tunnels);
        Ok(nats)
    }

    /// Puts the near end of a tunnel in the place of each URL that means nothing outside the cluster.
    async fn tunnels(
        &self,
        target: &mut connect::Target,
        key: &PipelineKey,
    ) -> Result<Vec<Tunnel>> {
        let mut tunnels = Vec::new();
        let mut urls = Vec::new();
        let mut failed = None;
        for url in &target.urls {
            let Some(service) = tunnel::needed(url, key.namespace()).await else {
                urls.push(url.clone());
                continue;
            };
            if self.target.no_port_forward {
                failed = Some(anyhow::anyhow!(
                    "{url} means nothing outside the cluster, and --no-port-forward is given: give --nats-url"
                ));
                continue;
            }
            match Tunnel::open(self.kube().await?, service).await {
                Ok(tunnel) => {
                    target.tls_required |= url.starts_with("tls:");
                    urls.push(tunnel.url());
                    tunnels.push(tunnel);
                }
                Err(error) => failed = Some(error.context(format!("cannot reach {url}"))),
            }
        }
        match failed {
            Some(error) if urls.is_empty() => Err(error),
            _ => {
                target.urls = urls;
                Ok(tunnels)
            }
        }
    }
}

fn timeouts(spec: &NatsSpec) -> Timeouts {
    let usual = Timeouts::default();
    let or = |given: &Option<api::Duration>, usual| match given {
        Some(given) => Duration::from_millis(given.milliseconds()),
        None => usual,
    };
    Timeouts {
        connect: or(&spec.connect_timeout, usual.connect),
        request: or(&spec.request_timeout, usual.request),
    }
}

fn file(path: &Path) -> Material {
    Material::File(path.to_owned())
}

fn needs_secrets(target: &Target, spec: &NatsSpec) -> bool {
    let auth = spec.credentials_secret_ref.is_some() || spec.user_password_secret_ref.is_some();
    let ca = spec.tls.ca_secret_ref.is_some();
    (auth && target.nats_creds.is_none()) || (ca && target.nats_ca.is_none())
}

/// The Secrets of a namespace. Their content goes into the connection and nowhere else.
struct Secrets<'a> {
    client: Client,
    namespace: &'a str,
}

impl Secrets<'_> {
    async fn auth(&self, spec: &NatsSpec) -> Result<Option<Auth>> {
        const INSTEAD: &str = "--nats-creds";
        let creds = spec.credentials_secret_ref.as_ref();
        let user = spec.user_password_secret_ref.as_ref();
        Ok(match (creds, user) {
            (Some(creds), _) => Some(Auth::Credentials(
                self.key(&creds.name, &creds.key, INSTEAD).await?,
            )),
            (None, Some(user)) => Some(Auth::UserPassword {
                username: self.key(&user.name, "username", INSTEAD).await?,
                password: self.key(&user.name, "password", INSTEAD).await?,
            }),
            (None, None) => None,
        })
    }

    async fn key(&self, name: &str, key: &str, instead: &str) -> Result<Material> {
        let object = format!("Secret {}/{name}", self.namespace);
        let api = Api::<Secret>::namespaced(self.client.clone(), self.namespace);
        let secret = match api.get_opt(name).await.map_err(said) {
            Ok(Some(secret)) => secret,
            Ok(None) => bail!("{object}, which spec.nats names, does not exist; create it"),
            Err(error) if error.is_forbidden() => {
                return Err(error).with_context(|| {
                    format!("cannot read {object}: ask for the right to, or give {instead} FILE")
                });
            }
            Err(error) => return Err(error).with_context(|| format!("cannot read {object}")),
        };
        match secret.data.unwrap_or_default().remove(key) {
            Some(content) => Ok(Material::Bytes(content.0)),
            None => bail!("{object} has no key {key}, which spec.nats names"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(more: serde_json::Value) -> NatsSpec {
        let mut spec = json!({"urls": ["nats://nats:4222"]});
        for (key, value) in more.as_object().unwrap() {
            spec[key] = value.clone();
        }
        serde_json::from_value(spec).unwrap()
    }

    #[test]
    fn no_secret_is_read_that_a_flag_stands_in_for() {
        let creds = json!({"credentialsSecretRef": {"name": "a", "key": "b"}});
        let ca = json!({"tls": {"caSecretRef": {"name": "a", "key": "b"}}});
        let given = Target {
            nats_creds: Some("/creds".into()),
            ..Target::default()
        };
        assert!(needs_secrets(&Target::default(), &spec(creds.clone())));
        assert!(!needs_secrets(&given, &spec(creds)));
        assert!(needs_secrets(&given, &spec(ca)));
        assert!(!needs_secrets(&Target::default(), &spec(json!({}))));
    }
}
