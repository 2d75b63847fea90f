//! A pipeline small enough to be run thousands of times: the operator, its workers and what they write
//! to, each stopped at any place.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use proptest::collection::vec;
use proptest::prelude::*;

use super::fixture::{LIMITS, checkpoint, plan, request, running};
use crate::checkpoint::{AppliedRequest, Checkpoint, Phase, RequestOutcome, RequestProgress};
use crate::config::{Cursor, Rewind};
use crate::consumer::ConsumerMetadata;
use crate::names::PipelineKey;
use crate::position::{Epoch, StreamSeq};
use crate::replay::ledger::{Ledgers, NatsLedgers, is_applied};
use crate::replay::machine::{
    Asks, Check, Claim, CursorView, Decision, Effect, Facts, Planned, Step, Workers, Written, asks,
    decide,
};
use crate::replay::record::ReplayPhase;
use crate::replay::request::{ReplayRequest, RequestId};

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// The operator looks and does this many of the things it decided before it dies.
    Operator(usize),
    /// Pods follow their StatefulSet.
    Kubelet,
    /// The worker goes on to its next write.
    Worker,
    /// The worker is killed and starts again.
    WorkerDies,
    /// This block stands in the spec; 0 is none.
    Want(u64),
    /// Half an hour passes.
    Late,
    Suspend(bool),
    /// The object is deleted and created again; everything outside of it stays.
    Recreate,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => (0..4usize).prop_map(Event::Operator),
        6 => Just(Event::Kubelet),
        8 => Just(Event::Worker),
        2 => Just(Event::WorkerDies),
        2 => (0..4u64).prop_map(Event::Want),
        1 => Just(Event::Late),
        1 => any::<bool>().prop_map(Event::Suspend),
        1 => Just(Event::Recreate),
    ]
}

/// A worker between two writes.
#[derive(Clone, Debug, PartialEq)]
struct Pod {
    epoch: Epoch,
    cursor: Cursor,
    at: At,
}

#[derive(Clone, Debug, PartialEq)]
enum At {
    /// It reads the checkpoint.
    Start,
    /// It has read this and is about to replace it.
    Raise(Option<Box<Checkpoint>>),
    /// It is about to move the file.
    Apply,
    /// It is about to say so.
    Tell,
    Runs,
}

struct World {
    now: Timestamp,
    key: PipelineKey,
    wanted: Option<ReplayRequest>,
    suspended: bool,
    written: Written,
    claims: BTreeMap<RequestId, (Epoch, String)>,
    consumers: BTreeMap<Epoch, ConsumerMetadata>,
    checkpoint: Option<Checkpoint>,
    workload: Option<(Epoch, Cursor, bool)>,
    pod: Option<Pod>,
    file: Option<Epoch>,
    /// What the state file was moved by, in order.
    applied: Vec<Rewind>,
    /// What each epoch was ever made to do.
    epochs: BTreeMap<Epoch, Cursor>,
}

impl World {
    fn new() -> Self {
        Self {
            now: Timestamp::UNIX_EPOCH,
            key: PipelineKey::new("prod", "edr").unwrap(),
            wanted: None,
            suspended: false,
            written: Written::default(),
            claims: BTreeMap::new(),
            consumers: BTreeMap::new(),
            checkpoint: None,
            workload: None,
            pod: None,
            file: None,
            applied: Vec::new(),
            epochs: BTreeMap::new(),
        }
    }

    fn happen(&mut self, event: Event) {
        self.now += SignedDuration::from_secs(61);
        match event {
            Event::Operator(steps) => self.operate(steps),
            Event::Kubelet => self.kubelet(),
            Event::Worker => self.worker(),
            Event::WorkerDies => {
                if let Some(pod) = &mut self.pod {
                    pod.at = At::Start;
                }
            }
            Event::Want(0) => self.wanted = None,
            Event::Want(n) => self.wanted = Some(request(&format!("r{n}"), n)),
            Event::Late => self.now += SignedDuration::from_mins(30),
            Event::Suspend(suspended) => self.suspended = suspended,
            Event::Recreate => {
                self.written = Written::default();
                self.workload = None;
            }
        }
    }

    fn decide(&self) -> Decision {
        let consumers: Vec<_> = self.consumers.values().cloned().collect();
        let epochs: Vec<_> = self.consumers.keys().copied().collect();
        let owner = checkpoint(1, None).owner;
        let running_in = self.workload.as_ref();
        let ledgers = Ledgers {
            me: &owner,
            adopt: None,
            written: &self.written,
            running: running_in.map(|(epoch, cursor, _)| (*epoch, cursor)),
            nats: Some(NatsLedgers {
                consumers: &consumers,
                checkpoint: self.checkpoint.as_ref(),
            }),
        };
        let plan = plan();
        let asks = asks(&self.written, self.suspended);
        let replicas = i32::from(running_in.is_some_and(|(.., runs)| *runs));
        let record = self.written.unfinished();
        let consumer = record.and_then(|record| self.consumers.get(&record.epoch?));
        decide(&Facts {
            now: self.now,
            limits: LIMITS,
            key: &self.key,
            wanted: self.wanted.as_ref(),
            written: &self.written,
            standing: ledgers.reconcile(),
            highest: ledgers.highest(),
            suspended: self.suspended,
            approved: None,
            plan: match asks {
                Asks::Plan => Planned::Done(&plan),
                Asks::Check | Asks::Nothing => Planned::NotAsked,
            },
            check: match asks {
                Asks::Check => Check::Holds,
                Asks::Plan | Asks::Nothing => Check::Unknown,
            },
            claim: self.claim(),
            workload: running(replicas, usize::from(self.pod.is_some())),
            consumer: consumer.map(|_| CursorView {
                pending: 0,
                ack_pending: 0,
                filter_ok: true,
                bound_ok: true,
            }),
            consumers: Some(&epochs),
            checkpoint: self.checkpoint.as_ref(),
        })
    }

    fn claim(&self) -> Claim<'_> {
        let record = self.written.unfinished();
        let Some(request) = record
            .map(|record| &record.request)
            .or(self.wanted.as_ref())
        else {
            return Claim::Unknown;
        };
        match self.claims.get(&request.id) {
            None => Claim::Free,
            Some((epoch, fingerprint))
                if record.and_then(|record| record.epoch) == Some(*epoch)
                    && *fingerprint == request.fingerprint =>
            {
                Claim::Ours
            }
            Some((epoch, fingerprint)) => Claim::Used {
                epoch: *epoch,
                fingerprint,
            },
        }
    }

    fn operate(&mut self, steps: usize) {
        let actions = match self.decide().step {
            Step::Write(written) if steps > 0 => {
                self.written = *written;
                return;
            }
            Step::Write(_) => return,
            Step::Act(actions) => actions,
        };
        let effects = actions.effects.len();
        for effect in actions.effects.into_iter().take(steps) {
            self.effect(effect);
        }
        if let Some(left) = steps.checked_sub(effects) {
            self.apply(actions.workers, left);
        }
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Claim {
                id,
                fingerprint,
                epoch,
                ..
            } => {
                self.claims.entry(id).or_insert((epoch, fingerprint));
            }
            Effect::TakeBack { from, to, resumes } => {
                let mut taken = self
                    .checkpoint
                    .clone()
                    .unwrap_or_else(|| checkpoint(0, None));
                if taken.epoch < from {
                    taken.epoch = to;
                    taken.phase = Phase::TakenBack;
                    taken.resumes = Some(resumes);
                    taken.request = None;
                    self.checkpoint = Some(taken);
                }
            }
            Effect::DeleteConsumer(epoch) => {
                self.consumers.remove(&epoch);
            }
        }
    }

    /// First the consumer, then the StatefulSet: as many of the two as it gets to.
    fn apply(&mut self, workers: Workers, steps: usize) {
        let (epoch, cursor, runs) = match workers {
            Workers::Unchanged => return,
            Workers::Stop { epoch, cursor, .. } => (epoch, cursor, false),
            Workers::Run { epoch, cursor, .. } => (epoch, cursor, true),
        };
        if steps > 0 {
            let before = self.epochs.entry(epoch).or_insert_with(|| cursor.clone());
            assert_eq!(*before, cursor, "epoch {epoch} is used twice");
            let owner = checkpoint(1, None).owner;
            let consumer = self.consumers.entry(epoch).or_insert_with(|| {
                let made = ConsumerMetadata::new(&owner, epoch, StreamSeq(1));
                ConsumerMetadata {
                    cursor: cursor.clone(),
                    ..made
                }
            });
            let seen = self.checkpoint.as_ref();
            consumer.applied |= seen.is_some_and(|seen| is_applied(seen, epoch));
        }
        if steps > 1 {
            self.workload = Some((epoch, cursor, runs));
        }
    }

    fn kubelet(&mut self) {
        let wanted = self.workload.as_ref().filter(|(.., runs)| *runs);
        self.pod = match (self.pod.take(), wanted) {
            (Some(pod), Some((epoch, ..))) if pod.epoch == *epoch => Some(pod),
            (None, Some((epoch, cursor, _))) => Some(Pod {
                epoch: *epoch,
                cursor: cursor.clone(),
                at: At::Start,
            }),
            (Some(_) | None, _) => None,
        };
    }

    fn worker(&mut self) {
        let Some(mut pod) = self.pod.take() else {
            return;
        };
        let seen = self.checkpoint.clone();
        let at = std::mem::replace(&mut pod.at, At::Start);
        pod.at = match at {
            // A checkpoint beyond its epoch fences it: the process ends and is started again.
            At::Start if seen.as_ref().is_some_and(|seen| seen.epoch > pod.epoch) => At::Start,
            At::Start => At::Raise(seen.map(Box::new)),
            At::Raise(read) if read.as_deref() == seen.as_ref() => self.raise(&pod),
            At::Raise(_) => At::Start,
            At::Apply => {
                if let Cursor::Rewind(rewind) = &pod.cursor {
                    let may_be = self.file >= rewind.of && self.file < Some(pod.epoch);
                    assert!(self.file.is_none() || may_be, "it moves another's file");
                    self.applied.push(rewind.clone());
                }
                self.file = Some(pod.epoch);
                At::Tell
            }
            At::Tell => {
                self.tell(&pod, RequestOutcome::Applied);
                At::Runs
            }
            At::Runs => At::Runs,
        };
        self.pod = Some(pod);
    }

    /// The first write of a worker, which fences all before it.
    fn raise(&mut self, pod: &Pod) -> At {
        if self.file == Some(pod.epoch) {
            self.tell(pod, RequestOutcome::Applied);
            return At::Runs;
        }
        match &pod.cursor {
            Cursor::Resume { of } => {
                // An empty file is one that no worker was ever given: volumes are not lost here.
                assert!(
                    self.file.is_none() || self.file >= *of,
                    "epoch {} resumes another's file",
                    pod.epoch
                );
                self.file = Some(pod.epoch);
                self.tell(pod, RequestOutcome::Applied);
                At::Runs
            }
            Cursor::Rewind(_) => {
                self.tell(pod, RequestOutcome::Applying);
                At::Apply
            }
        }
    }

    fn tell(&mut self, pod: &Pod, outcome: RequestOutcome) {
        let last = self.checkpoint.take().and_then(|last| last.applied);
        let mut told = checkpoint(pod.epoch.0, Some(outcome));
        told.applied = last;
        told.request = None;
        if let Cursor::Rewind(rewind) = &pod.cursor {
            told.request = Some(RequestProgress {
                id: rewind.request_id.clone(),
                outcome,
            });
            if outcome == RequestOutcome::Applied {
                told.applied = Some(AppliedRequest {
                    epoch: pod.epoch,
                    id: rewind.request_id.clone(),
                    fingerprint: rewind.fingerprint.clone(),
                });
            }
        }
        self.checkpoint = Some(told);
    }

    /// Nobody dies and nothing new is asked for until nothing changes any more.
    fn settle(&mut self) {
        self.suspended = false;
        for _ in 0..40 {
            let before = (self.written.clone(), self.pod.clone());
            for event in [Event::Operator(9), Event::Kubelet, Event::Worker] {
                self.happen(event);
            }
            let is_done = before
                .1
                .is_some_and(|pod| pod.at == At::Runs && self.pod == Some(pod));
            if is_done && before.0 == self.written && self.written.unfinished().is_none() {
                return;
            }
        }
    }

    fn times_applied(&self, id: &RequestId) -> usize {
        self.applied
            .iter()
            .filter(|rewind| rewind.request_id == *id)
            .count()
    }

    fn check(&self) {
        for finished in &self.written.history {
            let expected = usize::from(finished.phase == ReplayPhase::Completed);
            assert_eq!(self.times_applied(&finished.id), expected, "{finished:?}");
        }
        for id in self.claims.keys() {
            assert!(self.times_applied(id) <= 1, "{id} is applied twice");
        }
        assert_eq!(self.written.unfinished(), None);
        let epoch = self.written.epoch.expect("it was begun");
        let pod = self.pod.as_ref().expect("it runs");
        assert_eq!((pod.epoch, &pod.at), (epoch, &At::Runs));
        assert_eq!(self.file, Some(epoch));
        if let Some(wanted) = &self.wanted {
            let is_known = self.claims.contains_key(&wanted.id)
                || self.written.history.iter().any(|one| one.id == wanted.id);
            assert!(is_known, "{} was forgotten", wanted.id);
        }
    }
}

fn after(events: &[Event]) -> World {
    let mut world = World::new();
    for event in events {
        world.happen(*event);
    }
    world.settle();
    world
}

#[test]
fn an_undisturbed_request_is_completed_and_applied_once() {
    let mut world = after(&[]);
    world.wanted = Some(request("r1", 1));
    world.settle();
    world.check();
    assert_eq!(world.written.history[0].phase, ReplayPhase::Completed);
    assert_eq!(world.times_applied(&request("r1", 1).id), 1);
}

#[test]
fn a_worker_that_never_starts_fails_the_request_and_the_pipeline_goes_on() {
    let mut world = after(&[]);
    world.wanted = Some(request("r1", 1));
    while world
        .written
        .record
        .as_ref()
        .is_none_or(|record| record.phase < ReplayPhase::RollingOut)
    {
        world.happen(Event::Operator(9));
        world.happen(Event::Kubelet);
    }
    world.happen(Event::Late);
    world.settle();
    world.check();
    assert_eq!(world.written.history[0].phase, ReplayPhase::Failed);
}

#[test]
fn a_first_request_goes_on_when_its_worker_may_have_outlived_the_pipeline() {
    use Event::{Kubelet, Operator, Recreate, Want, Worker};
    let mut events = vec![Want(1)];
    events.extend([Operator(9); 8]);
    // The pod is there, and nothing but it and the consumer is left when the block is gone.
    events.extend([Kubelet, Recreate, Want(0), Operator(9), Worker, Operator(9)]);
    events.extend([Worker; 3]);
    let world = after(&events);
    world.check();
    assert_eq!(world.times_applied(&request("r1", 1).id), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_dies_whenever_every_request_is_applied_once_or_never(events in vec(event(), 0..80)) {
        after(&events).check();
    }
}
