//! What was done to a pipeline, once and by whom, on a subject of its own that nothing can overwrite.
//! So the record of a replay is also its claim: who stores it may run the request, and nobody else.
//!
//! The key of an act is the last token of its subject. A replay has its request id, so that it can be
//! claimed once; what a person does has the id of the operation, a UUIDv7; what must not be recorded
//! twice, however often it is tried, has a key made from what it is about.

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::alert::{AlertRecord, HistoryEntry};
use crate::names::Owner;
use crate::position::Epoch;
use crate::replay::request::RequestId;
use crate::version;

/// The version of [`AuditRecord`] written by this build.
pub const VERSION: u32 = 1;

/// What was done; a token of the record's subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AuditKind {
    /// A request of `spec.replay` began.
    Replay,
    /// Somebody moved or changed an alert.
    Alert,
    /// Somebody archived an alert; its record as it was stands here.
    Archive,
    /// An entry of an alert's history that its record has no room for any more.
    History,
    /// Somebody redrove or discarded a dead letter.
    DeadLetter,
    /// The operator did what people should know of.
    Operator,
}

impl AuditKind {
    /// Every kind.
    pub const ALL: [Self; 6] = [
        Self::Replay,
        Self::Alert,
        Self::Archive,
        Self::History,
        Self::DeadLetter,
        Self::Operator,
    ];

    /// As it stands in a subject.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replay => "replay",
            Self::Alert => "alert",
            Self::Archive => "archive",
            Self::History => "history",
            Self::DeadLetter => "deadLetter",
            Self::Operator => "operator",
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
    #[serde(flatten)]
    pub act: Act,
    /// To which pipeline of which cluster.
    #[serde(flatten)]
    pub owner: Owner,
    /// The process or person that did it.
    pub by: String,
    /// When it was written.
    pub time: Timestamp,
    /// More, for people.
    pub details: Value,
}

/// What was done. `kind` tells them apart, in the words of [`AuditKind::as_str`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Act {
    /// See [`AuditKind::Replay`].
    Replay(ReplayClaim),
    /// See [`AuditKind::Alert`].
    Alert(AlertAct),
    /// See [`AuditKind::Archive`].
    Archive(Archived),
    /// See [`AuditKind::History`].
    History(PastStep),
    /// See [`AuditKind::DeadLetter`].
    DeadLetter(DeadLetterAct),
    /// See [`AuditKind::Operator`].
    Operator(OperatorAct),
}

/// A request of `spec.replay` begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplayClaim {
    /// The request.
    pub request_id: RequestId,
    /// Tells requests of one id apart.
    pub fingerprint: String,
    /// The epoch it begins.
    pub epoch: Epoch,
    /// The plan it follows.
    pub plan_hash: String,
}

/// Somebody moved or changed an alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AlertAct {
    /// The alert.
    pub alert: String,
    /// The write that did it.
    pub op_id: String,
    /// The transition; `update` when the state stayed.
    pub transition: String,
    /// The state before.
    pub from: String,
    /// The state after.
    pub to: String,
    /// Why, in the person's words; empty for none.
    pub reason: String,
    /// Where the new version of the alert stands in its stream.
    pub sequence: u64,
}

/// Somebody archived an alert.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Archived {
    /// The alert as it was, with the step into the archive as the last of its history.
    pub alert: Box<AlertRecord>,
}

/// An entry of an alert's history that its record has no room for any more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PastStep {
    /// The alert.
    pub alert: String,
    /// How many entries came before this one in the alert's life.
    pub number: u64,
    /// The entry.
    pub entry: HistoryEntry,
}

/// Somebody redrove or discarded a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetterAct {
    /// The dead letter.
    pub letter: String,
    /// The write that did it.
    pub op_id: String,
    /// The state before.
    pub from: String,
    /// The state after.
    pub to: String,
    /// Why, in the person's words; empty for none.
    pub reason: String,
    /// Where a redriven event stands in the source stream now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redriven: Option<u64>,
}

/// The operator did what people should know of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OperatorAct {
    /// One subject token that is the same however often the act is tried; see the [module](self).
    pub key: String,
    /// The reason, as on the Event that says the same.
    pub reason: String,
    /// What was done, in words.
    pub message: String,
}

impl Archived {
    /// The last token of its subject. Each try has its own: whoever wrote one and then did not archive
    /// the alert, because somebody else was faster or there was no room, is in no one's way.
    #[must_use]
    pub fn key_of(id: &str, prev_seq: u64, op_id: &str) -> String {
        format!("{id}-{prev_seq}-{op_id}")
    }

    fn key(&self) -> String {
        Self::key_of(&self.alert.id, self.alert.prev_seq, &self.alert.op_id)
    }
}

impl PastStep {
    /// The last token of its subject. An alert that was purged or too old, and then found again, has the
    /// id it had and other steps of the same numbers, so what it is about is part of it.
    fn key(&self) -> String {
        let Self {
            alert,
            number,
            entry,
        } = self;
        let content = serde_json::to_vec(entry).expect("every key in an entry is text");
        let digest = HEXLOWER.encode(&Sha256::digest(content)[..8]);
        format!("{alert}-{number}-{digest}")
    }
}

impl Act {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> AuditKind {
        match self {
            Self::Replay(_) => AuditKind::Replay,
            Self::Alert(_) => AuditKind::Alert,
            Self::Archive(_) => AuditKind::Archive,
            Self::History(_) => AuditKind::History,
            Self::DeadLetter(_) => AuditKind::DeadLetter,
            Self::Operator(_) => AuditKind::Operator,
        }
    }

    /// The last token of its subject.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            Self::Replay(claim) => claim.request_id.to_string(),
            Self::Alert(act) => act.op_id.clone(),
            Self::Archive(archived) => archived.key(),
            Self::History(step) => step.key(),
            Self::DeadLetter(act) => act.op_id.clone(),
            Self::Operator(act) => act.key.clone(),
        }
    }
}

impl AuditRecord {
    /// Whether both claim the same act for the same pipeline. So an operator that was restarted knows
    /// the claim of its former self; who wrote it and when is of no account.
    #[must_use]
    pub fn is_same_claim(&self, other: &Self) -> bool {
        let Self {
            v: _,
            act,
            owner,
            by: _,
            time: _,
            details: _,
        } = self;
        *act == other.act && *owner == other.owner
    }
}
