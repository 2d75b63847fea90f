//! The workflow of a pipeline's alerts, in the KV bucket beside the checkpoints.

use lookback_protocol::names::PipelineKey;
use lookback_protocol::workflow::Definition;

use super::connect::Nats;
use super::ensure::{Deleted, Ensured, ObjectError};
use super::entries::ReadError;

/// The definition, from the leader; `None` when there is none.
///
/// # Errors
/// [`ReadError`].
pub async fn read(nats: &Nats, key: &PipelineKey) -> Result<Option<Definition>, ReadError> {
    todo!("flow: {nats:?} {key}")
}

/// Writes it, by compare-and-swap, unless it stands there already; another owner's is left alone.
///
/// # Errors
/// [`ObjectError`].
pub async fn ensure(
    nats: &Nats,
    definition: &Definition,
    adopt: Option<&str>,
) -> Result<Ensured, ObjectError> {
    todo!("flow: {nats:?} {definition:?} {adopt:?}")
}

/// Deletes it, if it is `owner`'s.
///
/// # Errors
/// [`ObjectError`].
pub async fn delete(
    nats: &Nats,
    owner: &lookback_protocol::names::Owner,
) -> Result<Deleted, ObjectError> {
    todo!("flow: {nats:?} {owner}")
}
