//! Which cluster, which pipelines, and how to reach their NATS. Everything is done with the rights of
//! the person, so a read that is refused says what to ask for, or what to give instead.

mod kubeconfig;
mod nats;
mod said;
pub mod tunnel;
mod user;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use lookback_protocol::names::{Owner, PipelineKey};
use tokio::sync::{Mutex, OnceCell};

use self::kubeconfig::Cluster;
pub(super) use self::said::said;
use self::tunnel::Tunnel;
use crate::api::DetectionPipeline;
use crate::nats::connect::{self, Nats};
use crate::nats::streams;

/// Where to look.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Where to look")]
pub struct Target {
    /// The pipeline; may be left out when the namespace has only one, and where ids tell
    #[arg(short, long, global = true)]
    pipeline: Option<String>,
    /// The namespace; that of the context unless given
    #[arg(short, long, global = true)]
    namespace: Option<String>,
    /// The context of the kubeconfig
    #[arg(long, global = true)]
    context: Option<String>,
    /// The kubeconfig; default: $KUBECONFIG, or ~/.kube/config, or that of the pod this runs in
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// A NATS server to use instead of the one that the pipeline names
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "LOOKBACK_NATS_URL",
        hide_env_values = true
    )]
    nats_url: Option<String>,
    /// A .creds file to use instead of the pipeline's Secret
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "LOOKBACK_NATS_CREDS",
        hide_env_values = true
    )]
    nats_creds: Option<PathBuf>,
    /// PEM certificates of the CA to trust instead of those in the pipeline's Secret
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "LOOKBACK_NATS_CA",
        hide_env_values = true
    )]
    nats_ca: Option<PathBuf>,
    /// Never reach NATS by way of the API server
    #[arg(long, global = true)]
    no_port_forward: bool,
    /// The cluster's id in NATS, where neither the pipeline's stream nor kube-system tells it
    #[arg(long, global = true, value_name = "ID")]
    cluster_id: Option<String>,
}

impl Target {
    /// The cluster and namespace that were typed, by the names of the options.
    pub(super) fn at(given: &BTreeMap<String, String>) -> Self {
        let text = |name: &str| given.get(name).cloned();
        Self {
            kubeconfig: text("kubeconfig").map(PathBuf::from),
            context: text("context"),
            namespace: text("namespace"),
            ..Self::default()
        }
    }
}

/// What verbs share. Nothing is connected before a verb needs it.
#[derive(Default)]
pub struct Context {
    target: Target,
    cluster: OnceCell<Cluster>,
    connections: Mutex<HashMap<connect::Target, Nats>>,
    tunnels: Mutex<Vec<Tunnel>>,
}

/// A pipeline and its NATS.
#[derive(Clone, Debug)]
pub struct Reached {
    /// As the API server has it.
    pub pipeline: DetectionPipeline,
    /// Cluster, namespace and name.
    pub owner: Owner,
    /// A connection with the person's credentials, or those of the pipeline. It ends with the
    /// [`Context`] that made it.
    pub nats: Nats,
}

impl Context {
    pub(super) fn new(target: Target) -> Self {
        Self {
            target,
            ..Self::default()
        }
    }

    /// The API server.
    ///
    /// # Errors
    /// No kubeconfig, or one that cannot be used.
    pub async fn kube(&self) -> Result<kube::Client> {
        Ok(self.cluster().await?.client.clone())
    }

    /// The namespace to look in.
    ///
    /// # Errors
    /// As [`Self::kube`].
    pub async fn namespace(&self) -> Result<String> {
        match &self.target.namespace {
            Some(namespace) => Ok(namespace.clone()),
            None => Ok(self.cluster().await?.namespace.clone()),
        }
    }

    /// The pipeline that is named, or the only one of the namespace.
    ///
    /// # Errors
    /// There is none, or several and no name.
    pub async fn pipeline(&self) -> Result<DetectionPipeline> {
        match &self.target.pipeline {
            Some(name) => self.named(name).await,
            None => only(self.pipelines().await?, &self.namespace().await?),
        }
    }

    /// The pipeline that is named, or every one of the namespace.
    ///
    /// # Errors
    /// There is none.
    pub async fn meant(&self) -> Result<Vec<DetectionPipeline>> {
        if let Some(name) = &self.target.pipeline {
            return Ok(vec![self.named(name).await?]);
        }
        let pipelines = self.pipelines().await?;
        ensure!(!pipelines.is_empty(), none_in(&self.namespace().await?));
        Ok(pipelines)
    }

    async fn named(&self, name: &str) -> Result<DetectionPipeline> {
        let namespace = self.namespace().await?;
        let api = Api::<DetectionPipeline>::namespaced(self.kube().await?, &namespace);
        match api.get_opt(name).await {
            Ok(Some(pipeline)) => Ok(pipeline),
            Ok(None) => bail!(
                "there is no pipeline {name} in namespace {namespace}; `kubectl get dpl -A` lists all"
            ),
            Err(error) => {
                let ask = "ask for the right to get detectionpipelines";
                let what = format!("cannot read pipeline {namespace}/{name}");
                Err(self.failed(error, what, ask).await)
            }
        }
    }

    /// Every pipeline of the namespace.
    ///
    /// # Errors
    /// As [`Self::kube`].
    pub async fn pipelines(&self) -> Result<Vec<DetectionPipeline>> {
        let namespace = self.namespace().await?;
        let api = Api::<DetectionPipeline>::namespaced(self.kube().await?, &namespace);
        match api.list(&ListParams::default()).await {
            Ok(found) => Ok(found.items),
            Err(kube::Error::Api(status)) if status.code == 404 => {
                bail!("this cluster knows no DetectionPipeline: Lookback is not installed in it")
            }
            Err(error) => {
                let ask = "name one with -p, or ask for the right to list detectionpipelines";
                let what = format!("cannot list the pipelines of {namespace}");
                Err(self.failed(error, what, ask).await)
            }
        }
    }

    /// The NATS of a pipeline, by port-forward when its name only means something inside the cluster.
    /// One connection serves all pipelines that are reached in the same way.
    ///
    /// # Errors
    /// A Secret that may not be read, or NATS that cannot be reached; the message says what to give.
    pub async fn reach(&self, pipeline: DetectionPipeline) -> Result<Reached> {
        let key = key(&pipeline)?;
        let nats = self
            .nats(&pipeline, &key)
            .await
            .with_context(|| format!("cannot reach the NATS of pipeline {key}"))?;
        let owner = self.owner(&nats, key).await?;
        Ok(Reached {
            pipeline,
            owner,
            nats,
        })
    }

    /// Who the person is, for audit and history: `user/<name>`, as the API server knows them.
    ///
    /// # Errors
    /// As [`Self::kube`].
    pub async fn user(&self) -> Result<String> {
        user::user(self.kube().await?).await
    }

    /// What the API server said, with what may end it: `ask` where a right is missing, and its address
    /// where it said nothing.
    async fn failed(&self, error: kube::Error, what: String, ask: &str) -> anyhow::Error {
        let said = said(error);
        let what = match (said.is_forbidden(), said.is_silence(), self.cluster().await) {
            (true, ..) => format!("{what}: {ask}"),
            (_, true, Ok(cluster)) => format!("{what} at {}", cluster.server),
            _ => what,
        };
        anyhow::Error::new(said).context(what)
    }

    async fn cluster(&self) -> Result<&Cluster> {
        let read = || kubeconfig::read(&self.target);
        self.cluster.get_or_try_init(read).await
    }

    /// The cluster's id stands on the pipeline's own streams, which whoever reads alerts can see; only
    /// of a pipeline without streams is kube-system asked.
    async fn owner(&self, nats: &Nats, pipeline: PipelineKey) -> Result<Owner> {
        if let Some(cluster) = &self.target.cluster_id {
            return Ok(Owner {
                cluster: cluster.clone(),
                pipeline,
            });
        }
        let stream = pipeline.alerts_stream();
        let observed = streams::read(nats, &stream).await?;
        let cluster = observed
            .as_ref()
            .and_then(|observed| cluster_of(observed.owner()?, &pipeline));
        let cluster = match cluster {
            Some(cluster) => cluster,
            None => kubeconfig::cluster_id(self.kube().await?).await?,
        };
        Ok(Owner { cluster, pipeline })
    }
}

/// The checked name of a pipeline.
///
/// # Errors
/// A name that this version does not allow.
pub fn key(pipeline: &DetectionPipeline) -> Result<PipelineKey> {
    let namespace = pipeline.namespace().unwrap_or_default();
    Ok(PipelineKey::new(&namespace, &pipeline.name_any())?)
}

/// The cluster in an owner as streams name it, `<cluster>/<namespace>/<name>`.
fn cluster_of(owner: &str, pipeline: &PipelineKey) -> Option<String> {
    let cluster = owner.strip_suffix(&format!("/{pipeline}"))?;
    Some(cluster.to_owned())
}

fn none_in(namespace: &str) -> String {
    format!(
        "there is no pipeline in namespace {namespace}: give another with -n, or see `kubectl get dpl -A`"
    )
}

fn only(mut pipelines: Vec<DetectionPipeline>, namespace: &str) -> Result<DetectionPipeline> {
    let pipeline = pipelines.pop();
    match pipeline {
        None => bail!(none_in(namespace)),
        Some(pipeline) if pipelines.is_empty() => Ok(pipeline),
        Some(last) => {
            pipelines.push(last);
            let names: Vec<String> = pipelines.iter().map(ResourceExt::name_any).collect();
            bail!(
                "namespace {namespace} has several pipelines, name one with -p: {}",
                names.join(", ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pipeline(name: &str) -> DetectionPipeline {
        serde_json::from_value(json!({
            "apiVersion": "lookback.dev/v1alpha1", "kind": "DetectionPipeline",
            "metadata": {"name": name, "namespace": "prod"},
            "spec": {
                "nats": {"urls": ["nats://nats:4222"]},
                "source": {"stream": "EVENTS", "logsource": {"product": "windows"}},
                "rules": {"configMaps": [{"name": "rules"}]},
            },
        }))
        .unwrap()
    }

    #[test]
    fn the_only_pipeline_needs_no_name() {
        let found = only(vec![pipeline("edr")], "prod").unwrap();
        assert_eq!(found.name_any(), "edr");
    }

    #[test]
    fn of_several_pipelines_one_must_be_named_and_all_are_listed() {
        let error = only(vec![pipeline("edr"), pipeline("web")], "prod").unwrap_err();
        assert!(error.to_string().ends_with("edr, web"), "{error}");
    }

    #[test]
    fn a_namespace_without_a_pipeline_is_named() {
        let error = only(Vec::new(), "prod").unwrap_err();
        assert!(error.to_string().contains("namespace prod"), "{error}");
    }

    #[test]
    fn the_cluster_is_read_from_the_owner_on_a_stream() {
        let key = PipelineKey::new("prod", "edr").unwrap();
        assert_eq!(cluster_of("a/b/prod/edr", &key), Some("a/b".to_owned()));
        assert_eq!(cluster_of("a/prod/web", &key), None);
    }
}
