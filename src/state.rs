//! The worker's state file.
