//! Owned facts around a pipeline in epoch 3, each field at what it is when nothing is special.

use jiff::{SignedDuration, Timestamp};

use crate::checkpoint::{self, Checkpoint, Counters, RequestOutcome, RequestProgress};
use crate::config::Cursor;
use crate::names::{Owner, PipelineKey};
use crate::position::{Epoch, Position, StreamIdentity, StreamSeq};
use crate::replay::ledger::Standing;
use crate::replay::machine::{
    Actions, Check, Claim, CursorView, Decision, Facts, Limits, Planned, Running, Step, Workers,
    Workload, Written, decide,
};
use crate::replay::record::{Plan, Record, ReplayPhase, Windows};
use crate::replay::request::{ReplayRequest, ReplayStart, StatePolicy};

/// What bounds every replay here in time.
pub(super) const LIMITS: Limits = Limits {
    min_interval: SignedDuration::from_secs(60),
    step_timeout: SignedDuration::from_mins(30),
    keep_consumers: SignedDuration::from_hours(24),
};

/// A pipeline in epoch 3, and what a decision about it would see.
pub(super) struct Stage {
    pub(super) now: Timestamp,
    pub(super) key: PipelineKey,
    pub(super) wanted: Option<ReplayRequest>,
    pub(super) written: Written,
    pub(super) standing: Standing,
    pub(super) highest: Epoch,
    pub(super) suspended: bool,
    pub(super) approved: Option<String>,
    pub(super) plan: Planned<'static>,
    pub(super) check: Check<'static>,
    pub(super) claim: Claim<'static>,
    pub(super) workload: Workload,
    pub(super) consumer: Option<CursorView>,
    pub(super) consumers: Option<Vec<Epoch>>,
    pub(super) checkpoint: Option<Checkpoint>,
}

impl Stage {
    /// Nothing is asked for, and nothing was.
    pub(super) fn new() -> Self {
        Self {
            now: Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1000),
            key: PipelineKey::new("prod", "edr").unwrap(),
            wanted: None,
            written: Written {
                epoch: Some(Epoch(3)),
                ..Written::default()
            },
            standing: Standing::Stands {
                epoch: Epoch(3),
                cursor: Cursor::default(),
            },
            highest: Epoch(3),
            suspended: false,
            approved: None,
            plan: Planned::NotAsked,
            check: Check::Unknown,
            claim: Claim::Free,
            workload: running(0, 0),
            consumer: Some(CursorView {
                pending: 10,
                ack_pending: 0,
                filter_ok: true,
                bound_ok: true,
            }),
            consumers: Some(vec![Epoch(3)]),
            checkpoint: Some(checkpoint(3, None)),
        }
    }

    /// A request `r1` for sequence 10 is wanted and its record is in this phase.
    pub(super) fn at(phase: ReplayPhase) -> Self {
        let mut stage = Self::new();
        let wanted = request("r1", 10);
        stage.written.record = Some(record(&stage, wanted.clone(), phase));
        stage.wanted = Some(wanted);
        stage.highest = Epoch(4);
        if phase >= ReplayPhase::Fencing {
            stage.claim = Claim::Ours;
        }
        if (ReplayPhase::StateApplied..=ReplayPhase::Completed).contains(&phase) {
            stage.written.epoch = Some(Epoch(4));
            stage.standing = Standing::Stands {
                epoch: Epoch(4),
                cursor: stage.record().cursor().unwrap(),
            };
            stage.checkpoint = Some(checkpoint(4, Some(RequestOutcome::Applied)));
        }
        if phase.is_final() {
            stage.written.history = vec![stage.record().finished()];
        }
        stage
    }

    /// The same for a pipeline that was never begun.
    pub(super) fn bootstrap_at(phase: ReplayPhase) -> Self {
        let mut stage = Self::at(phase);
        let record = stage.written.record.as_mut().unwrap();
        record.of = None;
        record.epoch = record.epoch.map(|_| Epoch(1));
        stage.written.epoch = None;
        stage.standing = Standing::New;
        stage.highest = Epoch(1);
        stage.checkpoint = None;
        stage.consumers = Some(Vec::new());
        stage
    }

    pub(super) fn decide(&self) -> Decision {
        decide(&Facts {
            now: self.now,
            limits: LIMITS,
            key: &self.key,
            wanted: self.wanted.as_ref(),
            written: &self.written,
            standing: self.standing.clone(),
            highest: self.highest,
            suspended: self.suspended,
            approved: self.approved.as_deref(),
            plan: self.plan,
            check: self.check,
            claim: self.claim,
            workload: self.workload.clone(),
            consumer: self.consumer,
            consumers: self.consumers.as_deref(),
            checkpoint: self.checkpoint.as_ref(),
        })
    }

    /// The decision is to write: what.
    pub(super) fn writes(&self) -> Written {
        match self.decide().step {
            Step::Write(written) => *written,
            Step::Act(actions) => panic!("acts: {actions:?}"),
        }
    }

    /// The decision is to write this phase.
    #[track_caller]
    pub(super) fn goes_to(&self, phase: ReplayPhase) {
        assert_eq!(self.writes().record.unwrap().phase, phase);
    }

    /// The decision is to act: how.
    pub(super) fn acts(&self) -> Actions {
        match self.decide().step {
            Step::Act(actions) => actions,
            Step::Write(written) => panic!("writes: {written:?}"),
        }
    }

    pub(super) fn record(&self) -> &Record {
        self.written.record.as_ref().unwrap()
    }

    pub(super) fn record_mut(&mut self) -> &mut Record {
        self.written.record.as_mut().unwrap()
    }

    pub(super) fn later(mut self, by: SignedDuration) -> Self {
        self.now += by;
        self
    }
}

/// The epoch of workers that are stopped, or of workers that run.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum At {
    Stop(u64),
    Run(u64),
    Unchanged,
}

pub(super) fn place(actions: &Actions) -> At {
    match &actions.workers {
        Workers::Unchanged => At::Unchanged,
        Workers::Stop { epoch, .. } => At::Stop(epoch.0),
        Workers::Run { epoch, .. } => At::Run(epoch.0),
    }
}

pub(super) fn running(replicas: i32, pods: usize) -> Workload {
    Workload::Seen(Running {
        observed: true,
        replicas,
        pods,
        stuck: false,
        epoch: Some(Epoch(3)),
        trouble: None,
    })
}

pub(super) fn request(id: &str, from: u64) -> ReplayRequest {
    let start = ReplayStart::FromSequence(StreamSeq(from));
    ReplayRequest::new(Some(id), start, StatePolicy::Clear).unwrap()
}

pub(super) fn plan() -> Plan {
    Plan {
        hash: "p-000000000001".to_owned(),
        start: StreamSeq(10),
        start_time: None,
        target: StreamSeq(100),
        messages: 91,
        bytes: 9100,
        eta_seconds: None,
        position: Some(StreamSeq(50)),
        truncated: false,
        gap: 0,
        double_counted: 0,
        windows: Windows::Dropped,
        reason: "ForceClear".to_owned(),
        groups: 1,
        read_back: None,
        known_alerts: None,
    }
}

pub(super) fn record(stage: &Stage, request: ReplayRequest, phase: ReplayPhase) -> Record {
    let is_planned = phase > ReplayPhase::Requested;
    Record {
        request,
        phase,
        message: String::new(),
        requested_at: stage.now,
        since: stage.now,
        epoch: is_planned.then_some(Epoch(4)),
        of: is_planned.then_some(Epoch(3)),
        plan: is_planned.then(plan),
        way_back: None,
        paused: false,
    }
}

pub(super) fn checkpoint(epoch: u64, outcome: Option<RequestOutcome>) -> Checkpoint {
    Checkpoint {
        v: checkpoint::VERSION,
        incarnation: "one".to_owned(),
        owner: Owner {
            cluster: "c1".to_owned(),
            pipeline: PipelineKey::new("prod", "edr").unwrap(),
        },
        epoch: Epoch(epoch),
        phase: match outcome {
            Some(RequestOutcome::Applying) => checkpoint::Phase::Applying,
            _ => checkpoint::Phase::Started,
        },
        stream: StreamIdentity {
            name: "events".to_owned(),
            created: Timestamp::UNIX_EPOCH,
        },
        position: Position {
            sequence: StreamSeq(50),
            published: Some(Timestamp::UNIX_EPOCH),
        },
        published_through: StreamSeq(50),
        engine_digest: String::new(),
        groups: 1,
        gaps: Vec::new(),
        counters: Counters::default(),
        request: outcome.map(|outcome| RequestProgress {
            id: request("r1", 10).id,
            outcome,
        }),
        applied: None,
        resumes: None,
        held: None,
        time: Timestamp::UNIX_EPOCH,
    }
}
