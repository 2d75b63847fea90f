//! Whose file it is, how far it has come, and what may already have happened beyond that.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lookback_protocol::checkpoint::{Counters, Gap};
use lookback_protocol::names::{Owner, PipelineKey};
use lookback_protocol::position::{Epoch, Position, StreamIdentity, StreamSeq};
use lookback_protocol::start::{Begin, FileFacts, FileState};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, named_params, params};

use super::error::{During, StateError};
use super::{Commit, Identity};

/// Everything but the counters.
pub(super) fn facts(connection: &Connection) -> Result<FileFacts, StateError> {
    match state(connection)? {
        Some(state) => Ok(FileFacts::State(state)),
        None => Ok(FileFacts::Empty),
    }
}

pub(super) fn state(connection: &Connection) -> Result<Option<FileState>, StateError> {
    let gaps = gaps(connection)?;
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
                            created: parse(
                                row,
                                "stream_created",
                                &row.get::<_, String>("stream_created")?,
                            )?,
                        },
                        epoch: Epoch(row.get("epoch")?),
                        position: position_of(row)?,
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
    raise_published_through(transaction, begin.published_through)?;
    if let Some(gap) = &begin.gap {
        transaction
            .execute(
                "INSERT INTO gaps (first, last, possible) VALUES (?1, ?2, ?3)
                 ON CONFLICT (first) DO UPDATE SET last = max(last, excluded.last)",
                params![gap.from.0, gap.to.0, gap.possible],
            )
            .during("append a gap")?;
    }
    Ok(())
}

pub(super) fn advance(
    transaction: &Transaction<'_>,
    commit: &Commit<'_>,
) -> Result<(), StateError> {
    const OPERATION: &str = "advance the position";
    let refused = |reason: String| StateError::Refused {
        operation: OPERATION,
        reason,
    };
    let to = commit.position.sequence;
    let Some(published) = commit.position.published else {
        return Err(refused(format!("position {to} has no published time")));
    };
    let Counters {
        events,
        alerts_new,
        alerts_known,
        dead_letters,
        late,
        skewed,
    } = commit.counters;
    let moved = transaction
        .prepare_cached(
            "UPDATE meta SET position = :to, published = :published,
               published_through = max(published_through, :through),
               events = :events, alerts_new = :alerts_new, alerts_known = :alerts_known,
               dead_letters = :dead_letters, late = :late, skewed = :skewed
             WHERE position < :to",
        )
        .and_then(|mut update| {
            update.execute(named_params! {
                ":to": to.0,
                ":published": published.to_string(),
                ":through": commit.published_through.0,
                ":events": events,
                ":alerts_new": alerts_new,
                ":alerts_known": alerts_known,
                ":dead_letters": dead_letters,
                ":late": late,
                ":skewed": skewed,
            })
        })
        .during(OPERATION)?;
    if moved == 0 {
        let from = position(transaction)?.sequence;
        return Err(refused(format!(
            "position {to} is not beyond position {from}"
        )));
    }
    acknowledge(transaction, commit.acknowledged).during("write PubAck sequences")
}

pub(super) fn raise_published_through(
    connection: &Connection,
    to: StreamSeq,
) -> Result<(), StateError> {
    position(connection)?;
    connection
        .prepare_cached("UPDATE meta SET published_through = ?1 WHERE published_through < ?1")
        .and_then(|mut update| update.execute([to.0]))
        .during("raise what is published")?;
    Ok(())
}

pub(super) fn position(connection: &Connection) -> Result<Position, StateError> {
    const OPERATION: &str = "read the position";
    connection
        .prepare_cached("SELECT position, published FROM meta")
        .and_then(|mut select| select.query_row([], position_of).optional())
        .during(OPERATION)?
        .ok_or_else(|| not_begun(OPERATION))
}

pub(super) fn counters(connection: &Connection) -> Result<Counters, StateError> {
    const OPERATION: &str = "read the counters";
    connection
        .prepare_cached(
            "SELECT events, alerts_new, alerts_known, dead_letters, late, skewed FROM meta",
        )
        .and_then(|mut select| {
            select
                .query_row([], |row| {
                    Ok(Counters {
                        events: row.get("events")?,
                        alerts_new: row.get("alerts_new")?,
                        alerts_known: row.get("alerts_known")?,
                        dead_letters: row.get("dead_letters")?,
                        late: row.get("late")?,
                        skewed: row.get("skewed")?,
                    })
                })
                .optional()
        })
        .during(OPERATION)?
        .ok_or_else(|| not_begun(OPERATION))
}

pub(super) fn gaps(connection: &Connection) -> Result<Vec<Gap>, StateError> {
    connection
        .prepare_cached("SELECT first, last, possible FROM gaps ORDER BY first")
        .and_then(|mut select| {
            select
                .query_map([], |row| {
                    Ok(Gap {
                        from: StreamSeq(row.get("first")?),
                        to: StreamSeq(row.get("last")?),
                        possible: row.get("possible")?,
                    })
                })?
                .collect()
        })
        .during("read the gaps")
}

pub(super) fn acknowledged(connection: &Connection) -> Result<BTreeMap<String, u64>, StateError> {
    connection
        .prepare_cached("SELECT stream, acknowledged FROM stores")
        .and_then(|mut select| {
            select
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })
        .during("read PubAck sequences")
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

fn acknowledge(
    transaction: &Transaction<'_>,
    acknowledged: &[(String, u64)],
) -> rusqlite::Result<()> {
    let mut upsert = transaction.prepare_cached(
        "INSERT INTO stores (stream, acknowledged) VALUES (?1, ?2)
         ON CONFLICT (stream) DO UPDATE SET acknowledged = max(acknowledged, excluded.acknowledged)",
    )?;
    for (stream, sequence) in acknowledged {
        upsert.execute(params![stream, sequence])?;
    }
    Ok(())
}

fn not_begun(operation: &'static str) -> StateError {
    StateError::Refused {
        operation,
        reason: "nothing was begun in it".to_owned(),
    }
}

fn owner(row: &Row<'_>) -> rusqlite::Result<Owner> {
    let (namespace, name): (String, String) = (row.get("namespace")?, row.get("name")?);
    let pipeline = PipelineKey::new(&namespace, &name)
        .map_err(|error| unreadable(row, "name", Box::new(error)))?;
    Ok(Owner {
        cluster: row.get("cluster")?,
        pipeline,
    })
}

fn position_of(row: &Row<'_>) -> rusqlite::Result<Position> {
    let published: Option<String> = row.get("published")?;
    Ok(Position {
        sequence: StreamSeq(row.get("position")?),
        published: published
            .map(|text| parse(row, "published", &text))
            .transpose()?,
    })
}

fn parse(row: &Row<'_>, column: &str, text: &str) -> rusqlite::Result<Timestamp> {
    text.parse()
        .map_err(|error: jiff::Error| unreadable(row, column, Box::new(error)))
}

fn unreadable(
    row: &Row<'_>,
    column: &str,
    error: Box<dyn std::error::Error + Send + Sync>,
) -> rusqlite::Error {
    match row.as_ref().column_index(column) {
        Ok(index) => rusqlite::Error::FromSqlConversionFailure(index, Type::Text, error),
        Err(error) => error,
    }
}
