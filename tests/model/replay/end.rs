//! The end of a case: no more trouble until nothing changes any more, and then everything compared.

use std::collections::BTreeMap;
use std::time::Duration;

use lookback::state::{self, FileDigest};
use lookback_protocol::checkpoint::{Checkpoint, Phase, RequestOutcome};
use lookback_protocol::position::StreamSeq;
use lookback_protocol::replay::machine::{Accepted, Step};
use lookback_protocol::replay::record::{ReplayPhase, Windows};
use lookback_protocol::replay::request::RequestId;
use lookback_protocol::termination::ExitReason;
use serde_json::Value;
use tokio::time::sleep;

use super::api::look;
use super::cluster::Cluster;
use super::lineage;
use crate::invariants::STATE_FILE;
use crate::oracle;
use crate::scenario;
use crate::sim::Faults;

/// What may be stored of lineages that were lost with their volumes, by id.
pub(crate) type Lost = BTreeMap<String, Vec<Value>>;

impl Cluster {
    /// Ends all trouble, waits until all is quiet, and checks.
    pub(crate) async fn finish(&mut self, lost: &Lost) -> Result<(), String> {
        self.case.world.note(|| "quiesce".to_owned());
        self.case.world.lock().faults = Faults::default();
        self.broken = false;
        look(&self.api, |objects| objects.edit(|it| it.suspended = false));
        let last = self
            .case
            .publish("ev.win", scenario::logon("ok", "alice", "h1"));
        self.settle(last).await?;
        let message = self.case.drain(Duration::from_secs(60)).await?;
        if message.reason != ExitReason::Drained {
            return Err(format!("a drained worker said {message:?}"));
        }
        self.case.breaches()?;
        self.check_requests()?;
        self.check_state(lost)
    }

    async fn settle(&mut self, last: u64) -> Result<(), String> {
        let mut quiet = 0;
        let mut waits_for = String::new();
        for _ in 0..1_000 {
            let decided = self.go_on(None).await?;
            let acts = decided.is_some_and(|it| {
                waits_for = format!(
                    "{:?}: {}",
                    it.decision.accepted, it.decision.accepted_because
                );
                let settled = !matches!(
                    it.decision.accepted,
                    Accepted::Queued | Accepted::Throttled | Accepted::AwaitingApproval
                );
                settled && matches!(it.decision.step, Step::Act(_))
            });
            self.approve();
            self.give_up();
            let done = look(&self.api, |objects| {
                let epoch = objects.written.epoch;
                let pod = objects.pod.as_ref().filter(|pod| !pod.says_lost);
                objects.written.unfinished().is_none() && pod.map(|pod| pod.epoch) == epoch
            });
            let reached = self.case.position() >= last && self.case.is_running();
            quiet = if acts && done && reached {
                quiet + 1
            } else {
                0
            };
            if quiet >= 5 {
                return Ok(());
            }
            sleep(Duration::from_millis(500)).await;
        }
        let record = look(&self.api, |objects| objects.written.record.clone());
        Err(format!(
            "not quiet: {waits_for}; position {}; {record:?}",
            self.case.position()
        ))
    }

    /// A person takes out a block with which a pipeline cannot begin.
    fn give_up(&self) {
        look(&self.api, |objects| {
            let rejected = |phase| phase == ReplayPhase::Rejected;
            let record = objects.written.record.as_ref();
            if objects.written.epoch.is_none() && record.is_some_and(|it| rejected(it.phase)) {
                objects.edit(|it| it.block = None);
            }
        });
    }

    /// A person approves the plan that waits.
    pub(crate) fn approve(&self) {
        look(&self.api, |objects| {
            let record = objects.written.unfinished();
            let waits = record.filter(|it| it.phase == ReplayPhase::AwaitingApproval);
            let hash = waits
                .and_then(|record| record.plan.as_ref())
                .map(|plan| plan.hash.clone());
            if hash.is_some() && hash != objects.approved {
                objects.edit(|it| it.approved = hash);
            }
        });
    }

    /// Every checkpoint that ever stood, oldest first.
    fn checkpoints(&self) -> Vec<Checkpoint> {
        self.case.world.look(|state| {
            let bodies = state.checkpoint.written.iter();
            bodies
                .map(|body| serde_json::from_slice(body).expect("only we write it"))
                .collect()
        })
    }

    /// Every request was applied once or never, and what is said of it fits.
    fn check_requests(&self) -> Result<(), String> {
        let checkpoints = self.checkpoints();
        let mut epoch = 0;
        let mut applied: BTreeMap<RequestId, u64> = BTreeMap::new();
        for checkpoint in &checkpoints {
            if checkpoint.epoch.0 < epoch {
                return Err(format!("epoch {epoch} is followed by {}", checkpoint.epoch));
            }
            epoch = checkpoint.epoch.0;
            let Some(request) = &checkpoint.request else {
                continue;
            };
            match (request.outcome, applied.get(&request.id)) {
                (RequestOutcome::Applying, Some(before)) => {
                    return Err(format!(
                        "request {} was applied in epoch {before} and is applied again in {epoch}",
                        request.id
                    ));
                }
                (RequestOutcome::Applied, Some(before)) if *before != epoch => {
                    return Err(format!(
                        "request {} was applied in {before} and {epoch}",
                        request.id
                    ));
                }
                (RequestOutcome::Applied, _) => {
                    applied.insert(request.id.clone(), epoch);
                }
                (RequestOutcome::Applying, None) => {}
                (RequestOutcome::AlreadyApplied, _) => {
                    return Err(format!("request {} was begun twice", request.id));
                }
            }
        }
        let begun = |id: &RequestId| {
            checkpoints.iter().any(|it| {
                it.phase == Phase::Applying
                    && it.request.as_ref().is_some_and(|said| said.id == *id)
            })
        };
        look(&self.api, |objects| {
            if objects.witness.fenced_a_running_pod {
                return Err("a pod was there when the fencing ended".to_owned());
            }
            if objects.witness.acted_first {
                return Err("something was done under a phase that was not written".to_owned());
            }
            for finished in objects.witness.last_of_each() {
                let id = &finished.id;
                let was_begun = applied.contains_key(id) || begun(id);
                let is_wrong = match finished.phase {
                    ReplayPhase::Completed => !applied.contains_key(id),
                    _ => was_begun && !finished.message.contains("was lost"),
                };
                if is_wrong {
                    return Err(format!("begun {was_begun}, and said to be {finished:?}"));
                }
            }
            for (id, (claimed, _)) in &objects.claims {
                let ended = objects.witness.finished.iter().any(|it| it.id == *id);
                let is_settled = applied.contains_key(id) || ended || objects.witness.was_recreated;
                if !is_settled {
                    return Err(format!("{id}, claimed in epoch {claimed}, came to nothing"));
                }
            }
            Ok(())
        })
    }

    /// Windows and alerts are those of the lineage.
    fn check_state(&self, lost: &Lost) -> Result<(), String> {
        let volume = self.case.volume.clone().ok_or("no worker ended")?;
        let file = state::digest(&volume.join(STATE_FILE)).map_err(|error| error.to_string())?;
        let config = &self.case.config;
        let log = self.case.world.look(|state| state.server.stream.clone());
        let stretches = lineage::stretches(&file);
        let expected = lineage::run(config, &log, &stretches);
        if file.state_digest != expected.state_digest {
            return Err(format!("I1: other windows than the lineage {stretches:?}"));
        }
        self.check_ledger(&file)?;
        let mut may = lineage::beyond(config, &log, &stretches);
        for (id, bodies) in lost {
            may.entry(id.clone())
                .or_default()
                .extend(bodies.iter().cloned());
        }
        self.case.world.look(|state| {
            let mut stored = BTreeMap::new();
            for (id, record) in state.alerts.all() {
                let body = oracle::stored_alert(&record.body);
                let bodies = may.get(id);
                // Alerts may be stored under an epoch that then committed nothing: no lineage shows it.
                let epoch = record.body["epoch"].as_u64();
                let is_in_lineage = file.lineage.iter().any(|it| Some(it.epoch.0) == epoch);
                if is_in_lineage && !bodies.is_some_and(|bodies| bodies.contains(&body)) {
                    return Err(format!(
                        "I3: alert {id} is of no lineage: {body}, those have {bodies:?}; {stretches:?}"
                    ));
                }
                if stored.insert(id.to_owned(), body).is_some() {
                    return Err(format!("I3: alert {id} is stored twice"));
                }
            }
            match expected
                .alerts
                .iter()
                .find(|(id, _)| !stored.contains_key(*id))
            {
                Some((id, body)) => Err(format!("I3: alert {id} is missing: {body}")),
                None => Ok(()),
            }
        })
    }

    /// The file was moved as it was planned, and a Rebuild gave the windows of one single pass.
    fn check_ledger(&self, file: &FileDigest) -> Result<(), String> {
        let (plans, finished) = look(&self.api, |objects| {
            (
                objects.witness.plans.clone(),
                objects.witness.last_of_each(),
            )
        });
        for row in &file.ledger {
            let Some(plan) = plans.get(&row.request_id) else {
                return Err(format!("{} was applied and never planned", row.request_id));
            };
            let read_from = plan.read_back.as_ref().map(|back| back.from);
            if (row.start, row.read_from) != (plan.start, read_from) {
                return Err(format!("{row:?} was planned as {plan:?}"));
            }
            let suppress_below = read_from.map_or(StreamSeq(0), |_| plan.start);
            let mut under = file.lineage.iter().filter(|it| it.epoch == row.epoch);
            if under.any(|it| it.output.suppress_below != suppress_below) {
                return Err(format!("{row:?} does not suppress what is read back"));
            }
            let undone = [ReplayPhase::Failed, ReplayPhase::Superseded];
            let mut finished = finished.iter().filter(|it| it.id == row.request_id);
            if finished.any(|it| undone.contains(&it.phase) && !it.message.contains("was lost")) {
                return Err(format!("{row:?} was undone and moved the file"));
            }
        }
        let Some(row) = file.ledger.last() else {
            return Ok(());
        };
        let exact = plans[&row.request_id]
            .read_back
            .as_ref()
            .is_some_and(|back| back.exact);
        if row.windows == Windows::Rebuilt && exact {
            let log = self.case.world.look(|state| state.server.stream.clone());
            let position: StreamSeq = file.position.sequence;
            let whole = lineage::run(&self.case.config, &log, &lineage::whole(position));
            if whole.state_digest != file.state_digest {
                return Err(format!(
                    "a Rebuild gave other windows than one pass: {row:?}"
                ));
            }
        }
        Ok(())
    }
}
