//! An alert as it is stored: one JSON object on `alert.<state>.<id>`. It never holds its own sequence
//! or store time; readers take those from the server's headers.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::GroupField;
use crate::names::PipelineKey;
use crate::position::{Epoch, StreamSeq};
use crate::replay::request::RequestId;
use crate::version;

/// The version of [`AlertRecord`] written by this build.
pub const VERSION: u32 = 1;
/// The state in which alerts are created.
pub const NEW: &str = "new";
/// The state of alerts that are done with. Only the id is kept there, so that it stays known; the
/// record stands in the audit.
pub const ARCHIVED: &str = "archived";
/// Where marks of what left a state stand beside the states, so that no state may be called so.
pub const LEFT: &str = "left";
/// Entries of a history that a record holds; older ones stand in the audit.
pub const MAX_HISTORY: usize = 64;
/// Header of a tombstone: the state that the alert went to.
pub const MOVED_TO: &str = "Lookback-Moved-To";
/// Header of an archived alert, which has no body: who archived it.
pub const BY: &str = "Lookback-By";
/// Header of an archived alert: the id of the write that archived it.
pub const OP_ID: &str = "Lookback-Op-Id";
/// Header of an archived alert: the sequence of the version before. It tells which record in the audit
/// is the one that was archived, because one that could not be archived may stand there as well.
pub const PREV_SEQ: &str = "Lookback-Prev-Seq";
/// Event data beyond this many bytes is left out of a record, which says so in its metadata.
pub const MAX_DATA_BYTES: usize = 64 * 1024;

/// An alert.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AlertRecord {
    /// Format version, [`VERSION`]; another one is not read.
    #[serde(deserialize_with = "version::exactly::<VERSION, _>")]
    pub v: u32,
    /// See [`crate::ids::alert_id`].
    pub id: String,
    /// The workflow state, also in the subject.
    pub state: String,
    /// The rule that fired.
    pub rule: RuleRef,
    /// Empty for detections.
    pub group_key: Vec<GroupField>,
    /// The window's span in event time; absent for detections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// The events behind it, the triggering one last.
    pub events: Vec<EventRef>,
    /// For detections the event and what matched; for correlations the aggregated value.
    pub data: serde_json::Value,
    /// Free for people and programs.
    pub metadata: BTreeMap<String, String>,
    /// What happened to it, oldest first; the last [`MAX_HISTORY`] steps.
    pub history: Vec<HistoryEntry>,
    /// How many steps came before those.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub earlier: u64,
    /// The write that made this version.
    pub op_id: String,
    /// The sequence of the version before it; 0 for the first.
    pub prev_seq: u64,
    /// Whose alert it is.
    pub pipeline: PipelineKey,
    /// The epoch that found it.
    pub epoch: Epoch,
    /// The request on whose way it was found, when that asks for a mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay: Option<ReplayMark>,
    /// Over the rules and settings that found it.
    pub engine_digest: String,
    /// Who wrote this version: `worker/<pod>` or a person.
    pub by: String,
}

/// Which replay an alert was found in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplayMark {
    /// The request.
    pub id: RequestId,
    /// The epoch that began with it.
    pub epoch: Epoch,
}

/// The rule behind an alert.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleRef {
    /// Sigma's `id`, else `x-` and a hash of the rule's logic.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Its level, lower case, when it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// Its tags.
    pub tags: Vec<String>,
    /// Detection or correlation.
    pub kind: RuleKind,
}

/// What kind of rule fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RuleKind {
    /// One event matched.
    Detection,
    /// A window's condition held.
    Correlation,
}

/// A span of event time, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Window {
    /// The oldest event in it.
    pub from: Timestamp,
    /// The newest event in it.
    pub to: Timestamp,
}

/// Where an event can be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventRef {
    /// The source stream.
    pub stream: String,
    /// Its sequence there.
    pub sequence: StreamSeq,
    /// Its event time.
    pub time: Timestamp,
    /// Its subject; known for the triggering event only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
}

/// One step of an alert's life.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// When, by the writer's clock or, for creation, the event's published time.
    pub time: Timestamp,
    /// `create` for the first.
    pub transition: String,
    /// The state before; absent for the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The state after.
    pub to: String,
    /// Who did it.
    pub by: String,
    /// Why, in their words; empty for none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// The sequence of the version that this step was taken from; 0 for the first. So the sequence of
    /// each step but the last stands in the one after it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub prev_seq: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}
