//! What is decided.

use std::time::Duration;

use super::written::Written;
use crate::config::Cursor;
use crate::position::Epoch;
use crate::replay::record::ReplayPhase;
use crate::replay::request::RequestId;

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
