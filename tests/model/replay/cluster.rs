//! One pipeline in a cluster: its objects, the operator, and a node that runs its pod.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use lookback_protocol::config::{Cursor, WorkerConfig};
use lookback_protocol::position::Epoch;
use lookback_protocol::replay::request::StatePolicy;
use lookback_protocol::termination::ExitReason;
use tokio::time::sleep;

use super::api::{Api, Objects, PodView, look};
use super::operator::{Decided, Operator};
use crate::case::{Case, Setup};

/// Everything there is.
pub(crate) struct Cluster {
    pub(crate) case: Case,
    pub(crate) api: Api,
    pub(crate) operator: Operator,
    /// No container of the pod starts.
    pub(crate) broken: bool,
    pod: Option<Pod>,
    ack_wait: Duration,
    base: WorkerConfig,
    /// What a former leader decided before it fell asleep.
    pub(crate) asleep: Option<Decided>,
}

/// The pod that exists.
struct Pod {
    epoch: Epoch,
    cursor: Cursor,
}

impl Cluster {
    pub(crate) fn new(setup: Setup, on_loss: StatePolicy) -> Self {
        let case = Case::new(setup);
        case.world.lock().server.delete_consumer();
        let api: Api = Arc::new(Mutex::new(Objects::default()));
        let base = case.config.clone();
        Self {
            operator: Operator::new(&case.world, &api, &base, on_loss),
            case,
            api,
            broken: false,
            pod: None,
            ack_wait: setup.ack_wait,
            base,
            asleep: None,
        }
    }

    /// The operator's round, and what the node makes of it.
    pub(crate) async fn go_on(&mut self, dies_in: Option<u64>) -> Result<Option<Decided>, String> {
        let decided = self.operator.round(dies_in).await;
        self.tick().await?;
        Ok(decided)
    }

    /// The StatefulSet's controller and the kubelet.
    pub(crate) async fn tick(&mut self) -> Result<(), String> {
        let set = look(&self.api, |objects| {
            if let Some(set) = &mut objects.set {
                set.observed = true;
            }
            objects.set.clone()
        });
        let set = set.filter(|set| set.runs);
        if let Some(pod) = &self.pod {
            let stays = set
                .as_ref()
                .is_some_and(|set| (set.epoch, &set.cursor) == (pod.epoch, &pod.cursor));
            if !stays {
                return self.end_pod().await;
            }
        } else if let Some(set) = set {
            self.pod = Some(Pod {
                epoch: set.epoch,
                cursor: set.cursor,
            });
            look(&self.api, |objects| {
                objects.pod = Some(PodView {
                    epoch: set.epoch,
                    says_lost: false,
                    trouble: None,
                });
            });
        }
        self.run_container().await
    }

    /// SIGTERM, and SIGKILL for who takes too long.
    async fn end_pod(&mut self) -> Result<(), String> {
        if self.case.has_ended() {
            self.bury().await?;
        } else if self.case.is_running() && self.case.drain(Duration::from_secs(5)).await.is_err() {
            self.case.kill(true).await;
        }
        self.pod = None;
        look(&self.api, |objects| objects.pod = None);
        self.case.breaches()
    }

    /// The kubelet starts what has ended again.
    async fn run_container(&mut self) -> Result<(), String> {
        let Some(pod) = &self.pod else {
            return Ok(());
        };
        let (epoch, cursor) = (pod.epoch, pod.cursor.clone());
        if self.case.has_ended() {
            self.bury().await?;
        }
        let broken = self.broken;
        look(&self.api, |objects| {
            if let Some(pod) = &mut objects.pod {
                pod.trouble = broken.then(|| "its image cannot be pulled".to_owned());
            }
        });
        if self.case.is_running() || broken {
            return self.case.breaches();
        }
        let ack_wait = self.ack_wait;
        let metadata = look(&self.api, |objects| {
            let mut state = self.case.world.lock();
            objects.serve(epoch, &mut state.server, |server| {
                server.create_consumer("", ack_wait);
            });
            objects.consumers.get(&epoch).cloned()
        });
        let mut config = self.base.clone();
        config.epoch = epoch;
        config.cursor = cursor;
        config.source.consumer = config.owner.pipeline.consumer(0, epoch);
        if let Some(metadata) = metadata {
            config.source.start = metadata.start;
        }
        self.case.config = config;
        self.case
            .world
            .note(|| format!("container of epoch {epoch}"));
        self.case.start();
        self.case.breaches()
    }

    /// A container has ended by itself.
    async fn bury(&mut self) -> Result<(), String> {
        let message = self.case.end_within(Duration::from_secs(1)).await?;
        let heals = [
            ExitReason::NatsUnavailable,
            ExitReason::ConsumerMissing,
            ExitReason::Fenced,
            ExitReason::StateLost,
            ExitReason::Drained,
        ];
        if !heals.contains(&message.reason) {
            return Err(format!("worker ended: {message:?}"));
        }
        look(&self.api, |objects| {
            if let Some(pod) = &mut objects.pod {
                pod.says_lost = message.reason == ExitReason::StateLost;
            }
        });
        Ok(())
    }

    /// Goes on for a while.
    pub(crate) async fn go_on_for(&mut self, time: Duration) -> Result<(), String> {
        let until = self.case.world.now() + time;
        while self.case.world.now() < until {
            self.go_on(None).await?;
            sleep(Duration::from_millis(300)).await;
        }
        Ok(())
    }
}
