//! How far the file has come, and what may already have happened beyond that.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lookback_protocol::checkpoint::{Counters, Gap};
use lookback_protocol::position::{Position, StreamSeq};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, named_params, params};

use super::Commit;
use super::error::{During, StateError};

/// Ranges kept apart. Every checkpoint carries them in one message, so a worker that retention is
/// always ahead of must not gather them without end.
pub(super) const MAX_GAPS: u32 = 100;

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

/// Ranges that touch become one; beyond [`MAX_GAPS`] the two oldest do.
pub(super) fn append_gap(transaction: &Transaction<'_>, gap: &Gap) -> Result<(), StateError> {
    extend_or_insert_gap(transaction, gap)
        .and_then(|()| join_oldest_gaps(transaction))
        .during("append a gap")
}

/// Ranges of a cursor that was left say nothing about the one that begins.
pub(super) fn forget_gaps(transaction: &Transaction<'_>) -> Result<(), StateError> {
    transaction
        .execute("DELETE FROM gaps", [])
        .during("forget the gaps")?;
    Ok(())
}

/// What a store lost is accepted when a request begins anew: what it reads again is stored again.
pub(super) fn forget_acknowledged(transaction: &Transaction<'_>) -> Result<(), StateError> {
    transaction
        .execute("DELETE FROM stores", [])
        .during("forget PubAck sequences")?;
    Ok(())
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

pub(super) fn position_of(row: &Row<'_>) -> rusqlite::Result<Position> {
    let committed: Option<String> = row.get("published")?;
    Ok(Position {
        sequence: StreamSeq(row.get("position")?),
        published: committed.map(|_| time_of(row, "published")).transpose()?,
    })
}

/// A time that does not parse is damage, like a page that does not read.
pub(super) fn time_of(row: &Row<'_>, column: &str) -> rusqlite::Result<Timestamp> {
    let text: String = row.get(column)?;
    text.parse()
        .map_err(|error: jiff::Error| unreadable(row, column, Box::new(error)))
}

pub(super) fn unreadable(
    row: &Row<'_>,
    column: &str,
    error: Box<dyn std::error::Error + Send + Sync>,
) -> rusqlite::Error {
    match row.as_ref().column_index(column) {
        Ok(index) => rusqlite::Error::FromSqlConversionFailure(index, Type::Text, error),
        Err(error) => error,
    }
}

fn extend_or_insert_gap(transaction: &Transaction<'_>, gap: &Gap) -> rusqlite::Result<()> {
    let values = params![gap.from.0, gap.to.0, gap.possible];
    let extended = transaction.execute(
        "UPDATE gaps SET last = max(last, ?2)
         WHERE first <= ?1 AND last >= ?1 - 1 AND (possible = ?3 OR last >= ?2)",
        values,
    )?;
    if extended == 0 {
        transaction.execute(
            "INSERT INTO gaps (first, last, possible) VALUES (?1, ?2, ?3)
             ON CONFLICT (first) DO UPDATE SET last = max(last, excluded.last)",
            values,
        )?;
    }
    Ok(())
}

fn join_oldest_gaps(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let count: u32 = transaction.query_row("SELECT count(*) FROM gaps", [], |row| row.get(0))?;
    if count <= MAX_GAPS {
        return Ok(());
    }
    let (second, last): (u64, u64) = transaction.query_row(
        "SELECT first, last FROM gaps ORDER BY first LIMIT 1 OFFSET 1",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    transaction.execute("DELETE FROM gaps WHERE first = ?1", [second])?;
    transaction.execute(
        "UPDATE gaps SET last = max(last, ?1), possible = 1
         WHERE first = (SELECT min(first) FROM gaps)",
        [last],
    )?;
    Ok(())
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
