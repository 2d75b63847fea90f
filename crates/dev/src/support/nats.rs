//! A real NATS server with JetStream on the loopback address, and a cluster of three. Each has its own
//! store in a temporary directory, and dies with its value, also when the test panics.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use async_nats::jetstream;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{binary, eventually, ports};

/// Only ends a test that hangs: machines may be slow.
const START: Duration = Duration::from_secs(120);
/// For an answer in a test that does not ask how long it takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// The oldest server with atomic batches and `CONSUMER.RESET`.
const OLDEST: (u64, u64) = (2, 14);
const TRIES: usize = 5;

/// What may differ from the server's defaults.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Bytes of a message.
    pub max_payload: Option<usize>,
    /// The only user and the password.
    pub user: Option<(String, String)>,
    /// What all streams together may ask for, as the configuration file has it; else what the disk has
    /// room for.
    pub max_file_store: Option<String>,
    /// More lines of the configuration file.
    pub extra: String,
}

/// One server.
#[derive(Debug)]
pub struct NatsServer {
    binary: PathBuf,
    dir: TempDir,
    name: String,
    port: u16,
    settings: Settings,
    routes: Option<Routes>,
    child: Option<Child>,
}

/// Three servers that know each other.
#[derive(Debug)]
pub struct NatsCluster {
    servers: Vec<NatsServer>,
}

#[derive(Clone, Debug)]
struct Routes {
    port: u16,
    all: Vec<u16>,
}

impl NatsServer {
    /// Starts a server with the default settings and waits until it is ready.
    ///
    /// # Errors
    /// When there is no binary, it is too old, or the server does not come up; with its log.
    pub async fn start() -> Result<Self> {
        Self::start_with(Settings::default()).await
    }

    /// Starts a server.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_with(settings: Settings) -> Result<Self> {
        let mut failure = None;
        for _ in 0..TRIES {
            let mut server = Self::prepare("n1", ports::free_port()?, settings.clone(), None)?;
            match server.restart().await {
                Ok(()) => return Ok(server),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.context("no try to start a server")?)
    }

    /// Where clients connect to.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// For a proxy.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// A client with the user of the settings, if any.
    ///
    /// # Errors
    /// When the server does not let it in.
    pub async fn client(&self) -> Result<async_nats::Client> {
        let options = match &self.settings.user {
            Some((user, password)) => {
                async_nats::ConnectOptions::with_user_and_password(user.clone(), password.clone())
            }
            None => async_nats::ConnectOptions::new(),
        };
        options
            .connect(self.url())
            .await
            .with_context(|| format!("cannot connect to {}", self.url()))
    }

    /// JetStream over such a client, for a test that does not ask how long an answer takes.
    ///
    /// # Errors
    /// As [`Self::client`].
    pub async fn jetstream(&self) -> Result<jetstream::Context> {
        Ok(patient(self.client().await?))
    }

    /// `kill -9`. A server that is not running is left alone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // Both fail only when the process has ended already.
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// Starts the server again on the same port and store, killed before if it runs, and waits until
    /// it is ready.
    ///
    /// # Errors
    /// When it does not come up; with its log.
    pub async fn restart(&mut self) -> Result<()> {
        self.spawn()?;
        self.ready().await
    }

    /// Changes the settings; they take effect at the next [`Self::restart`].
    pub fn configure(&mut self, settings: Settings) {
        self.settings = settings;
    }

    /// Copies the store of a stopped server into `to`, which must not exist.
    ///
    /// # Errors
    /// When the server runs, since a copy under its writes would be torn, or a file cannot be copied.
    pub fn copy_store(&self, to: &Path) -> Result<()> {
        ensure!(
            self.child.is_none(),
            "kill the server before copying its store"
        );
        copy(&self.store(), to)
    }

    /// Replaces the store of a stopped server by a copy made before.
    ///
    /// # Errors
    /// When the server runs, or a file cannot be copied.
    pub fn restore_copy(&self, from: &Path) -> Result<()> {
        ensure!(
            self.child.is_none(),
            "kill the server before restoring its store"
        );
        fs::remove_dir_all(self.store()).context("cannot remove the store")?;
        copy(from, &self.store())
    }

    fn prepare(name: &str, port: u16, settings: Settings, routes: Option<Routes>) -> Result<Self> {
        Ok(Self {
            binary: binary("nats-server")?,
            dir: tempfile::tempdir().context("no temporary directory")?,
            name: name.to_owned(),
            port,
            settings,
            routes,
            child: None,
        })
    }

    fn spawn(&mut self) -> Result<()> {
        self.kill();
        let config = self.dir.path().join("nats.conf");
        fs::write(&config, self.config()).context("cannot write nats.conf")?;
        let log = File::create(self.log()).context("cannot create the server's log")?;
        let child = Command::new(&self.binary)
            .arg("--config")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {}", self.binary.display()))?;
        self.child = Some(child);
        Ok(())
    }

    fn config(&self) -> String {
        let room = &self.settings.max_file_store;
        let room = room.as_ref().map(|it| format!(", max_file_store: {it}"));
        let mut text = format!(
            "listen: \"127.0.0.1:{}\"\nserver_name: {}\njetstream {{ store_dir: \"{}\"{} }}\n",
            self.port,
            self.name,
            self.store().display(),
            room.unwrap_or_default()
        );
        if let Some(bytes) = self.settings.max_payload {
            text.push_str(&format!("max_payload: {bytes}\n"));
        }
        if let Some((user, password)) = &self.settings.user {
            text.push_str(&format!(
                "authorization {{ user: {user}, password: {password} }}\n"
            ));
        }
        if let Some(routes) = &self.routes {
            let urls: Vec<_> = routes
                .all
                .iter()
                .map(|port| format!("\"nats://127.0.0.1:{port}\""))
                .collect();
            text.push_str(&format!(
                "cluster {{ name: test, listen: \"127.0.0.1:{}\", routes: [{}] }}\n",
                routes.port,
                urls.join(", ")
            ));
        }
        text.push_str(&self.settings.extra);
        text
    }

    async fn ready(&mut self) -> Result<()> {
        let address = self.address();
        let child = self.child.as_mut().context("the server was not started")?;
        let exited = async {
            eventually(2 * START, "the server ends", async || {
                child.try_wait()?.context("it runs")
            })
            .await
        };
        let version = tokio::select! {
            status = exited => bail!("nats-server ended with {}: {}", status?, self.last_log()),
            version = eventually(START, "nats-server answers", async || greeting(address).await) => version,
        };
        let version = version.with_context(|| format!("nats-server: {}", self.last_log()))?;
        let mut numbers = version.split('.').map(|part| part.parse().unwrap_or(0));
        let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        ensure!(
            found >= OLDEST,
            "{} is version {version}, 2.14 or newer is needed; run `make setup`",
            self.binary.display()
        );
        Ok(())
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("js")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("nats.log")
    }

    fn last_log(&self) -> String {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(10)..].join("\n")
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        self.kill();
    }
}

impl NatsCluster {
    /// Starts three servers and waits until they hold a stream with three replicas.
    ///
    /// # Errors
    /// As [`NatsServer::start`].
    pub async fn start() -> Result<Self> {
        let mut failure = None;
        for _ in 0..TRIES {
            match Self::try_start().await {
                Ok(cluster) => return Ok(cluster),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.context("no try to start a cluster")?)
    }

    /// The servers; `kill` and `restart` work on each.
    pub fn servers(&mut self) -> &mut [NatsServer] {
        &mut self.servers
    }

    /// Where clients connect to.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(NatsServer::url).collect()
    }

    async fn try_start() -> Result<Self> {
        let ports: Vec<u16> = (0..6).map(|_| ports::free_port()).collect::<Result<_>>()?;
        let all = ports[3..].to_vec();
        let mut servers = Vec::new();
        for (at, name) in ["n1", "n2", "n3"].into_iter().enumerate() {
            let routes = Routes {
                port: all[at],
                all: all.clone(),
            };
            let settings = Settings::default();
            let mut server = NatsServer::prepare(name, ports[at], settings, Some(routes))?;
            server.spawn()?;
            servers.push(server);
        }
        for server in &mut servers {
            server.ready().await?;
        }
        let cluster = Self { servers };
        cluster.holds_replicas().await?;
        Ok(cluster)
    }

    async fn holds_replicas(&self) -> Result<()> {
        let client = self.servers[0].client().await?;
        let mut asking = jetstream::new(client.clone());
        asking.set_timeout(Duration::from_secs(2));
        let config = jetstream::stream::Config {
            name: "READY".to_owned(),
            num_replicas: 3,
            ..Default::default()
        };
        eventually(START, "the cluster takes a stream", async || {
            asking.get_or_create_stream(config.clone()).await?;
            Ok(())
        })
        .await?;
        patient(client).delete_stream("READY").await?;
        Ok(())
    }
}

/// JetStream over a client, for a test that does not ask how long an answer takes.
#[must_use]
pub fn patient(client: async_nats::Client) -> jetstream::Context {
    let mut jetstream = jetstream::new(client);
    jetstream.set_timeout(PATIENCE);
    jetstream
}

/// The version in the first line a server sends; it listens once its store is recovered.
async fn greeting(address: SocketAddr) -> Result<String> {
    let stream = TcpStream::connect(address).await?;
    let mut line = String::new();
    let mut reader = BufReader::new(stream);
    timeout(Duration::from_secs(2), reader.read_line(&mut line)).await??;
    let info: Value = serde_json::from_str(line.strip_prefix("INFO ").context("no INFO line")?)?;
    ensure!(info["jetstream"] == true, "JetStream is not ready");
    Ok(info["version"].as_str().context("no version")?.to_owned())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)
                .with_context(|| format!("cannot copy {}", entry.path().display()))?;
        }
    }
    Ok(())
}
