//! Whether windows are kept or dropped when the cursor moves. One pure decision over where the state
//! stands and where reading begins; whoever knows rsigma's daemon knows its names and its rows. A time
//! is resolved to a sequence before it comes here, so that no two of them fall into the same second.

use std::fmt;

use super::record::Windows;
use super::request::StatePolicy;
use crate::position::StreamSeq;

/// The mode by which the state decision is taken; [`StatePolicy::Rebuild`] has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StateRestoreMode {
    /// By where the start is.
    Auto,
    /// Never restore.
    ForceClear,
    /// Always restore.
    ForceKeep,
}

impl StateRestoreMode {
    /// The mode of a policy.
    #[must_use]
    pub fn of(policy: StatePolicy) -> Option<Self> {
        match policy {
            StatePolicy::Auto => Some(Self::Auto),
            StatePolicy::Clear => Some(Self::ForceClear),
            StatePolicy::Keep => Some(Self::ForceKeep),
            StatePolicy::Rebuild => None,
        }
    }
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestoreStart {
    /// Where the state stands: no replay.
    Resume,
    /// At this sequence; a time was resolved to it.
    Sequence(StreamSeq),
    /// At the next message, whatever the state holds.
    Latest,
}

/// What becomes of the windows, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateRestore {
    /// They go on.
    Restore(Reason),
    /// They begin anew.
    Skip(Reason),
}

/// Why windows are kept, dropped or made again: a closed set that stands in plans and in ledgers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// No replay: reading goes on where the state stands.
    Resume,
    /// The start is after everything the windows have counted.
    StartAfterPosition,
    /// The windows have counted the start already.
    StartNotAfterPosition,
    /// The next message has nothing to do with what the windows hold.
    Latest,
    /// It is not known what the windows have counted.
    NoPosition,
    /// The policy drops them.
    ForceClear,
    /// The policy keeps them.
    ForceKeep,
    /// The policy makes them again.
    Rebuild,
    /// They were made from another stream of that name.
    StreamChanged,
    /// They have counted messages that the stream has lost since.
    StreamRegressed,
}

impl Reason {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 10] = [
        Self::Resume,
        Self::StartAfterPosition,
        Self::StartNotAfterPosition,
        Self::Latest,
        Self::NoPosition,
        Self::ForceClear,
        Self::ForceKeep,
        Self::Rebuild,
        Self::StreamChanged,
        Self::StreamRegressed,
    ];

    /// As it stands in plans and ledgers.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resume => "Resume",
            Self::StartAfterPosition => "StartAfterPosition",
            Self::StartNotAfterPosition => "StartNotAfterPosition",
            Self::Latest => "Latest",
            Self::NoPosition => "NoPosition",
            Self::ForceClear => "ForceClear",
            Self::ForceKeep => "ForceKeep",
            Self::Rebuild => "Rebuild",
            Self::StreamChanged => "StreamChanged",
            Self::StreamRegressed => "StreamRegressed",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The state decision. `stored` is the last sequence the windows have counted; absent when there is no
/// state, or none of this stream.
#[must_use]
pub fn decide_state_restore(
    mode: StateRestoreMode,
    stored: Option<StreamSeq>,
    start: RestoreStart,
) -> StateRestore {
    match (mode, start, stored) {
        (StateRestoreMode::ForceClear, ..) => StateRestore::Skip(Reason::ForceClear),
        (StateRestoreMode::ForceKeep, ..) => StateRestore::Restore(Reason::ForceKeep),
        (StateRestoreMode::Auto, RestoreStart::Resume, _) => StateRestore::Restore(Reason::Resume),
        (StateRestoreMode::Auto, RestoreStart::Latest, _) => StateRestore::Skip(Reason::Latest),
        (StateRestoreMode::Auto, RestoreStart::Sequence(_), None) => {
            StateRestore::Skip(Reason::NoPosition)
        }
        (StateRestoreMode::Auto, RestoreStart::Sequence(start), Some(position)) => {
            if start > position {
                StateRestore::Restore(Reason::StartAfterPosition)
            } else {
                StateRestore::Skip(Reason::StartNotAfterPosition)
            }
        }
    }
}

/// What a policy does to the windows. The plan predicts with it and the worker decides with it, each
/// over the position it sees.
#[must_use]
pub fn decide_windows(
    policy: StatePolicy,
    stored: Option<StreamSeq>,
    start: RestoreStart,
) -> (Windows, Reason) {
    let Some(mode) = StateRestoreMode::of(policy) else {
        return (Windows::Rebuilt, Reason::Rebuild);
    };
    match decide_state_restore(mode, stored, start) {
        StateRestore::Restore(reason) => (Windows::Kept, reason),
        StateRestore::Skip(reason) => (Windows::Dropped, reason),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(sequence: u64) -> RestoreStart {
        RestoreStart::Sequence(StreamSeq(sequence))
    }

    /// (what, stored, start, the answer of Auto)
    fn rows() -> Vec<(&'static str, Option<u64>, RestoreStart, StateRestore)> {
        use Reason::{Latest, NoPosition, Resume, StartAfterPosition, StartNotAfterPosition};
        use StateRestore::{Restore, Skip};
        vec![
            ("no replay", Some(10), RestoreStart::Resume, Restore(Resume)),
            (
                "no replay and no state",
                None,
                RestoreStart::Resume,
                Restore(Resume),
            ),
            (
                "the next message",
                Some(10),
                at(11),
                Restore(StartAfterPosition),
            ),
            ("a gap", Some(10), at(500), Restore(StartAfterPosition)),
            (
                "nothing applied yet",
                Some(0),
                at(1),
                Restore(StartAfterPosition),
            ),
            (
                "the position itself",
                Some(10),
                at(10),
                Skip(StartNotAfterPosition),
            ),
            (
                "one before it",
                Some(10),
                at(9),
                Skip(StartNotAfterPosition),
            ),
            (
                "the beginning",
                Some(10),
                at(1),
                Skip(StartNotAfterPosition),
            ),
            ("latest", Some(10), RestoreStart::Latest, Skip(Latest)),
            ("latest, no state", None, RestoreStart::Latest, Skip(Latest)),
            ("no state", None, at(1), Skip(NoPosition)),
            ("no state, later start", None, at(500), Skip(NoPosition)),
        ]
    }

    #[test]
    fn every_row_of_the_state_decision_holds() {
        for (what, stored, start, auto) in rows() {
            let decide = |mode| decide_state_restore(mode, stored.map(StreamSeq), start);
            assert_eq!(decide(StateRestoreMode::Auto), auto, "{what}");
            assert_eq!(
                decide(StateRestoreMode::ForceClear),
                StateRestore::Skip(Reason::ForceClear),
                "{what}"
            );
            assert_eq!(
                decide(StateRestoreMode::ForceKeep),
                StateRestore::Restore(Reason::ForceKeep),
                "{what}"
            );
        }
    }

    #[test]
    fn each_policy_but_rebuild_has_a_mode() {
        let mode = StateRestoreMode::of;
        assert_eq!(mode(StatePolicy::Auto), Some(StateRestoreMode::Auto));
        assert_eq!(mode(StatePolicy::Clear), Some(StateRestoreMode::ForceClear));
        assert_eq!(mode(StatePolicy::Keep), Some(StateRestoreMode::ForceKeep));
        assert_eq!(mode(StatePolicy::Rebuild), None);
    }

    #[test]
    fn rebuild_makes_the_windows_again_wherever_the_start_is() {
        for (what, stored, start, _) in rows() {
            assert_eq!(
                decide_windows(StatePolicy::Rebuild, stored.map(StreamSeq), start),
                (Windows::Rebuilt, Reason::Rebuild),
                "{what}"
            );
        }
    }

    #[test]
    fn reasons_are_pinned() {
        let words: Vec<String> = Reason::ALL.iter().map(ToString::to_string).collect();
        assert_eq!(
            words.join(" "),
            "Resume StartAfterPosition StartNotAfterPosition Latest NoPosition ForceClear ForceKeep \
             Rebuild StreamChanged StreamRegressed"
        );
    }

    proptest! {
        /// Windows that Auto keeps at a sequence never count a message twice.
        #[test]
        fn auto_never_counts_twice(stored in proptest::option::of(0..20u64), start in 0..20u64) {
            let auto = decide_state_restore(StateRestoreMode::Auto, stored.map(StreamSeq), at(start));
            let kept = matches!(auto, StateRestore::Restore(_));
            prop_assert_eq!(kept, stored.is_some_and(|position| start > position));
        }
    }
}
