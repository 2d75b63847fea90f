//! How often the worker came to this place, and which event it was applying when it died. A process
//! that is killed cannot write that down, so it is written before, and counted by the next one.

use lookback_protocol::position::StreamSeq;
use rusqlite::{Connection, OptionalExtension, Transaction};

use super::error::{During, StateError};

pub(super) fn note_start(transaction: &Transaction<'_>) -> Result<u32, StateError> {
    count_start(transaction)
        .and_then(|tries| {
            count_death(transaction)?;
            Ok(tries)
        })
        .during("count a start")
}

pub(super) fn set_in_flight(
    transaction: &Transaction<'_>,
    sequence: StreamSeq,
) -> Result<u32, StateError> {
    mark(transaction, sequence)
        .and_then(|()| {
            transaction
                .prepare_cached("SELECT deaths FROM deaths WHERE sequence = ?1")?
                .query_row([sequence.0], |row| row.get(0))
                .optional()
        })
        .during("write the event in flight")
        .map(Option::unwrap_or_default)
}

pub(super) fn clear_in_flight(connection: &Connection) -> Result<(), StateError> {
    connection
        .prepare_cached("UPDATE attempts SET in_flight = NULL WHERE in_flight IS NOT NULL")
        .and_then(|mut update| update.execute([]))
        .during("clear the event in flight")?;
    Ok(())
}

/// Forgets what a commit up to `position` has settled.
pub(super) fn settle(transaction: &Transaction<'_>, position: StreamSeq) -> Result<(), StateError> {
    let forget = || {
        transaction
            .prepare_cached("UPDATE attempts SET in_flight = NULL WHERE in_flight <= ?1")?
            .execute([position.0])?;
        transaction
            .prepare_cached("DELETE FROM deaths WHERE sequence <= ?1")?
            .execute([position.0])
    };
    forget().during("forget attempts")?;
    Ok(())
}

/// Forgets everything: deaths were counted on the way that was left.
pub(super) fn forget(transaction: &Transaction<'_>) -> Result<(), StateError> {
    transaction
        .execute("DELETE FROM deaths", [])
        .and_then(|_| transaction.execute("DELETE FROM attempts", []))
        .during("forget attempts")?;
    Ok(())
}

fn count_start(transaction: &Transaction<'_>) -> rusqlite::Result<u32> {
    let position: Option<u64> = transaction
        .query_row("SELECT position FROM meta", [], |row| row.get(0))
        .optional()?;
    transaction.query_row(
        "INSERT INTO attempts (id, position, tries) VALUES (1, ?1, 1)
         ON CONFLICT (id) DO UPDATE SET position = excluded.position,
           tries = CASE WHEN position IS excluded.position THEN tries + 1 ELSE 1 END
         RETURNING tries",
        [position],
        |row| row.get(0),
    )
}

fn count_death(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    transaction.execute(
        "INSERT INTO deaths (sequence, deaths)
           SELECT in_flight, 1 FROM attempts WHERE in_flight IS NOT NULL
         ON CONFLICT (sequence) DO UPDATE SET deaths = deaths + 1",
        [],
    )?;
    transaction.execute("UPDATE attempts SET in_flight = NULL", [])?;
    Ok(())
}

fn mark(transaction: &Transaction<'_>, sequence: StreamSeq) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO attempts (id, position, tries, in_flight) VALUES (1, NULL, 0, ?1)
             ON CONFLICT (id) DO UPDATE SET in_flight = excluded.in_flight",
        )?
        .execute([sequence.0])?;
    Ok(())
}
