//! The state machine of a request, pure: from what is written in the status and what was observed to
//! what is written next, or to what the written phase permits to be done.
//!
//! A decision either writes or acts, never both, so that nothing is ever done under a phase that was
//! not written before. Both can be repeated: after a crash at any place the same facts give the same
//! decision again.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use super::ledger::Standing;
pub use super::record::{Finished, MAX_HISTORY, Retired};
use super::record::{Plan, Record, ReplayPhase};
use super::request::{ReplayRequest, RequestId};
use crate::checkpoint::Checkpoint;
use crate::config::Cursor;
use crate::names::PipelineKey;
use crate::position::Epoch;

/// The fields of the status that are the operator's write-ahead log. They are written together, on the
/// status that was read and only if nobody has written in between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// `status.replay`: the latest request, also when it is final.
    pub record: Option<Record>,
    /// `status.epoch`: the epoch whose state file is the pipeline's; absent before the first.
    pub epoch: Option<Epoch>,
    /// `status.replayHistory`: requests that are final, newest first, at most [`MAX_HISTORY`].
    pub history: Vec<Finished>,
    /// `status.retiredConsumers`: consumers of epochs that were left, oldest epoch first.
    pub retired: Vec<Retired>,
}

/// Bounds in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Between the first sight of two requests that were begun.
    pub min_interval: SignedDuration,
    /// How long one phase may take before the way back is taken, where there is one.
    pub step_timeout: SignedDuration,
    /// How long the consumers of epochs that were left are kept.
    pub keep_consumers: SignedDuration,
}

/// Everything the decision looks at.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The time of this decision.
    pub now: Timestamp,
    /// Bounds in time.
    pub limits: Limits,
    /// Whose decision it is.
    pub key: &'a PipelineKey,
    /// What is asked for now: the operator's own request after a loss of state, else the block in the
    /// spec.
    pub wanted: Option<&'a ReplayRequest>,
    /// What the status says.
    pub written: &'a Written,
    /// Where the pipeline stands, from [`super::ledger::reconcile`].
    pub standing: Standing,
    /// The highest epoch that anything anywhere carries, from [`super::ledger::Ledgers::highest`].
    pub highest: Epoch,
    /// The spec asks for no worker at all.
    pub suspended: bool,
    /// What the annotation `lookback.dev/approve` says.
    pub approved: Option<&'a str>,
    /// What the request would do; see [`asks`].
    pub plan: Planned<'a>,
    /// Whether all that the recorded plan reads is still in the stream; see [`asks`].
    pub range: Range,
    /// Who holds the id of the record that is not final, else of the request that is wanted.
    pub claim: Claim<'a>,
    /// What runs, read live.
    pub workload: Workload,
    /// The consumer of the record's epoch.
    pub consumer: Option<CursorView>,
    /// The epochs of all consumers of this pipeline; absent when NATS did not say.
    pub consumers: Option<&'a [Epoch]>,
    /// The checkpoint, read from the leader. Nothing is concluded from its absence, which may also mean
    /// that NATS did not answer.
    pub checkpoint: Option<&'a Checkpoint>,
}

/// What I/O a decision needs beyond what is always read; see [`asks`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asks {
    /// Nothing.
    #[default]
    Nothing,
    /// [`Facts::plan`] for the record's request.
    Plan,
    /// [`Facts::range`] for the record's plan.
    Range,
}

/// What a request would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planned<'a> {
    /// Nobody asked.
    NotAsked,
    /// It cannot be said now; why, in one sentence. It is asked again.
    Unavailable(&'a str),
    /// The request cannot work as it is; why and what to change, in one sentence.
    Rejected(&'a str),
    /// This.
    Done(&'a Plan),
}

/// Whether all that a plan reads is still in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Range {
    /// Nobody asked, or it cannot be said now.
    Unknown,
    /// It is.
    Whole,
    /// Some of it has left since it was planned; what, in one sentence.
    Truncated(String),
}

/// Who holds an id, read from the leader of the audit stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim<'a> {
    /// It cannot be said now.
    Unknown,
    /// Nobody.
    Free,
    /// The record: same id, fingerprint and epoch.
    Ours,
    /// Another: the same id was begun in another epoch, or with another fingerprint.
    Used {
        /// The epoch it was begun in.
        epoch: Epoch,
        /// What was asked for then.
        fingerprint: &'a str,
    },
}

/// The StatefulSet and its pods, read live. One that does not exist is observed and has no replicas;
/// its pods may still be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Workload {
    /// It cannot be said now.
    Unknown,
    /// This.
    Seen(Running),
}

/// What runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its controller has seen the latest generation.
    pub observed: bool,
    /// `status.replicas`.
    pub replicas: i32,
    /// Pod objects of its names, whatever their phase.
    pub pods: usize,
    /// One of them should be gone by now: its node does not answer.
    pub stuck: bool,
    /// The epoch of the pod template; absent when there is no StatefulSet.
    pub epoch: Option<Epoch>,
    /// Why a pod does not run, when one does not, in one sentence.
    pub trouble: Option<String>,
}

/// A consumer as JetStream shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorView {
    /// Messages it has yet to deliver.
    pub pending: u64,
    /// Messages delivered and not acknowledged.
    pub ack_pending: u64,
    /// Its filter is the pipeline's, and takes subjects the stream has.
    pub filter_ok: bool,
    /// Its start, or what it was reset to, is at most one beyond the stream's end.
    pub bound_ok: bool,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Either a write or what the written phase permits.
    pub step: Step,
    /// For the condition `ReplayAccepted`.
    pub accepted: Accepted,
    /// Why, and what to do about it, in one sentence; empty for [`Accepted::NoReplay`].
    pub accepted_because: String,
    /// For the condition `ReplayInProgress`.
    pub progress: Progress,
    /// When to decide again although nothing was seen to change.
    pub look_again: Option<Duration>,
}

/// Either a write or what the written phase permits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write these fields, only if nobody has written since they were read, do nothing else, and decide
    /// again at once.
    Write(Box<Written>),
    /// They are written. Do this; each of it may have been done before.
    Act(Actions),
}

/// What a written phase permits, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actions {
    /// What to do in NATS, before the workers are touched.
    pub effects: Vec<Effect>,
    /// What to do with the workers.
    pub workers: Workers,
}

/// What to do with the StatefulSet. The consumer of its epoch is made first when it is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Workers {
    /// Nothing of it is applied: neither the StatefulSet, nor a ConfigMap, nor a consumer.
    Unchanged,
    /// No replica; the template is of this epoch.
    Stop {
        /// The epoch.
        epoch: Epoch,
        /// What its config says.
        cursor: Cursor,
        /// Apart from epoch and cursor, what the StatefulSet has stays.
        hold_template: bool,
    },
    /// One replica in this epoch.
    Run {
        /// The epoch.
        epoch: Epoch,
        /// What its config says.
        cursor: Cursor,
        /// Apart from epoch and cursor, what the StatefulSet has stays.
        hold_template: bool,
    },
}

/// What to do in NATS. Each can be done again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Write the claim of the record's id, once; that it stands already is no error, who holds it is seen
    /// by reading it again.
    Claim {
        /// The id.
        id: RequestId,
        /// What is asked for.
        fingerprint: String,
        /// The epoch it begins.
        epoch: Epoch,
        /// The plan it runs by.
        plan_hash: String,
    },
    /// Read the checkpoint from the leader and, when its epoch is below `from`, replace exactly what was
    /// read with one of epoch `to` in phase `TakenBack`, everything else as it was. When its epoch is not
    /// below, or another write came between, nothing is done.
    TakeBack {
        /// The epoch that is undone.
        from: Epoch,
        /// The epoch that takes over.
        to: Epoch,
        /// The epoch whose state file goes on.
        resumes: Epoch,
    },
    /// Delete the consumer of this epoch; that it is gone is no error.
    DeleteConsumer(Epoch),
}

/// What became of what is wanted, for the condition `ReplayAccepted`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Accepted {
    /// Nothing is.
    NoReplay,
    /// It is the record, and goes on or is completed.
    Accepted,
    /// It is planned and waits for its approval.
    AwaitingApproval,
    /// It waits: for the end of a suspension, for another request, or for NATS.
    Queued,
    /// It waits because the request before is too recent.
    Throttled,
    /// It was begun before and is not run again.
    AlreadyApplied,
    /// Its id was begun with other numbers.
    IdReused,
    /// It cannot work as it is.
    Rejected,
    /// Its `notAfter` has passed.
    Expired,
    /// It could not be begun.
    Failed,
    /// It was taken back before it was begun.
    Superseded,
}

/// How far the record is, for the condition `ReplayInProgress`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is none, or it is final.
    NoReplay,
    /// It is in this phase; what it does or waits for, in one sentence.
    Step(ReplayPhase, String),
    /// A pod of the epoch before does not go; why and the way out, in one sentence.
    FencingBlocked(String),
}
