//! Requests that move the file.

use lookback_protocol::checkpoint::AppliedRequest;
use lookback_protocol::config::Rewind;
use lookback_protocol::replay::request::{Outputs, RequestId, StatePolicy};
use lookback_protocol::replay::restore::Reason;
use lookback_protocol::start::OutputRule;

use super::*;

fn of_epoch(epoch: u64) -> Identity {
    Identity {
        epoch: Epoch(epoch),
        ..identity()
    }
}

/// A request to read from `start` on.
fn request(id: &str, start: u64, windows: Windows) -> Apply {
    let (state_policy, reason) = match windows {
        Windows::Kept => (StatePolicy::Keep, Reason::ForceKeep),
        Windows::Dropped => (StatePolicy::Clear, Reason::ForceClear),
        Windows::Rebuilt => (StatePolicy::Rebuild, Reason::Rebuild),
    };
    Apply {
        rewind: Rewind {
            request_id: RequestId::new(id).unwrap(),
            fingerprint: format!("h-{id}"),
            of: Some(Epoch(1)),
            start: StreamSeq(start),
            read_from: None,
            latest: false,
            state_policy,
            outputs: Outputs::Tag,
            target: StreamSeq(90),
            plan_hash: "p".to_owned(),
        },
        windows,
        reason,
        begin: Begin {
            published_through: StreamSeq(95),
            ..begin_at(Position::before(StreamSeq(start)))
        },
    }
}

fn rebuild(id: &str, from: u64, start: u64) -> Apply {
    let mut apply = request(id, start, Windows::Rebuilt);
    apply.rewind.read_from = Some(StreamSeq(from));
    apply.begin.position = Position::before(StreamSeq(from));
    apply
}

/// A file of epoch 1 at position 60 with a window, a gap, counters, a PubAck and a death.
fn worked(volume: &Volume) -> StateFile {
    let mut file = volume.begun();
    let begin = Begin {
        gap: Some(gap(10, 12, false)),
        ..begin_at(Position::before(StreamSeq(1)))
    };
    file.begin(&identity(), &begin).unwrap();
    file.commit(&Commit {
        changes: &upserts(vec![row("f", "k", "old")]),
        position: at(60),
        published_through: StreamSeq(60),
        counters: counters(),
        acknowledged: &[("ALERTS".to_owned(), 30)],
    })
    .unwrap();
    file.set_in_flight(StreamSeq(61)).unwrap();
    file.note_start().unwrap();
    file
}

fn counters() -> Counters {
    Counters {
        events: 57,
        ..Counters::default()
    }
}

#[test]
fn a_request_that_drops_the_windows_moves_everything_at_once() {
    let volume = Volume::new();
    let mut file = worked(&volume);
    file.apply(&of_epoch(2), &request("r", 21, Windows::Dropped))
        .unwrap();

    let survivor = volume.killed().open();
    let found = state(&survivor);
    assert_eq!(survivor.groups().unwrap(), []);
    assert_eq!(found.position, Position::before(StreamSeq(21)));
    assert_eq!(found.epoch, Epoch(2));
    assert_eq!(found.published_through, StreamSeq(95));
    assert_eq!(found.gaps, []);
    assert_eq!(
        found.ledger,
        [AppliedRequest {
            epoch: Epoch(2),
            id: RequestId::new("r").unwrap(),
            fingerprint: "h-r".to_owned(),
        }]
    );
    assert_eq!(survivor.counters().unwrap(), counters());
    assert_eq!(survivor.acknowledged().unwrap(), BTreeMap::new());
}

#[test]
fn a_request_that_keeps_the_windows_keeps_gaps_and_pub_acks_too() {
    let volume = Volume::new();
    let mut file = worked(&volume);
    file.apply(&of_epoch(2), &request("r", 80, Windows::Kept))
        .unwrap();
    assert_eq!(file.groups().unwrap(), [row("f", "k", "old")]);
    assert_eq!(file.gaps().unwrap(), [gap(10, 12, false)]);
    assert_eq!(file.position().unwrap(), Position::before(StreamSeq(80)));
}

#[test]
fn a_move_forgets_deaths_on_the_way_that_was_left() {
    let volume = Volume::new();
    let mut file = worked(&volume);
    file.apply(&of_epoch(2), &request("r", 61, Windows::Kept))
        .unwrap();
    assert_eq!(file.note_start().unwrap(), 1);
    assert_eq!(file.set_in_flight(StreamSeq(61)).unwrap(), 0);
}

#[test]
fn a_request_may_be_the_first_thing_in_a_file() {
    let volume = Volume::new();
    let mut file = volume.open();
    let mut request = request("r", 21, Windows::Dropped);
    request.begin.gap = Some(gap(21, 25, false));
    file.apply(&identity(), &request).unwrap();
    assert_eq!(file.position().unwrap(), Position::before(StreamSeq(21)));
    assert_eq!(file.gaps().unwrap(), [gap(21, 25, false)]);
    assert_eq!(file.ledger().unwrap().len(), 1);
}

#[test]
fn a_ledger_row_tells_what_was_asked_and_what_was_done() {
    let volume = Volume::new();
    let mut file = worked(&volume);
    file.apply(&of_epoch(2), &rebuild("r", 15, 21)).unwrap();
    let found = file.ledger().unwrap();
    assert_eq!(
        found,
        [LedgerRow {
            request_id: RequestId::new("r").unwrap(),
            fingerprint: "h-r".to_owned(),
            epoch: Epoch(2),
            state_policy: StatePolicy::Rebuild,
            start: StreamSeq(21),
            read_from: Some(StreamSeq(15)),
            windows: Windows::Rebuilt,
            reason: "Rebuild".to_owned(),
            outputs: Outputs::Tag,
            target: StreamSeq(90),
            plan_hash: "p".to_owned(),
        }]
    );
}

#[test]
fn what_is_suppressed_outlives_the_process_and_the_epoch() {
    let volume = Volume::new();
    let mut file = worked(&volume);
    file.apply(&of_epoch(2), &rebuild("r", 15, 21)).unwrap();
    let position = file.position().unwrap();
    file.begin(&of_epoch(3), &begin_at(position)).unwrap();
    drop(file);
    let expected = OutputRule {
        suppress_below: StreamSeq(21),
        outputs: Outputs::Tag,
        target: StreamSeq(90),
    };
    assert_eq!(state(&volume.open()).output, expected);
}

#[test]
fn a_request_is_not_applied_twice() {
    let volume = Volume::new();
    let mut file = worked(&volume);
    let request = request("r", 21, Windows::Dropped);
    file.apply(&of_epoch(2), &request).unwrap();
    commit_to(&mut file, 30, &upserts(vec![row("f", "k", "new")])).unwrap();
    for epoch in [1, 2, 3] {
        let result = file.apply(&of_epoch(epoch), &request);
        assert!(result.is_err(), "in epoch {epoch}");
        assert_eq!(file.groups().unwrap(), [row("f", "k", "new")]);
        assert_eq!(file.position().unwrap(), at(30));
        assert_eq!(state(&file).epoch, Epoch(2));
    }
}

#[test]
fn a_file_of_another_owner_or_partition_is_not_moved() {
    let volume = Volume::new();
    let mut file = worked(&volume);
    let mut others = [of_epoch(2), of_epoch(2)];
    others[0].owner.cluster = "c2".to_owned();
    others[1].partition = 1;
    for other in others {
        let result = file.apply(&other, &request("r", 21, Windows::Dropped));
        assert!(matches!(result, Err(StateError::Refused { .. })));
    }
    assert_eq!(file.position().unwrap(), at(60));
}

#[test]
fn a_file_that_is_adopted_changes_its_owner() {
    let adopts = |epoch| {
        let mut adopts = of_epoch(epoch);
        adopts.adopt = Some(adopts.owner.clone());
        adopts.owner.cluster = "c2".to_owned();
        adopts
    };
    let volume = Volume::new();
    let mut file = worked(&volume);
    file.begin(&adopts(1), &begin_at(at(60))).unwrap();
    assert_eq!(state(&file).owner.cluster, "c2");

    let volume = Volume::new();
    let mut file = worked(&volume);
    file.apply(&adopts(2), &request("r", 21, Windows::Dropped))
        .unwrap();
    assert_eq!(state(&file).owner.cluster, "c2");
}

#[test]
fn a_request_binds_the_file_to_the_stream_as_it_is() {
    let volume = Volume::new();
    let mut file = worked(&volume);
    let mut again = of_epoch(2);
    again.stream.created = "2026-02-02T00:00:00Z".parse().unwrap();
    let mut request = request("r", 2, Windows::Dropped);
    request.begin.published_through = StreamSeq(7);
    file.apply(&again, &request).unwrap();
    let found = state(&file);
    assert_eq!(found.stream, again.stream);
    assert_eq!(found.published_through, StreamSeq(7));
    commit_to(&mut file, 3, &Changes::default()).unwrap();
}

/// (start, last, dropped) of each segment.
fn shape(lineage: &[Segment]) -> Vec<(u64, Option<u64>, bool)> {
    lineage
        .iter()
        .map(|segment| {
            let last = segment.last.map(|last| last.0);
            (segment.start.0, last, segment.dropped)
        })
        .collect()
}

#[test]
fn a_way_back_ends_the_segment_before_it_where_the_file_stood() {
    let volume = Volume::new();
    let mut file = worked(&volume);
    file.apply(&of_epoch(2), &request("r", 21, Windows::Dropped))
        .unwrap();
    commit_to(&mut file, 40, &Changes::default()).unwrap();
    let lineage = file.lineage().unwrap();
    assert_eq!(shape(&lineage), [(1, Some(60), false), (21, None, true)]);
    let outputs: Vec<_> = lineage.iter().map(|it| it.output.outputs).collect();
    assert_eq!(outputs, [Outputs::Live, Outputs::Tag]);
}

#[test]
fn of_two_requests_without_an_event_between_them_the_second_is_a_segment() {
    let volume = Volume::new();
    let mut file = worked(&volume);
    file.apply(&of_epoch(2), &request("a", 21, Windows::Dropped))
        .unwrap();
    file.apply(&of_epoch(3), &request("b", 30, Windows::Kept))
        .unwrap();
    let lineage = file.lineage().unwrap();
    assert_eq!(shape(&lineage), [(1, Some(60), false), (30, None, true)]);
    assert_eq!(lineage[1].epoch, Epoch(3));
}

#[test]
fn windows_that_were_dropped_before_a_rollout_stay_dropped_in_the_lineage() {
    let volume = Volume::new();
    let mut file = worked(&volume);
    file.apply(&of_epoch(2), &request("r", 61, Windows::Dropped))
        .unwrap();
    let rollout = Identity {
        engine_digest: "d2".to_owned(),
        ..of_epoch(2)
    };
    let position = file.position().unwrap();
    file.begin(&rollout, &begin_at(position)).unwrap();
    let lineage = file.lineage().unwrap();
    assert_eq!(shape(&lineage), [(1, Some(60), false), (61, None, true)]);
    assert_eq!(lineage[1].engine_digest, "d2");
}

#[test]
fn a_rollout_within_a_read_back_goes_on_without_alerts() {
    let volume = Volume::new();
    let mut file = worked(&volume);
    file.apply(&of_epoch(2), &rebuild("r", 15, 50)).unwrap();
    commit_to(&mut file, 30, &Changes::default()).unwrap();
    let rollout = Identity {
        engine_digest: "d2".to_owned(),
        ..of_epoch(2)
    };
    file.begin(&rollout, &begin_at(at(30))).unwrap();
    let lineage = file.lineage().unwrap();
    assert_eq!(
        shape(&lineage),
        [
            (1, Some(60), false),
            (15, Some(30), true),
            (31, None, false)
        ]
    );
    assert_eq!(lineage[2].output.suppress_below, StreamSeq(50));
}

#[test]
fn a_digest_tells_of_windows_that_were_dropped_before_any_event() {
    let volume = Volume::new();
    let mut file = worked(&volume);
    file.apply(&of_epoch(2), &request("r", 61, Windows::Dropped))
        .unwrap();
    drop(file);
    let found = digest(&volume.path()).unwrap();
    assert_eq!(
        shape(&found.lineage),
        [(1, Some(60), false), (61, None, true)]
    );
    assert_eq!(found.ledger.len(), 1);
}

#[test]
fn a_digest_leaves_out_a_way_forward_under_which_nothing_was_applied() {
    let volume = Volume::new();
    let mut file = worked(&volume);
    file.apply(&of_epoch(2), &request("r", 61, Windows::Kept))
        .unwrap();
    drop(file);
    let found = digest(&volume.path()).unwrap();
    assert_eq!(shape(&found.lineage), [(1, None, false)]);
}

/// A file as the first schema left it.
fn of_the_first_schema(volume: &Volume) {
    let connection = Connection::open(volume.path()).unwrap();
    connection.execute_batch(schema::V1).unwrap();
    connection
        .execute_batch(
            "INSERT INTO meta (id, cluster, namespace, name, partition, stream, stream_created,
               epoch, position, published, published_through)
             VALUES (1, 'c1', 'prod', 'edr', 0, 'EVENTS', '2026-01-02T03:04:05.123456789Z',
               1, 9, '2026-01-02T04:00:00Z', 9);
             INSERT INTO lineage (epoch, start, filter, engine_digest) VALUES
               (1, 1, '[\"events.a\",\"events.b\"]', 'd0'),
               (1, 4, '[\"events.a\",\"events.b\"]', 'd1');
             PRAGMA user_version = 1;",
        )
        .unwrap();
    connection
        .pragma_update(None, "application_id", schema::APPLICATION_ID)
        .unwrap();
}

#[test]
fn a_file_of_the_first_schema_opens_and_its_segments_have_ends() {
    let volume = Volume::new();
    of_the_first_schema(&volume);
    let mut file = volume.open();
    let position = file.position().unwrap();
    assert_eq!(position.sequence, StreamSeq(9));
    file.begin(&identity(), &begin_at(position)).unwrap();
    let lineage = file.lineage().unwrap();
    assert_eq!(shape(&lineage), [(1, Some(3), false), (4, None, false)]);
    assert_eq!(file.ledger().unwrap(), []);
    file.apply(&of_epoch(2), &request("r", 2, Windows::Dropped))
        .unwrap();
}
