//! Random schedules of requests and trouble, all from a seed.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::SignedDuration;
use lookback::state;
use lookback_protocol::config::CommitConfig;
use lookback_protocol::position::StreamSeq;
use lookback_protocol::replay::record::ReplayPhase;
use lookback_protocol::replay::request::{
    Approval, Outputs, ReplayRequest, ReplayStart, StatePolicy, Yes,
};
use tokio::time::sleep;

use super::api::look;
use super::cluster::Cluster;
use super::end::Lost;
use super::lineage;
use crate::case::Setup;
use crate::invariants::STATE_FILE;
use crate::scenario;
use crate::sim::Faults;
use crate::sim::rng::Rng;

/// A kind of step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Publish,
    Wait,
    GoOn,
    OperatorDies,
    Ask,
    AskAgain,
    AskOtherwise,
    TakeOut,
    Recreate,
    Suspend,
    Resume,
    KillNow,
    KillAtCall,
    DeleteConsumer,
    RestartNats,
    LoseVolume,
    RestoreOlderVolume,
    FallAsleep,
    Wake,
    Break,
    Mend,
    Approve,
    Race,
}

/// Each with its weight in a case that has it.
const STEPS: [(Step, u64); 23] = [
    (Step::Publish, 24),
    (Step::Wait, 12),
    (Step::GoOn, 40),
    (Step::OperatorDies, 20),
    (Step::Ask, 8),
    (Step::AskAgain, 4),
    (Step::AskOtherwise, 2),
    (Step::TakeOut, 4),
    (Step::Recreate, 2),
    (Step::Suspend, 2),
    (Step::Resume, 4),
    (Step::KillNow, 4),
    (Step::KillAtCall, 10),
    (Step::DeleteConsumer, 2),
    (Step::RestartNats, 2),
    (Step::LoseVolume, 2),
    (Step::RestoreOlderVolume, 2),
    (Step::FallAsleep, 4),
    (Step::Wake, 4),
    (Step::Break, 2),
    (Step::Mend, 3),
    (Step::Approve, 3),
    (Step::Race, 4),
];

/// Runs the schedule of `seed` to its end; gives everything that happened, and the first breach.
pub(crate) async fn run(seed: u64) -> (Vec<String>, Option<String>) {
    let mut rng = Rng::new(seed ^ 0x7265_706c_6179);
    let setup = Setup {
        seed: rng.next(),
        commit: CommitConfig {
            interval_ms: *rng.pick(&[20, 100, 500]),
            events: *rng.pick(&[1, 3, 8, 40]),
        },
        filtered: false,
        ack_wait: Duration::from_secs(600),
        batch: *rng.pick(&[1, 5, 50]),
    };
    let on_loss = *rng.pick(&[StatePolicy::Rebuild, StatePolicy::Clear]);
    let mut cluster = Cluster::new(setup, on_loss);
    let mut schedule = Schedule::new(rng);
    let breach = schedule.play(&mut cluster).await.err();
    let trace = cluster
        .case
        .world
        .look(|state| std::mem::take(&mut state.trace));
    (trace, breach)
}

struct Schedule {
    rng: Rng,
    weights: Vec<(Step, u64)>,
    rates: Faults,
    asked: Vec<ReplayRequest>,
    /// An older copy of the volume.
    copy: Option<std::path::PathBuf>,
    lost: Lost,
}

impl Schedule {
    fn new(mut rng: Rng) -> Self {
        let always = [Step::Publish, Step::Wait, Step::GoOn, Step::Ask];
        let weights = STEPS
            .into_iter()
            .filter(|(step, _)| always.contains(step) || rng.chance(450))
            .collect();
        let mut rate = |high: u64| match rng.below(3) {
            0 => rng.between(1, high),
            _ => 0,
        };
        let rates = Faults {
            log_lost: rate(60),
            log_unanswered: rate(60),
            reset_lost: rate(200),
            ack_lost: rate(200),
            store_lost: rate(60),
            store_unanswered: rate(60),
            create_unanswered: rate(100),
            checkpoint_lost: rate(100),
            checkpoint_unanswered: rate(150),
            latency: rate(40),
            ..Faults::default()
        };
        Self {
            rng,
            weights,
            rates,
            asked: Vec::new(),
            copy: None,
            lost: BTreeMap::new(),
        }
    }

    async fn play(&mut self, cluster: &mut Cluster) -> Result<(), String> {
        cluster.case.world.lock().faults = self.rates;
        if self.rng.chance(200) {
            self.ask(cluster);
        } else {
            self.publish(cluster).await;
            cluster.go_on_for(Duration::from_secs(3)).await?;
        }
        for _ in 0..self.rng.between(20, 80) {
            let step = self.rng.weighted(&self.weights);
            cluster.case.world.note(|| format!("-- {step:?}"));
            self.take(step, cluster).await?;
            sleep(Duration::from_millis(
                *self.rng.pick(&[0, 0, 1, 5, 30, 200]),
            ))
            .await;
            cluster.tick().await?;
        }
        cluster.finish(&self.lost).await
    }

    async fn take(&mut self, step: Step, cluster: &mut Cluster) -> Result<(), String> {
        match step {
            Step::Publish => self.publish(cluster).await,
            Step::Wait => sleep(Duration::from_millis(self.rng.between(20, 2_500))).await,
            Step::GoOn => {
                for _ in 0..self.rng.between(1, 8) {
                    cluster.go_on(None).await?;
                    sleep(Duration::from_millis(self.rng.between(0, 300))).await;
                }
            }
            Step::OperatorDies => {
                let calls = self.rng.below(8);
                cluster.go_on(Some(calls)).await?;
            }
            Step::Ask => self.ask(cluster),
            Step::AskAgain => {
                if !self.asked.is_empty() {
                    let before = self.rng.pick(&self.asked).clone();
                    look(&cluster.api, |it| it.edit(|it| it.block = Some(before)));
                }
            }
            Step::AskOtherwise => {
                if !self.asked.is_empty() {
                    let id = self.rng.pick(&self.asked).id.clone();
                    let other = ReplayRequest {
                        id,
                        ..self.request(cluster)
                    };
                    look(&cluster.api, |it| it.edit(|it| it.block = Some(other)));
                }
            }
            Step::TakeOut => look(&cluster.api, |it| it.edit(|it| it.block = None)),
            Step::Recreate => look(&cluster.api, super::api::Objects::recreate),
            Step::Suspend => look(&cluster.api, |it| it.edit(|it| it.suspended = true)),
            Step::Resume => look(&cluster.api, |it| it.edit(|it| it.suspended = false)),
            Step::KillNow => {
                let noticed = self.rng.chance(300);
                cluster.case.kill(noticed).await;
            }
            Step::KillAtCall => {
                let calls = self.rng.below(30);
                cluster
                    .case
                    .kill_at_call(calls, Duration::from_secs(2))
                    .await;
            }
            Step::DeleteConsumer => self.delete_consumer(cluster),
            Step::RestartNats => self.restart_nats(cluster).await?,
            Step::LoseVolume => {
                cluster.case.kill(true).await;
                self.remember(cluster);
                cluster.case.volume = None;
            }
            Step::RestoreOlderVolume => {
                cluster.case.kill(true).await;
                let now = cluster.case.volume.clone();
                if let Some(older) = self.copy.take() {
                    self.remember(cluster);
                    cluster.case.volume = Some(older);
                }
                self.copy = now;
            }
            Step::FallAsleep => cluster.asleep = Some(cluster.operator.doze().await),
            Step::Wake => {
                if let Some(decided) = cluster.asleep.take() {
                    cluster.operator.wake(&decided).await;
                }
            }
            Step::Break => cluster.broken = true,
            Step::Mend => cluster.broken = false,
            Step::Approve => cluster.approve(),
            Step::Race => self.race(cluster).await?,
        }
        Ok(())
    }

    async fn publish(&mut self, cluster: &Cluster) {
        for _ in 0..self.rng.between(1, 8) {
            let (subject, payload) = scenario::event(&mut self.rng, 0, 0);
            cluster.case.publish(subject, payload);
            if self.rng.chance(400) {
                sleep(Duration::from_millis(self.rng.below(800))).await;
            }
        }
    }

    fn ask(&mut self, cluster: &Cluster) {
        let request = self.request(cluster);
        self.asked.push(request.clone());
        cluster.case.world.note(|| format!("ask {request:?}"));
        look(&cluster.api, |it| it.edit(|it| it.block = Some(request)));
    }

    fn request(&mut self, cluster: &Cluster) -> ReplayRequest {
        let policies = [
            StatePolicy::Auto,
            StatePolicy::Keep,
            StatePolicy::Clear,
            StatePolicy::Rebuild,
            StatePolicy::Rebuild,
        ];
        let policy = *self.rng.pick(&policies);
        let now = cluster.case.world.clock();
        let last = cluster.case.world.look(|state| state.server.stream.last());
        let start = match self.rng.below(10) {
            0 => ReplayStart::Latest(Yes),
            1 => ReplayStart::FromTime(now - SignedDuration::from_secs(5)),
            2 => ReplayStart::FromSequence(StreamSeq(last + self.rng.below(4))),
            _ => ReplayStart::FromSequence(StreamSeq(self.rng.between(1, last + 1))),
        };
        let id = format!("r{}", self.asked.len() + 1);
        let mut request = ReplayRequest::new(Some(&id), start, policy).expect("a good id");
        request.outputs = *self.rng.pick(&[
            Outputs::Live,
            Outputs::Live,
            Outputs::Tag,
            Outputs::Suppress,
        ]);
        if self.rng.chance(150) {
            request.approval = Approval::Manual;
        }
        if self.rng.chance(100) {
            request.not_after = Some(now + SignedDuration::from_secs(8));
        }
        request
    }

    /// A request is taken out of the spec while its worker is about to apply it: the worker may die right
    /// there, and the operator may decide on what it saw a while ago.
    async fn race(&mut self, cluster: &mut Cluster) -> Result<(), String> {
        self.ask(cluster);
        let rolls_out = |cluster: &Cluster| {
            look(&cluster.api, |objects| {
                let set = objects.set.as_ref().filter(|set| set.runs);
                let record = objects.written.unfinished();
                let epoch = record.filter(|it| it.phase == ReplayPhase::RollingOut);
                set.is_some() && epoch.and_then(|it| it.epoch) == set.map(|set| set.epoch)
            })
        };
        for _ in 0..40 {
            if rolls_out(cluster) {
                break;
            }
            cluster.operator.round(None).await;
            if rolls_out(cluster) {
                break;
            }
            cluster.tick().await?;
            sleep(Duration::from_millis(300)).await;
        }
        cluster.tick().await?;
        if self.rng.chance(500) {
            let calls = self.rng.below(14);
            cluster
                .case
                .kill_at_call(calls, Duration::from_millis(300))
                .await;
            cluster.broken = true;
        }
        look(&cluster.api, |it| it.edit(|it| it.block = None));
        cluster.operator.round(None).await;
        let decided = cluster.operator.doze().await;
        sleep(Duration::from_millis(self.rng.below(200))).await;
        cluster.operator.act(&decided, u32::MAX).await;
        cluster.go_on(None).await?;
        cluster.go_on(None).await?;
        cluster.broken = false;
        Ok(())
    }

    /// A person deletes one of the consumers.
    fn delete_consumer(&mut self, cluster: &Cluster) {
        let rng = &mut self.rng;
        look(&cluster.api, |objects| {
            let epochs: Vec<_> = objects.consumers.keys().copied().collect();
            if !epochs.is_empty() {
                let epoch = *rng.pick(&epochs);
                objects.delete_consumer(epoch, &mut cluster.case.world.lock().server);
            }
        });
    }

    async fn restart_nats(&mut self, cluster: &mut Cluster) -> Result<(), String> {
        let now = cluster.case.world.now();
        {
            let mut state = cluster.case.world.lock();
            state.server.restart(now);
            state.faults.log_lost = 1_000;
            state.faults.store_lost = 1_000;
            state.faults.checkpoint_lost = 1_000;
        }
        let time = Duration::from_millis(self.rng.between(100, 6_000));
        cluster.go_on_for(time).await?;
        cluster.case.world.lock().faults = self.rates;
        Ok(())
    }

    /// What the volume that is about to be lost may have led to.
    fn remember(&mut self, cluster: &Cluster) {
        let Some(volume) = &cluster.case.volume else {
            return;
        };
        let Ok(file) = state::digest(&volume.join(STATE_FILE)) else {
            return;
        };
        let log = cluster.case.world.look(|state| state.server.stream.clone());
        let may = lineage::beyond(&cluster.case.config, &log, &lineage::stretches(&file));
        for (id, bodies) in may {
            self.lost.entry(id).or_default().extend(bodies);
        }
    }
}
