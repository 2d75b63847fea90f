use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use lookback_protocol::names::PipelineKey;
use tempfile::TempDir;

use super::*;

mod rewind;

pub(super) fn identity() -> Identity {
    Identity {
        owner: Owner {
            cluster: "c1".to_owned(),
            pipeline: PipelineKey::new("prod", "edr").unwrap(),
        },
        adopt: None,
        partition: 0,
        stream: StreamIdentity {
            name: "EVENTS".to_owned(),
            created: "2026-01-02T03:04:05.123456789Z".parse().unwrap(),
        },
        epoch: Epoch(1),
        engine_digest: "d1".to_owned(),
        filter: vec!["events.b".to_owned(), "events.a".to_owned()],
    }
}

pub(super) fn begin_at(position: Position) -> Begin {
    Begin {
        position,
        published_through: StreamSeq(0),
        gap: None,
    }
}

pub(super) fn at(sequence: u64) -> Position {
    let nanosecond = 1_700_000_000_000_000_001 + i128::from(sequence);
    Position {
        sequence: StreamSeq(sequence),
        published: Some(Timestamp::from_nanosecond(nanosecond).unwrap()),
    }
}

pub(super) fn row(correlation: &str, key: &str, state: &str) -> GroupRow {
    GroupRow {
        correlation: correlation.to_owned(),
        key: key.as_bytes().to_vec(),
        state: state.as_bytes().to_vec(),
    }
}

fn upserts(rows: Vec<GroupRow>) -> Changes {
    Changes {
        upserts: rows,
        ..Changes::default()
    }
}

fn commit_to(file: &mut StateFile, sequence: u64, changes: &Changes) -> Result<(), StateError> {
    file.commit(&Commit {
        changes,
        position: at(sequence),
        published_through: StreamSeq(sequence),
        counters: Counters::default(),
        acknowledged: &[],
    })
}

/// In memory where the machine has a place for it: a commit waits for the disk otherwise.
pub(super) fn memory_dir() -> TempDir {
    TempDir::new_in("/dev/shm")
        .or_else(|_| TempDir::new())
        .unwrap()
}

struct Volume {
    dir: TempDir,
}

impl Volume {
    fn new() -> Self {
        Self { dir: memory_dir() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("state.db")
    }

    fn open(&self) -> StateFile {
        StateFile::open(&self.path()).unwrap()
    }

    /// A file in which begin was called for a stream read from its first message.
    fn begun(&self) -> StateFile {
        let mut file = self.open();
        file.begin(&identity(), &begin_at(Position::before(StreamSeq(1))))
            .unwrap();
        file
    }

    /// What a process that is killed now leaves behind.
    fn killed(&self) -> Self {
        let copy = Self::new();
        for entry in fs::read_dir(self.dir.path()).unwrap() {
            let from = entry.unwrap().path();
            fs::copy(&from, copy.dir.path().join(from.file_name().unwrap())).unwrap();
        }
        copy
    }

    fn wal(&self) -> PathBuf {
        self.dir.path().join("state.db-wal")
    }
}

fn state(file: &StateFile) -> lookback_protocol::start::FileState {
    match file.facts().unwrap() {
        FileFacts::State(state) => *state,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_file_is_empty() {
    let volume = Volume::new();
    assert!(matches!(volume.open().facts(), Ok(FileFacts::Empty)));
}

#[test]
fn a_file_without_bytes_is_empty() {
    let volume = Volume::new();
    fs::write(volume.path(), b"").unwrap();
    assert!(matches!(volume.open().facts(), Ok(FileFacts::Empty)));
}

#[test]
fn a_file_opened_and_never_begun_is_still_empty() {
    let volume = Volume::new();
    volume.open().note_start().unwrap();
    assert!(matches!(volume.open().facts(), Ok(FileFacts::Empty)));
}

#[test]
fn the_identity_reads_back_with_nanoseconds() {
    let volume = Volume::new();
    drop(volume.begun());
    let found = state(&volume.open());
    let told = identity();
    assert_eq!(
        (found.owner, found.partition, found.stream, found.epoch),
        (told.owner, told.partition, told.stream, told.epoch)
    );
}

#[test]
fn until_the_first_commit_there_is_no_published_time() {
    let volume = Volume::new();
    let mut file = volume.open();
    let before = Position::before(StreamSeq(42));
    file.begin(&identity(), &begin_at(before)).unwrap();
    assert_eq!(file.position().unwrap(), before);
}

#[test]
fn a_commit_survives_a_kill_whole() {
    let volume = Volume::new();
    let mut file = volume.begun();
    let changes = upserts(vec![row("f1", "alice", "3"), row("f2", "alice", "1")]);
    let counters = Counters {
        events: 7,
        alerts_new: 6,
        alerts_known: 5,
        dead_letters: 4,
        late: 3,
        skewed: 2,
    };
    file.commit(&Commit {
        changes: &changes,
        position: at(9),
        published_through: StreamSeq(11),
        counters,
        acknowledged: &[("ALERTS".to_owned(), 12)],
    })
    .unwrap();

    let survivor = volume.killed().open();
    let mut groups = survivor.groups().unwrap();
    groups.sort_by(|a, b| a.correlation.cmp(&b.correlation));
    assert_eq!(groups, changes.upserts);
    assert_eq!(survivor.position().unwrap(), at(9));
    assert_eq!(state(&survivor).published_through, StreamSeq(11));
    assert_eq!(survivor.counters().unwrap(), counters);
    assert_eq!(
        survivor.acknowledged().unwrap(),
        BTreeMap::from([("ALERTS".to_owned(), 12)])
    );
}

#[test]
fn a_commit_that_does_not_move_the_position_changes_nothing() {
    let volume = Volume::new();
    let mut file = volume.begun();
    commit_to(&mut file, 5, &upserts(vec![row("f", "k", "old")])).unwrap();
    let error = commit_to(&mut file, 5, &upserts(vec![row("f", "k", "new")])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "refused to advance the position in the state file: position 5 is not beyond position 5"
    );
    assert_eq!(file.groups().unwrap(), [row("f", "k", "old")]);
}

#[test]
fn a_commit_without_a_published_time_is_refused() {
    let volume = Volume::new();
    let mut file = volume.begun();
    let result = file.commit(&Commit {
        changes: &Changes::default(),
        position: Position {
            sequence: StreamSeq(3),
            published: None,
        },
        published_through: StreamSeq(3),
        counters: Counters::default(),
        acknowledged: &[],
    });
    assert!(matches!(result, Err(StateError::Refused { .. })));
}

#[test]
fn a_commit_before_begin_is_refused() {
    let volume = Volume::new();
    let result = commit_to(&mut volume.open(), 1, &Changes::default());
    assert!(matches!(result, Err(StateError::Refused { .. })));
}

#[test]
fn a_deleted_group_is_gone() {
    let volume = Volume::new();
    let mut file = volume.begun();
    let rows = vec![row("f", "alice", "1"), row("f", "bob", "1")];
    commit_to(&mut file, 1, &upserts(rows)).unwrap();
    let changes = Changes {
        deletes: vec![("f".to_owned(), b"alice".to_vec())],
        ..Changes::default()
    };
    commit_to(&mut file, 2, &changes).unwrap();
    assert_eq!(file.groups().unwrap(), [row("f", "bob", "1")]);
}

#[test]
fn equal_keys_of_two_correlations_are_two_groups() {
    let volume = Volume::new();
    let mut file = volume.begun();
    commit_to(&mut file, 1, &upserts(vec![row("f1", "k", "1")])).unwrap();
    commit_to(&mut file, 2, &upserts(vec![row("f2", "k", "2")])).unwrap();
    assert_eq!(file.groups().unwrap().len(), 2);
}

#[test]
fn the_fingerprint_of_a_correlation_without_groups_is_forgotten_at_the_next_begin() {
    let volume = Volume::new();
    let mut file = volume.begun();
    commit_to(&mut file, 1, &upserts(vec![row("f", "k", "1")])).unwrap();
    let changes = Changes {
        deletes: vec![("f".to_owned(), b"k".to_vec())],
        ..Changes::default()
    };
    commit_to(&mut file, 2, &changes).unwrap();
    file.begin(&identity(), &begin_at(at(2))).unwrap();
    let left: u32 = file
        .connection
        .query_row("SELECT count(*) FROM correlations", [], |row| row.get(0))
        .unwrap();
    assert_eq!(left, 0);
}

#[test]
fn what_is_published_is_raised_and_never_lowered() {
    let volume = Volume::new();
    let mut file = volume.begun();
    for published_through in [20, 10] {
        let begin = Begin {
            published_through: StreamSeq(published_through),
            ..begin_at(Position::before(StreamSeq(1)))
        };
        file.begin(&identity(), &begin).unwrap();
    }
    commit_to(&mut file, 5, &Changes::default()).unwrap();
    file.begin(&identity(), &begin_at(at(5))).unwrap();
    assert_eq!(state(&file).published_through, StreamSeq(20));
}

#[test]
fn pub_ack_sequences_are_never_lowered() {
    let volume = Volume::new();
    let mut file = volume.begun();
    for (position, acknowledged) in [(1, 30), (2, 20)] {
        file.commit(&Commit {
            changes: &Changes::default(),
            position: at(position),
            published_through: StreamSeq(0),
            counters: Counters::default(),
            acknowledged: &[("ALERTS".to_owned(), acknowledged)],
        })
        .unwrap();
    }
    assert_eq!(file.acknowledged().unwrap()["ALERTS"], 30);
}

fn gap(from: u64, to: u64, possible: bool) -> Gap {
    Gap {
        from: StreamSeq(from),
        to: StreamSeq(to),
        possible,
    }
}

/// What the file holds after these gaps, one after the other.
fn with_gaps(gaps: impl IntoIterator<Item = Gap>) -> Vec<Gap> {
    let volume = Volume::new();
    let mut file = volume.begun();
    for gap in gaps {
        let begin = Begin {
            gap: Some(gap),
            ..begin_at(Position::before(StreamSeq(1)))
        };
        file.begin(&identity(), &begin).unwrap();
    }
    assert_eq!(state(&file).gaps, file.gaps().unwrap());
    file.gaps().unwrap()
}

#[test]
fn gaps_with_events_between_them_are_kept_apart() {
    let gaps = [gap(1, 4, false), gap(6, 9, false)];
    assert_eq!(with_gaps(gaps.clone()), gaps);
}

#[test]
fn gaps_that_touch_are_one() {
    assert_eq!(
        with_gaps([gap(1, 4, true), gap(5, 9, true)]),
        [gap(1, 9, true)]
    );
}

#[test]
fn a_gap_that_is_known_to_be_one_does_not_swallow_one_that_may_be() {
    let gaps = [gap(1, 4, false), gap(5, 9, true)];
    assert_eq!(with_gaps(gaps.clone()), gaps);
}

#[test]
fn a_gap_that_is_reported_again_changes_nothing() {
    let [first, second] = [gap(1, 4, true), gap(5, 9, true)];
    assert_eq!(
        with_gaps([first, second.clone(), second]),
        [gap(1, 9, true)]
    );
}

#[test]
fn gaps_do_not_grow_without_end_and_the_newest_stay_exact() {
    let count = u64::from(meta::MAX_GAPS) + 50;
    let all = (0..count).map(|at| gap(10 * at + 1, 10 * at + 5, false));
    let kept = with_gaps(all);
    assert_eq!(kept.len(), usize::try_from(meta::MAX_GAPS).unwrap());
    assert_eq!(kept[0], gap(1, 505, true));
    assert_eq!(kept[1], gap(511, 515, false));
}

#[test]
fn another_pipelines_file_is_not_begun() {
    let volume = Volume::new();
    let mut file = volume.begun();
    let mut other = identity();
    other.owner.pipeline = PipelineKey::new("prod", "other").unwrap();
    let result = file.begin(&other, &begin_at(Position::before(StreamSeq(1))));
    assert!(matches!(result, Err(StateError::Refused { .. })));
}

#[test]
fn a_file_of_a_later_epoch_is_not_begun() {
    let volume = Volume::new();
    let mut file = volume.open();
    let begin = begin_at(Position::before(StreamSeq(1)));
    let later = Identity {
        epoch: Epoch(2),
        ..identity()
    };
    file.begin(&later, &begin).unwrap();
    let result = file.begin(&identity(), &begin);
    assert!(matches!(result, Err(StateError::Refused { .. })));
}

#[test]
fn a_file_at_another_position_is_not_begun() {
    let volume = Volume::new();
    let mut file = volume.begun();
    commit_to(&mut file, 5, &Changes::default()).unwrap();
    let result = file.begin(&identity(), &begin_at(at(6)));
    assert!(matches!(result, Err(StateError::Refused { .. })));
}

fn with_digest(engine_digest: &str) -> Identity {
    Identity {
        engine_digest: engine_digest.to_owned(),
        ..identity()
    }
}

fn starts(file: &StateFile) -> Vec<(u64, String)> {
    file.lineage()
        .unwrap()
        .into_iter()
        .map(|segment| (segment.start.0, segment.engine_digest))
        .collect()
}

#[test]
fn other_rules_are_a_segment_from_the_next_sequence_on() {
    let volume = Volume::new();
    let mut file = volume.begun();
    commit_to(&mut file, 5, &Changes::default()).unwrap();
    file.begin(&with_digest("d2"), &begin_at(at(5))).unwrap();
    assert_eq!(starts(&file), [(1, "d1".to_owned()), (6, "d2".to_owned())]);
}

#[test]
fn another_filter_is_a_segment() {
    let volume = Volume::new();
    let mut file = volume.begun();
    commit_to(&mut file, 5, &Changes::default()).unwrap();
    let narrower = Identity {
        filter: vec!["events.a".to_owned()],
        ..identity()
    };
    file.begin(&narrower, &begin_at(at(5))).unwrap();
    assert_eq!(file.lineage().unwrap().len(), 2);
}

#[test]
fn the_order_of_a_filter_is_no_difference() {
    let volume = Volume::new();
    let mut file = volume.begun();
    commit_to(&mut file, 5, &Changes::default()).unwrap();
    let mut reordered = identity();
    reordered.filter.reverse();
    file.begin(&reordered, &begin_at(at(5))).unwrap();
    assert_eq!(file.lineage().unwrap().len(), 1);
}

#[test]
fn rules_under_which_nothing_was_applied_leave_no_segment() {
    let volume = Volume::new();
    let mut file = volume.begun();
    commit_to(&mut file, 5, &Changes::default()).unwrap();
    file.begin(&with_digest("d2"), &begin_at(at(5))).unwrap();
    file.begin(&with_digest("d3"), &begin_at(at(5))).unwrap();
    assert_eq!(starts(&file), [(1, "d1".to_owned()), (6, "d3".to_owned())]);
    file.begin(&with_digest("d1"), &begin_at(at(5))).unwrap();
    assert_eq!(starts(&file), [(1, "d1".to_owned())]);
}

#[test]
fn starts_without_progress_are_counted() {
    let volume = Volume::new();
    let mut file = volume.begun();
    let tries = [(); 3].map(|()| file.note_start().unwrap());
    assert_eq!(tries, [1, 2, 3]);
}

#[test]
fn a_start_after_progress_is_the_first() {
    let volume = Volume::new();
    let mut file = volume.begun();
    file.note_start().unwrap();
    file.note_start().unwrap();
    commit_to(&mut file, 5, &Changes::default()).unwrap();
    assert_eq!(file.note_start().unwrap(), 1);
}

#[test]
fn deaths_with_exactly_one_event_in_flight_are_counted() {
    let volume = Volume::new();
    let mut file = volume.begun();
    let mut deaths = Vec::new();
    for _ in 0..3 {
        file.note_start().unwrap();
        deaths.push(file.set_in_flight(StreamSeq(7)).unwrap());
    }
    assert_eq!(deaths, [0, 1, 2]);
}

#[test]
fn deaths_with_an_earlier_event_in_flight_do_not_hide_those_of_a_later_one() {
    let volume = Volume::new();
    let mut file = volume.begun();
    file.set_in_flight(StreamSeq(8)).unwrap();
    file.note_start().unwrap();
    assert_eq!(file.set_in_flight(StreamSeq(7)).unwrap(), 0);
    assert_eq!(file.set_in_flight(StreamSeq(8)).unwrap(), 1);
}

#[test]
fn an_event_that_was_committed_is_no_longer_in_flight() {
    let volume = Volume::new();
    let mut file = volume.begun();
    file.set_in_flight(StreamSeq(7)).unwrap();
    commit_to(&mut file, 7, &Changes::default()).unwrap();
    file.note_start().unwrap();
    let deaths: u32 = file
        .connection
        .query_row("SELECT count(*) FROM deaths", [], |row| row.get(0))
        .unwrap();
    assert_eq!(deaths, 0);
}

#[test]
fn an_orderly_end_is_no_death() {
    let volume = Volume::new();
    let mut file = volume.begun();
    file.set_in_flight(StreamSeq(7)).unwrap();
    file.clear_in_flight().unwrap();
    file.note_start().unwrap();
    assert_eq!(file.set_in_flight(StreamSeq(7)).unwrap(), 0);
}

#[test]
fn a_file_in_use_is_refused_at_once() {
    let volume = Volume::new();
    let _first = volume.open();
    let result = StateFile::open(&volume.path());
    assert!(
        matches!(result, Err(OpenError::Locked { .. })),
        "{result:?}"
    );
}

#[test]
fn a_file_is_still_locked_after_a_second_open_was_refused() {
    let volume = Volume::new();
    let _first = volume.begun();
    for _ in 0..2 {
        let result = StateFile::open(&volume.path());
        assert!(
            matches!(result, Err(OpenError::Locked { .. })),
            "{result:?}"
        );
    }
}

#[test]
fn a_file_is_free_when_its_user_is_gone() {
    let volume = Volume::new();
    drop(volume.begun());
    assert!(StateFile::open(&volume.path()).is_ok());
}

/// A closed file of a few hundred pages.
fn large() -> Volume {
    let volume = Volume::new();
    let mut file = volume.begun();
    let rows = (0..2000).map(|i| row("f", &format!("user-{i}"), &"x".repeat(500)));
    commit_to(&mut file, 1, &upserts(rows.collect())).unwrap();
    drop(file);
    volume
}

fn assert_corrupt_and_untouched(volume: &Volume) {
    let before = fs::read(volume.path()).unwrap();
    let result = StateFile::open(&volume.path());
    assert!(matches!(result, Err(OpenError::Corrupt(_))), "{result:?}");
    assert!(fs::read(volume.path()).unwrap() == before, "it was changed");
}

#[test]
fn a_truncated_file_is_corrupt_and_left_as_it_is() {
    let length = fs::metadata(large().path()).unwrap().len();
    for keep in [1, 50, 100, 4096, length / 2, length - 1, length - 4096] {
        let volume = large();
        let bytes = fs::read(volume.path()).unwrap();
        fs::write(volume.path(), &bytes[..usize::try_from(keep).unwrap()]).unwrap();
        assert_corrupt_and_untouched(&volume);
    }
}

#[test]
fn a_file_with_a_damaged_header_is_corrupt_and_left_as_it_is() {
    let volume = large();
    let mut bytes = fs::read(volume.path()).unwrap();
    bytes[..16].fill(b'#');
    fs::write(volume.path(), bytes).unwrap();
    assert_corrupt_and_untouched(&volume);
}

#[test]
fn a_file_with_a_page_of_zeros_is_corrupt_and_left_as_it_is() {
    let volume = large();
    let mut bytes = fs::read(volume.path()).unwrap();
    let middle = bytes.len() / 2 / 4096 * 4096;
    bytes[middle..middle + 4096].fill(0);
    fs::write(volume.path(), bytes).unwrap();
    assert_corrupt_and_untouched(&volume);
}

#[test]
fn a_file_that_lacks_a_table_is_corrupt() {
    let volume = large();
    let connection = Connection::open(volume.path()).unwrap();
    connection.execute_batch("DROP TABLE groups").unwrap();
    drop(connection);
    let result = StateFile::open(&volume.path());
    assert!(
        matches!(&result, Err(OpenError::Corrupt(why)) if why == "table groups is missing"),
        "{result:?}"
    );
}

#[test]
fn a_database_of_another_program_is_corrupt_and_left_as_it_is() {
    let volume = Volume::new();
    let connection = Connection::open(volume.path()).unwrap();
    connection
        .execute_batch("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)")
        .unwrap();
    drop(connection);
    assert_corrupt_and_untouched(&volume);
}

#[test]
fn a_wal_without_its_file_is_corrupt_and_kept() {
    let volume = Volume::new();
    let mut file = volume.begun();
    commit_to(&mut file, 1, &Changes::default()).unwrap();
    let left = volume.killed();
    fs::remove_file(left.path()).unwrap();
    let result = StateFile::open(&left.path());
    assert!(matches!(result, Err(OpenError::Corrupt(_))), "{result:?}");
    assert!(left.wal().exists());
    assert!(!left.path().exists());
}

#[test]
fn a_file_of_a_newer_schema_is_refused_and_left_as_it_is() {
    let volume = large();
    let connection = Connection::open(volume.path()).unwrap();
    connection.pragma_update(None, "user_version", 7).unwrap();
    drop(connection);
    let before = fs::read(volume.path()).unwrap();
    let result = StateFile::open(&volume.path());
    assert!(
        matches!(
            result,
            Err(OpenError::NewerSchema {
                found: 7,
                supported: 2
            })
        ),
        "{result:?}"
    );
    assert!(fs::read(volume.path()).unwrap() == before, "it was changed");
}

#[test]
fn a_directory_that_is_missing_is_an_error_of_the_file_system() {
    let result = StateFile::open(Path::new("/nonexistent/state.db"));
    assert!(matches!(result, Err(OpenError::Io { .. })), "{result:?}");
}

#[test]
fn a_commit_without_room_changes_nothing_and_succeeds_when_there_is_room() {
    let volume = Volume::new();
    let mut file = volume.begun();
    commit_to(&mut file, 1, &upserts(vec![row("f", "k", "old")])).unwrap();
    let limit_pages = |file: &StateFile, pages: u32| {
        file.connection
            .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
            .unwrap();
    };
    limit_pages(&file, 1);
    let changes = upserts(vec![
        row("f", "k", "new"),
        row("f", "large", &"x".repeat(100_000)),
    ]);

    let error = commit_to(&mut file, 2, &changes).unwrap_err();
    assert!(matches!(error, StateError::Full { .. }), "{error:?}");
    assert_eq!(file.groups().unwrap(), [row("f", "k", "old")]);
    assert_eq!(file.position().unwrap(), at(1));

    limit_pages(&file, 1_000_000);
    commit_to(&mut file, 2, &changes).unwrap();
    assert_eq!(file.groups().unwrap(), changes.upserts);
}

#[test]
fn a_row_that_does_not_read_back_is_corrupt() {
    let volume = Volume::new();
    let file = volume.begun();
    file.connection
        .execute("UPDATE meta SET stream_created = 'yesterday'", [])
        .unwrap();
    let result = file.facts();
    assert!(
        matches!(result, Err(StateError::Corrupt { .. })),
        "{result:?}"
    );
}

#[test]
fn a_digest_covers_the_commits_in_the_wal_and_changes_neither_file() {
    let volume = Volume::new();
    let mut file = volume.begun();
    commit_to(&mut file, 5, &upserts(vec![row("f", "k", "1")])).unwrap();
    let left = volume.killed();
    let bytes = || {
        (
            fs::read(left.path()).unwrap(),
            fs::read(left.wal()).unwrap(),
        )
    };
    let before = bytes();

    let digest = digest(&left.path()).unwrap();
    assert_eq!((digest.position, digest.groups), (at(5), 1));
    assert_eq!(digest.lineage, file.lineage().unwrap());
    assert!(bytes() == before, "digesting changed the file");
}

#[test]
fn a_digest_leaves_out_rules_under_which_nothing_was_applied() {
    let volume = Volume::new();
    let mut file = volume.begun();
    commit_to(&mut file, 5, &Changes::default()).unwrap();
    let applied = file.lineage().unwrap();
    file.begin(&with_digest("d2"), &begin_at(at(5))).unwrap();
    drop(file);
    assert_eq!(digest(&volume.path()).unwrap().lineage, applied);
}

#[test]
fn a_digest_of_a_file_in_use_says_so() {
    let volume = Volume::new();
    let _file = volume.begun();
    let result = digest(&volume.path());
    assert!(
        matches!(result, Err(DigestError::Open(OpenError::Locked { .. }))),
        "{result:?}"
    );
}

#[test]
fn a_digest_of_a_closed_file_changes_nothing() {
    let volume = large();
    let before = fs::read(volume.path()).unwrap();
    assert_eq!(digest(&volume.path()).unwrap().groups, 2000);
    assert!(fs::read(volume.path()).unwrap() == before, "it was changed");
    assert!(StateFile::open(&volume.path()).is_ok());
}

#[test]
fn a_missing_file_has_no_digest_and_is_not_made() {
    let volume = Volume::new();
    assert!(digest(&volume.path()).is_err());
    assert!(!volume.path().exists());
}

#[test]
fn a_file_that_was_never_begun_has_no_digest() {
    let volume = Volume::new();
    drop(volume.open());
    assert!(matches!(digest(&volume.path()), Err(DigestError::Empty(_))));
}
