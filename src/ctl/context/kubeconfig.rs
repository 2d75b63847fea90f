//! The way to the API server.

use anyhow::{Context as _, Result, anyhow};
use k8s_openapi::api::core::v1::Namespace;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};

use super::{Target, said};

/// A client, and the namespace of its context.
pub(super) struct Cluster {
    pub(super) client: Client,
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
        Ok(file) => Config::from_custom_kubeconfig(file, &options)
            .await
            .context("cannot use the kubeconfig")?,
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
    let client = Client::try_from(config).context("cannot use the kubeconfig")?;
    Ok(Cluster { client, namespace })
}

/// The id of the cluster as the operator makes it when it is given none.
pub(super) async fn cluster_id(client: Client) -> Result<String> {
    let namespace = Api::<Namespace>::all(client).get("kube-system").await;
    let namespace = namespace.map_err(said).context(
        "cannot read the uid of namespace kube-system, which is the cluster's id: give it with --cluster-id",
    )?;
    namespace.uid().context("namespace kube-system has no uid")
}
