//! Tools and test support for Lookback's developers: never part of the image.
//!
//! # Layout
//! - [`events`]: realistic Windows events from a seed.
//! - [`publish`]: events -> a stream.
//! - [`stream`]: reading streams without consuming them.
//! - [`oracle`]: one uninterrupted pass over a stream: what a pipeline must have stored.
//! - [`compare`]: what a pipeline stored, beside what the oracle found.
//! - [`sample`]: alerts for tests and measurements.
//! - [`wait`]: waiting for a pipeline by its checkpoints.
//! - [`mod@bench`]: the worker's speed, beside the evaluator's alone.
//! - [`cli`]: the commands of `lookback-dev`.
//! - [`support`]: real servers, cut connections and waiting, for the tests.

pub mod bench;
pub mod cli;
pub mod compare;
pub mod events;
pub mod oracle;
pub mod publish;
pub mod sample;
pub mod stream;
pub mod support;
pub mod wait;
