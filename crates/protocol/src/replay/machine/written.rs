//! What is written in the status before anything is done.

use crate::position::Epoch;
use crate::replay::record::{Finished, Record, Retired};

/// The fields of the status that are the operator's write-ahead log. They are written together, on the
/// status that was read and only if nobody has written in between.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// `status.replay`: the latest request, also when it is final.
    pub record: Option<Record>,
    /// `status.epoch`: the epoch whose state file is the pipeline's; absent before the first.
    pub epoch: Option<Epoch>,
    /// `status.replayHistory`: requests that are final, newest first, at most
    /// [`MAX_HISTORY`](crate::replay::record::MAX_HISTORY).
    pub history: Vec<Finished>,
    /// `status.retiredConsumers`: consumers of epochs that were left, oldest epoch first.
    pub retired: Vec<Retired>,
}

impl Written {
    /// The record, while something is still to be done for it.
    #[must_use]
    pub fn unfinished(&self) -> Option<&Record> {
        self.record
            .as_ref()
            .filter(|record| !record.phase.is_final())
    }

    /// The highest epoch it names, given to anything or only kept for it.
    #[must_use]
    pub fn highest(&self) -> Option<Epoch> {
        let record = self.record.as_ref();
        let way_back = record.and_then(|record| record.way_back.as_ref());
        let finished = self.history.iter().filter_map(|finished| finished.epoch);
        let retired = self.retired.iter().map(|retired| retired.epoch);
        [
            self.epoch,
            record.and_then(|record| record.epoch),
            way_back.map(|way_back| way_back.epoch),
        ]
        .into_iter()
        .flatten()
        .chain(finished)
        .chain(retired)
        .max()
    }
}
