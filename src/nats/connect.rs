//! The connection to NATS. Secrets that are files are read again at every connect, so a rotated Secret
//! takes effect without a restart; no secret ever stands in an error or a log line.

mod behind;
mod error;
mod secrets;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::rustls::ClientConfig;
use async_nats::{AuthError, Client, ConnectErrorKind, ConnectOptions, Event, ServerAddr};
use lookback_protocol::config::{NatsAuth, NatsConfig};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::watch;

pub use self::error::ConnectError;
pub use self::secrets::{Auth, Material};
use self::secrets::{roots, system_roots};
use super::api::ApiError;

/// The lowest JetStream API level with atomic batches and `CONSUMER.RESET`: NATS 2.14.
pub const MIN_API_LEVEL: u64 = 4;
/// Below this version a server gets a warning: two writers could win one race on replicated streams.
pub const ADVISED_VERSION: (u64, u64, u64) = (2, 14, 4);
/// A connection that answers no ping for three of these is dropped and made anew.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// How long a server is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Timeouts {
    /// For a connection: TCP, TLS and the server's greeting, for each of its addresses.
    pub connect: Duration,
    /// For the answer to a request, and for the PubAck of a message.
    pub request: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            request: Duration::from_secs(5),
        }
    }
}

/// Where NATS is and how to get in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Target {
    /// Server URLs, without credentials.
    pub urls: Vec<String>,
    /// At most one way to authenticate.
    pub auth: Option<Auth>,
    /// PEM certificates of the CA to trust instead of the system's.
    pub ca: Option<Material>,
    /// Refuse a server that does not offer TLS.
    pub tls_required: bool,
    /// How long it is waited for.
    pub timeouts: Timeouts,
}

/// What differs from one connection to the next.
#[derive(Clone, Debug)]
pub struct Options {
    /// Shown by the server to its people.
    pub name: String,
    /// Messages that wait in the client for one subscription; what comes beyond is dropped there.
    pub subscription_capacity: usize,
    /// Hosts that are reached through a tunnel from 127.0.0.1. A certificate is checked for these
    /// names there, and no server is turned to that is not in the target: it could not be reached.
    pub behind: Vec<String>,
}

impl Options {
    /// The usual options under a name.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            subscription_capacity: 64 * 1024,
            behind: Vec::new(),
        }
    }
}

/// A connection that heals by itself: it reconnects for ever, in turn to each server.
#[derive(Clone, Debug)]
pub struct Nats {
    client: Client,
    disconnects: watch::Receiver<u64>,
    origin: Arc<(Target, Options)>,
}

/// The server at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its version. Others in the cluster may have another.
    pub version: String,
    /// The JetStream API level of the cluster.
    pub api_level: u64,
    /// Whether it is one of several.
    pub clustered: bool,
}

/// What a server's level and version mean for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fitness {
    /// Good.
    Fit,
    /// Works, with a known defect; see [`ADVISED_VERSION`].
    Outdated,
    /// It would ignore in silence what we rely on.
    TooOld,
}

impl From<&NatsConfig> for Target {
    fn from(config: &NatsConfig) -> Self {
        let file = |path: &String| Material::File(PathBuf::from(path));
        let auth = config.auth.as_ref().map(|auth| match auth {
            NatsAuth::Credentials { file: path } => Auth::Credentials(file(path)),
            NatsAuth::UserPassword {
                username_file,
                password_file,
            } => Auth::UserPassword {
                username: file(username_file),
                password: file(password_file),
            },
        });
        Self {
            urls: config.urls.clone(),
            auth,
            ca: config.ca_file.as_ref().map(file),
            tls_required: config.tls_required,
            timeouts: Timeouts::from(config),
        }
    }
}

impl From<&NatsConfig> for Timeouts {
    fn from(config: &NatsConfig) -> Self {
        let usual = Self::default();
        let or =
            |milliseconds: Option<u64>, usual| milliseconds.map_or(usual, Duration::from_millis);
        Self {
            connect: or(config.connect_timeout_ms, usual.connect),
            request: or(config.request_timeout_ms, usual.request),
        }
    }
}

/// Judges a server by its cluster's API level and its own version.
fn fitness(api_level: u64, version: &str) -> Fitness {
    let mut numbers = version
        .split(['.', '-'])
        .map(|part| part.parse::<u64>().unwrap_or(0));
    let mut number = || numbers.next().unwrap_or(0);
    let version = (number(), number(), number());
    match api_level {
        0..MIN_API_LEVEL => Fitness::TooOld,
        _ if version < ADVISED_VERSION => Fitness::Outdated,
        _ => Fitness::Fit,
    }
}

impl Nats {
    /// Connects once through the list of servers and checks that JetStream is there and new enough.
    ///
    /// # Errors
    /// [`ConnectError`] says which step failed and, where there is one, what to do.
    pub async fn connect(target: &Target, options: &Options) -> Result<Self, ConnectError> {
        let addresses = addresses(&target.urls)?;
        let servers = target.urls.join(", ");
        let (disconnected, disconnects) = watch::channel(0_u64);
        let mut connect_options = connect_options(target, &options.behind).await?;
        if !options.behind.is_empty() {
            connect_options = connect_options.ignore_discovered_servers();
        }
        let client = connect_options
            .name(&options.name)
            .subscription_capacity(options.subscription_capacity)
            .ping_interval(PING_INTERVAL)
            .connection_timeout(target.timeouts.connect)
            .request_timeout(Some(target.timeouts.request))
            .event_callback(move |event| {
                note(&event, &disconnected);
                std::future::ready(())
            })
            .connect(addresses)
            .await
            .map_err(|source| match source.kind() {
                ConnectErrorKind::AuthorizationViolation => ConnectError::Unauthorized {
                    servers: servers.clone(),
                },
                _ => ConnectError::Unreachable {
                    servers: servers.clone(),
                    source,
                },
            })?;
        let nats = Self {
            client,
            disconnects,
            origin: Arc::new((target.clone(), options.clone())),
        };
        let server = nats.server().await.map_err(|source| match &source {
            ApiError::NoAnswer(error)
                if error.kind() == async_nats::RequestErrorKind::NoResponders =>
            {
                ConnectError::JetStreamMissing {
                    servers: servers.clone(),
                }
            }
            ApiError::Refused { code, .. } if code.is_jetstream_missing() => {
                ConnectError::JetStreamMissing {
                    servers: servers.clone(),
                }
            }
            _ => ConnectError::Account {
                servers: servers.clone(),
                source,
            },
        })?;
        match fitness(server.api_level, &server.version) {
            Fitness::Fit => {}
            Fitness::Outdated => tracing::warn!(
                version = server.version,
                "NATS server is older than 2.14.4, upgrade it: two writers may win one race"
            ),
            Fitness::TooOld => {
                return Err(ConnectError::ServerTooOld {
                    servers,
                    version: server.version,
                    level: server.api_level,
                });
            }
        }
        Ok(nats)
    }

    /// Another connection like this one.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub async fn again(&self) -> Result<Self, ConnectError> {
        Self::connect(&self.origin.0, &self.origin.1).await
    }

    /// Whether the client has ended and will not reconnect: it panics on what it cannot read in some
    /// message.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.disconnects.has_changed().is_err()
    }

    /// The server connected to now, asked again.
    ///
    /// # Errors
    /// [`ApiError`] when JetStream does not answer, or not for this account.
    pub async fn server(&self) -> Result<Server, ApiError> {
        let account: AccountInfo = self.api("INFO", &Value::Null).await?;
        let info = self.client.server_info();
        Ok(Server {
            version: info.version,
            api_level: account.api.level,
            clustered: info.cluster.is_some(),
        })
    }

    /// The client below.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// How long the answer to a request is waited for.
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        self.origin.0.timeouts.request
    }

    /// Bytes a message may have, headers included.
    #[must_use]
    pub fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    /// Counts lost connections. The client reconnects and subscribes again in silence; whoever must
    /// know watches this.
    #[must_use]
    pub fn disconnects(&self) -> watch::Receiver<u64> {
        self.disconnects.clone()
    }
}

async fn connect_options(
    target: &Target,
    behind: &[String],
) -> Result<ConnectOptions, ConnectError> {
    let mut options = match &target.auth {
        None => ConnectOptions::new(),
        Some(auth) => {
            auth.answer(&[]).await?;
            let auth = auth.clone();
            ConnectOptions::with_auth_callback(move |nonce| {
                let auth = auth.clone();
                async move { auth.answer(&nonce).await.map_err(AuthError::new) }
            })
        }
    };
    if !behind.is_empty() {
        let roots = match &target.ca {
            Some(ca) => roots(&ca.read("CA").await?)?,
            None => system_roots(),
        };
        // Without any root TLS is not spoken, which is no harm where the server does not ask for it.
        if !roots.is_empty() {
            options = options.tls_client_config(behind::config(roots, behind)?);
        }
    } else if let Some(ca) = &target.ca {
        let roots = roots(&ca.read("CA").await?)?;
        options = match ca {
            Material::File(path) => options.add_root_certificates(path.clone()),
            Material::Bytes(_) => options.tls_client_config(
                ClientConfig::builder()
                    .with_root_certificates(roots)
                    .with_no_client_auth(),
            ),
        };
    }
    Ok(options.require_tls(target.tls_required))
}

fn addresses(urls: &[String]) -> Result<Vec<ServerAddr>, ConnectError> {
    if urls.is_empty() {
        return Err(ConnectError::NoUrl);
    }
    let parse = |(at, url): (usize, &String)| {
        let address: ServerAddr = url
            .parse()
            .map_err(|_| ConnectError::BadUrl { index: at + 1 })?;
        if address.has_user_pass() || address.username().is_some() {
            return Err(ConnectError::CredentialsInUrl {
                host: address.host().to_owned(),
            });
        }
        Ok(address)
    };
    urls.iter().enumerate().map(parse).collect()
}

fn note(event: &Event, disconnected: &watch::Sender<u64>) {
    match event {
        Event::Disconnected => {
            disconnected.send_modify(|count| *count += 1);
            tracing::warn!("NATS connection lost");
        }
        Event::Connected => tracing::info!("NATS connected"),
        other => tracing::warn!(event = %other, "NATS client event"),
    }
}

#[derive(Deserialize)]
struct AccountInfo {
    api: ApiInfo,
}

#[derive(Deserialize)]
struct ApiInfo {
    #[serde(default)]
    level: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_a_level_is_too_old() {
        assert_eq!(fitness(0, "2.10.26"), Fitness::TooOld);
    }

    #[test]
    fn t10_a_server_below_level_4_is_too_old_whatever_its_version() {
        assert_eq!(fitness(3, "2.15.2"), Fitness::TooOld);
    }

    #[test]
    fn a_server_below_2_14_4_is_outdated() {
        assert_eq!(fitness(4, "2.14.3"), Fitness::Outdated);
        assert_eq!(fitness(4, "2.14.4"), Fitness::Fit);
        assert_eq!(fitness(5, "2.15.2"), Fitness::Fit);
        assert_eq!(fitness(5, "2.15.0-RC.1"), Fitness::Fit);
    }

    #[test]
    fn a_url_with_a_password_is_refused_without_showing_it() {
        let error = addresses(&["nats://alice:hunter2@nats:4222".to_owned()]).unwrap_err();
        assert!(matches!(error, ConnectError::CredentialsInUrl { .. }));
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
