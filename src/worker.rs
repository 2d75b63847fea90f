//! The worker: one partition, one state file, one consumer.
pub mod metrics;
pub mod ports;
pub mod run;

pub use run::{Clock, Deps, run};
