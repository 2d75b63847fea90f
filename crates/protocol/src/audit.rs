//! What was done to a pipeline, once and by whom, on a subject of its own that nothing can overwrite.
//! So the record of a replay is also its claim: who stores it may run the request, and nobody else.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::names::Owner;
use crate::position::Epoch;
use crate::replay::request::RequestId;
use crate::version;

/// The version of [`AuditRecord`] written by this build.
pub const VERSION: u32 = 1;

/// What was done; a token of the record's subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AuditKind {
    /// A request of `spec.replay` began.
    Replay,
}

impl AuditKind {
    /// As it stands in a subject.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replay => "replay",
        }
    }
}

/// One act.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditRecord {
    /// Format version, [`VERSION`]; another one is not read.
    #[serde(deserialize_with = "version::exactly::<VERSION, _>")]
    pub v: u32,
    /// What was done.
    pub kind: AuditKind,
    /// To which pipeline of which cluster.
    #[serde(flatten)]
    pub owner: Owner,
    /// The request that asked for it.
    pub request_id: RequestId,
    /// Tells requests of one id apart.
    pub fingerprint: String,
    /// The epoch it begins.
    pub epoch: Epoch,
    /// The plan it follows.
    pub plan_hash: String,
    /// The process that wrote this.
    pub by: String,
    /// When it was written.
    pub time: Timestamp,
    /// More, for people.
    pub details: Value,
}

impl AuditRecord {
    /// Whether both claim the same act for the same pipeline. So an operator that was restarted knows
    /// the claim of its former self; who wrote it and when is of no account.
    #[must_use]
    pub fn is_same_claim(&self, other: &Self) -> bool {
        let Self {
            v: _,
            kind,
            owner,
            request_id,
            fingerprint,
            epoch,
            plan_hash,
            by: _,
            time: _,
            details: _,
        } = self;
        *kind == other.kind
            && *owner == other.owner
            && *request_id == other.request_id
            && *fingerprint == other.fingerprint
            && *epoch == other.epoch
            && *plan_hash == other.plan_hash
    }
}
