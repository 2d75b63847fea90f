//! The operator.

pub mod pipeline;
