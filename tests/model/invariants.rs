//! The contract, checked from outside: at every checkpoint and ack, and whole when all is quiet.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use lookback::state;
use lookback::worker::ports::AckToken;
use lookback_protocol::checkpoint::{Checkpoint, Phase};
use lookback_protocol::config::WorkerConfig;
use serde_json::{Value, json};

use crate::oracle;
use crate::sim::store::Store;
use crate::sim::stream::Stream;
use crate::sim::{World, log};

pub(crate) const STATE_FILE: &str = "state.db";

/// I2: a checkpoint never says more than the state file of the process that writes it. One that
/// announces a request says where an empty file will stand after it.
pub(crate) fn checkpoint_is_not_ahead(world: &World, process: u64, checkpoint: &Checkpoint) {
    let claimed = checkpoint.position.sequence.0;
    let held = position_of(world, process);
    let volume = world.look(|state| state.processes[&process].volume.clone());
    let announces = checkpoint.phase == Phase::Applying && !has_state(&volume);
    if claimed > held && !announces {
        world.violation(format!(
            "I2: worker {process} checkpoints {claimed} while its state file holds {held}"
        ));
    }
}

/// I2: what is acknowledged is in the state file and in the checkpoint. And a reply from before the
/// last reset is never used: it could freeze the floor.
pub(crate) fn ack_is_covered(world: &World, process: u64, token: &AckToken) {
    let (pair, resets) = log::parse(token);
    let acknowledged = pair.stream;
    let (checkpointed, positioned) = world.look(|state| {
        let process = &state.processes[&process];
        (process.checkpointed, process.resets)
    });
    let held = position_of(world, process);
    if acknowledged > held {
        world.violation(format!(
            "I2: worker {process} acknowledges {acknowledged} while its state file holds {held}"
        ));
    }
    if acknowledged > checkpointed {
        world.violation(format!(
            "I2: worker {process} acknowledges {acknowledged} before the checkpoint that covers it ({checkpointed})"
        ));
    }
    if resets < positioned {
        world.violation(format!(
            "worker {process} acknowledges with a reply from before its last reset ({})",
            token.0
        ));
    }
}

/// I2: a reset moves the ack floor, so it never goes beyond what the state file holds.
pub(crate) fn reset_is_covered(world: &World, process: u64, next: u64) {
    let held = position_of(world, process);
    if next > held + 1 {
        world.violation(format!(
            "I2: worker {process} resets the consumer to {next} while its state file holds {held}"
        ));
    }
}

/// The position in the state file of `process`, read from a copy because the file is locked.
fn position_of(world: &World, process: u64) -> u64 {
    let volume = world.look(|state| state.processes[&process].volume.clone());
    position_in(&volume)
}

/// Whether a worker has begun in the state file in `volume`.
pub(crate) fn has_state(volume: &Path) -> bool {
    digest_of(volume).is_some()
}

/// The position in the state file in `volume`; 0 when there is none.
pub(crate) fn position_in(volume: &Path) -> u64 {
    digest_of(volume).map_or(0, |file| file.position.sequence.0)
}

fn digest_of(volume: &Path) -> Option<state::FileDigest> {
    let copy = tempfile::tempdir_in(
        volume
            .parent()
            .expect("a volume is in the case's directory"),
    )
    .expect("a directory for a copy");
    copy_volume(volume, copy.path());
    state::digest(&copy.path().join(STATE_FILE)).ok()
}

/// Copies a state file and its WAL, as a kill of the process would leave them.
pub(crate) fn copy_volume(from: &Path, to: &Path) {
    for file in [STATE_FILE.to_owned(), format!("{STATE_FILE}-wal")] {
        let source: PathBuf = from.join(&file);
        if source.exists() {
            std::fs::copy(source, to.join(file)).expect("copying a state file");
        }
    }
}

/// What a case ended with.
pub(crate) struct End<'a> {
    pub(crate) config: &'a WorkerConfig,
    pub(crate) log: &'a Stream,
    /// What expired unread, where that is known.
    pub(crate) unread: Option<&'a Vec<RangeInclusive<u64>>>,
    pub(crate) alerts: &'a Store,
    pub(crate) dead_letters: &'a Store,
    pub(crate) checkpoint: &'a Checkpoint,
    /// The directory of the state file, which nobody has open.
    pub(crate) volume: &'a Path,
}

/// I1, I3 and I5 against the oracle; the first breach in words.
pub(crate) fn check_end(end: &End<'_>) -> Result<(), String> {
    let file = state::digest(&end.volume.join(STATE_FILE)).map_err(|error| error.to_string())?;
    let position = file.position.sequence.0;
    let gaps = end.checkpoint.gaps.iter();
    let reported: Vec<_> = gaps.map(|it| it.from.0..=it.to.0).collect();
    check_gaps(end, &reported)?;
    let expected = oracle::run(end.config, &end.log.history(), position, &reported);
    if file.state_digest != expected.state_digest {
        return Err(format!(
            "I1: the state file at {position} has {} groups and another digest than the oracle",
            file.groups
        ));
    }
    if end.checkpoint.position.sequence.0 != position {
        return Err(format!(
            "I2: drained at {position}, but the checkpoint says {}",
            end.checkpoint.position.sequence
        ));
    }
    let counted = end.checkpoint.counters;
    if counted.events != expected.events {
        return Err(format!(
            "I1: {} events were applied, the oracle applied {}",
            counted.events, expected.events
        ));
    }
    if counted.dead_letters != expected.dead_letters.len() as u64 {
        return Err(format!(
            "I5: {} dead letters were counted, the oracle has {}",
            counted.dead_letters,
            expected.dead_letters.len()
        ));
    }
    // What was stored before a crash, of events that expired before they were read again, stays.
    let overtaken = if end.unread.is_none() {
        reported
    } else {
        Vec::new()
    };
    same(
        "I3: alert",
        end.alerts,
        oracle::stored_alert,
        &expected.alerts,
        &overtaken,
    )?;
    same(
        "I5: dead letter",
        end.dead_letters,
        letter,
        &expected.dead_letters,
        &overtaken,
    )?;
    Ok(())
}

/// I5: what is reported as expired unread has expired, and where it is known, it is exactly that.
fn check_gaps(end: &End<'_>, reported: &[RangeInclusive<u64>]) -> Result<(), String> {
    let kept = |sequence: &u64| end.log.get(*sequence).is_some();
    if let Some(sequence) = reported.iter().cloned().flatten().find(kept) {
        return Err(format!(
            "I5: {sequence} is reported as expired and still there"
        ));
    }
    match end.unread {
        Some(unread) if unread != reported => Err(format!(
            "I5: {unread:?} expired unread, reported were {reported:?}"
        )),
        _ => Ok(()),
    }
}

/// The event an alert or a dead letter is about.
fn trigger(body: &Value) -> u64 {
    let last = body["sequences"].as_array().and_then(|it| it.last());
    let sequence = last.unwrap_or_else(|| &body["sequence"]);
    sequence.as_u64().unwrap_or_default()
}

fn letter(body: &Value) -> Value {
    json!({"sequence": body["sequence"], "payload": body["payload"]})
}

fn same(
    what: &str,
    store: &Store,
    shape: fn(&Value) -> Value,
    expected: &BTreeMap<String, Value>,
    overtaken: &[RangeInclusive<u64>],
) -> Result<(), String> {
    let mut seen = BTreeMap::new();
    for (id, record) in store.all() {
        if seen.insert(id.to_owned(), shape(&record.body)).is_some() {
            return Err(format!("{what} {id} is stored twice: {}", record.body));
        }
    }
    for (id, body) in &seen {
        match expected.get(id) {
            None if overtaken.iter().any(|range| range.contains(&trigger(body))) => {}
            None => return Err(format!("{what} {id} is not the oracle's: {body}")),
            Some(it) if it != body => {
                return Err(format!("{what} {id} is {body}, the oracle's is {it}"));
            }
            Some(_) => {}
        }
    }
    match expected.iter().find(|(id, _)| !seen.contains_key(*id)) {
        Some((id, body)) => Err(format!("{what} {id} is missing: {body}")),
        None => Ok(()),
    }
}
