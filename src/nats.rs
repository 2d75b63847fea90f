//! The adapters that speak JetStream. Each says in its documentation what it guarantees.
//!
//! # Layout
//! - [`connect`]: the connection, and whether the server is fit.
//! - [`api`]: requests and their error codes.
//! - [`log`]: the source stream and its consumer, for the worker.
//! - [`desired`]: what streams and consumers must look like, and whether they do. Pure.
//! - [`streams`], [`consumers`]: reading them, and keeping ours as desired, for the operator.
//! - [`ensure`]: what the two have in common.

pub mod api;
pub mod connect;
pub mod consumers;
pub mod desired;
pub mod ensure;
pub mod log;
pub mod streams;
