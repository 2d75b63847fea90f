//! The adapters that speak JetStream.
