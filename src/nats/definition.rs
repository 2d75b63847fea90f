//! The workflow of a pipeline's alerts, in the KV bucket beside the checkpoints.
//!
//! What it guarantees:
//! - Reads are answered by the leader, so they see every write that was acknowledged, and they make no
//!   consumer. A key that a person deleted counts as never written.
//! - [`ensure`] writes over what it read and nothing else: of several writers one wins, and the others
//!   are refused or find the same definition there. Another owner's definition is left alone.

use std::collections::BTreeMap;

use bytes::Bytes;
use lookback_protocol::names::{Owner, PipelineKey, STATE_BUCKET, STATE_STREAM};
use lookback_protocol::workflow::{Definition, Workflow};
use serde_json::{Map, Value};

use super::api::{ApiError, StoredMessage};
use super::connect::Nats;
use super::ensure::{Deleted, Ensured, ObjectError};
use super::entries::ReadError;
use super::outbox::expecting;
use super::owned_key::OwnedKey;

const KIND: &str = "workflow";

/// The definition, from the leader; `None` when there is none.
///
/// # Errors
/// [`ReadError`]: no answer, no bucket, or a definition that this version does not read.
pub async fn read(nats: &Nats, key: &PipelineKey) -> Result<Option<Definition>, ReadError> {
    let subject = key.definition_subject();
    match nats.last_of_subject(STATE_STREAM, &subject).await {
        Ok(Some(message)) if !message.is_marker() => parse(&message).map(Some),
        Ok(_) => Ok(None),
        Err(source) => Err(ReadError::Api {
            operation: "read",
            object: format!("{KIND} {}", key.definition_key()),
            source,
        }),
    }
}

/// What was found, or the definition of the default workflow.
#[must_use]
pub fn or_default(found: Option<Definition>, owner: &Owner) -> Definition {
    found.unwrap_or_else(|| Definition::new(owner.clone(), &Workflow::default()))
}

/// The definition of every pipeline that has one, by pipeline: all that stand in this account for as
/// long as it takes to read them, each in its latest version.
///
/// # Errors
/// [`ReadError`], as for [`read`].
pub async fn list(nats: &Nats) -> Result<Vec<Definition>, ReadError> {
    let subjects = format!("$KV.{STATE_BUCKET}.*.*.def");
    let mut found = BTreeMap::new();
    let mut from = 1;
    // One that is written meanwhile stands further on, and is met there.
    while let Some(message) = nats
        .next_of_subject(STATE_STREAM, from, &subjects)
        .await
        .map_err(|source| ReadError::Api {
            operation: "list",
            object: "workflows".to_owned(),
            source,
        })?
    {
        from = message.sequence + 1;
        if message.is_marker() {
            found.remove(&message.subject);
        } else {
            found.insert(message.subject.clone(), parse(&message)?);
        }
    }
    Ok(found.into_values().collect())
}

/// Writes it, by compare-and-swap, unless it stands there already; another owner's is left alone,
/// unless that is the one to `adopt`. States that it has no more are kept as former ones.
///
/// # Errors
/// [`ObjectError`]: it is another's, another write came first, or the server did not answer. Try again.
pub async fn ensure(
    nats: &Nats,
    definition: &Definition,
    adopt: Option<&str>,
) -> Result<Ensured, ObjectError> {
    let key = key(&definition.owner);
    let stands = key.read(nats).await?;
    let earlier = stands.as_ref().filter(|message| !message.is_marker());
    let desired = match earlier.and_then(|message| parse(message).ok()) {
        None if earlier.is_some_and(|message| is_of(message, &definition.owner)) => {
            let newer = "another version of Lookback wrote it: run that one, or delete the key";
            return Err(key.failed("read")(ApiError::Unreadable(newer.into())));
        }
        Some(earlier) => serde_json::to_value(definition.clone().after(earlier)),
        None => serde_json::to_value(definition),
    };
    let desired =
        desired.map_err(|error| key.failed("write")(ApiError::Unreadable(error.into())))?;
    let (expected, ensured) = match &stands {
        None => (0, Ensured::Created),
        Some(message) if message.is_marker() => (message.sequence, Ensured::Created),
        Some(message) => {
            let observed: Value = serde_json::from_slice(&message.payload).unwrap_or_default();
            let Some(ensured) = change(&key, &desired, &observed, adopt)? else {
                return Ok(Ensured::Unchanged);
            };
            (message.sequence, ensured)
        }
    };
    let body = Bytes::from(desired.to_string());
    let written = nats
        .publish(key.subject.clone(), expecting(expected), body)
        .await;
    let Err(source) = written else {
        return Ok(ensured);
    };
    // It may be ours after all: an answer was lost, or somebody wrote the same.
    let stands = key.read(nats).await?;
    let is_there = stands.is_some_and(|message| {
        serde_json::from_slice::<Value>(&message.payload).is_ok_and(|found| found == desired)
    });
    if is_there {
        return Ok(ensured);
    }
    Err(key.failed("write")(source))
}

/// Deletes it, if it is `owner`'s, up to what was read: a write that comes between survives.
///
/// # Errors
/// [`ObjectError`]: it is another's, or the server did not do it.
pub async fn delete(nats: &Nats, owner: &Owner) -> Result<Deleted, ObjectError> {
    key(owner).delete(nats).await
}

fn key(owner: &Owner) -> OwnedKey<'_> {
    OwnedKey {
        kind: KIND,
        name: owner.pipeline.definition_key(),
        subject: owner.pipeline.definition_subject(),
        owner,
    }
}

/// What is to be done about the definition that stands there; `None` when it is as it must be.
fn change(
    key: &OwnedKey<'_>,
    desired: &Value,
    observed: &Value,
    adopt: Option<&str>,
) -> Result<Option<Ensured>, ObjectError> {
    let theirs: Option<Owner> = serde_json::from_value(observed.clone()).ok();
    if theirs.as_ref() == Some(key.owner) {
        let fields = differing(desired, observed);
        return Ok((!fields.is_empty()).then_some(Ensured::Updated { fields }));
    }
    match theirs {
        Some(theirs) if adopt == Some(theirs.to_string().as_str()) => Ok(Some(Ensured::Adopted {
            from: theirs.to_string(),
        })),
        theirs => Err(key.foreign(theirs)),
    }
}

/// The fields of one of two objects that the other lacks or has otherwise.
fn differing(one: &Value, other: &Value) -> Vec<String> {
    let nothing = Map::new();
    let (one, other) = (
        one.as_object().unwrap_or(&nothing),
        other.as_object().unwrap_or(&nothing),
    );
    let mut fields: Vec<String> = one
        .keys()
        .chain(other.keys())
        .filter(|field| one.get(*field) != other.get(*field))
        .cloned()
        .collect();
    fields.sort();
    fields.dedup();
    fields
}

fn is_of(message: &StoredMessage, owner: &Owner) -> bool {
    serde_json::from_slice::<Owner>(&message.payload).is_ok_and(|theirs| theirs == *owner)
}

fn parse(message: &StoredMessage) -> Result<Definition, ReadError> {
    serde_json::from_slice(&message.payload).map_err(|source| ReadError::Unreadable {
        object: format!("{KIND} {}", message.subject),
        source: source.into(),
    })
}
