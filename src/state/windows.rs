//! The windows: one row for each group of each correlation. A row is found by the index over
//! correlation and key, and changed in place; a correlation's fingerprint is stored once.

use std::collections::HashMap;

use lookback_engine::{Changes, GroupRow};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::error::{During, StateError};

pub(super) fn read(connection: &Connection) -> Result<Vec<GroupRow>, StateError> {
    connection
        .prepare_cached(
            "SELECT fingerprint, key, state FROM groups
             JOIN correlations ON correlations.id = groups.correlation",
        )
        .and_then(|mut select| {
            select
                .query_map([], |row| {
                    Ok(GroupRow {
                        correlation: row.get(0)?,
                        key: row.get(1)?,
                        state: row.get(2)?,
                    })
                })?
                .collect()
        })
        .during("read the windows")
}

/// Writes what changed. A group may be deleted and made again between two commits, so deletes come
/// first.
pub(super) fn write(transaction: &Transaction<'_>, changes: &Changes) -> Result<(), StateError> {
    let mut ids = HashMap::new();
    delete(transaction, changes, &mut ids)
        .and_then(|()| upsert(transaction, changes, &mut ids))
        .during("write the windows")
}

pub(super) fn drop_all(transaction: &Transaction<'_>) -> Result<(), StateError> {
    transaction
        .execute("DELETE FROM groups", [])
        .during("drop the windows")?;
    Ok(())
}

/// A correlation that no rule set in use holds any more has lost its groups by deletes.
pub(super) fn forget_empty_correlations(transaction: &Transaction<'_>) -> Result<(), StateError> {
    transaction
        .execute(
            "DELETE FROM correlations WHERE NOT EXISTS
               (SELECT 1 FROM groups WHERE groups.correlation = correlations.id)",
            [],
        )
        .during("forget correlations without windows")?;
    Ok(())
}

fn delete<'a>(
    transaction: &Transaction<'_>,
    changes: &'a Changes,
    ids: &mut HashMap<&'a str, i64>,
) -> rusqlite::Result<()> {
    let mut delete =
        transaction.prepare_cached("DELETE FROM groups WHERE correlation = ?1 AND key = ?2")?;
    for (correlation, key) in &changes.deletes {
        delete.execute(params![correlation_id(transaction, correlation, ids)?, key])?;
    }
    Ok(())
}

fn upsert<'a>(
    transaction: &Transaction<'_>,
    changes: &'a Changes,
    ids: &mut HashMap<&'a str, i64>,
) -> rusqlite::Result<()> {
    let mut upsert = transaction.prepare_cached(
        "INSERT INTO groups (correlation, key, state) VALUES (?1, ?2, ?3)
         ON CONFLICT (correlation, key) DO UPDATE SET state = excluded.state",
    )?;
    for row in &changes.upserts {
        let correlation = correlation_id(transaction, &row.correlation, ids)?;
        upsert.execute(params![correlation, row.key, row.state])?;
    }
    Ok(())
}

fn correlation_id<'a>(
    transaction: &Transaction<'_>,
    fingerprint: &'a str,
    ids: &mut HashMap<&'a str, i64>,
) -> rusqlite::Result<i64> {
    if let Some(&id) = ids.get(fingerprint) {
        return Ok(id);
    }
    let known = transaction
        .prepare_cached("SELECT id FROM correlations WHERE fingerprint = ?1")?
        .query_row([fingerprint], |row| row.get(0))
        .optional()?;
    let id = match known {
        Some(id) => id,
        None => transaction
            .prepare_cached("INSERT INTO correlations (fingerprint) VALUES (?1)")?
            .insert([fingerprint])?,
    };
    ids.insert(fingerprint, id);
    Ok(id)
}
