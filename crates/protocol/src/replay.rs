//! Replay: a request in the spec moves the cursor once, whatever is applied, reverted or killed.
//!
//! # Layout
//! - [`request`]: what a person asks for, and the identity under which it is remembered.
//! - [`restore`]: whether windows are kept or dropped.
//! - [`plan`]: what a request would do, said before anything is done.
//! - [`record`]: how far a request has come; the operator's write-ahead log in the status.
//! - [`machine`]: from the record and what was observed to the next record, and what to do under it.
//! - [`ledger`]: what the status, the consumers and the checkpoint together say about where a pipeline
//!   stands, also when one or two of them are gone.

pub mod ledger;
pub mod machine;
pub mod plan;
pub mod record;
pub mod request;
pub mod restore;
