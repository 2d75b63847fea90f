//! The worker: one partition, one state file, one consumer.

pub mod ports;
