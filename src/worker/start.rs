//! From a configuration and a volume to a worker that owns its partition: compile the rules, open the
//! state file, decide, write the decision down, and take the checkpoint over. The file is written
//! first: a checkpoint without a file would read as a lost volume at the next start. Only a request
//! that moves the file is announced before.

use std::collections::BTreeMap;
use std::sync::Arc;

use lookback_engine::{EngineOptions, RuleSet};
use lookback_protocol::checkpoint::{Checkpoint, Phase};
use lookback_protocol::continuity::Continuity;
use lookback_protocol::position::Position;
use lookback_protocol::start::{Begin, FileFacts, StartDecision};
use tracing::{info, warn};

use crate::state::{Identity, OpenError, StateFile};

use super::apply::{Applying, announce, move_file};
use super::batch::Engine;
use super::commit::gauge;
use super::fence::Fence;
use super::intake::Bounds;
use super::metrics::Metrics;
use super::observe::observe;
use super::output::Output;
use super::patience::{Patience, Shutdown, waits_for};
use super::ports::{Checkpoints, Log, Outbox, Revision};
use super::record::Scribe;
use super::run::{Deps, Worker};
use super::stop::{Ending, Stop};

/// What the volume holds, opened.
enum Volume {
    /// A file that can be used, or that is still empty.
    Usable(Box<StateFile>),
    /// A file that the decision refuses.
    Unusable(FileFacts),
}

/// What the volume says of itself.
struct Held {
    facts: FileFacts,
    acknowledged: BTreeMap<String, u64>,
}

/// The decision, and the checkpoint it was taken over.
type Decided = (StartDecision, Option<(Checkpoint, Revision)>);

impl Volume {
    fn read(&self) -> Result<Held, Stop> {
        let (facts, acknowledged) = match self {
            Self::Usable(file) => (file.facts()?, file.acknowledged()?),
            Self::Unusable(facts) => (facts.clone(), BTreeMap::new()),
        };
        Ok(Held {
            facts,
            acknowledged,
        })
    }
}

impl<L: Log, O: Outbox, C: Checkpoints> Worker<L, O, C> {
    /// A worker that owns its partition. It does not pull yet.
    pub(super) async fn start(
        mut deps: Deps<L, O, C>,
        mut shutdown: Shutdown,
    ) -> Result<Self, Ending> {
        let rules = compile(&deps)?;
        let volume = open(&deps)?;
        let (decision, found) = decide(&mut deps, &volume.read()?, &mut shutdown).await?;
        if let StartDecision::Refuse(message) = decision {
            return Err(Stop::Refused(message).into());
        }
        let Volume::Usable(file) = volume else {
            let error = OpenError::Corrupt("it cannot be used".to_owned());
            return Err(Stop::Open(error).into());
        };
        let mut worker = Self::assemble(deps, rules, *file, found, shutdown, decision).await?;
        worker.gates.state.open();
        worker.take_over().await?;
        Ok(worker)
    }

    /// Does what was decided to the file and loads the windows.
    async fn assemble(
        deps: Deps<L, O, C>,
        rules: Arc<RuleSet>,
        mut file: StateFile,
        found: Option<(Checkpoint, Revision)>,
        mut shutdown: Shutdown,
        decision: StartDecision,
    ) -> Result<Self, Ending> {
        let Deps {
            config,
            rule_files: _,
            state_file: _,
            pod,
            incarnation,
            log,
            outbox,
            checkpoints,
            metrics,
            clock,
            gates,
        } = deps;
        let identity = Identity {
            owner: config.owner.clone(),
            adopt: config.adopt.clone(),
            partition: config.partition,
            stream: config.source.stream.clone(),
            epoch: config.epoch,
            engine_digest: config.rules.engine_digest.clone(),
            filter: config.source.subjects.clone(),
        };
        metrics.epoch.set(gauge(config.epoch.0));
        let (said, revision) = found.unzip();
        let mut fence = Fence::new(checkpoints, incarnation, revision);
        let begin = match decision {
            StartDecision::Refuse(message) => return Err(Stop::Refused(message).into()),
            StartDecision::Apply(apply) => {
                let applying = Applying {
                    config: &config,
                    apply: &apply,
                    said: said.as_ref(),
                    time: clock(),
                };
                let checkpoint = applying.checkpoint(&file, fence.incarnation())?;
                announce(&mut fence, checkpoint, &gates, &mut shutdown).await?;
                move_file(&mut file, &identity, &apply, &metrics)?;
                apply.begin
            }
            StartDecision::AlreadyApplied(begin) => {
                info!(position = %begin.position.sequence, "Resuming, the request is applied already");
                note(&mut file, &identity, &begin, &metrics)?;
                begin
            }
            StartDecision::Resume(begin) => {
                info!(position = %begin.position.sequence, "Resuming");
                note(&mut file, &identity, &begin, &metrics)?;
                begin
            }
            StartDecision::Fresh(begin) => {
                info!(position = %begin.position.sequence, "Beginning a new state file");
                note(&mut file, &identity, &begin, &metrics)?;
                begin
            }
        };
        let FileFacts::State(state) = file.facts()? else {
            return Err(Stop::Windows("its identity is gone".to_owned()).into());
        };
        let scribe = Scribe::new(&config, &pod, &state);
        let engine = Engine::new(rules, file.groups()?, scribe).map_err(Stop::Windows)?;
        Ok(Self {
            log,
            output: Output::new(outbox, &config, metrics.clone(), Arc::clone(&clock)),
            fence,
            file,
            engine,
            identity,
            bounds: Bounds::new(&config.commit),
            continuity: Continuity::after_reset(begin.position.sequence),
            read: begin.position.sequence,
            pulling: false,
            unsaid: None,
            one_at_a_time: 0,
            config,
            metrics,
            clock,
            gates,
            shutdown,
        })
    }

    /// From here on another incarnation learns with its next write that it was replaced.
    async fn take_over(&mut self) -> Result<(), Ending> {
        let mut patience = Patience::new();
        loop {
            match self.tell(Phase::Started, None).await {
                Ok(()) => return Ok(()),
                Err(Stop::Unavailable(error)) => {
                    self.gates.consumer.close(&waits_for(&error));
                    patience.wait(error, &mut self.shutdown).await?;
                }
                Err(stop) => return Err(stop.into()),
            }
        }
    }
}

/// Writes a decision into the file, and says what it lost.
pub(super) fn note(
    file: &mut StateFile,
    identity: &Identity,
    begin: &Begin,
    metrics: &Metrics,
) -> Result<(), Stop> {
    file.begin(identity, begin)?;
    report_gap(begin, metrics);
    Ok(())
}

pub(super) fn report_gap(begin: &Begin, metrics: &Metrics) {
    if let Some(gap) = &begin.gap {
        let (from, to) = (gap.from, gap.to);
        metrics.expired_unread.inc_by(to.0 - from.0 + 1);
        warn!(%from, %to, possible = gap.possible, "Events left the source stream unread");
    }
}

fn compile<L, O, C>(deps: &Deps<L, O, C>) -> Result<Arc<RuleSet>, Stop> {
    let config = &deps.config;
    let options = EngineOptions {
        processing: config.rules.processing.clone(),
        logsource: config.source.logsource.clone(),
        correlation: config.correlation.clone(),
    };
    let (rules, problems) = RuleSet::compile(&deps.rule_files, &options);
    for problem in problems {
        warn!(
            file = problem.file,
            rule = problem.rule,
            message = problem.message,
            "Rule left out"
        );
    }
    let (told, found) = (&config.rules.engine_digest, rules.digest());
    if told != found {
        return Err(Stop::BadConfig(format!(
            "engine digest of the mounted rules is {found}, the configuration says {told}; the rules were changed by hand, or another version of the worker runs than of the operator"
        )));
    }
    Ok(Arc::new(rules))
}

fn open<L, O, C>(deps: &Deps<L, O, C>) -> Result<Volume, Stop> {
    match StateFile::open(&deps.state_file) {
        Ok(file) => Ok(Volume::Usable(Box::new(file))),
        Err(OpenError::Corrupt(error)) => Ok(Volume::Unusable(FileFacts::Corrupt(error))),
        Err(OpenError::NewerSchema { found, supported }) => {
            Ok(Volume::Unusable(FileFacts::NewerSchema {
                found,
                supported,
            }))
        }
        Err(error @ (OpenError::Locked { .. } | OpenError::Full { .. } | OpenError::Io { .. })) => {
            Err(Stop::Open(error))
        }
    }
}

async fn decide<L: Log, O: Outbox, C: Checkpoints>(
    deps: &mut Deps<L, O, C>,
    held: &Held,
    shutdown: &mut Shutdown,
) -> Result<Decided, Ending> {
    let mut patience = Patience::new();
    loop {
        match try_decide(deps, held).await {
            Ok(decided) => return Ok(decided),
            Err(Stop::Unavailable(error)) => {
                deps.gates.consumer.close(&waits_for(&error));
                patience.wait(error, shutdown).await?;
            }
            Err(stop) => return Err(stop.into()),
        }
    }
}

async fn try_decide<L: Log, O: Outbox, C: Checkpoints>(
    deps: &mut Deps<L, O, C>,
    held: &Held,
) -> Result<Decided, Stop> {
    let Held {
        facts,
        acknowledged,
    } = held;
    let position = match facts {
        FileFacts::State(file) => file.position,
        _ => Position::before(deps.config.source.start),
    };
    let found = deps.checkpoints.load().await?;
    let observed = observe(&mut deps.log, &deps.outbox, position).await?;
    let checkpoint = found.as_ref().map(|(checkpoint, _)| checkpoint);
    let decision = observed.decide_start(&deps.config, facts.clone(), acknowledged, checkpoint);
    Ok((decision, found))
}
