//! Which rules and which filter were applied to which sequences: what an uninterrupted run must repeat
//! to come to the same windows and the same alerts. A request may lead back, so a segment says where
//! it ended.

use lookback_protocol::position::{Epoch, StreamSeq};
use lookback_protocol::start::OutputRule;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::{Deserialize, Serialize};

use super::Identity;
use super::error::{During, StateError};
use super::ledger::word_of;
use super::meta::unreadable;

/// A run of events applied under the same epoch, filter and engine digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Segment {
    /// The epoch.
    pub epoch: Epoch,
    /// The first sequence it covers.
    pub start: StreamSeq,
    /// The last sequence applied under it; absent for the current one, which ends at the position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<StreamSeq>,
    /// The subjects read, sorted; empty for the whole stream.
    pub filter: Vec<String>,
    /// Over the rules and settings.
    pub engine_digest: String,
    /// It began without the windows of the segments before it.
    #[serde(default)]
    pub dropped: bool,
    /// What became of what was found under it.
    #[serde(default)]
    pub output: OutputRule,
}

/// How a segment is entered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Where the file stood until then; nothing for a file that was empty.
    pub(super) before: Option<StreamSeq>,
    /// The first sequence it covers.
    pub(super) start: StreamSeq,
    /// Whether the windows were dropped on the way.
    pub(super) dropped: bool,
}

/// Makes the segment of `identity` the current one. A segment under which nothing was applied leaves
/// no trace but the windows it dropped, so it is replaced.
pub(super) fn enter(
    transaction: &Transaction<'_>,
    identity: &Identity,
    entry: Entry,
) -> Result<(), StateError> {
    let Entry {
        before,
        start,
        mut dropped,
    } = entry;
    let mut filter = identity.filter.clone();
    filter.sort_unstable();
    filter.dedup();
    let applied = before.unwrap_or_default();
    while let Some((id, found)) = newest(transaction)? {
        let Segment {
            epoch,
            engine_digest,
            ..
        } = &found;
        let same = (*epoch, &found.filter, engine_digest)
            == (identity.epoch, &filter, &identity.engine_digest);
        let adjoins = found.last.unwrap_or(applied).next() == start;
        if same && adjoins && !dropped {
            return end(transaction, id, None);
        }
        match found.last {
            Some(_) => break,
            None if found.start <= applied => {
                end(transaction, id, Some(applied))?;
                break;
            }
            None => {
                dropped |= found.dropped;
                transaction
                    .execute("DELETE FROM lineage WHERE id = ?1", [id])
                    .during("replace a segment of the lineage")?;
            }
        }
    }
    let filter = serde_json::Value::from(filter).to_string();
    transaction
        .execute(
            "INSERT INTO lineage (epoch, start, filter, engine_digest, dropped, rewind)
             VALUES (?1, ?2, ?3, ?4, ?5, (SELECT max(id) FROM ledger))",
            params![
                identity.epoch.0,
                start.0,
                filter,
                identity.engine_digest,
                dropped
            ],
        )
        .during("append to the lineage")?;
    Ok(())
}

pub(super) fn read(connection: &Connection) -> Result<Vec<Segment>, StateError> {
    connection
        .prepare_cached(&format!("{SELECT} ORDER BY lineage.id"))
        .and_then(|mut select| select.query_map([], segment)?.collect())
        .during("read the lineage")
}

const SELECT: &str = "SELECT lineage.id, lineage.epoch, lineage.start, lineage.last, filter,
  engine_digest, dropped, ledger.start AS request_start, read_from, outputs, target
  FROM lineage LEFT JOIN ledger ON ledger.id = lineage.rewind";

fn newest(transaction: &Transaction<'_>) -> Result<Option<(i64, Segment)>, StateError> {
    transaction
        .query_row(
            &format!("{SELECT} ORDER BY lineage.id DESC LIMIT 1"),
            [],
            |row| Ok((row.get("id")?, segment(row)?)),
        )
        .optional()
        .during("read the lineage")
}

fn end(transaction: &Transaction<'_>, id: i64, last: Option<StreamSeq>) -> Result<(), StateError> {
    transaction
        .execute(
            "UPDATE lineage SET last = ?2 WHERE id = ?1",
            params![id, last.map(|last| last.0)],
        )
        .during("end a segment of the lineage")?;
    Ok(())
}

fn segment(row: &Row<'_>) -> rusqlite::Result<Segment> {
    let filter: String = row.get("filter")?;
    let last: Option<u64> = row.get("last")?;
    Ok(Segment {
        epoch: Epoch(row.get("epoch")?),
        start: StreamSeq(row.get("start")?),
        last: last.map(StreamSeq),
        filter: serde_json::from_str(&filter)
            .map_err(|error| unreadable(row, "filter", Box::new(error)))?,
        engine_digest: row.get("engine_digest")?,
        dropped: row.get("dropped")?,
        output: rule(row)?,
    })
}

fn rule(row: &Row<'_>) -> rusqlite::Result<OutputRule> {
    let outputs: Option<String> = row.get("outputs")?;
    if outputs.is_none() {
        return Ok(OutputRule::default());
    }
    let read_from: Option<u64> = row.get("read_from")?;
    Ok(OutputRule::new(
        StreamSeq(row.get("request_start")?),
        read_from.map(StreamSeq),
        word_of(row, "outputs")?,
        StreamSeq(row.get("target")?),
    ))
}
