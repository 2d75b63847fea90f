//! Why there is no connection. No variant can hold a secret.

use super::MIN_API_LEVEL;
use crate::nats::api::ApiError;

/// Why there is no connection that can be used.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No URL at all.
    #[error("no NATS URL is given")]
    NoUrl,
    /// A URL that is none.
    #[error("NATS URL {index} of the list cannot be parsed; write nats://host:port")]
    BadUrl {
        /// From 1.
        index: usize,
    },
    /// A URL with a user or password in it.
    #[error("the NATS URL of {host} holds credentials; put them into a Secret")]
    CredentialsInUrl {
        /// Its host.
        host: String,
    },
    /// A mounted file cannot be read.
    #[error("cannot read the {what} from {path}")]
    Read {
        /// For example `password`.
        what: &'static str,
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Something read is not what it must be.
    #[error("the {what} cannot be used: {problem}")]
    Malformed {
        /// For example `CA`.
        what: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The server refused the credentials, or asks for some.
    #[error("NATS at {servers} refused the credentials")]
    Unauthorized {
        /// The URLs.
        servers: String,
    },
    /// No server could be reached.
    #[error("cannot connect to NATS at {servers}")]
    Unreachable {
        /// The URLs.
        servers: String,
        /// Why.
        #[source]
        source: async_nats::ConnectError,
    },
    /// JetStream is off, or off for this account.
    #[error("NATS at {servers} has no JetStream for this account; enable it")]
    JetStreamMissing {
        /// The URLs.
        servers: String,
    },
    /// The cluster is too old.
    #[error(
        "NATS {version} at {servers} has JetStream API level {level}, {MIN_API_LEVEL} is needed; upgrade every server to 2.14 or newer"
    )]
    ServerTooOld {
        /// The URLs.
        servers: String,
        /// Of the connected server.
        version: String,
        /// Of the cluster.
        level: u64,
    },
    /// JetStream did not answer.
    #[error("JetStream at {servers} did not say its level")]
    Account {
        /// The URLs.
        servers: String,
        /// Why.
        #[source]
        source: ApiError,
    },
}
