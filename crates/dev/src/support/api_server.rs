//! A real API server with etcd, for one test binary or for one test that kills it. Nothing runs the
//! pods: what a StatefulSet becomes is a matter of the end-to-end tests.

use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use kube::Client;
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use serde::Deserialize;
use tokio::sync::OnceCell;
use tokio::task::spawn_blocking;

use super::binary;

/// A running control plane; it ends with this value, or with this process at the latest.
#[derive(Debug)]
pub struct ApiServer {
    program: PathBuf,
    name: String,
    kubeconfig: PathBuf,
}

#[derive(Deserialize)]
struct Started {
    kubeconfig: PathBuf,
}

impl ApiServer {
    /// Starts one.
    ///
    /// # Errors
    /// When the local cluster's program is missing or it does not come up; with what it said.
    pub async fn start() -> Result<Self> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let name = format!("test-{}-{number}", process::id());
        let program = binary("localcluster")?;
        let this_process = process::id().to_string();
        let arguments = ["--control-plane", "--json", "--while", &this_process];
        let said = localcluster(&program, "up", &name, &arguments).await?;
        let started: Started = serde_json::from_str(&said)
            .with_context(|| format!("localcluster up said {said:?}"))?;
        Ok(Self {
            program,
            name,
            kubeconfig: started.kubeconfig,
        })
    }

    /// The one that all tests of this process share; each works in a namespace of its own.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<ApiServer> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    /// The kubeconfig of somebody who may do everything.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The same for the owner of a token, such as a service account, as the text of a file.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read or written.
    pub fn kubeconfig_with(&self, token: String) -> Result<String> {
        let mut kubeconfig =
            Kubeconfig::read_from(&self.kubeconfig).context("cannot read the kubeconfig")?;
        for user in &mut kubeconfig.auth_infos {
            user.auth_info = Some(AuthInfo {
                token: Some(token.clone().into()),
                ..AuthInfo::default()
            });
        }
        serde_json::to_string(&kubeconfig).context("cannot write the kubeconfig")
    }

    /// A client that may do everything. Each test makes its own: a client lives in its runtime.
    ///
    /// # Errors
    /// When the kubeconfig cannot be read.
    pub async fn client(&self) -> Result<Client> {
        Client::try_from(self.config().await?).context("cannot make a client")
    }

    /// A client that may do what the owner of a token may, such as a service account.
    ///
    /// # Errors
    /// As [`Self::client`].
    pub async fn client_with(&self, token: String) -> Result<Client> {
        let mut config = self.config().await?;
        config.auth_info = AuthInfo {
            token: Some(token.into()),
            ..AuthInfo::default()
        };
        Client::try_from(config).context("cannot make a client")
    }

    async fn config(&self) -> Result<kube::Config> {
        let kubeconfig =
            Kubeconfig::read_from(&self.kubeconfig).context("cannot read the kubeconfig")?;
        kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .context("cannot use the kubeconfig")
    }

    /// `kill -9` of the API server; etcd goes on.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill(&self) -> Result<()> {
        localcluster(&self.program, "apiserver", &self.name, &["kill"]).await?;
        Ok(())
    }

    /// Starts it again and waits until it is ready.
    ///
    /// # Errors
    /// When it does not come up.
    pub async fn restart(&self) -> Result<()> {
        localcluster(&self.program, "apiserver", &self.name, &["start"]).await?;
        Ok(())
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        let down = Command::new(&self.program)
            .args(["down", "--name", &self.name])
            .output();
        if let Err(error) = down {
            tracing::warn!(name = self.name, %error, "Cannot take the control plane down");
        }
    }
}

async fn localcluster(
    program: &Path,
    command: &str,
    name: &str,
    arguments: &[&str],
) -> Result<String> {
    let mut run = Command::new(program);
    run.args([command, "--name", name]).args(arguments);
    let output = spawn_blocking(move || run.output())
        .await?
        .with_context(|| format!("cannot run {}", program.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("localcluster {command} --name {name}: {}", said.trim());
    }
    String::from_utf8(output.stdout).context("localcluster wrote no UTF-8")
}
