//! Every request that ever moved the file, written in the transaction that moved it: so no request is
//! applied twice, whatever else is lost.

use lookback_protocol::checkpoint::AppliedRequest;
use lookback_protocol::position::{Epoch, StreamSeq};
use lookback_protocol::replay::record::Windows;
use lookback_protocol::replay::request::{Outputs, RequestId, StatePolicy};
use lookback_protocol::start::{Apply, OutputRule};
use rusqlite::{Connection, Row, Transaction, params};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::{During, StateError};
use super::meta::unreadable;

/// One request that was applied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerRow {
    /// The request.
    pub request_id: RequestId,
    /// Tells requests of one id apart.
    pub fingerprint: String,
    /// The epoch that began with it.
    pub epoch: Epoch,
    /// What was asked to become of the windows.
    pub state_policy: StatePolicy,
    /// The first sequence read with alerts.
    pub start: StreamSeq,
    /// The first sequence read, when that is an earlier one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_from: Option<StreamSeq>,
    /// What became of the windows.
    pub windows: Windows,
    /// Why, one of a closed set.
    pub reason: String,
    /// What becomes of alerts on events up to `target`.
    pub outputs: Outputs,
    /// The last sequence when it was planned.
    pub target: StreamSeq,
    /// The plan a person saw.
    pub plan_hash: String,
}

impl LedgerRow {
    /// As it is said in checkpoints.
    #[must_use]
    pub fn applied(&self) -> AppliedRequest {
        AppliedRequest {
            epoch: self.epoch,
            id: self.request_id.clone(),
            fingerprint: self.fingerprint.clone(),
        }
    }

    /// What becomes of what is found under it.
    #[must_use]
    pub fn output(&self) -> OutputRule {
        OutputRule::new(self.start, self.read_from, self.outputs, self.target)
    }
}

pub(super) fn append(
    transaction: &Transaction<'_>,
    epoch: Epoch,
    apply: &Apply,
) -> Result<(), StateError> {
    let Apply {
        rewind,
        windows,
        reason,
        begin: _,
    } = apply;
    transaction
        .execute(
            "INSERT INTO ledger (request, fingerprint, epoch, state_policy, start, read_from,
               windows, reason, outputs, target, plan_hash)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            params![
                rewind.request_id.as_str(),
                rewind.fingerprint,
                epoch.0,
                word(&rewind.state_policy),
                rewind.start.0,
                rewind.read_from.map(|from| from.0),
                word(windows),
                reason.as_str(),
                word(&rewind.outputs),
                rewind.target.0,
                rewind.plan_hash,
            ],
        )
        .during("append to the ledger")?;
    Ok(())
}

pub(super) fn read(connection: &Connection) -> Result<Vec<LedgerRow>, StateError> {
    connection
        .prepare_cached(
            "SELECT request, fingerprint, epoch, state_policy, start, read_from, windows, reason,
               outputs, target, plan_hash FROM ledger ORDER BY id",
        )
        .and_then(|mut select| select.query_map([], row)?.collect())
        .during("read the ledger")
}

fn row(row: &Row<'_>) -> rusqlite::Result<LedgerRow> {
    let read_from: Option<u64> = row.get("read_from")?;
    Ok(LedgerRow {
        request_id: word_of(row, "request")?,
        fingerprint: row.get("fingerprint")?,
        epoch: Epoch(row.get("epoch")?),
        state_policy: word_of(row, "state_policy")?,
        start: StreamSeq(row.get("start")?),
        read_from: read_from.map(StreamSeq),
        windows: word_of(row, "windows")?,
        reason: row.get("reason")?,
        outputs: word_of(row, "outputs")?,
        target: StreamSeq(row.get("target")?),
        plan_hash: row.get("plan_hash")?,
    })
}

/// A unit variant as the wire formats spell it.
fn word(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).ok();
    let word = value.as_ref().and_then(Value::as_str);
    word.expect("a unit variant is a string").to_owned()
}

/// A word that nothing here spells is damage, like a page that does not read.
pub(super) fn word_of<T: DeserializeOwned>(row: &Row<'_>, column: &str) -> rusqlite::Result<T> {
    serde_json::from_value(Value::String(row.get(column)?))
        .map_err(|error| unreadable(row, column, Box::new(error)))
}
