//! What becomes of what is found after a request moved the file.

use serde::{Deserialize, Serialize};

use crate::position::StreamSeq;
use crate::replay::request::Outputs;

/// The rule of one request; that of a file nothing moved lets everything through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OutputRule {
    /// Events before it only make windows again; 0 when nothing is rebuilt.
    pub suppress_below: StreamSeq,
    /// What becomes of alerts on events up to `target`.
    pub outputs: Outputs,
    /// The last sequence that `outputs` is about.
    pub target: StreamSeq,
}

/// What becomes of what one event gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Alerts and dead letters are stored.
    Stored,
    /// They are stored, and alerts are marked with the request and its epoch.
    Tagged,
    /// Dead letters are stored, alerts are not.
    NoAlerts,
    /// Neither is stored: the event was read before, and only its windows are needed.
    Nothing,
}

impl OutputRule {
    /// The rule of a request that begins at `start` and, to make windows again, reads from `read_from` on.
    #[must_use]
    pub fn new(
        start: StreamSeq,
        read_from: Option<StreamSeq>,
        outputs: Outputs,
        target: StreamSeq,
    ) -> Self {
        Self {
            suppress_below: read_from.map_or(StreamSeq(0), |_| start),
            outputs,
            target,
        }
    }

    /// What becomes of what the event `sequence` gives.
    #[must_use]
    pub fn fate(&self, sequence: StreamSeq) -> Fate {
        if sequence < self.suppress_below {
            return Fate::Nothing;
        }
        match self.outputs {
            Outputs::Tag if sequence <= self.target => Fate::Tagged,
            Outputs::Suppress if sequence <= self.target => Fate::NoAlerts,
            Outputs::Live | Outputs::Tag | Outputs::Suppress => Fate::Stored,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fates(outputs: Outputs) -> [Fate; 4] {
        let rule = OutputRule {
            suppress_below: StreamSeq(10),
            outputs,
            target: StreamSeq(20),
        };
        [9, 10, 20, 21].map(|sequence| rule.fate(StreamSeq(sequence)))
    }

    #[test]
    fn what_is_read_back_gives_nothing_and_outputs_end_at_the_target() {
        use Fate::{NoAlerts, Nothing, Stored, Tagged};
        assert_eq!(fates(Outputs::Live), [Nothing, Stored, Stored, Stored]);
        assert_eq!(fates(Outputs::Tag), [Nothing, Tagged, Tagged, Stored]);
        assert_eq!(
            fates(Outputs::Suppress),
            [Nothing, NoAlerts, NoAlerts, Stored]
        );
    }

    #[test]
    fn a_file_that_nothing_moved_stores_everything() {
        assert_eq!(OutputRule::default().fate(StreamSeq(1)), Fate::Stored);
    }
}
