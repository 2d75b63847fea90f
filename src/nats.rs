//! The adapters that speak JetStream. Each says in its documentation what it guarantees.
//!
//! # Layout
//! - [`connect`]: the connection, and whether the server is fit.
//! - [`api`]: requests and their error codes.
//! - [`log`]: the source stream and its consumer, for the worker.
//! - [`outbox`]: the stores of alerts and dead letters, for the worker.
//! - [`alerts`], [`deadletters`]: what becomes of them, for people; [`entries`]: what the two have in common.
//! - [`definition`]: the workflow of a pipeline's alerts.
//! - [`checkpoint`]: checkpoints, for the worker; watching and deleting them, for the operator.
//! - `owned_key`: what the keys of these two have in common for the operator.
//! - [`audit`]: what was done once and who may do it, for the operator.
//! - [`desired`]: what streams and consumers must look like, and whether they do. Pure.
//! - [`survey`]: what a replay is planned from, read off the source stream.
//! - [`streams`], [`consumers`]: reading them, and keeping ours as desired, for the operator.
//! - [`ensure`]: what the two have in common.

pub mod alerts;
pub mod api;
pub mod audit;
pub mod checkpoint;
pub mod connect;
pub mod consumers;
pub mod deadletters;
pub mod definition;
pub mod desired;
pub mod ensure;
pub mod entries;
pub mod log;
pub mod outbox;
mod owned_key;
pub mod streams;
pub mod survey;
