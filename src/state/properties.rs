//! Random histories of one file against a map in memory. A kill is a copy of what is on the disk,
//! with the WAL cut anywhere behind the last commit that returned.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;
use tempfile::TempDir;

use super::tests::{at, begin_at, identity, memory_dir, row};
use super::*;

#[derive(Clone, Debug)]
enum Step {
    /// Groups set (or, with no state, deleted) and how far the position moves.
    Commit(Vec<(u8, u8, Option<u8>)>, u64),
    /// The process ends in order.
    Close,
    /// The process is killed; this share of what was written of a next commit is on the disk.
    Kill(f64),
}

type Groups = BTreeMap<(u8, u8), u8>;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let change = (0..3u8, 0..6u8, proptest::option::of(any::<u8>()));
    let step = prop_oneof![
        6 => (vec(change, 0..8), 1..50u64).prop_map(|(changes, by)| Step::Commit(changes, by)),
        1 => Just(Step::Close),
        2 => (0.0..1.0).prop_map(Step::Kill),
    ];
    vec(step, 1..40)
}

fn apply(groups: &mut Groups, changes: &[(u8, u8, Option<u8>)]) -> Changes {
    let mut changed = BTreeMap::new();
    for &(correlation, key, state) in changes {
        changed.insert((correlation, key), state);
    }
    let mut out = Changes::default();
    for ((correlation, key), state) in changed {
        let group = group(correlation, key, state.unwrap_or_default());
        if let Some(state) = state {
            groups.insert((correlation, key), state);
            out.upserts.push(group);
        } else {
            groups.remove(&(correlation, key));
            out.deletes.push((group.correlation, group.key));
        }
    }
    out
}

fn group(correlation: u8, key: u8, state: u8) -> GroupRow {
    row(
        &format!("f{correlation}"),
        &format!("k{key}"),
        &format!("{state}").repeat(1 + usize::from(state) * 8),
    )
}

fn sorted(file: &StateFile) -> Vec<GroupRow> {
    let mut groups = file.groups().unwrap();
    groups.sort_by(|a, b| (&a.correlation, &a.key).cmp(&(&b.correlation, &b.key)));
    groups
}

fn write(file: &mut StateFile, position: u64, changes: &Changes) {
    file.commit(&Commit {
        changes,
        position: at(position),
        published_through: StreamSeq(position),
        counters: Counters {
            events: position,
            ..Counters::default()
        },
        acknowledged: &[("ALERTS".to_owned(), position)],
    })
    .unwrap();
}

fn wal_length(dir: &Path) -> u64 {
    fs::metadata(dir.join("db-wal")).map_or(0, |metadata| metadata.len())
}

/// What is on the disk when the process is killed within a commit.
fn kill_within_a_commit(dir: &TempDir, file: &mut StateFile, position: u64, share: f64) -> TempDir {
    let returned = wal_length(dir.path());
    let everything = Changes {
        upserts: (0..6).map(|key| group(0, key, 255)).collect(),
        ..Changes::default()
    };
    write(file, position + 1, &everything);
    let copy = memory_dir();
    for name in ["db", "db-wal"] {
        fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
    }
    let torn = wal_length(dir.path()) - returned;
    assert!(torn > 0, "the commit is in the WAL");
    let wal = OpenOptions::new()
        .write(true)
        .open(copy.path().join("db-wal"))
        .unwrap();
    wal.set_len(returned + (torn as f64 * share) as u64)
        .unwrap();
    copy
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_reopened_file_holds_exactly_the_commits_that_returned(steps in steps()) {
        let mut dir = memory_dir();
        let mut file = StateFile::open(&dir.path().join("db")).unwrap();
        file.begin(&identity(), &begin_at(Position::before(StreamSeq(1)))).unwrap();
        let mut groups = Groups::new();
        let mut position = 0;
        for step in steps {
            match step {
                Step::Commit(changes, by) => {
                    position += by;
                    write(&mut file, position, &apply(&mut groups, &changes));
                }
                Step::Close => {
                    drop(file);
                    file = StateFile::open(&dir.path().join("db")).unwrap();
                }
                Step::Kill(share) => {
                    dir = kill_within_a_commit(&dir, &mut file, position, share);
                    file = StateFile::open(&dir.path().join("db")).unwrap();
                }
            }
            let expected: Vec<_> = groups.iter().map(|(&(c, k), &s)| group(c, k, s)).collect();
            prop_assert_eq!(sorted(&file), expected);
            prop_assert_eq!(file.position().unwrap().sequence, StreamSeq(position));
            prop_assert_eq!(file.counters().unwrap().events, position);
            let acknowledged = file.acknowledged().unwrap().get("ALERTS").copied();
            prop_assert_eq!(acknowledged, (position > 0).then_some(position));
        }
    }
}
