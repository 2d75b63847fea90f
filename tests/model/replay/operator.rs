//! One round of the operator: it looks, decides and does what was decided, and may die anywhere.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use jiff::SignedDuration;
use lookback::operator::pipeline::replay::execute::{Round, execute};
use lookback_engine::RuleSet;
use lookback_protocol::checkpoint::Checkpoint;
use lookback_protocol::config::WorkerConfig;
use lookback_protocol::consumer::ConsumerMetadata;
use lookback_protocol::position::Epoch;
use lookback_protocol::replay::ledger::{Ledgers, NatsLedgers};
use lookback_protocol::replay::machine::{
    Accepted, Asks, Check, Claim, CursorView, Decision, Facts, Limits, Planned, Running, Workload,
    asks, decide,
};
use lookback_protocol::replay::plan::{
    self, Answers, Bounds, Find, Message, Rejection, Stop, StoredState, check_again,
};
use lookback_protocol::replay::record::{Plan, Record, ReplayPhase};
use lookback_protocol::replay::request::{ReplayRequest, StatePolicy};

use super::api::{Api, Objects, look};
use super::ports::{Outside, standing_checkpoint};
use crate::scenario::{engine_options, rule_files};
use crate::sim::stream::Stream;
use crate::sim::{Process, Way, World};

/// Short, so that a case need not last for hours.
pub(crate) const LIMITS: Limits = Limits {
    min_interval: SignedDuration::from_secs(3),
    step_timeout: SignedDuration::from_secs(60),
    keep_consumers: SignedDuration::from_secs(300),
};
/// Calls of operators are counted beyond those of workers.
const FIRST_PROCESS: u64 = 1_000_000;

/// The operator's replicas, one after the other.
pub(crate) struct Operator {
    world: World,
    api: Api,
    config: WorkerConfig,
    on_loss: StatePolicy,
    rounds: u64,
    chain: (u64, bool),
}

/// A decision, and what it was taken from.
pub(crate) struct Decided {
    pub(crate) decision: Decision,
    pub(crate) version: u64,
    pub(crate) set_version: Option<u64>,
    process: u64,
}

/// What NATS said.
struct Nats {
    consumers: Vec<ConsumerMetadata>,
    checkpoint: Option<Checkpoint>,
    stream: Stream,
    cursor: Option<CursorView>,
}

impl Operator {
    pub(crate) fn new(
        world: &World,
        api: &Api,
        config: &WorkerConfig,
        on_loss: StatePolicy,
    ) -> Self {
        let (rules, _) = RuleSet::compile(&rule_files(), &engine_options(config));
        Self {
            world: world.clone(),
            api: Arc::clone(api),
            config: config.clone(),
            on_loss,
            rounds: 0,
            chain: (rules.longest_chain(), rules.has_session_windows()),
        }
    }

    /// A whole round, unless the operator dies at its `dies_in`th call.
    pub(crate) async fn round(&mut self, dies_in: Option<u64>) -> Option<Decided> {
        let process = self.begin(dies_in);
        let doomed = self
            .world
            .look(|state| Arc::clone(&state.processes[&process].doomed));
        let decided = tokio::select! {
            biased;
            () = doomed.notified() => None,
            decided = async {
                let decided = self.look(process).await;
                self.act(&decided, u32::MAX).await;
                decided
            } => Some(decided),
        };
        self.world.look(|state| state.processes.remove(&process));
        decided
    }

    /// What a replica decides that then falls asleep.
    pub(crate) async fn doze(&mut self) -> Decided {
        let process = self.begin(None);
        self.look(process).await
    }

    /// It wakes, and has been replaced meanwhile: it learns so after asking once.
    pub(crate) async fn wake(&self, decided: &Decided) {
        self.world.note(|| "a former leader wakes".to_owned());
        self.act(decided, 1).await;
    }

    fn begin(&mut self, dies_in: Option<u64>) -> u64 {
        self.rounds += 1;
        let process = FIRST_PROCESS + self.rounds;
        let mut it = Process::new(PathBuf::new());
        it.crash_in = dies_in;
        self.world.look(|state| state.processes.insert(process, it));
        process
    }

    /// Does what was decided; it may ask `leads` times whether it leads before the answer is no.
    pub(crate) async fn act(&self, decided: &Decided, leads: u32) {
        let mut outside = Outside {
            world: self.world.clone(),
            api: Arc::clone(&self.api),
            process: decided.process,
            owner: self.config.owner.clone(),
            version: decided.version,
            set_version: decided.set_version,
            leads: AtomicU32::new(leads),
        };
        let done: Result<Round<()>, _> = execute(&decided.decision, &mut outside).await;
        if let Err(error) = done {
            self.world.note(|| format!("o{} {error}", decided.process));
        }
    }

    async fn look(&self, process: u64) -> Decided {
        let objects = look(&self.api, |objects| objects.clone());
        let nats = self.nats(process, &objects).await;
        let decision = self.decide(&objects, nats.as_ref());
        Decided {
            decision,
            version: objects.version,
            set_version: objects.set.as_ref().map(|set| set.version),
            process,
        }
    }

    async fn nats(&self, process: u64, objects: &Objects) -> Option<Nats> {
        let way = self
            .world
            .travel(process, |faults| (faults.checkpoint_lost, 0))
            .await;
        if way == Way::Lost {
            return None;
        }
        let (consumers, parked) = look(&self.api, |now| {
            (now.consumers.values().cloned().collect(), now.clone())
        });
        let now = self.world.now();
        Some(self.world.look(|state| {
            state.settle(now);
            let epoch = objects
                .written
                .record
                .as_ref()
                .and_then(|record| record.epoch);
            Nats {
                consumers,
                checkpoint: standing_checkpoint(state).map(|(checkpoint, _)| checkpoint),
                stream: state.server.stream.clone(),
                cursor: epoch.and_then(|epoch| view(&parked, epoch, &state.server)),
            }
        }))
    }

    fn decide(&self, objects: &Objects, nats: Option<&Nats>) -> Decision {
        let owner = &self.config.owner;
        let written = &objects.written;
        let checkpoint = nats.and_then(|nats| nats.checkpoint.as_ref());
        let ledgers = Ledgers {
            me: owner,
            adopt: None,
            written,
            running: objects.set.as_ref().map(|set| (set.epoch, &set.cursor)),
            nats: nats.map(|nats| NatsLedgers {
                consumers: &nats.consumers,
                checkpoint,
            }),
        };
        let wanted = self.wanted(objects, checkpoint);
        let record = written.unfinished();
        let (mut planned, mut checked) = (None, None);
        if let (Some(record), Some(nats)) = (record, nats) {
            match asks(written, objects.suspended) {
                Asks::Nothing => {}
                Asks::Plan => planned = Some(self.plan(&record.request, nats)),
                Asks::Check => checked = Some(still_holds(record, nats)),
            }
        }
        let epochs: Option<Vec<Epoch>> =
            nats.map(|nats| nats.consumers.iter().map(|it| it.epoch).collect());
        let pod = objects.pod.as_ref();
        let owes_a_pod = objects.set.as_ref().is_some_and(|set| set.runs);
        let decision = decide(&Facts {
            now: self.world.clock(),
            limits: LIMITS,
            key: &owner.pipeline,
            wanted: wanted.as_ref(),
            written,
            standing: ledgers.reconcile(),
            highest: ledgers.highest(),
            suspended: objects.suspended,
            approved: objects.approved.as_deref(),
            plan: match &planned {
                None => Planned::Unavailable("NATS does not answer"),
                Some(Ok(plan)) => Planned::Done(plan),
                Some(Err(why)) => Planned::Rejected(why),
            },
            check: match &checked {
                None => Check::Unknown,
                Some(Ok(())) => Check::Holds,
                Some(Err(why)) => Check::Outdated(why),
            },
            claim: nats.map_or(Claim::Unknown, |_| claim(objects, wanted.as_ref())),
            workload: Workload::Seen(Running {
                observed: objects.set.as_ref().is_none_or(|set| set.observed),
                replicas: i32::from(pod.is_some() || owes_a_pod),
                pods: usize::from(pod.is_some()),
                stuck: false,
                epoch: objects.set.as_ref().map(|set| set.epoch),
                trouble: pod.and_then(|pod| pod.trouble.clone()),
            }),
            consumer: nats.and_then(|nats| nats.cursor),
            consumers: epochs.as_deref(),
            checkpoint,
        });
        if decision.accepted == Accepted::NoReplay && wanted.is_some() {
            self.world
                .violation("a request is wanted and none is seen".to_owned());
        }
        decision
    }

    /// The block, unless the state was lost.
    fn wanted(&self, objects: &Objects, checkpoint: Option<&Checkpoint>) -> Option<ReplayRequest> {
        let record = objects.written.unfinished();
        let lost = objects
            .pod
            .as_ref()
            .filter(|pod| pod.says_lost)
            .map(|pod| pod.epoch);
        let of_record = record.filter(|it| it.phase >= ReplayPhase::RollingOut);
        let stands = match of_record.and_then(|record| record.epoch) {
            Some(epoch) => Some(epoch),
            None if record.is_some_and(|it| it.phase >= ReplayPhase::Fencing) => None,
            None => objects.written.epoch,
        };
        match (lost, checkpoint) {
            (Some(epoch), Some(checkpoint)) if stands == Some(epoch) => {
                let start = checkpoint.position.sequence.next();
                Some(ReplayRequest::loss(epoch, start, self.on_loss))
            }
            // What the operator asked for itself stands in no block.
            _ => match record.filter(|record| record.request.id.is_loss()) {
                Some(record) => Some(record.request.clone()),
                None => objects.block.clone(),
            },
        }
    }

    fn plan(&self, request: &ReplayRequest, nats: &Nats) -> Result<Plan, String> {
        let bounds = bounds(&nats.stream);
        let state = nats.checkpoint.as_ref().map(stored);
        let facts = plan::Facts {
            now: self.world.clock(),
            stream: &bounds,
            state: state.as_ref(),
            correlation: &self.config.correlation,
            longest_chain_seconds: self.chain.0,
            session_windows: self.chain.1,
            rate: None,
            known_alerts: None,
        };
        let mut answers = Answers::default();
        loop {
            match plan::plan(request, &facts, &answers) {
                Ok(plan) => return Ok(plan),
                Err(Stop::Find(question)) => {
                    answers.found.insert(question, find(&nats.stream, question));
                }
                Err(Stop::Count(range)) => {
                    let within = |it: &&crate::sim::stream::Message| {
                        (range.from..=range.through).contains(&it.sequence)
                    };
                    let count = nats.stream.iter().filter(within).count() as u64;
                    answers.counts.insert(range, count);
                }
                Err(Stop::Rejected(rejection)) => return Err(rejection.to_string()),
            }
        }
    }
}

fn still_holds(record: &Record, nats: &Nats) -> Result<(), String> {
    let Some(plan) = &record.plan else {
        return Ok(());
    };
    let state = nats.checkpoint.as_ref().map(stored);
    check_again(&record.request, plan, &bounds(&nats.stream), state.as_ref())
        .map_err(|rejection: Rejection| rejection.to_string())
}

fn claim<'a>(objects: &'a Objects, wanted: Option<&ReplayRequest>) -> Claim<'a> {
    let record = objects.written.unfinished();
    let Some(request) = record.map(|record| &record.request).or(wanted) else {
        return Claim::Unknown;
    };
    let epoch = record.and_then(|record| record.epoch);
    match objects.claims.get(&request.id) {
        None => Claim::Free,
        Some((held, fingerprint))
            if epoch == Some(*held) && *fingerprint == request.fingerprint =>
        {
            Claim::Ours
        }
        Some((epoch, fingerprint)) => Claim::Used {
            epoch: *epoch,
            fingerprint,
        },
    }
}

fn view(
    objects: &Objects,
    epoch: Epoch,
    server: &crate::sim::server::Server,
) -> Option<CursorView> {
    let metadata = objects.consumers.get(&epoch)?;
    let (delivered, ack_pending) = match objects.consumer(epoch, server) {
        Some(consumer) => (consumer.delivered.stream, consumer.unacked().len() as u64),
        None => (metadata.start.previous().0, 0),
    };
    Some(CursorView {
        pending: server.stream.pending(delivered, ""),
        ack_pending,
        filter_ok: true,
        bound_ok: delivered <= server.stream.last(),
    })
}

fn bounds(stream: &Stream) -> Bounds {
    let facts = stream.facts();
    let mut times = stream.iter().map(|it| it.published);
    let first_time = times.next();
    Bounds {
        identity: facts.identity,
        first: facts.first,
        last: facts.last,
        first_time,
        last_time: times.last().or(first_time),
        messages: stream.iter().count() as u64,
        bytes: 100,
    }
}

fn stored(checkpoint: &Checkpoint) -> StoredState {
    StoredState {
        stream: checkpoint.stream.clone(),
        position: checkpoint.position,
        groups: checkpoint.groups,
        late: checkpoint.counters.late,
    }
}

fn find(stream: &Stream, question: Find) -> Option<Message> {
    let found = match question {
        Find::At(sequence) => stream.get(sequence.0),
        Find::Since(time) => stream.iter().find(|it| it.published >= time),
        Find::FirstUnderFilter(from) => stream.next_from(from.0, ""),
        Find::LastUnderFilter => stream.iter().last(),
    };
    found.map(|it| Message {
        sequence: it.sequence,
        published: it.published,
    })
}
