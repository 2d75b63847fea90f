//! Whose file it is, and how a start takes it over.

use lookback_protocol::names::{Owner, PipelineKey};
use lookback_protocol::position::{Epoch, Position, StreamIdentity, StreamSeq};
use lookback_protocol::start::{Begin, FileFacts, FileState};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::error::{During, StateError};
use super::{Identity, meta};

pub(super) fn facts(connection: &Connection) -> Result<FileFacts, StateError> {
    match state(connection)? {
        Some(state) => Ok(FileFacts::State(state)),
        None => Ok(FileFacts::Empty),
    }
}

pub(super) fn state(connection: &Connection) -> Result<Option<FileState>, StateError> {
    let gaps = meta::gaps(connection)?;
    connection
        .prepare_cached(
            "SELECT cluster, namespace, name, partition, stream, stream_created, epoch,
               position, published, published_through FROM meta",
        )
        .and_then(|mut select| {
            select
                .query_row([], |row| {
                    Ok(FileState {
                        owner: owner(row)?,
                        partition: row.get("partition")?,
                        stream: StreamIdentity {
                            name: row.get("stream")?,
                            created: meta::time_of(row, "stream_created")?,
                        },
                        epoch: Epoch(row.get("epoch")?),
                        position: meta::position_of(row)?,
                        published_through: StreamSeq(row.get("published_through")?),
                        gaps,
                    })
                })
                .optional()
        })
        .during("read the identity")
}

pub(super) fn begin(
    transaction: &Transaction<'_>,
    identity: &Identity,
    begin: &Begin,
) -> Result<(), StateError> {
    const OPERATION: &str = "begin";
    match state(transaction)? {
        None => insert(transaction, identity, begin.position).during(OPERATION)?,
        Some(found) => {
            if let Some(reason) = mismatch(&found, identity, begin) {
                return Err(StateError::Refused {
                    operation: OPERATION,
                    reason,
                });
            }
            transaction
                .execute("UPDATE meta SET epoch = ?1", [identity.epoch.0])
                .during(OPERATION)?;
        }
    }
    meta::raise_published_through(transaction, begin.published_through)?;
    if let Some(gap) = &begin.gap {
        meta::append_gap(transaction, gap)?;
    }
    Ok(())
}

fn insert(
    transaction: &Transaction<'_>,
    identity: &Identity,
    position: Position,
) -> rusqlite::Result<()> {
    let pipeline = &identity.owner.pipeline;
    transaction.execute(
        "INSERT INTO meta (id, cluster, namespace, name, partition, stream, stream_created, epoch,
           position, published, published_through)
         VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 0)",
        params![
            identity.owner.cluster,
            pipeline.namespace(),
            pipeline.name(),
            identity.partition,
            identity.stream.name,
            identity.stream.created.to_string(),
            identity.epoch.0,
            position.sequence.0,
            position.published.map(|published| published.to_string()),
        ],
    )?;
    Ok(())
}

/// The start decision has refused these already; a file is never handed over by mistake.
fn mismatch(found: &FileState, identity: &Identity, begin: &Begin) -> Option<String> {
    let Identity {
        owner,
        partition,
        stream,
        epoch,
        engine_digest: _,
        filter: _,
    } = identity;
    if (&found.owner, &found.partition, &found.stream) != (owner, partition, stream) {
        return Some(format!(
            "it belongs to {} partition {} and stream {} created {}",
            found.owner, found.partition, found.stream.name, found.stream.created
        ));
    }
    if found.epoch > *epoch {
        return Some(format!("it is of epoch {}, not {epoch}", found.epoch));
    }
    (found.position != begin.position).then(|| {
        format!(
            "it is at position {}, not {}",
            found.position.sequence, begin.position.sequence
        )
    })
}

fn owner(row: &Row<'_>) -> rusqlite::Result<Owner> {
    let (namespace, name): (String, String) = (row.get("namespace")?, row.get("name")?);
    let pipeline = PipelineKey::new(&namespace, &name)
        .map_err(|error| meta::unreadable(row, "name", Box::new(error)))?;
    Ok(Owner {
        cluster: row.get("cluster")?,
        pipeline,
    })
}
