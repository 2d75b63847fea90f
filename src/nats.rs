//! The adapters that speak JetStream. Each says in its documentation what it guarantees.
//!
//! # Layout
//! - [`desired`]: what streams and consumers must look like, and whether they do. Pure.

pub mod desired;
