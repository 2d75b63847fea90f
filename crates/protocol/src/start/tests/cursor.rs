//! The rows of the cursor: what an epoch does to the file that it finds. The world's worker is of epoch
//! 2, the file before it of epoch 1 at position 100.

use super::*;
use crate::replay::request::{Outputs, RequestId, StatePolicy};

fn id(text: &str) -> RequestId {
    RequestId::new(text).unwrap()
}

fn rewind(policy: StatePolicy, start: u64) -> Rewind {
    Rewind {
        request_id: id("r1"),
        fingerprint: "h-1".to_owned(),
        of: Some(Epoch(1)),
        start: StreamSeq(start),
        read_from: None,
        latest: false,
        state_policy: policy,
        outputs: Outputs::Live,
        target: StreamSeq(200),
        plan_hash: "p".to_owned(),
    }
}

fn row(epoch: u64, request: &str) -> AppliedRequest {
    AppliedRequest {
        epoch: Epoch(epoch),
        id: id(request),
        fingerprint: "h-1".to_owned(),
    }
}

impl World {
    /// Epoch 2 moves the file of epoch 1.
    fn asked(policy: StatePolicy, start: u64) -> Self {
        Self::new().with(|w| {
            w.cursor = Cursor::Rewind(rewind(policy, start));
            w.file().epoch = Epoch(1);
            w.checkpoint().epoch = Epoch(1);
            w.consumer_delivered = Some(StreamSeq(0));
        })
    }

    /// Epoch 2 moved the file of epoch 1, and all three ledgers say so.
    fn applied(policy: StatePolicy, start: u64) -> Self {
        Self::asked(policy, start).with(|w| {
            w.file().epoch = Epoch(2);
            w.file().ledger = vec![row(2, "r1")];
            w.checkpoint().epoch = Epoch(2);
            w.checkpoint().applied = Some(row(2, "r1"));
            w.consumer_applied = true;
        })
    }

    /// A pipeline that begins with a request.
    fn bootstrap(policy: StatePolicy, start: u64) -> Self {
        Self::first_start().with(|w| {
            let of = None;
            w.cursor = Cursor::Rewind(Rewind {
                of,
                ..rewind(policy, start)
            });
        })
    }

    fn rewind(&mut self) -> &mut Rewind {
        match &mut self.cursor {
            Cursor::Rewind(rewind) => rewind,
            other @ Cursor::Resume { .. } => panic!("{other:?}"),
        }
    }

    fn applies(&self) -> Apply {
        match self.decide() {
            StartDecision::Apply(apply) => *apply,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn each_row_of_the_state_decision_is_taken_over_the_files_own_position() {
    use StatePolicy::{Auto, Clear, Keep, Rebuild};
    use Windows::{Dropped, Kept, Rebuilt};
    let rows = [
        (Auto, 101, Kept, Reason::StartAfterPosition),
        (Auto, 150, Kept, Reason::StartAfterPosition),
        (Auto, 100, Dropped, Reason::StartNotAfterPosition),
        (Auto, 20, Dropped, Reason::StartNotAfterPosition),
        (Clear, 150, Dropped, Reason::ForceClear),
        (Keep, 20, Kept, Reason::ForceKeep),
        (Rebuild, 150, Rebuilt, Reason::Rebuild),
    ];
    for (policy, start, windows, reason) in rows {
        let apply = World::asked(policy, start).applies();
        assert_eq!((apply.windows, apply.reason), (windows, reason));
        assert_eq!(apply.begin.position, Position::before(StreamSeq(start)));
    }
}

#[test]
fn latest_drops_the_windows_although_it_is_beyond_the_position() {
    let world = World::asked(StatePolicy::Auto, 201).with(|w| w.rewind().latest = true);
    assert_eq!(world.applies().windows, Windows::Dropped);
    let world = World::asked(StatePolicy::Keep, 201).with(|w| w.rewind().latest = true);
    assert_eq!(world.applies().windows, Windows::Kept);
}

#[test]
fn a_rebuild_begins_where_it_reads_back_from() {
    let world = World::asked(StatePolicy::Rebuild, 150).with(|w| {
        w.rewind().read_from = Some(StreamSeq(120));
    });
    assert_eq!(
        world.applies().begin.position,
        Position::before(StreamSeq(120))
    );
}

#[test]
fn a_pipeline_may_begin_with_a_request_of_any_policy() {
    for policy in [
        StatePolicy::Auto,
        StatePolicy::Keep,
        StatePolicy::Clear,
        StatePolicy::Rebuild,
    ] {
        let begin = World::bootstrap(policy, 50).applies().begin;
        assert_eq!(begin.position, Position::before(StreamSeq(50)));
    }
}

#[test]
fn everything_the_stream_holds_may_be_published_after_a_move() {
    let begin = World::asked(StatePolicy::Clear, 20).applies().begin;
    assert_eq!(begin.published_through, StreamSeq(200));
    let world =
        World::asked(StatePolicy::Clear, 20).with(|w| w.file().published_through = StreamSeq(230));
    assert_eq!(world.applies().begin.published_through, StreamSeq(230));
}

#[test]
fn a_request_that_moved_the_file_in_this_epoch_is_not_applied_again() {
    let world = World::applied(StatePolicy::Clear, 20);
    assert_eq!(world.resumes().position.sequence, StreamSeq(100));
}

#[test]
fn a_file_of_this_epoch_goes_on_although_its_checkpoint_was_never_finished() {
    let world = World::applied(StatePolicy::Clear, 20).with(|w| {
        w.checkpoint().phase = Phase::Applying;
        w.checkpoint().applied = None;
        w.consumer_applied = false;
    });
    assert_eq!(world.resumes().position.sequence, StreamSeq(100));
}

#[test]
fn an_id_that_moved_the_file_in_an_earlier_epoch_is_not_applied_again() {
    let world = World::asked(StatePolicy::Clear, 20).with(|w| {
        w.file().ledger = vec![row(1, "r1"), row(1, "r2")];
    });
    let StartDecision::AlreadyApplied(begin) = world.decide() else {
        panic!("{:?}", world.decide());
    };
    assert_eq!(begin.position.sequence, StreamSeq(100));
}

#[test]
fn an_application_that_was_only_announced_is_done() {
    for policy in [StatePolicy::Keep, StatePolicy::Clear] {
        let world = World::asked(policy, 20).with(|w| {
            w.checkpoint().epoch = Epoch(2);
            w.checkpoint().phase = Phase::Applying;
        });
        assert_eq!(
            world.applies().begin.position,
            Position::before(StreamSeq(20))
        );
    }
}

type Witness = fn(&mut World);

/// Each alone is evidence that the request was applied.
const WITNESSES: [Witness; 4] = [
    |w| w.checkpoint().epoch = Epoch(2),
    |w| w.checkpoint().applied = Some(row(2, "other")),
    |w| w.checkpoint().applied = Some(row(1, "r1")),
    |w| w.consumer_applied = true,
];

#[test]
fn a_request_that_anyone_saw_applied_is_never_applied_to_another_file() {
    for policy in [
        StatePolicy::Auto,
        StatePolicy::Keep,
        StatePolicy::Clear,
        StatePolicy::Rebuild,
    ] {
        for witness in WITNESSES {
            let older = World::asked(policy, 20).with(witness);
            assert_eq!(older.refusal(), ExitReason::StateLost);
            let empty = older.with(|w| w.file = FileFacts::Empty);
            assert_eq!(empty.refusal(), ExitReason::StateLost);
        }
    }
}

#[test]
fn windows_that_are_kept_must_be_those_of_the_epoch_that_is_moved() {
    let lost: [fn(&mut World); 2] = [|w| w.file = FileFacts::Empty, |w| w.file().epoch = Epoch(0)];
    for lost in lost {
        for (policy, start) in [(StatePolicy::Keep, 20), (StatePolicy::Auto, 150)] {
            let world = World::asked(policy, start).with(lost);
            assert_eq!(world.refusal(), ExitReason::StateLost, "{policy:?}");
        }
        for policy in [StatePolicy::Clear, StatePolicy::Rebuild, StatePolicy::Auto] {
            let world = World::asked(policy, 20).with(lost);
            assert_ne!(world.applies().windows, Windows::Kept, "{policy:?}");
        }
    }
}

/// What ends only by Clear or Rebuild.
const MISMATCHES: [(ExitReason, Witness); 6] = [
    (ExitReason::StreamChanged, |w| {
        w.file().stream = identity(0);
        w.checkpoint().stream = identity(0);
    }),
    (ExitReason::StreamRegressed, |w| {
        w.stream.last = StreamSeq(60);
        w.at_position = MessageAt::Absent;
    }),
    (ExitReason::StreamRegressed, |w| {
        w.at_position = MessageAt::Published(time(8));
    }),
    (ExitReason::StoreRegressed, |w| {
        w.stores = vec![StoreFacts {
            stream: "ALERTS".to_owned(),
            acknowledged: 5,
            last: 4,
        }];
    }),
    (ExitReason::StateLost, |w| w.file = FileFacts::Empty),
    (ExitReason::StateLost, |w| w.file().epoch = Epoch(0)),
];

#[test]
fn clear_and_rebuild_end_what_keep_is_refused_for() {
    for (reason, mismatch) in MISMATCHES {
        let keep = World::asked(StatePolicy::Keep, 20).with(mismatch);
        assert_eq!(keep.refusal(), reason);
        for policy in [StatePolicy::Clear, StatePolicy::Rebuild] {
            let begin = World::asked(policy, 20).with(mismatch).applies().begin;
            assert_eq!(
                begin.position,
                Position::before(StreamSeq(20)),
                "{reason:?}"
            );
        }
    }
}

#[test]
fn auto_does_not_end_a_mismatch_of_a_stream() {
    for (reason, mismatch) in MISMATCHES.into_iter().take(4) {
        let world = World::asked(StatePolicy::Auto, 20).with(mismatch);
        assert_eq!(world.refusal(), reason);
    }
}

#[test]
fn sequences_of_another_stream_say_nothing_about_this_one() {
    let world = World::asked(StatePolicy::Clear, 20).with(|w| {
        w.file().stream = identity(0);
        w.checkpoint().stream = identity(0);
        w.file().published_through = StreamSeq(5_000);
        w.checkpoint().published_through = StreamSeq(5_000);
        w.file().gaps = vec![gap(30, 4_000)];
        w.stream.first = StreamSeq(25);
    });
    let begin = world.applies().begin;
    assert_eq!(begin.published_through, StreamSeq(200));
    assert_eq!(begin.gap, Some(gap(20, 24)));
}

#[test]
fn no_policy_begins_on_a_stream_that_was_made_again_since_it_was_planned() {
    let world = World::asked(StatePolicy::Clear, 20).with(|w| w.stream.identity = identity(2));
    assert_eq!(world.refusal(), ExitReason::StreamChanged);
}

#[test]
fn a_start_that_the_stream_lost_since_it_was_planned_is_a_regress() {
    let world = World::asked(StatePolicy::Clear, 202);
    assert_eq!(world.refusal(), ExitReason::StreamRegressed);
}

#[test]
fn what_expired_before_the_start_of_a_move_is_a_gap() {
    let world = World::asked(StatePolicy::Keep, 150).with(|w| {
        w.file().gaps = vec![gap(10, 20)];
        w.stream.first = StreamSeq(171);
    });
    assert_eq!(world.applies().begin.gap, Some(gap(150, 170)));
}

#[test]
fn a_request_that_was_taken_back_is_not_applied_by_its_late_worker() {
    let world = World::asked(StatePolicy::Clear, 20).with(|w| {
        w.checkpoint().epoch = Epoch(3);
        w.checkpoint().phase = Phase::TakenBack;
    });
    assert_eq!(world.refusal(), ExitReason::Fenced);
}

#[test]
fn the_epoch_that_takes_over_goes_on_with_the_file_that_was_never_moved() {
    let world = World::new().with(|w| {
        w.cursor = Cursor::Resume { of: Some(Epoch(1)) };
        w.file().epoch = Epoch(1);
        w.checkpoint().phase = Phase::TakenBack;
        w.checkpoint().resumes = Some(Epoch(1));
    });
    assert_eq!(world.resumes().position.sequence, StreamSeq(100));
}

#[test]
fn a_pipeline_that_never_began_may_begin_after_a_request_was_taken_back() {
    let taken_back = |published| {
        World::new().with(move |w| {
            w.cursor = Cursor::Resume { of: Some(Epoch(1)) };
            w.file = FileFacts::Empty;
            w.checkpoint().phase = Phase::TakenBack;
            w.checkpoint().position.published = published;
        })
    };
    let begin = taken_back(None)
        .with(|w| w.checkpoint().position = Position::before(StreamSeq(11)))
        .begins_anew();
    assert_eq!(begin.position, Position::before(StreamSeq(11)));
    assert_eq!(taken_back(Some(time(7))).refusal(), ExitReason::StateLost);
}

#[test]
fn a_file_of_another_epoch_than_the_one_that_goes_on_is_lost_state() {
    for checkpoint in [true, false] {
        let world = World::new().with(|w| {
            w.cursor = Cursor::Resume { of: Some(Epoch(1)) };
            w.file().epoch = Epoch(0);
            if !checkpoint {
                w.checkpoint = None;
            }
        });
        assert_eq!(world.refusal(), ExitReason::StateLost);
    }
}

/// Epoch 1 was taken over by one that was taken back in its turn; which of them raised the file's epoch
/// last, nobody can see.
#[test]
fn a_file_of_an_epoch_after_the_one_that_goes_on_goes_on() {
    let resumes = World::new().with(|w| {
        w.cursor = Cursor::Resume { of: Some(Epoch(0)) };
        w.file().epoch = Epoch(1);
        w.checkpoint().epoch = Epoch(1);
    });
    assert_eq!(resumes.resumes().position.sequence, StreamSeq(100));
    let keeps = World::asked(StatePolicy::Keep, 20).with(|w| w.rewind().of = Some(Epoch(0)));
    assert_eq!(keeps.applies().windows, Windows::Kept);
}

#[test]
fn an_older_copy_of_the_epoch_that_goes_on_goes_on() {
    let world = World::new().with(|w| {
        w.cursor = Cursor::Resume { of: Some(Epoch(1)) };
        w.file().epoch = Epoch(1);
        w.file().position.sequence = StreamSeq(50);
    });
    assert_eq!(world.resumes().position.sequence, StreamSeq(50));
}

#[test]
fn an_empty_volume_whose_consumer_was_begun_on_is_lost_state() {
    let world = World::first_start().with(|w| w.consumer_applied = true);
    assert_eq!(world.refusal(), ExitReason::StateLost);
}

#[test]
fn of_lost_state_and_a_stream_made_again_the_stream_is_said() {
    let world = World::new().with(|w| {
        w.file = FileFacts::Empty;
        w.checkpoint().stream = identity(0);
    });
    assert_eq!(world.refusal(), ExitReason::StreamChanged);
}

#[test]
fn a_copy_from_before_the_stream_was_changed_is_lost_state() {
    let world = World::applied(StatePolicy::Clear, 20).with(|w| {
        w.file().epoch = Epoch(1);
        w.file().ledger.clear();
        w.file().stream = identity(0);
    });
    assert_eq!(world.refusal(), ExitReason::StateLost);
}

#[test]
fn file_and_checkpoint_of_an_owner_that_is_adopted_are_ours() {
    let world = World::new().with(|w| {
        w.file().owner = owner("gone", "edr");
        w.checkpoint().owner = owner("gone", "edr");
    });
    assert_eq!(world.refusal(), ExitReason::OwnedByOther);
    let adopts = |cluster| {
        world
            .clone()
            .with(|w| w.adopt = Some(owner(cluster, "edr")))
    };
    assert_eq!(adopts("gone").resumes().position.sequence, StreamSeq(100));
    assert_eq!(adopts("third").refusal(), ExitReason::OwnedByOther);
}

#[test]
fn another_partitions_file_is_not_adopted() {
    let world = World::new().with(|w| {
        w.file().owner = owner("gone", "edr");
        w.file().partition = 1;
        w.adopt = Some(owner("gone", "edr"));
    });
    assert_eq!(world.refusal(), ExitReason::OwnedByOther);
}

#[test]
fn how_far_a_request_has_come_is_read_from_the_ledger() {
    let world = World::applied(StatePolicy::Clear, 20);
    let FileFacts::State(file) = &world.file else {
        panic!("{:?}", world.file);
    };
    let outcome = |epoch| {
        let progress = file.progress(&world.cursor, Epoch(epoch))?;
        Some(progress.outcome)
    };
    assert_eq!(outcome(2), Some(RequestOutcome::Applied));
    assert_eq!(outcome(3), Some(RequestOutcome::AlreadyApplied));
    assert_eq!(file.progress(&Cursor::default(), Epoch(2)), None);
}
