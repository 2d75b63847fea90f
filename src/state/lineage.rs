//! Which rules and which filter were applied from which sequence on: what an uninterrupted run must
//! repeat to come to the same windows.

use lookback_protocol::position::{Epoch, StreamSeq};
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::{Deserialize, Serialize};

use super::Identity;
use super::error::{During, StateError};

/// A run of events applied under the same epoch, filter and engine digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Segment {
    /// The epoch.
    pub epoch: Epoch,
    /// The first sequence it covers; it ends before the next segment's.
    pub start: StreamSeq,
    /// The subjects read, sorted; empty for the whole stream.
    pub filter: Vec<String>,
    /// Over the rules and settings.
    pub engine_digest: String,
}

/// Makes the segment of `identity` the current one, from `start` on. A segment under which nothing
/// was applied leaves no trace in the windows, so it is replaced.
pub(super) fn enter(
    transaction: &Transaction<'_>,
    identity: &Identity,
    start: StreamSeq,
) -> Result<(), StateError> {
    let mut filter = identity.filter.clone();
    filter.sort_unstable();
    filter.dedup();
    let segment = Segment {
        epoch: identity.epoch,
        start,
        filter,
        engine_digest: identity.engine_digest.clone(),
    };
    while let Some((id, last)) = last(transaction)? {
        if last.applies_the_same_as(&segment) {
            return Ok(());
        }
        if last.start < start {
            break;
        }
        transaction
            .execute("DELETE FROM lineage WHERE id = ?1", [id])
            .during("replace a segment of the lineage")?;
    }
    append(transaction, &segment).during("append to the lineage")
}

pub(super) fn read(connection: &Connection) -> Result<Vec<Segment>, StateError> {
    connection
        .prepare_cached("SELECT epoch, start, filter, engine_digest FROM lineage ORDER BY id")
        .and_then(|mut select| select.query_map([], segment)?.collect())
        .during("read the lineage")
}

impl Segment {
    fn applies_the_same_as(&self, other: &Self) -> bool {
        let Self {
            epoch,
            start: _,
            filter,
            engine_digest,
        } = self;
        (epoch, filter, engine_digest) == (&other.epoch, &other.filter, &other.engine_digest)
    }
}

fn last(transaction: &Transaction<'_>) -> Result<Option<(i64, Segment)>, StateError> {
    transaction
        .query_row(
            "SELECT id, epoch, start, filter, engine_digest FROM lineage ORDER BY id DESC LIMIT 1",
            [],
            |row| Ok((row.get("id")?, segment(row)?)),
        )
        .optional()
        .during("read the lineage")
}

fn append(transaction: &Transaction<'_>, segment: &Segment) -> rusqlite::Result<()> {
    let filter = serde_json::Value::from(segment.filter.clone()).to_string();
    transaction.execute(
        "INSERT INTO lineage (epoch, start, filter, engine_digest) VALUES (?1, ?2, ?3, ?4)",
        params![
            segment.epoch.0,
            segment.start.0,
            filter,
            segment.engine_digest
        ],
    )?;
    Ok(())
}

fn segment(row: &Row<'_>) -> rusqlite::Result<Segment> {
    let index = row.as_ref().column_index("filter")?;
    let filter: String = row.get(index)?;
    Ok(Segment {
        epoch: Epoch(row.get("epoch")?),
        start: StreamSeq(row.get("start")?),
        filter: serde_json::from_str(&filter).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(index, Type::Text, Box::new(error))
        })?,
        engine_digest: row.get("engine_digest")?,
    })
}
