//! What a decision looks at.

use jiff::{SignedDuration, Timestamp};

use super::written::Written;
use crate::checkpoint::Checkpoint;
use crate::names::PipelineKey;
use crate::position::Epoch;
use crate::replay::ledger::Standing;
use crate::replay::record::Plan;
use crate::replay::request::ReplayRequest;

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
    /// Where the pipeline stands, from [`crate::replay::ledger::Ledgers::reconcile`].
    pub standing: Standing,
    /// The highest epoch that anything anywhere carries, from [`crate::replay::ledger::Ledgers::highest`].
    pub highest: Epoch,
    /// The spec asks for no worker at all.
    pub suspended: bool,
    /// What the annotation `lookback.dev/approve` says.
    pub approved: Option<&'a str>,
    /// What the request would do; see [`asks`](super::asks).
    pub plan: Planned<'a>,
    /// Whether the recorded plan still holds; see [`asks`](super::asks).
    pub check: Check<'a>,
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

impl Facts<'_> {
    /// An epoch that nothing carries.
    pub(super) fn unused_epoch(&self) -> Epoch {
        let claimed = match self.claim {
            Claim::Used { epoch, .. } => epoch,
            Claim::Unknown | Claim::Free | Claim::Ours => Epoch::default(),
        };
        Epoch(self.highest.max(claimed).0 + 1)
    }

    /// The epoch for which `request` was claimed before the status that said so was lost, when nothing
    /// of that epoch was made. Only of the operator's own requests, for which nobody can set a new id.
    pub(super) fn claimed_for_nothing(&self, request: &ReplayRequest) -> Option<Epoch> {
        match self.claim {
            Claim::Used { epoch, fingerprint }
                if request.id.is_loss()
                    && fingerprint == request.fingerprint
                    && epoch > self.highest =>
            {
                Some(epoch)
            }
            Claim::Used { .. } | Claim::Unknown | Claim::Free | Claim::Ours => None,
        }
    }
}

/// What I/O a decision needs beyond what is always read; see [`asks`](super::asks).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asks {
    /// Nothing.
    #[default]
    Nothing,
    /// [`Facts::plan`] for the record's request.
    Plan,
    /// [`Facts::check`] for the record's plan.
    Check,
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

/// Whether the recorded plan is still what would be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check<'a> {
    /// Nobody asked, or it cannot be said now.
    Unknown,
    /// It is.
    Holds,
    /// What it reads has left the stream, or something else would be done; what, in one sentence.
    Outdated(&'a str),
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
    /// The larger of `spec.replicas` and `status.replicas`: a pod that the controller still owes counts.
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
