//! What a worker says in NATS about its state file, at most once a second and always before the ack
//! that follows it. Written by compare-and-swap on its own subject, it is also the fence: a worker
//! whose write is refused because another incarnation wrote has been replaced and must stop.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::names::Owner;
use crate::position::{Epoch, Position, StreamIdentity, StreamSeq};
use crate::replay::request::RequestId;
use crate::version;

/// The version of [`Checkpoint`] written by this build.
pub const VERSION: u32 = 1;

/// One partition's checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// Format version, [`VERSION`]; another one is not read.
    #[serde(deserialize_with = "version::exactly::<VERSION, _>")]
    pub v: u32,
    /// The process that wrote it, a UUIDv7.
    pub incarnation: String,
    /// Whose checkpoint it is.
    #[serde(flatten)]
    pub owner: Owner,
    /// The epoch it works in.
    pub epoch: Epoch,
    /// What the worker is doing.
    pub phase: Phase,
    /// The source stream it reads.
    pub stream: StreamIdentity,
    /// What its state file holds.
    pub position: Position,
    /// The highest sequence whose alerts may be stored although no commit covers it.
    pub published_through: StreamSeq,
    /// Over the rules and settings it runs.
    pub engine_digest: String,
    /// Groups that hold a window.
    pub groups: u64,
    /// Ranges of the source stream that expired unread.
    pub gaps: Vec<Gap>,
    /// Totals since the state file was made.
    pub counters: Counters,
    /// How far the request of this epoch has come; absent when the epoch has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<RequestProgress>,
    /// The request that moved the state file last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied: Option<AppliedRequest>,
    /// Only in [`Phase::TakenBack`]: the epoch whose state file goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumes: Option<Epoch>,
    /// Why it is held, when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<Hold>,
    /// When it was written.
    pub time: Timestamp,
}

/// What a worker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// Reading and applying events.
    Started,
    /// Waiting for something outside, with no pull open; see [`Checkpoint::held`].
    Held,
    /// Ended by SIGTERM with everything applied committed.
    Drained,
    /// About to move its state file as the request of its epoch asks. Who writes this first has made
    /// the request irrevocable.
    Applying,
    /// Written by the operator, not by a worker: the request of the epoch before is undone, and the
    /// next worker goes on with the file of [`Checkpoint::resumes`].
    TakenBack,
}

/// How far the request of an epoch has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestProgress {
    /// The request.
    pub id: RequestId,
    /// What became of it.
    pub outcome: RequestOutcome,
}

/// What a worker did with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RequestOutcome {
    /// It is about to move the state file.
    Applying,
    /// The state file is moved.
    Applied,
    /// The state file was moved by it in an earlier epoch; this time nothing was.
    AlreadyApplied,
}

/// The request that moved a state file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppliedRequest {
    /// The epoch that began with it.
    pub epoch: Epoch,
    /// The request.
    pub id: RequestId,
    /// Tells requests of one id apart.
    pub fingerprint: String,
}

/// Events that left the source stream before they were read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// The first sequence not read.
    pub from: StreamSeq,
    /// The last sequence not read.
    pub to: StreamSeq,
    /// It is not known how many of them, if any, were ours and unread: a filter is set, or several
    /// ranges were joined into this one.
    pub possible: bool,
}

/// Totals since the state file was made; they survive restarts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Counters {
    /// Events applied, parked ones included.
    pub events: u64,
    /// Alerts stored for the first time.
    pub alerts_new: u64,
    /// Alerts that were in the store already.
    pub alerts_known: u64,
    /// Events parked.
    pub dead_letters: u64,
    /// Events older than their group allowed.
    pub late: u64,
    /// Events too far ahead of their published time.
    pub skewed: u64,
}

/// What a held worker waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hold {
    /// A closed set, shown as a reason of a condition.
    pub reason: HoldReason,
    /// What to do about it.
    pub message: String,
}

/// Why a worker holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HoldReason {
    /// The alerts stream has no room.
    AlertsFull,
    /// The dead-letter stream has no room.
    DeadLettersFull,
    /// A store does not answer.
    StoreUnavailable,
}
