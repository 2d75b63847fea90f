//! Requests that move the cursor, as the worker does them: a rollout to a new epoch with a consumer of
//! its own, and the file that it finds.

mod decision;
mod lost;
mod once;
mod outputs;
mod peers;
mod rebuild;
mod streams;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt;
use lookback::state::LedgerRow;
use lookback_dev::compare::{Comparison, stored_alerts};
use lookback_dev::oracle::{self, Findings, Segment};
use lookback_dev::stream::Reader;
use lookback_protocol::alert::AlertRecord;
use lookback_protocol::config::{Cursor, Rewind};
use lookback_protocol::position::{Epoch, StreamSeq};
use lookback_protocol::replay::request::{Outputs, RequestId, StatePolicy};
use lookback_protocol::start::OutputRule;
use lookback_protocol::termination::{ExitReason, TerminationMessage};

use crate::nats_fixture::key;
use crate::worker_fixture::Rig;

/// A request to read everything from `start` on.
fn request(rig: &Rig, id: &str, policy: StatePolicy, start: u64) -> Rewind {
    Rewind {
        request_id: RequestId::new(id).expect("a valid id"),
        fingerprint: format!("h-{id}"),
        of: Some(rig.config.epoch),
        start: StreamSeq(start),
        read_from: None,
        latest: false,
        state_policy: policy,
        outputs: Outputs::Live,
        target: StreamSeq(0),
        plan_hash: "p".to_owned(),
    }
}

impl Rig {
    /// A rollout to the next epoch, with the consumer that the operator makes for it.
    async fn roll_out(&mut self, cursor: Cursor) -> Result<()> {
        let epoch = Epoch(self.config.epoch.0 + 1);
        self.config.epoch = epoch;
        self.config.cursor = cursor;
        self.config.source.consumer = key().consumer(0, epoch);
        self.create_consumer().await
    }

    async fn ask(&mut self, rewind: Rewind) -> Result<()> {
        self.roll_out(Cursor::Rewind(rewind)).await
    }

    /// The pipeline begins with `rewind`: nothing ran before it.
    async fn begin_with(&mut self, rewind: Rewind) -> Result<()> {
        self.config.cursor = Cursor::Rewind(Rewind { of: None, ..rewind });
        self.create_consumer().await
    }

    /// A worker reads everything there is and ends in order.
    async fn read_all(&self) -> Result<()> {
        let worker = self.start();
        worker.applied(self.last().await?).await?;
        worker.drain().await
    }

    async fn refused(&self, reason: ExitReason) -> Result<TerminationMessage> {
        let message = self.start().ended().await?;
        ensure!(message.reason == reason, "{message:?}");
        Ok(message)
    }

    fn ledger(&self) -> Result<Vec<LedgerRow>> {
        Ok(lookback::state::digest(&self.state_file())?.ledger)
    }

    /// From `start` through `last` under the rules in force, with the windows there are.
    fn segment(&self, start: u64, last: Option<u64>) -> Segment {
        Segment {
            start: StreamSeq(start),
            last: last.map(StreamSeq),
            dropped: false,
            output: OutputRule::default(),
            filter: self.config.source.subjects.clone(),
            rules: Arc::clone(&self.rule_sets[self.rule_sets.len() - 1]),
        }
    }

    async fn oracle(&self, segments: &[Segment]) -> Result<Findings> {
        let through = StreamSeq(self.last().await?);
        oracle::run(&self.js, &self.config, segments, through).await
    }

    /// Whether windows and alerts are those of `segments`, whatever the state file says of its
    /// lineage. No worker may run.
    async fn equals(&self, segments: &[Segment]) -> Result<Findings> {
        let findings = self.oracle(segments).await?;
        let alerts = stored_alerts(&self.js, &key()).await?;
        let alerts = Comparison::new("alerts", &findings.alerts, &alerts);
        ensure!(alerts.is_exact(), "{alerts}");
        let state = lookback::state::digest(&self.state_file())?;
        ensure!(
            state.position.sequence == findings.position,
            "it stands at {}, not at {}",
            state.position.sequence,
            findings.position
        );
        ensure!(
            state.state_digest == findings.state_digest,
            "the windows at {} differ",
            findings.position
        );
        Ok(findings)
    }

    /// Every alert that is stored, by its id.
    async fn stored(&self) -> Result<BTreeMap<String, AlertRecord>> {
        let (stream, subjects) = (key().alerts_stream(), key().alert_subjects());
        let reader = Reader::last_per_subject(&self.js, &stream, &subjects).await?;
        let mut messages = std::pin::pin!(reader.messages());
        let mut alerts = BTreeMap::new();
        while let Some(message) = messages.try_next().await? {
            let alert: AlertRecord = serde_json::from_slice(&message.payload)?;
            alerts.insert(alert.id.clone(), alert);
        }
        Ok(alerts)
    }

    async fn ids(&self) -> Result<BTreeSet<String>> {
        Ok(self.stored().await?.into_keys().collect())
    }
}

/// The sequence of the event that completed an alert.
fn trigger(alert: &AlertRecord) -> u64 {
    alert.events.last().map_or(0, |event| event.sequence.0)
}

/// Puts a copy of a volume, taken while nobody had it open, in the place of what is there.
fn restore(copy: &Path, state_file: &Path) -> Result<()> {
    std::fs::copy(copy, state_file).context("restore the state file")?;
    match std::fs::remove_file(state_file.with_extension("db-wal")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).context("remove the WAL")
        }
        _ => Ok(()),
    }
}
