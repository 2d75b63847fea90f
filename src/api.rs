//! The DetectionPipeline resource, `lookback.dev/v1alpha1`: what a person asks for, and what the
//! operator says about it.
//!
//! # Layout
//! - [`pipeline`]: the spec, with its defaults and the rules on its shape.
//! - [`status`]: what the operator reports.
//! - [`conditions`]: the one table of conditions, reasons and the verb that ends each.
//! - [`profile`]: the one table of what knobs are when they are left out.
//! - [`duration`], [`quantity`]: `5m` and `10Gi`.
//! - [`pod`]: the schemas of the few pod fields a spec may hold.
//! - [`crd`]: the CustomResourceDefinition as `lookback crds` prints it.

pub mod conditions;
pub mod crd;
pub mod duration;
pub mod pipeline;
pub mod pod;
pub mod profile;
pub mod quantity;
pub mod status;

pub use duration::Duration;
pub use pipeline::{DetectionPipeline, DetectionPipelineSpec};
pub use profile::Profile;
pub use quantity::Bytes;
pub use status::DetectionPipelineStatus;

#[cfg(test)]
mod cel_tests;
#[cfg(test)]
mod generated;
