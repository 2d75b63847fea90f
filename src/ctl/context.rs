//! Which cluster, which pipelines, and how to reach their NATS.

use anyhow::Result;
use clap::Args;
use lookback_protocol::names::Owner;

use crate::api::DetectionPipeline;
use crate::nats::connect::Nats;

/// Where to look.
#[derive(Debug, Clone, Args)]
pub struct Target {
    /// The context of the kubeconfig
    #[arg(long, global = true)]
    context: Option<String>,
    /// The namespace; that of the context unless given
    #[arg(short, long, global = true)]
    namespace: Option<String>,
    /// A NATS server to use instead of the one that the pipeline names
    #[arg(long, global = true, env = "LOOKBACK_NATS_URL")]
    nats_url: Option<String>,
    /// A .creds file to use instead of the pipeline's Secret
    #[arg(long, global = true, env = "LOOKBACK_NATS_CREDS")]
    nats_creds: Option<std::path::PathBuf>,
}

/// What verbs share. Nothing is connected before a verb needs it.
pub struct Context {
    target: Target,
}

/// A pipeline and its NATS.
pub struct Reached {
    /// As the API server has it.
    pub pipeline: DetectionPipeline,
    /// Cluster, namespace and name.
    pub owner: Owner,
    /// A connection with the person's credentials, or those of the pipeline.
    pub nats: Nats,
}

impl Context {
    pub(super) fn new(target: Target) -> Self {
        Self { target }
    }

    /// The API server.
    ///
    /// # Errors
    /// No kubeconfig, or one that cannot be used.
    pub async fn kube(&self) -> Result<kube::Client> {
        todo!("ctl: {:?}", self.target)
    }

    /// The namespace to look in.
    ///
    /// # Errors
    /// As [`Self::kube`].
    pub async fn namespace(&self) -> Result<String> {
        todo!("ctl")
    }

    /// One pipeline; without a name, the only one of the namespace.
    ///
    /// # Errors
    /// There is none, or several without a name.
    pub async fn pipeline(&self, name: Option<&str>) -> Result<DetectionPipeline> {
        todo!("ctl: {name:?}")
    }

    /// Every pipeline of the namespace.
    ///
    /// # Errors
    /// As [`Self::kube`].
    pub async fn pipelines(&self) -> Result<Vec<DetectionPipeline>> {
        todo!("ctl")
    }

    /// The NATS of a pipeline, by port-forward when its name only means something inside the cluster.
    ///
    /// # Errors
    /// A Secret that may not be read, or NATS that cannot be reached; the message says what to give.
    pub async fn reach(&self, pipeline: DetectionPipeline) -> Result<Reached> {
        todo!("ctl: {pipeline:?}")
    }

    /// Who the person is, for audit and history: `user/<name>`, as the API server knows them.
    ///
    /// # Errors
    /// As [`Self::kube`].
    pub async fn user(&self) -> Result<String> {
        todo!("ctl")
    }
}
