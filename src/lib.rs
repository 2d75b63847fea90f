//! Lookback: a Kubernetes operator for stateful, replayable Sigma detections on NATS JetStream.
//!
//! # Layout
//! - [`api`]: the DetectionPipeline resource and its conditions.
//! - [`operator`]: DetectionPipeline -> StatefulSet, volume, configuration and JetStream objects.
//! - [`worker`]: events -> alerts, dead letters and windows; one partition each.
//! - [`state`]: the worker's SQLite file: windows and position in one transaction.
//! - [`nats`]: the adapters that speak JetStream, with what each guarantees.
//! - [`runtime`]: telemetry, metrics, admin HTTP and shutdown of both programs.
//! - [`cli`]: the command line.

pub mod api;
pub mod cli;
pub mod nats;
pub mod operator;
pub mod runtime;
pub mod state;
pub mod worker;
