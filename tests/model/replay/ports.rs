//! The ports of the executor over the model: each operation can be where the operator dies, before its
//! effect and after it.

use std::sync::atomic::{AtomicU32, Ordering};

use lookback::operator::pipeline::replay::ports::{Claim, Outcome, Ports, Recorded, TakeBack};
use lookback_protocol::checkpoint::{self, Checkpoint, Counters, Phase};
use lookback_protocol::config::Cursor;
use lookback_protocol::consumer::ConsumerMetadata;
use lookback_protocol::names::Owner;
use lookback_protocol::position::{Epoch, Position, StreamSeq};
use lookback_protocol::replay::ledger::is_applied;
use lookback_protocol::replay::machine::{Workers, Written};
use lookback_protocol::replay::record::ReplayPhase;

use super::api::{Api, Objects, StatefulSet, look};
use crate::sim::{Faults, State, Way, World};

/// The outside of one round.
pub(crate) struct Outside {
    pub(crate) world: World,
    pub(crate) api: Api,
    /// Whose calls these are.
    pub(crate) process: u64,
    pub(crate) owner: Owner,
    /// The versions the decision was taken from.
    pub(crate) version: u64,
    pub(crate) set_version: Option<u64>,
    /// How often it may still ask whether it leads before the answer is no.
    pub(crate) leads: AtomicU32,
}

impl Outside {
    fn note(&self, what: impl FnOnce() -> String) {
        let process = self.process;
        self.world.note(|| format!("o{process} {}", what()));
    }

    /// One request to NATS; nothing when it or its answer is lost.
    async fn nats<T>(&self, carry_out: impl FnOnce(&mut State, &mut Objects) -> T) -> Option<T> {
        let way = self.world.travel(self.process, lost).await;
        if way == Way::Lost {
            return None;
        }
        let answer = look(&self.api, |objects| {
            carry_out(&mut self.world.lock(), objects)
        });
        self.world.travel_back(self.process, way).await;
        (way == Way::Fine).then_some(answer)
    }

    /// One write to the API server.
    async fn kubernetes<T>(&self, carry_out: impl FnOnce(&mut Objects) -> T) -> T {
        self.world.crash_point(self.process).await;
        let answer = look(&self.api, carry_out);
        self.world.crash_point(self.process).await;
        answer
    }
}

fn lost(faults: &Faults) -> (u64, u64) {
    (faults.checkpoint_lost, faults.checkpoint_unanswered)
}

pub(crate) fn standing_checkpoint(state: &State) -> Option<(Checkpoint, u64)> {
    let (body, revision) = state.checkpoint.value.as_ref()?;
    let checkpoint = serde_json::from_slice(body).expect("only we write it");
    Some((checkpoint, *revision))
}

impl Ports for Outside {
    type Applied = ();
    type Error = &'static str;

    fn lead(&self) -> Result<(), Self::Error> {
        let left = |left: u32| left.checked_sub(1);
        let held = self
            .leads
            .try_update(Ordering::Relaxed, Ordering::Relaxed, left);
        held.map(|_| ()).map_err(|_| "another replica leads")
    }

    async fn record(&mut self, written: &Written) -> Result<Recorded, Self::Error> {
        let version = self.version;
        let recorded = self
            .kubernetes(|objects| {
                if objects.version != version {
                    return Recorded::Conflict;
                }
                objects.record(written);
                Recorded::Written
            })
            .await;
        self.note(|| {
            let record = written.record.as_ref();
            let what = record.map(|it| {
                (
                    it.request.id.clone(),
                    it.phase,
                    it.epoch,
                    it.way_back.clone(),
                )
            });
            format!("record {recorded:?} epoch {:?} {what:?}", written.epoch)
        });
        Ok(recorded)
    }

    async fn claim(&mut self, claim: &Claim) -> Result<Outcome, Self::Error> {
        let ours = (claim.epoch, claim.fingerprint.clone());
        let held = self
            .nats(|_, objects| {
                let recorded = is_recorded(objects, claim.epoch, ReplayPhase::Fencing);
                objects.witness.acted_first |= !recorded;
                let entry = objects.claims.entry(claim.id.clone());
                entry.or_insert_with(|| ours.clone()).clone()
            })
            .await;
        self.note(|| format!("claim {} {ours:?} {held:?}", claim.id));
        Ok(match held {
            None => Outcome::Unreachable,
            Some(held) if held == ours => Outcome::Done,
            Some(_) => Outcome::Overtaken,
        })
    }

    async fn take_back(&mut self, take_back: &TakeBack) -> Result<Outcome, Self::Error> {
        let TakeBack { from, to, resumes } = *take_back;
        let Some(found) = self.nats(|state, _| standing_checkpoint(state)).await else {
            return Ok(Outcome::Unreachable);
        };
        let (stands, revision) = match found {
            Some((stands, _)) if stands.epoch == to => return Ok(Outcome::Done),
            Some((stands, _)) if stands.epoch >= from => return Ok(Outcome::Overtaken),
            Some((stands, revision)) => (stands, Some(revision)),
            None => (self.never_written(resumes), None),
        };
        let taken = Checkpoint {
            incarnation: format!("operator-{}", self.process),
            epoch: to,
            phase: Phase::TakenBack,
            request: None,
            resumes: Some(resumes),
            held: None,
            ..stands
        };
        let body = serde_json::to_vec(&taken).expect("a checkpoint is JSON");
        let written = self
            .nats(|state, _| state.checkpoint.write(body, revision))
            .await;
        self.note(|| format!("take back {from} to {to} resumes {resumes}: {written:?}"));
        Ok(match written {
            None => Outcome::Unreachable,
            Some(Some(_)) => Outcome::Done,
            Some(None) => Outcome::Overtaken,
        })
    }

    async fn delete_consumer(&mut self, epoch: Epoch) -> Result<Outcome, Self::Error> {
        let deleted = self
            .nats(|state, objects| objects.delete_consumer(epoch, &mut state.server))
            .await;
        self.note(|| format!("delete consumer {epoch} {deleted:?}"));
        Ok(deleted.map_or(Outcome::Unreachable, |()| Outcome::Done))
    }

    async fn apply(&mut self, workers: &Workers) -> Result<(), Self::Error> {
        let (epoch, cursor, runs) = match workers {
            Workers::Unchanged => return Ok(()),
            Workers::Stop { epoch, cursor, .. } => (*epoch, cursor, false),
            Workers::Run { epoch, cursor, .. } => (*epoch, cursor, true),
        };
        let owner = self.owner.clone();
        let ensured = self
            .nats(|state, objects| ensure_consumer(state, objects, &owner, epoch, cursor))
            .await;
        if ensured.is_none() {
            return Err("NATS does not answer");
        }
        self.lead()?;
        let found = self.set_version;
        let applied = self
            .kubernetes(|objects| {
                let stands = objects.set.as_ref().map(|set| set.version);
                if stands != found {
                    return Err("the StatefulSet has another version");
                }
                let phase = if runs {
                    ReplayPhase::RollingOut
                } else {
                    ReplayPhase::CursorCreated
                };
                objects.witness.acted_first |= !is_recorded(objects, epoch, phase);
                apply_set(objects, epoch, cursor, runs);
                Ok(())
            })
            .await;
        self.note(|| format!("apply epoch {epoch} runs {runs} {applied:?}"));
        applied
    }
}

impl Outside {
    fn never_written(&self, epoch: Epoch) -> Checkpoint {
        let stream = self
            .world
            .look(|state| state.server.stream.identity().clone());
        Checkpoint {
            v: checkpoint::VERSION,
            incarnation: String::new(),
            owner: self.owner.clone(),
            epoch,
            phase: Phase::TakenBack,
            stream,
            position: Position::before(StreamSeq(1)),
            published_through: StreamSeq(0),
            engine_digest: String::new(),
            groups: 0,
            gaps: Vec::new(),
            counters: Counters::default(),
            request: None,
            applied: None,
            resumes: None,
            held: None,
            time: self.world.clock(),
        }
    }
}

fn ensure_consumer(
    state: &mut State,
    objects: &mut Objects,
    owner: &Owner,
    epoch: Epoch,
    cursor: &Cursor,
) {
    let standing = standing_checkpoint(state).map(|(checkpoint, _)| checkpoint);
    let start = match cursor {
        Cursor::Rewind(rewind) => rewind.first(),
        Cursor::Resume { .. } => standing.as_ref().map_or(StreamSeq(1), |checkpoint| {
            checkpoint.position.sequence.next()
        }),
    };
    let made = ConsumerMetadata {
        cursor: cursor.clone(),
        ..ConsumerMetadata::new(owner, epoch, start)
    };
    let metadata = objects.consumers.entry(epoch).or_insert(made);
    metadata.applied |= standing.is_some_and(|checkpoint| is_applied(&checkpoint, epoch));
    objects.tell_applied(&mut state.server);
    // A pipeline made again whose consumer is gone knows no more than that the file goes on.
    let adopted = *cursor == Cursor::Resume { of: Some(epoch) };
    let before = objects
        .witness
        .epochs
        .entry(epoch)
        .or_insert_with(|| cursor.clone());
    if before != cursor && !adopted {
        state.violations.push(format!(
            "epoch {epoch} was {before:?} and is used for {cursor:?}"
        ));
    }
}

/// Whether the phase that is written permits something of `epoch` from `phase` on.
fn is_recorded(objects: &Objects, epoch: Epoch, phase: ReplayPhase) -> bool {
    let record = objects.written.unfinished();
    objects.written.epoch == Some(epoch)
        || record.is_some_and(|it| it.epoch == Some(epoch) && it.phase >= phase)
}

fn apply_set(objects: &mut Objects, epoch: Epoch, cursor: &Cursor, runs: bool) {
    let (version, same) = match &objects.set {
        None => (0, false),
        Some(set) => {
            let same = set.epoch == epoch && set.cursor == *cursor && set.runs == runs;
            (set.version, same)
        }
    };
    if !same {
        objects.set = Some(StatefulSet {
            version: version + 1,
            epoch,
            cursor: cursor.clone(),
            runs,
            observed: false,
        });
    }
}
