//! Tools and test support for Lookback's developers.
//!
//! # Layout
//! - [`support`]: real servers, cut connections and waiting, for the tests.

pub mod support;
