//! What the executor does outside. The same executor runs over the API server and JetStream and over
//! the simulated world of the model test.
//!
//! Futures are dropped at any await when the process dies; an implementation may have done the
//! operation, or not, and the next round must be right in both cases.

use std::future::Future;

use lookback_protocol::position::Epoch;
use lookback_protocol::replay::machine::{Workers, Written};
use lookback_protocol::replay::request::RequestId;

/// The outside of one round.
pub trait Ports: Send {
    /// What applying came to.
    type Applied: Send;
    /// Why something could not be done; the next round goes on from what is recorded.
    type Error: Send;

    /// Asked before every effect: an error when another replica may lead by now.
    ///
    /// # Errors
    /// When the permission to act has ended.
    fn lead(&self) -> Result<(), Self::Error>;

    /// Writes these fields into the status, only onto the version of the object that the decision was
    /// taken from, and leaves all others as they are.
    fn record(
        &mut self,
        written: &Written,
    ) -> impl Future<Output = Result<Recorded, Self::Error>> + Send;

    /// Takes the claim on a request id, once and for ever. One that is ours already is done.
    fn claim(&mut self, claim: &Claim)
    -> impl Future<Output = Result<Outcome, Self::Error>> + Send;

    /// Moves the checkpoint from epoch `from` to epoch `to` by compare-and-swap, unless a worker of
    /// `from` has begun to move its state file. One that stands at `to` already is done.
    fn take_back(
        &mut self,
        take_back: &TakeBack,
    ) -> impl Future<Output = Result<Outcome, Self::Error>> + Send;

    /// Deletes the consumer of an epoch that was left. One that is not there is done.
    fn delete_consumer(
        &mut self,
        epoch: Epoch,
    ) -> impl Future<Output = Result<Outcome, Self::Error>> + Send;

    /// Brings everything the pipeline owns to what the epoch's workers need, and the workers to what is
    /// wanted of them: the consumer of the epoch included, and it comes before the workers. With
    /// [`Workers::Unchanged`] the workers are not touched.
    fn apply(
        &mut self,
        workers: &Workers,
    ) -> impl Future<Output = Result<Self::Applied, Self::Error>> + Send;
}

/// What became of a write of the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// It is written.
    Written,
    /// Somebody wrote first: the decision is void.
    Conflict,
}

/// What became of an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done, now or before.
    Done,
    /// Somebody else came first; what that means is decided in the next round, from what is found then.
    Overtaken,
    /// NATS does not answer: nothing that comes after it may be done now.
    Unreachable,
}

/// From which epoch to which the checkpoint is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakeBack {
    /// The epoch that is undone.
    pub from: Epoch,
    /// The epoch that takes over.
    pub to: Epoch,
    /// The epoch whose state file goes on.
    pub resumes: Epoch,
}

/// The claim on a request id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The id.
    pub id: RequestId,
    /// What is asked for under it.
    pub fingerprint: String,
    /// The epoch it begins.
    pub epoch: Epoch,
    /// The plan it runs by.
    pub plan_hash: String,
}
