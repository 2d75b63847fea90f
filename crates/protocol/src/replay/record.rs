//! How far a request has come. It stands in the pipeline's status and is the operator's write-ahead log:
//! a phase is written before anything is done under it, and everything done under it can be done again.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::request::{ReplayRequest, RequestId, StatePolicy};
use crate::position::{Epoch, StreamSeq};

/// Finished requests kept in the status; the state file and the audit stream remember all.
pub const MAX_HISTORY: usize = 20;
/// Retired consumers kept in the status.
pub const MAX_RETIRED: usize = 64;

/// What is done, in this order.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum ReplayPhase {
    /// Seen in the spec.
    Requested,
    /// The start is one sequence, and what it would do is written down.
    Planned,
    /// Waits for a person to approve the plan.
    AwaitingApproval,
    /// The id is claimed, and the worker of the epoch before is being stopped.
    Fencing,
    /// No worker is left; the consumer of the new epoch is being made.
    CursorCreated,
    /// The worker of the new epoch is being started.
    RollingOut,
    /// It has moved its state file.
    StateApplied,
    /// It reads up to the target.
    CatchingUp,
    /// It has read everything up to the target.
    Completed,
    /// It could not be begun; detections go on from the state before.
    Failed,
    /// It cannot work as it is.
    Rejected,
    /// Its `notAfter` has passed.
    Expired,
    /// Another request came, or it was taken out of the spec, before it was begun.
    Superseded,
}

impl ReplayPhase {
    /// Whether nothing more is done for it.
    #[must_use]
    pub fn is_final(self) -> bool {
        self >= Self::Completed
    }

    /// Whether its id may not be asked for again. What was never begun may be corrected and run.
    #[must_use]
    pub fn is_remembered(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Superseded)
    }
}

/// How far one request has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// What is asked for.
    #[serde(flatten)]
    pub request: ReplayRequest,
    /// How far it has come.
    pub phase: ReplayPhase,
    /// What to know about it, in one sentence.
    #[serde(default)]
    #[schemars(length(max = 2048))]
    pub message: String,
    /// When it was first seen.
    #[schemars(with = "String", length(max = 40))]
    pub requested_at: Timestamp,
    /// When its phase began.
    #[schemars(with = "String", length(max = 40))]
    pub since: Timestamp,
    /// The epoch it begins; set when it is planned, and never given to another request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// The epoch whose state file it moves, or the first whose file it may be when those after it were
    /// undone before they began; absent when the pipeline begins with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Epoch>,
    /// What it does, decided once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<Plan>,
    /// Set while it is being undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way_back: Option<WayBack>,
    /// Set while the pipeline is suspended: the time of the phase does not run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

/// A request that is being undone: an epoch beyond its own goes on with the file it never touched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WayBack {
    /// The epoch that takes over.
    pub epoch: Epoch,
    /// How the request ends then: Failed or Superseded.
    pub to: ReplayPhase,
}

/// A request for which nothing more is done: what is kept of its record when another one came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Finished {
    /// Under which it is remembered.
    pub id: RequestId,
    /// Tells requests of one id apart.
    #[schemars(length(max = 64))]
    pub fingerprint: String,
    /// How it ended.
    pub phase: ReplayPhase,
    /// What to know about it, in one sentence.
    #[serde(default)]
    #[schemars(length(max = 2048))]
    pub message: String,
    /// The epoch that was given to it; absent when it was never planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// The epoch whose state file it was to move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Epoch>,
    /// The first sequence to be read with alerts; absent when it was never planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<StreamSeq>,
    /// What was asked for the windows.
    pub state_policy: StatePolicy,
    /// What became of them, as planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub windows: Option<Windows>,
    /// When it was first seen.
    #[schemars(with = "String", length(max = 40))]
    pub requested_at: Timestamp,
    /// When it ended.
    #[schemars(with = "String", length(max = 40))]
    pub finished_at: Timestamp,
}

impl Record {
    /// What is kept of it once its phase is final.
    #[must_use]
    pub fn finished(&self) -> Finished {
        let plan = self.plan.as_ref();
        Finished {
            id: self.request.id.clone(),
            fingerprint: self.request.fingerprint.clone(),
            phase: self.phase,
            message: self.message.clone(),
            epoch: self.epoch,
            of: self.of,
            start: plan.map(|plan| plan.start),
            state_policy: self.request.state_policy,
            windows: plan.map(|plan| plan.windows),
            requested_at: self.requested_at,
            finished_at: self.since,
        }
    }
}

/// A consumer of an epoch that was left. It is deleted some time later, so that one can still look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Retired {
    /// Its name.
    #[schemars(length(max = 256))]
    pub name: String,
    /// The epoch it served.
    pub epoch: Epoch,
    /// When that epoch was left.
    #[schemars(with = "String", length(max = 40))]
    pub since: Timestamp,
}

/// What a request does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Over everything below that a person would approve; what `lookback.dev/approve` must say.
    #[schemars(length(max = 64))]
    pub hash: String,
    /// The first sequence to be read with alerts.
    pub start: StreamSeq,
    /// When the message at `start`, or the first after it, was stored; absent when there is none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", length(max = 40))]
    pub start_time: Option<Timestamp>,
    /// The last sequence under the filter when it was planned: there it has caught up.
    pub target: StreamSeq,
    /// Messages under the filter from `start` (or `readFrom`) through `target`.
    pub messages: u64,
    /// About how many bytes they have.
    pub bytes: u64,
    /// About how long it takes, in seconds, at the rate measured last; absent when none was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<u64>,
    /// The position it was decided from; absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<StreamSeq>,
    /// The start asked for had left the stream.
    pub truncated: bool,
    /// Messages under the filter between the position and the start: no alert is ever made on them.
    pub gap: u64,
    /// Messages under the filter that windows which are kept have counted already.
    pub double_counted: u64,
    /// What becomes of the windows.
    pub windows: Windows,
    /// Why, one of a closed set.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// Groups with a window when it was planned.
    pub groups: u64,
    /// Only for Rebuild.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_back: Option<ReadBack>,
    /// Alerts stored already in the range, when that was cheap to find out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_alerts: Option<u64>,
}

/// What a plan does to the windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Windows {
    /// They go on.
    Kept,
    /// They begin anew.
    Dropped,
    /// They are made again from events before the start.
    Rebuilt,
}

/// How far a Rebuild reads back before its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReadBack {
    /// The first sequence it reads.
    pub from: StreamSeq,
    /// Seconds before the start that the windows may need.
    pub seconds_needed: u64,
    /// Seconds before the start that are still in the stream, at most those needed.
    pub seconds_available: u64,
    /// Whether the windows at the start are those of one single pass.
    pub exact: bool,
    /// Why not; empty when exact.
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub inexact_because: String,
}
