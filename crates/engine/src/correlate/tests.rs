//! Semantics, one fact a test.

mod types;
