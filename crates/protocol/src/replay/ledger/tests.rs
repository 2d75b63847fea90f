use jiff::Timestamp;

use super::*;
use crate::checkpoint::{self, AppliedRequest, Counters, RequestProgress};
use crate::names::PipelineKey;
use crate::position::{Position, StreamIdentity, StreamSeq};
use crate::replay::record::{Finished, Plan, Record, ReplayPhase, Retired, WayBack, Windows};
use crate::replay::request::{Outputs, ReplayRequest, ReplayStart, StatePolicy};

fn owner(cluster: &str) -> Owner {
    Owner {
        cluster: cluster.to_owned(),
        pipeline: PipelineKey::new("prod", "edr").unwrap(),
    }
}

fn request() -> ReplayRequest {
    let start = ReplayStart::FromSequence(StreamSeq(10));
    ReplayRequest::new(Some("r"), start, StatePolicy::Clear).unwrap()
}

/// The request `r` as epoch 3, over the state of epoch 2.
fn rewind() -> Rewind {
    Rewind {
        request_id: request().id,
        fingerprint: request().fingerprint,
        of: Some(Epoch(2)),
        start: StreamSeq(10),
        read_from: None,
        latest: false,
        state_policy: StatePolicy::Clear,
        outputs: Outputs::Live,
        target: StreamSeq(100),
        plan_hash: "p-1".to_owned(),
    }
}

fn resume(of: u64) -> Cursor {
    Cursor::Resume {
        of: Some(Epoch(of)),
    }
}

fn consumer(epoch: u64, cursor: Cursor, applied: bool) -> ConsumerMetadata {
    let mut metadata = ConsumerMetadata::new(&owner("c1"), Epoch(epoch), StreamSeq(1));
    metadata.cursor = cursor;
    metadata.applied = applied;
    metadata
}

fn rewound(applied: bool) -> ConsumerMetadata {
    consumer(3, Cursor::Rewind(rewind()), applied)
}

fn checkpoint(epoch: u64, outcome: Option<RequestOutcome>) -> Checkpoint {
    let applied = outcome == Some(RequestOutcome::Applied);
    Checkpoint {
        v: checkpoint::VERSION,
        incarnation: "one".to_owned(),
        owner: owner("c1"),
        epoch: Epoch(epoch),
        phase: match outcome {
            Some(RequestOutcome::Applying) => Phase::Applying,
            _ => Phase::Started,
        },
        stream: StreamIdentity {
            name: "events".to_owned(),
            created: Timestamp::UNIX_EPOCH,
        },
        position: Position::before(StreamSeq(50)),
        published_through: StreamSeq(0),
        engine_digest: String::new(),
        groups: 0,
        gaps: Vec::new(),
        counters: Counters::default(),
        request: outcome.map(|outcome| RequestProgress {
            id: request().id,
            outcome,
        }),
        applied: applied.then(|| AppliedRequest {
            epoch: Epoch(epoch),
            id: request().id,
            fingerprint: request().fingerprint,
        }),
        resumes: None,
        held: None,
        time: Timestamp::UNIX_EPOCH,
    }
}

fn applied(epoch: u64) -> Checkpoint {
    checkpoint(epoch, Some(RequestOutcome::Applied))
}

fn taken_back(epoch: u64, resumes: u64) -> Checkpoint {
    Checkpoint {
        phase: Phase::TakenBack,
        resumes: Some(Epoch(resumes)),
        ..checkpoint(epoch, None)
    }
}

/// The status in epoch `epoch` with the record of `r` in this phase.
fn status(epoch: u64, phase: ReplayPhase) -> Written {
    Written {
        record: Some(Record {
            request: request(),
            phase,
            message: String::new(),
            requested_at: Timestamp::UNIX_EPOCH,
            since: Timestamp::UNIX_EPOCH,
            epoch: Some(Epoch(3)),
            of: Some(Epoch(2)),
            plan: Some(Plan {
                hash: "p-1".to_owned(),
                start: StreamSeq(10),
                start_time: None,
                target: StreamSeq(100),
                messages: 1,
                bytes: 1,
                eta_seconds: None,
                position: None,
                truncated: false,
                gap: 0,
                double_counted: 0,
                windows: Windows::Dropped,
                reason: "ForceClear".to_owned(),
                groups: 0,
                read_back: None,
                known_alerts: None,
            }),
            way_back: None,
            paused: false,
        }),
        epoch: Some(Epoch(epoch)),
        ..Written::default()
    }
}

fn stands(epoch: u64, cursor: Cursor) -> Standing {
    Standing::Stands {
        epoch: Epoch(epoch),
        cursor,
    }
}

fn ledgers<'a>(
    me: &'a Owner,
    written: &'a Written,
    consumers: &'a [ConsumerMetadata],
    checkpoint: Option<&'a Checkpoint>,
) -> Ledgers<'a> {
    Ledgers {
        me,
        adopt: None,
        written,
        running: None,
        nats: Some(NatsLedgers {
            consumers,
            checkpoint,
        }),
    }
}

fn standing(
    written: &Written,
    consumers: &[ConsumerMetadata],
    checkpoint: Option<&Checkpoint>,
) -> Standing {
    ledgers(&owner("c1"), written, consumers, checkpoint).reconcile()
}

#[test]
fn the_decision_table_holds_row_by_row() {
    use ReplayPhase::{Completed, Fencing, RollingOut};
    type Row = (
        &'static str,
        Written,
        Vec<ConsumerMetadata>,
        Option<Checkpoint>,
        Standing,
    );
    let none = Written::default;
    let e2 = || consumer(2, resume(1), true);
    let rewound_cursor = || Cursor::Rewind(rewind());
    let rows: Vec<Row> = vec![
        ("a new pipeline", none(), vec![], None, Standing::New),
        (
            "a recreated pipeline adopts a request that is applied",
            none(),
            vec![e2(), rewound(true)],
            Some(applied(3)),
            stands(3, rewound_cursor()),
        ),
        (
            "also when only the checkpoint says that it is applied",
            none(),
            vec![rewound(false)],
            Some(applied(3)),
            stands(3, rewound_cursor()),
        ),
        (
            "also when only the consumer says so: its file is an older one, the worker sees it",
            none(),
            vec![rewound(true)],
            Some(checkpoint(2, None)),
            stands(3, rewound_cursor()),
        ),
        (
            "a recreated pipeline whose consumer is gone adopts the checkpoint's epoch",
            none(),
            vec![],
            Some(applied(3)),
            stands(3, resume(3)),
        ),
        (
            "a recreated pipeline goes on with a request between consumer and application",
            none(),
            vec![e2(), rewound(false)],
            Some(checkpoint(2, None)),
            Standing::Underway {
                epoch: Epoch(3),
                rewind: rewind(),
            },
        ),
        (
            "also when its worker has begun to apply it",
            none(),
            vec![rewound(false)],
            Some(checkpoint(3, Some(RequestOutcome::Applying))),
            Standing::Underway {
                epoch: Epoch(3),
                rewind: rewind(),
            },
        ),
        (
            "a recreated pipeline goes on with the way back that it was taking",
            none(),
            vec![e2(), rewound(false)],
            Some(taken_back(4, 2)),
            stands(4, resume(2)),
        ),
        (
            "what is done stays done over an empty file",
            status(3, Completed),
            vec![rewound(true)],
            None,
            stands(3, rewound_cursor()),
        ),
        (
            "and over an older one",
            status(3, Completed),
            vec![],
            Some(checkpoint(2, None)),
            stands(3, rewound_cursor()),
        ),
        (
            "a consumer that is lost is that of the epoch that stands",
            status(3, Completed),
            vec![],
            Some(applied(3)),
            stands(3, rewound_cursor()),
        ),
        (
            "a request that has no consumer yet goes on by its record",
            status(2, Fencing),
            vec![],
            Some(checkpoint(2, None)),
            stands(2, resume(2)),
        ),
        (
            "so does one that has",
            status(2, RollingOut),
            vec![e2(), rewound(false)],
            Some(checkpoint(2, None)),
            stands(2, resume(1)),
        ),
        (
            "and one that is applied and not yet recorded so",
            status(2, RollingOut),
            vec![],
            Some(applied(3)),
            stands(2, resume(2)),
        ),
        (
            "a recreated pipeline whose consumer is gone adopts beside one that it left",
            none(),
            vec![e2()],
            Some(applied(3)),
            stands(3, resume(3)),
        ),
        (
            "a first epoch begins on an empty volume",
            none(),
            vec![consumer(1, Cursor::default(), false)],
            None,
            stands(1, Cursor::default()),
        ),
        (
            "and with a checkpoint it is the worker that misses its file",
            none(),
            vec![consumer(1, Cursor::default(), false)],
            Some(checkpoint(1, None)),
            stands(1, Cursor::default()),
        ),
    ];
    for (what, written, consumers, checkpoint, expected) in rows {
        let found = standing(&written, &consumers, checkpoint.as_ref());
        assert_eq!(found, expected, "{what}");
    }
}

#[test]
fn an_epoch_beyond_what_the_rest_knows_is_left_to_a_person() {
    let e3 = [rewound(true)];
    let completed = status(3, ReplayPhase::Completed);
    for (written, consumers) in [
        (&Written::default(), &e3[..]),
        (&completed, &e3[..]),
        (&completed, &[][..]),
    ] {
        let found = standing(written, consumers, Some(&checkpoint(5, None)));
        let Standing::EpochAhead(sentence) = found else {
            panic!("{found:?}");
        };
        assert!(
            sentence.contains("epoch 5") && sentence.contains("Retain"),
            "{sentence}"
        );
    }
}

#[test]
fn a_status_older_than_a_consumer_or_a_worker_is_left_to_a_person() {
    let written = Written {
        epoch: Some(Epoch(2)),
        ..Written::default()
    };
    let found = standing(&written, &[rewound(true)], Some(&applied(3)));
    assert!(matches!(found, Standing::EpochAhead(_)), "{found:?}");
}

#[test]
fn what_belongs_to_another_cluster_is_left_alone_until_it_is_adopted() {
    let other = owner("c2");
    let mut foreign_consumer = rewound(true);
    foreign_consumer.owner = other.to_string();
    let mut foreign_checkpoint = applied(3);
    foreign_checkpoint.owner = other.clone();
    let written = Written::default();
    for (consumers, checkpoint) in [
        (vec![foreign_consumer.clone()], applied(3)),
        (vec![rewound(true)], foreign_checkpoint.clone()),
        (vec![], foreign_checkpoint),
    ] {
        let mut ledgers = Ledgers {
            me: &owner("c1"),
            adopt: None,
            written: &written,
            running: None,
            nats: Some(NatsLedgers {
                consumers: &consumers,
                checkpoint: Some(&checkpoint),
            }),
        };
        let found = ledgers.reconcile();
        let Standing::OwnedByOther(sentence) = found else {
            panic!("{found:?}");
        };
        assert!(sentence.contains("c2/prod/edr"), "{sentence}");
        ledgers.adopt = Some(&other);
        assert!(matches!(
            ledgers.reconcile(),
            Standing::Stands {
                epoch: Epoch(3),
                ..
            }
        ));
    }
}

#[test]
fn nothing_is_new_while_nats_does_not_answer() {
    let written = Written::default();
    let ledgers = Ledgers {
        me: &owner("c1"),
        adopt: None,
        written: &written,
        running: None,
        nats: None,
    };
    assert_eq!(ledgers.reconcile(), Standing::Unknown);
}

#[test]
fn what_runs_says_what_its_epoch_does_also_while_nats_does_not_answer() {
    let written = Written {
        epoch: Some(Epoch(2)),
        ..Written::default()
    };
    let running = resume(1);
    let mut ledgers = Ledgers {
        me: &owner("c1"),
        adopt: None,
        written: &written,
        running: Some((Epoch(2), &running)),
        nats: None,
    };
    assert_eq!(ledgers.reconcile(), stands(2, resume(1)));
    ledgers.running = None;
    assert_eq!(ledgers.reconcile(), Standing::Unknown);
}

#[test]
fn the_epoch_of_a_way_back_resumes_the_state_that_was_never_touched() {
    let mut written = status(4, ReplayPhase::Failed);
    written.record.as_mut().unwrap().way_back = Some(WayBack {
        epoch: Epoch(4),
        to: ReplayPhase::Failed,
    });
    let found = standing(&written, &[rewound(false)], Some(&taken_back(4, 2)));
    assert_eq!(found, stands(4, resume(2)));
}

#[test]
fn a_pipeline_that_begins_with_a_request_is_new_until_it_is_applied() {
    let mut written = status(3, ReplayPhase::RollingOut);
    written.epoch = None;
    written.record.as_mut().unwrap().of = None;
    let found = standing(&written, &[rewound(false)], None);
    assert_eq!(found, Standing::New);
}

#[test]
fn the_highest_epoch_is_that_of_whatever_carries_one() {
    let highest = |written: &Written, consumers: &[ConsumerMetadata], seen: Option<&Checkpoint>| {
        ledgers(&owner("c1"), written, consumers, seen).highest().0
    };
    let none = Written::default();
    assert_eq!(highest(&none, &[], None), 0);
    assert_eq!(
        highest(&none, &[rewound(false)], Some(&checkpoint(2, None))),
        3
    );
    assert_eq!(highest(&none, &[], Some(&checkpoint(7, None))), 7);
    let mut written = status(2, ReplayPhase::RollingOut);
    assert_eq!(highest(&written, &[], None), 3);
    let record = written.record.as_mut().unwrap();
    record.way_back = Some(WayBack {
        epoch: Epoch(4),
        to: ReplayPhase::Failed,
    });
    let finished = record.finished();
    assert_eq!(highest(&written, &[], None), 4);
    written.history = vec![Finished {
        epoch: Some(Epoch(9)),
        ..finished
    }];
    assert_eq!(highest(&written, &[], None), 9);
    written.retired = vec![Retired {
        name: String::new(),
        epoch: Epoch(11),
        since: Timestamp::UNIX_EPOCH,
    }];
    assert_eq!(highest(&written, &[], None), 11);
}
