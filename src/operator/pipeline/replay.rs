//! Replay, as the operator does it: the decision is the protocol's, pure; here is what it needs to know
//! and how it is carried out.
//!
//! # Layout
//! - [`ports`], [`execute`]: what a round does, in which order, over any outside.
//! - `facts`: what was found outside, as the decision wants it. Pure.
//! - `plan`: what a request would do, asked of the source stream; [`foresee`]: the same for a person.
//! - `round`: one decision.
//! - `outside`: the ports over the API server and JetStream; `take_back` is the one with a race in it.

pub mod execute;
pub mod foresee;
pub mod ports;

mod facts;
mod outside;
mod plan;
mod round;
mod take_back;

use lookback_protocol::position::Epoch;
use lookback_protocol::replay::machine::Written;

use crate::api::{DetectionPipeline, DetectionPipelineStatus};

pub use outside::EffectError;
pub(super) use outside::{Done, Outside};
pub(super) use round::{Decided, decide};

/// The operator's write-ahead log, as it stands in the status.
#[must_use]
pub fn written(pipeline: &DetectionPipeline) -> Written {
    let Some(status) = &pipeline.status else {
        return Written::default();
    };
    Written {
        record: status.replay.clone(),
        epoch: status
            .epoch
            .and_then(|epoch| u64::try_from(epoch).ok())
            .map(Epoch),
        history: status.replay_history.clone(),
        retired: status.retired_consumers.clone(),
    }
}

/// The status of `pipeline` with another log, and everything else as it was.
#[must_use]
pub fn with_log(pipeline: &DetectionPipeline, written: &Written) -> DetectionPipelineStatus {
    let Written {
        record,
        epoch,
        history,
        retired,
    } = written.clone();
    DetectionPipelineStatus {
        replay: record,
        epoch: epoch.and_then(|epoch| i64::try_from(epoch.0).ok()),
        replay_history: history,
        retired_consumers: retired,
        ..pipeline.status.clone().unwrap_or_default()
    }
}

/// The epoch in the status.
#[must_use]
pub fn epoch(pipeline: &DetectionPipeline) -> Option<Epoch> {
    written(pipeline).epoch
}
