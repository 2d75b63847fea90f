use jiff::Timestamp;

use super::refusal::{BEGIN_ANEW, REWIND};
use super::*;
use crate::checkpoint::{self, AppliedRequest, Checkpoint, Counters, Phase};
use crate::config::Cursor;
use crate::names::{Owner, PipelineKey};
use crate::position::{Epoch, StreamIdentity};
use crate::termination::ExitReason;

mod cursor;

fn time(nanosecond: i128) -> Timestamp {
    Timestamp::from_nanosecond(nanosecond).unwrap()
}

fn owner(cluster: &str, name: &str) -> Owner {
    Owner {
        cluster: cluster.to_owned(),
        pipeline: PipelineKey::new("prod", name).unwrap(),
    }
}

fn identity(created: i128) -> StreamIdentity {
    StreamIdentity {
        name: "EVENTS".to_owned(),
        created: time(created),
    }
}

fn gap(from: u64, to: u64) -> Gap {
    Gap {
        from: StreamSeq(from),
        to: StreamSeq(to),
        possible: false,
    }
}

/// What a worker of epoch 2 observes, told to begin at 11: a file at 100 with a message published at
/// 7 ns, a checkpoint of the same position, a stream of 1 to 200, nothing wrong.
#[derive(Clone)]
struct World {
    owner: Owner,
    cursor: Cursor,
    adopt: Option<Owner>,
    told_stream: StreamIdentity,
    filtered: bool,
    file: FileFacts,
    checkpoint: Option<Checkpoint>,
    stream: StreamFacts,
    at_position: MessageAt,
    consumer_delivered: Option<StreamSeq>,
    consumer_applied: bool,
    stores: Vec<StoreFacts>,
}

impl World {
    fn new() -> Self {
        let position = Position {
            sequence: StreamSeq(100),
            published: Some(time(7)),
        };
        Self {
            owner: owner("c1", "edr"),
            cursor: Cursor::default(),
            adopt: None,
            told_stream: identity(1),
            filtered: false,
            file: FileFacts::State(Box::new(FileState {
                owner: owner("c1", "edr"),
                partition: 0,
                stream: identity(1),
                epoch: Epoch(2),
                position,
                published_through: StreamSeq(100),
                gaps: Vec::new(),
                ledger: Vec::new(),
                output: OutputRule::default(),
            })),
            checkpoint: Some(Checkpoint {
                v: checkpoint::VERSION,
                incarnation: "i".to_owned(),
                owner: owner("c1", "edr"),
                epoch: Epoch(2),
                phase: Phase::Started,
                stream: identity(1),
                position,
                published_through: StreamSeq(100),
                engine_digest: "d".to_owned(),
                groups: 0,
                gaps: Vec::new(),
                counters: Counters::default(),
                request: None,
                applied: None,
                resumes: None,
                held: None,
                time: time(9),
            }),
            stream: StreamFacts {
                identity: identity(1),
                first: StreamSeq(1),
                last: StreamSeq(200),
            },
            at_position: MessageAt::Published(time(7)),
            consumer_delivered: Some(StreamSeq(100)),
            consumer_applied: false,
            stores: Vec::new(),
        }
    }

    /// The first start of a pipeline.
    fn first_start() -> Self {
        Self {
            file: FileFacts::Empty,
            checkpoint: None,
            at_position: MessageAt::Absent,
            consumer_delivered: None,
            ..Self::new()
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn file(&mut self) -> &mut FileState {
        match &mut self.file {
            FileFacts::State(file) => file,
            other => panic!("{other:?}"),
        }
    }

    fn checkpoint(&mut self) -> &mut Checkpoint {
        self.checkpoint.as_mut().unwrap()
    }

    fn decide(&self) -> StartDecision {
        decide(&StartFacts {
            told: Told {
                owner: &self.owner,
                partition: 0,
                epoch: Epoch(2),
                cursor: &self.cursor,
                adopt: self.adopt.as_ref(),
                stream: &self.told_stream,
                start: StreamSeq(11),
                filtered: self.filtered,
            },
            file: self.file.clone(),
            checkpoint: self.checkpoint.as_ref(),
            stream: self.stream.clone(),
            at_position: self.at_position,
            consumer_delivered: self.consumer_delivered,
            consumer_applied: self.consumer_applied,
            stores: self.stores.clone(),
        })
    }

    fn refusal(&self) -> ExitReason {
        match self.decide() {
            StartDecision::Refuse(message) => message.reason,
            other => panic!("{other:?}"),
        }
    }

    fn resumes(&self) -> Begin {
        match self.decide() {
            StartDecision::Resume(begin) => begin,
            other => panic!("{other:?}"),
        }
    }

    fn begins_anew(&self) -> Begin {
        match self.decide() {
            StartDecision::Fresh(begin) => begin,
            other => panic!("{other:?}"),
        }
    }
}

type Line = (ExitReason, fn(&mut World));

/// The lines of the table in their order; each change makes its line true and no earlier one.
const LINES: [Line; 8] = [
    (ExitReason::Corrupt, |w| {
        w.file = FileFacts::Corrupt("page 7".to_owned());
    }),
    (ExitReason::NewerSchema, |w| {
        w.file = FileFacts::NewerSchema {
            found: 2,
            supported: 1,
        };
    }),
    (ExitReason::OwnedByOther, |w| {
        w.checkpoint().owner = owner("c2", "edr");
    }),
    (ExitReason::Fenced, |w| w.checkpoint().epoch = Epoch(3)),
    (ExitReason::StreamChanged, |w| {
        w.stream.identity = identity(2);
    }),
    (ExitReason::StreamRegressed, |w| {
        w.stream.last = StreamSeq(9);
    }),
    (ExitReason::StoreRegressed, |w| {
        w.stores = vec![StoreFacts {
            stream: "ALERTS".to_owned(),
            acknowledged: 5,
            last: 4,
        }];
    }),
    (ExitReason::StateLost, |w| w.file = FileFacts::Empty),
];

#[test]
fn every_line_of_the_table_refuses() {
    for (reason, change) in LINES {
        assert_eq!(World::new().with(change).refusal(), reason);
    }
}

#[test]
fn of_two_lines_that_match_the_first_wins() {
    let sets_the_file = |reason| {
        use ExitReason::{Corrupt, NewerSchema, StateLost};
        matches!(reason, Corrupt | NewerSchema | StateLost)
    };
    for (i, (first, change_first)) in LINES.into_iter().enumerate() {
        for (second, change_second) in LINES.into_iter().skip(i + 1) {
            if sets_the_file(first) && sets_the_file(second) {
                continue;
            }
            let world = World::new().with(change_second).with(change_first);
            assert_eq!(world.refusal(), first, "{first:?} and {second:?}");
        }
    }
}

#[test]
fn every_refusal_says_what_to_do_or_who_won() {
    let verbs = [
        "restore",
        "run the newer",
        "give this",
        "has begun",
        REWIND,
        BEGIN_ANEW,
    ];
    for (reason, change) in LINES {
        let StartDecision::Refuse(message) = World::new().with(change).decide() else {
            panic!("{reason:?}");
        };
        assert!(
            verbs.iter().any(|verb| message.message.contains(verb)),
            "{}",
            message.message
        );
    }
}

#[test]
fn nothing_wrong_resumes_at_the_files_position() {
    let begin = World::new().resumes();
    assert_eq!(begin.position.sequence, StreamSeq(100));
    assert_eq!(begin.gap, None);
}

#[test]
fn a_first_start_begins_before_the_resolved_start() {
    let begin = World::first_start().begins_anew();
    assert_eq!(begin.position, Position::before(StreamSeq(11)));
    assert_eq!(begin.gap, None);
}

#[test]
fn a_first_start_on_a_stream_that_holds_nothing_yet_begins() {
    let mut world = World::first_start();
    world.stream.first = StreamSeq(11);
    world.stream.last = StreamSeq(10);
    assert_eq!(
        world.begins_anew().position,
        Position::before(StreamSeq(11))
    );
}

#[test]
fn a_resolved_start_beyond_the_end_of_the_stream_is_a_regress() {
    let world = World::first_start().with(|w| w.stream.last = StreamSeq(9));
    assert_eq!(world.refusal(), ExitReason::StreamRegressed);
}

#[test]
fn a_first_start_after_a_process_died_before_its_first_checkpoint_looks_ids_up() {
    let world = World::first_start().with(|w| w.consumer_delivered = Some(StreamSeq(60)));
    assert_eq!(world.begins_anew().published_through, StreamSeq(60));
}

#[test]
fn a_file_without_a_checkpoint_resumes() {
    let world = World::new().with(|w| w.checkpoint = None);
    assert_eq!(world.resumes().position.sequence, StreamSeq(100));
}

#[test]
fn a_file_of_another_pipeline_partition_or_cluster_is_refused() {
    let changes: [fn(&mut FileState); 3] = [
        |file| file.owner = owner("c1", "other"),
        |file| file.partition = 1,
        |file| file.owner = owner("c2", "edr"),
    ];
    for change in changes {
        let world = World::new().with(|w| change(w.file()));
        assert_eq!(world.refusal(), ExitReason::OwnedByOther);
    }
}

#[test]
fn an_empty_volume_with_the_checkpoint_of_another_cluster_is_not_lost_state() {
    let world = World::new().with(|w| {
        w.file = FileFacts::Empty;
        w.checkpoint().owner = owner("c2", "edr");
    });
    assert_eq!(world.refusal(), ExitReason::OwnedByOther);
}

#[test]
fn a_file_of_a_later_epoch_fences_this_worker() {
    let world = World::new().with(|w| w.file().epoch = Epoch(3));
    assert_eq!(world.refusal(), ExitReason::Fenced);
}

#[test]
fn a_file_of_the_epoch_that_goes_on_is_taken_over() {
    let world = World::new().with(|w| {
        w.cursor = Cursor::Resume { of: Some(Epoch(1)) };
        w.file().epoch = Epoch(1);
        w.checkpoint().epoch = Epoch(1);
    });
    assert_eq!(world.resumes().position.sequence, StreamSeq(100));
}

#[test]
fn a_stream_created_at_another_time_is_another_stream_whoever_remembers_it() {
    let changes: [fn(&mut World); 3] = [
        |w| w.file().stream = identity(2),
        |w| w.checkpoint().stream = identity(2),
        |w| w.told_stream = identity(2),
    ];
    for change in changes {
        assert_eq!(
            World::new().with(change).refusal(),
            ExitReason::StreamChanged
        );
    }
}

#[test]
fn a_position_that_is_the_last_sequence_is_no_regress() {
    let world = World::new().with(|w| w.stream.last = StreamSeq(100));
    assert_eq!(world.resumes().position.sequence, StreamSeq(100));
}

#[test]
fn a_position_beyond_the_last_sequence_is_a_regress() {
    let world = World::new().with(|w| {
        w.stream.last = StreamSeq(99);
        w.at_position = MessageAt::Absent;
    });
    assert_eq!(world.refusal(), ExitReason::StreamRegressed);
}

#[test]
fn an_older_copy_of_the_volume_does_not_hide_a_regress() {
    let world = World::new().with(|w| {
        w.file().position.sequence = StreamSeq(50);
        w.stream.last = StreamSeq(99);
    });
    assert_eq!(world.refusal(), ExitReason::StreamRegressed);
}

#[test]
fn one_nanosecond_between_the_published_times_is_a_regress() {
    let world = World::new().with(|w| w.at_position = MessageAt::Published(time(8)));
    assert_eq!(world.refusal(), ExitReason::StreamRegressed);
}

#[test]
fn a_message_at_the_position_that_expired_is_no_mismatch() {
    let world = World::new().with(|w| {
        w.stream.first = StreamSeq(101);
        w.at_position = MessageAt::Absent;
    });
    assert_eq!(world.resumes().gap, None);
}

#[test]
fn a_message_at_the_position_that_was_deleted_is_no_mismatch() {
    let world = World::new().with(|w| w.at_position = MessageAt::Absent);
    assert_eq!(world.resumes().position.sequence, StreamSeq(100));
}

#[test]
fn before_the_first_commit_the_published_time_is_not_checked() {
    let world = World::new().with(|w| w.file().position = Position::before(StreamSeq(101)));
    assert_eq!(world.resumes().position.published, None);
}

#[test]
fn a_store_that_ends_where_it_acknowledged_is_no_regress() {
    let world = World::new().with(|w| {
        w.stores = vec![StoreFacts {
            stream: "ALERTS".to_owned(),
            acknowledged: 5,
            last: 5,
        }];
    });
    assert_eq!(world.resumes().position.sequence, StreamSeq(100));
}

#[test]
fn the_second_store_is_checked_too() {
    let store = |stream: &str, last| StoreFacts {
        stream: stream.to_owned(),
        acknowledged: 5,
        last,
    };
    let world = World::new().with(|w| w.stores = vec![store("ALERTS", 5), store("DLQ", 4)]);
    assert_eq!(world.refusal(), ExitReason::StoreRegressed);
}

#[test]
fn an_older_copy_of_the_volume_resumes_and_looks_ids_up_to_the_checkpoint() {
    let world = World::new().with(|w| {
        w.file().position.sequence = StreamSeq(50);
        w.file().published_through = StreamSeq(50);
        w.checkpoint().published_through = StreamSeq(120);
    });
    let begin = world.resumes();
    assert_eq!(begin.position.sequence, StreamSeq(50));
    assert_eq!(begin.published_through, StreamSeq(120));
}

#[test]
fn what_may_be_published_is_the_highest_that_anyone_says() {
    let says: [fn(&mut World); 4] = [
        |w| w.file().published_through = StreamSeq(150),
        |w| w.checkpoint().published_through = StreamSeq(150),
        |w| w.checkpoint().position.sequence = StreamSeq(150),
        |w| w.consumer_delivered = Some(StreamSeq(150)),
    ];
    for says in says {
        let begin = World::new().with(says).resumes();
        assert_eq!(begin.published_through, StreamSeq(150));
    }
}

#[test]
fn events_that_expired_unread_are_a_gap_up_to_the_first_left() {
    let world = World::new().with(|w| w.stream.first = StreamSeq(121));
    assert_eq!(world.resumes().gap, Some(gap(101, 120)));
}

#[test]
fn one_event_that_expired_unread_is_a_gap_of_one() {
    let world = World::new().with(|w| w.stream.first = StreamSeq(102));
    assert_eq!(world.resumes().gap, Some(gap(101, 101)));
}

#[test]
fn only_what_no_earlier_start_reported_is_a_gap() {
    let world = World::new().with(|w| {
        w.file().gaps = vec![gap(101, 110), gap(111, 115)];
        w.stream.first = StreamSeq(121);
    });
    assert_eq!(world.resumes().gap, Some(gap(116, 120)));
}

#[test]
fn a_gap_that_was_reported_whole_is_not_reported_again() {
    let world = World::new().with(|w| {
        w.file().gaps = vec![gap(101, 120)];
        w.stream.first = StreamSeq(121);
    });
    assert_eq!(world.resumes().gap, None);
}

#[test]
fn a_gap_behind_the_position_says_nothing_about_what_expired_since() {
    let world = World::new().with(|w| {
        w.file().gaps = vec![gap(20, 30)];
        w.stream.first = StreamSeq(121);
    });
    assert_eq!(world.resumes().gap, Some(gap(101, 120)));
}

#[test]
fn under_a_filter_a_gap_is_only_possible() {
    let world = World::new().with(|w| {
        w.filtered = true;
        w.stream.first = StreamSeq(121);
    });
    assert!(world.resumes().gap.unwrap().possible);
}

#[test]
fn everything_expired_is_a_gap_up_to_the_last_sequence() {
    let world = World::new().with(|w| w.stream.first = StreamSeq(201));
    assert_eq!(world.resumes().gap, Some(gap(101, 200)));
}

#[test]
fn events_that_expired_before_the_first_start_are_a_gap_from_the_resolved_start() {
    let world = World::first_start().with(|w| w.stream.first = StreamSeq(21));
    assert_eq!(world.begins_anew().gap, Some(gap(11, 20)));
}
