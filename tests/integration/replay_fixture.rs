//! Requests on a [`Stand`], and what must be true of one that was carried out exactly once.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use jiff::SignedDuration;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use lookback::api::status::Condition;
use lookback::operator::Settings;
use lookback::state::FileDigest;
use lookback_dev::support::{TcpProxy, eventually};
use lookback_protocol::position::Epoch;
use lookback_protocol::replay::record::{Record, ReplayPhase};
use serde_json::Value;

use crate::operator_fixture::{NAME, SOON, World};
use crate::stand::Stand;

pub(crate) const ALARM: &str = r#"{"kind":"alarm"}"#;
pub(crate) const STEP: &str = r#"{"kind":"step","user":"eve"}"#;
pub(crate) const NOISE: &str = r#"{"kind":"noise"}"#;
pub(crate) const POD: &str = "edr-0";

/// A pipeline that runs and has applied these events.
pub(crate) async fn applied(events: &[&str]) -> Result<Stand> {
    applied_with(events, World::settings).await
}

/// The same under an operator with other settings.
pub(crate) async fn applied_with(
    events: &[&str],
    settings: impl FnOnce(&World) -> Settings,
) -> Result<Stand> {
    let mut stand = Stand::new().await?;
    let settings = settings(&stand);
    stand.start_operator_with(settings).await?;
    for event in events {
        stand.publish(event).await?;
    }
    stand.apply(&stand.spec()).await?;
    stand.caught_up().await?;
    Ok(stand)
}

/// A pipeline that runs and has applied so many events of the story.
pub(crate) async fn story_applied(events: usize) -> Result<Stand> {
    let mut stand = Stand::with_story_rules().await?;
    stand.start_operator().await?;
    stand.publish_story(events).await?;
    stand.apply(&stand.spec()).await?;
    stand.caught_up().await?;
    Ok(stand)
}

/// Puts an operator in the place of the one that runs, for which a step that takes longer than this
/// fails: only while one stands still, or a slow machine would let another one fail.
pub(crate) async fn grow_impatient(stand: &mut Stand) -> Result<()> {
    let mut settings = stand.settings();
    settings.limits.step_timeout = SignedDuration::from_secs(2);
    stand.kill_operator().await?;
    stand.start_operator_with(settings).await
}

/// The usual operator again.
pub(crate) async fn grow_patient(stand: &mut Stand) -> Result<()> {
    stand.kill_operator().await?;
    stand.start_operator().await
}

/// The usual spec with a block.
pub(crate) fn with_replay(stand: &Stand, block: Value) -> Value {
    let mut spec = stand.spec();
    spec["replay"] = block;
    spec
}

/// Applies the usual spec with a block.
pub(crate) async fn ask(stand: &Stand, block: Value) -> Result<()> {
    stand.apply(&with_replay(stand, block)).await?;
    Ok(())
}

/// The record of the request `id`, once its phase is `phase` or a later one.
pub(crate) async fn begun(stand: &Stand, id: &str, phase: ReplayPhase) -> Result<Record> {
    let holds = |record: &Record| record.phase >= phase;
    recorded(stand, id, &format!("{phase:?} or later"), holds).await
}

/// The record of the request `id`, once it is in this phase.
pub(crate) async fn ended(stand: &Stand, id: &str, phase: ReplayPhase) -> Result<Record> {
    let holds = |record: &Record| record.phase == phase;
    recorded(stand, id, &format!("{phase:?}"), holds).await
}

pub(crate) async fn completed(stand: &Stand, id: &str) -> Result<Record> {
    ended(stand, id, ReplayPhase::Completed).await
}

async fn recorded(
    stand: &Stand,
    id: &str,
    what: &str,
    holds: impl Fn(&Record) -> bool,
) -> Result<Record> {
    let found = eventually(SOON, &format!("request {id} is {what}"), async || {
        let status = stand.status().await?;
        let record = status.replay.as_ref().context("no request is recorded")?;
        let right = record.request.id.as_str() == id && holds(record);
        let conditions = &status.conditions;
        ensure!(right, "recorded is {record:#?}, conditions {conditions:#?}");
        Ok(record.clone())
    })
    .await;
    match found {
        Ok(record) => Ok(record),
        Err(error) => Err(error.context(stand.kubelet.story().await)),
    }
}

/// The condition `ReplayAccepted`, once it stands for this reason and its message names `id`.
pub(crate) async fn answered(stand: &Stand, id: &str, reason: &str) -> Result<Condition> {
    eventually(SOON, &format!("{id} is {reason}"), async || {
        let status = stand.status().await?;
        let found = crate::operator_fixture::find(&status, "ReplayAccepted")?;
        let right = found.reason == reason && found.message.contains(id);
        ensure!(right, "it is {found:#?}, the record {:#?}", status.replay);
        Ok(found)
    })
    .await
}

/// What is true when exactly these requests, each with its epoch, ever moved the state file, and the
/// pipeline goes on in `epoch`: every ledger says so, and alerts, dead letters, windows and counters
/// are those of one uninterrupted run that went back where the requests say, each alert once.
pub(crate) async fn carried_out(
    stand: &Stand,
    epoch: u64,
    requests: &[(&str, u64)],
) -> Result<FileDigest> {
    let checkpoint = match stand.caught_up().await {
        Ok(checkpoint) => checkpoint,
        Err(error) => return Err(error.context(format!("{:#?}", stand.status().await?))),
    };
    let digest = stand.equals_oracle().await?;
    let told = in_ledger(&digest);
    ensure!(told == requests, "the state file was moved by {told:?}");
    ensure!(checkpoint.epoch == Epoch(epoch), "{checkpoint:#?}");
    eventually(SOON, "the status says the epoch", async || {
        let status = stand.status().await?;
        ensure!(status.epoch == i64::try_from(epoch).ok(), "{status:#?}");
        Ok(())
    })
    .await?;
    ensure!(stand.consumer(epoch).await?.is_some(), "no consumer");
    let claims = stand.claims().await?;
    for (id, epoch) in requests {
        let claims = claims.iter().filter(|(_, claim)| claim["requestId"] == *id);
        let epochs: Vec<_> = claims.map(|(_, claim)| claim["epoch"].clone()).collect();
        ensure!(epochs == [*epoch], "request {id} is claimed for {epochs:?}");
    }
    let told = template_epoch(stand).await?;
    ensure!(told == epoch.to_string(), "the pods are told epoch {told}");
    stand.stored_alerts().await?;
    Ok(digest)
}

/// The requests that moved the state file, each with its epoch.
pub(crate) fn in_ledger(digest: &FileDigest) -> Vec<(&str, u64)> {
    let rows = digest.ledger.iter();
    rows.map(|row| (row.request_id.as_str(), row.epoch.0))
        .collect()
}

/// The epoch in the pods' template.
pub(crate) async fn template_epoch(stand: &Stand) -> Result<String> {
    let set: StatefulSet = stand.api().get(NAME).await?;
    let template = set.spec.context("no spec")?.template;
    let annotations = template.metadata.and_then(|it| it.annotations);
    let mut annotations = annotations.context("no annotations")?;
    annotations
        .remove("lookback.dev/epoch")
        .context("no epoch in the template")
}

pub(crate) async fn pod_uid(stand: &Stand) -> Result<String> {
    let pod: Pod = stand.api().get(POD).await?;
    pod.uid().context("no uid")
}

/// Waits until the proxy has frozen at the text it waits for.
pub(crate) async fn frozen(proxy: &TcpProxy) -> Result<()> {
    eventually(SOON, "the message is on its way", async || {
        ensure!(proxy.is_frozen(), "not yet");
        Ok(())
    })
    .await
}

/// Workers that are started from now on go through this proxy, which freezes when one of them sends
/// `text`.
pub(crate) async fn stopped_at(stand: &Stand, text: &str) -> Result<TcpProxy> {
    let proxy = TcpProxy::start(stand.nats.address()).await?;
    let url = format!("nats://{}", proxy.address());
    stand.kubelet.route(Some(url)).await;
    proxy.freeze_at(text);
    Ok(proxy)
}

/// Numbers below a bound that look random and are the same in every run, unless `REPLAY_SEED` says
/// otherwise: it is added to every seed.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        let more = std::env::var("REPLAY_SEED");
        let seed = seed + more.map_or(0, |more| more.parse().expect("REPLAY_SEED is a number"));
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        // xorshift64*.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % bound
    }

    /// An index of one of so many.
    pub(crate) fn pick(&mut self, of: usize) -> usize {
        usize::try_from(self.below(of as u64)).expect("an index below a length fits")
    }

    pub(crate) fn millis(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.below(most - least))
    }
}
