//! The digest of a state file, for comparison with a run that was never interrupted.

use std::path::{Path, PathBuf};

use lookback_protocol::position::{Position, StreamIdentity, StreamSeq};
use serde::{Deserialize, Serialize};

use super::error::{OpenError, StateError};
use super::{LedgerRow, Segment, identity, ledger, lineage, schema, windows};

/// What a state file amounts to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileDigest {
    /// The stream it was made from.
    pub stream: StreamIdentity,
    /// What it has applied.
    pub position: Position,
    /// SHA-256, hex, over its windows; see [`lookback_engine::state_digest`].
    pub state_digest: String,
    /// How many groups hold a window.
    pub groups: u64,
    /// What was applied under which rules, oldest first; not the rules under which nothing was, for
    /// the windows know nothing of them, unless they were dropped on the way there.
    pub lineage: Vec<Segment>,
    /// Every request that moved it, oldest first.
    #[serde(default)]
    pub ledger: Vec<LedgerRow>,
}

/// Why a file has no digest.
#[derive(Debug, thiserror::Error)]
pub enum DigestError {
    /// It cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] StateError),
    /// No worker has begun in it.
    #[error("state file {0} holds no state")]
    Empty(PathBuf),
}

/// The digest of the file at `path`, its WAL included, which stays as it is. The file is locked
/// meanwhile: while a worker has it open this is [`OpenError::Locked`]; digest a copy of the file and
/// of its `-wal`, taken together, or stop the worker.
///
/// # Errors
/// [`DigestError`] says why there is none.
pub fn digest(path: &Path) -> Result<FileDigest, DigestError> {
    let empty = || DigestError::Empty(path.to_owned());
    let connection = schema::open_to_read(path)?.ok_or_else(empty)?;
    let state = identity::state(&connection)?.ok_or_else(empty)?;
    let rows = windows::read(&connection)?;
    let mut lineage = lineage::read(&connection)?;
    if leaves_no_trace(&lineage, state.position.sequence) {
        lineage.pop();
        if let Some(current) = lineage.last_mut() {
            current.last = None;
        }
    }
    Ok(FileDigest {
        stream: state.stream,
        position: state.position,
        groups: rows.len() as u64,
        state_digest: lookback_engine::state_digest(rows),
        lineage,
        ledger: ledger::read(&connection)?,
    })
}

/// Whether nothing was applied under the current segment, which only goes on where the one before it
/// ended, with its windows.
fn leaves_no_trace(lineage: &[Segment], position: StreamSeq) -> bool {
    let Some((current, before)) = lineage.split_last() else {
        return false;
    };
    let adjoins = before
        .last()
        .is_none_or(|before| before.last == Some(current.start.previous()));
    current.start > position && adjoins && !current.dropped
}
