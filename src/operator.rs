//! The operator: level-triggered, DetectionPipeline -> StatefulSet, volume, configuration and
//! JetStream objects.

pub mod backoff;
pub mod lease;
pub mod metrics;
pub mod report;
