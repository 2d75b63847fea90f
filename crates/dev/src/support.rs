//! Real servers for tests, the faults between them, and the only place that may sleep.
//!
//! - [`api_server`]: a Kubernetes API server without nodes.
//! - [`binaries`]: where server binaries are found.
//! - [`eventually`](fn@eventually): waiting for something to become true.
//! - [`nats`]: a NATS server, and a cluster of three.
//! - [`node`]: a full local cluster with real pods.
//! - [`ports`]: free ports of this machine.
//! - [`proxy`]: a TCP proxy that cuts and freezes connections.

pub mod api_server;
pub mod binaries;
mod eventually;
pub mod nats;
pub mod node;
pub mod ports;
pub mod proxy;

pub use api_server::ApiServer;
pub use binaries::binary;
pub use eventually::eventually;
pub use nats::{NatsCluster, NatsServer, Settings, patient};
pub use node::Node;
pub use proxy::TcpProxy;
