//! Whose file it is, and how a start takes it over.

use lookback_protocol::names::{Owner, PipelineKey};
use lookback_protocol::position::{Epoch, Position, StreamIdentity, StreamSeq};
use lookback_protocol::start::{Apply, Begin, FileFacts, FileState};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::error::{During, StateError};
use super::ledger::LedgerRow;
use super::{Identity, ledger, meta};

pub(super) fn facts(connection: &Connection) -> Result<FileFacts, StateError> {
    match state(connection)? {
        Some(state) => Ok(FileFacts::State(Box::new(state))),
        None => Ok(FileFacts::Empty),
    }
}

pub(super) fn state(connection: &Connection) -> Result<Option<FileState>, StateError> {
    let gaps = meta::gaps(connection)?;
    let ledger = ledger::read(connection)?;
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
                        output: ledger.last().map(LedgerRow::output).unwrap_or_default(),
                        ledger: ledger.iter().map(LedgerRow::applied).collect(),
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
            let reason = mismatch(&found, identity).or_else(|| elsewhere(&found, identity, begin));
            refuse(OPERATION, reason)?;
            take_over(transaction, identity).during(OPERATION)?;
        }
    }
    meta::raise_published_through(transaction, begin.published_through)?;
    if let Some(gap) = &begin.gap {
        meta::append_gap(transaction, gap)?;
    }
    Ok(())
}

/// Binds the file to the stream and the place that a request names. Gives where it stood before.
pub(super) fn rewind(
    transaction: &Transaction<'_>,
    identity: &Identity,
    apply: &Apply,
) -> Result<Option<StreamSeq>, StateError> {
    const OPERATION: &str = "apply a request";
    let Begin {
        position,
        published_through,
        gap: _,
    } = &apply.begin;
    let found = state(transaction)?;
    match &found {
        None => insert(transaction, identity, *position).during(OPERATION)?,
        Some(found) => {
            let reason = mismatch(found, identity).or_else(|| applied(found, identity));
            refuse(OPERATION, reason)?;
            take_over(transaction, identity).during(OPERATION)?;
        }
    }
    transaction
        .execute(
            "UPDATE meta SET stream = ?1, stream_created = ?2, position = ?3, published = NULL,
               published_through = ?4",
            params![
                identity.stream.name,
                identity.stream.created.to_string(),
                position.sequence.0,
                published_through.0,
            ],
        )
        .during(OPERATION)?;
    Ok(found.map(|found| found.position.sequence))
}

fn take_over(transaction: &Transaction<'_>, identity: &Identity) -> rusqlite::Result<()> {
    let Owner { cluster, pipeline } = &identity.owner;
    transaction.execute(
        "UPDATE meta SET cluster = ?1, namespace = ?2, name = ?3, epoch = ?4",
        params![
            cluster,
            pipeline.namespace(),
            pipeline.name(),
            identity.epoch.0
        ],
    )?;
    Ok(())
}

fn refuse(operation: &'static str, reason: Option<String>) -> Result<(), StateError> {
    match reason {
        Some(reason) => Err(StateError::Refused { operation, reason }),
        None => Ok(()),
    }
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
fn mismatch(found: &FileState, identity: &Identity) -> Option<String> {
    let ours = [Some(&identity.owner), identity.adopt.as_ref()].contains(&Some(&found.owner));
    if !ours || found.partition != identity.partition {
        return Some(format!(
            "it belongs to {} partition {}",
            found.owner, found.partition
        ));
    }
    (found.epoch > identity.epoch)
        .then(|| format!("it is of epoch {}, not {}", found.epoch, identity.epoch))
}

fn elsewhere(found: &FileState, identity: &Identity, begin: &Begin) -> Option<String> {
    if found.stream != identity.stream {
        return Some(format!(
            "it was made from stream {} created {}",
            found.stream.name, found.stream.created
        ));
    }
    (found.position != begin.position).then(|| {
        format!(
            "it is at position {}, not {}",
            found.position.sequence, begin.position.sequence
        )
    })
}

/// A request begins an epoch, so a file of that epoch was moved by it already.
fn applied(found: &FileState, identity: &Identity) -> Option<String> {
    (found.epoch == identity.epoch).then(|| format!("it is of epoch {} already", found.epoch))
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
