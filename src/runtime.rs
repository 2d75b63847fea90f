//! What both programs need around them: telemetry, metrics, admin HTTP, shutdown.
//!
//! # Layout
//! - [`telemetry`]: log format and filter, set up once.
//! - [`metrics`]: the registry and its text form.
//! - [`admin`]: `/live`, `/ready` and `/metrics`, and the gates that make `/ready` true.
//! - [`shutdown`]: SIGTERM and SIGINT as one cancellation token.

pub mod admin;
pub mod metrics;
pub mod shutdown;
pub mod telemetry;
