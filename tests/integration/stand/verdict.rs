//! What the pipeline stored and holds, beside what it must have stored and must hold.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt;
use lookback::nats::streams;
use lookback::state::FileDigest;
use lookback_dev::stream::Reader;
use lookback_engine::{EngineOptions, RuleSet};
use lookback_protocol::alert::AlertRecord;
use lookback_protocol::audit::AuditKind;
use lookback_protocol::position::StreamSeq;
use serde_json::Value;

use super::Stand;
use crate::worker_fixture::equals_oracle;

/// The header of the marker that a moved record leaves behind.
const MOVED: &str = "Lookback-Moved-To";
const AUDIT: &str = "LOOKBACK_AUDIT";

impl Stand {
    /// The digest of the state file as it is now.
    pub(crate) async fn digest(&self) -> Result<FileDigest> {
        let copy = self.kubelet.snapshot_volume().await?;
        Ok(lookback::state::digest(&copy.state_file())?)
    }

    /// Whether alerts, dead letters, windows and counters are those of one uninterrupted run over the
    /// lineage of the state file. Everything must be applied: see [`Self::caught_up`].
    pub(crate) async fn equals_oracle(&self) -> Result<FileDigest> {
        let copy = self.kubelet.snapshot_volume().await?;
        let configured = self.kubelet.configured().await;
        let rule_sets: Vec<_> = configured
            .iter()
            .map(|it| {
                let options = EngineOptions {
                    processing: it.config.rules.processing.clone(),
                    logsource: it.config.source.logsource.clone(),
                    correlation: it.config.correlation.clone(),
                };
                Arc::new(RuleSet::compile(&it.rules, &options).0)
            })
            .collect();
        let config = &configured.last().context("no worker was started")?.config;
        let verdict = equals_oracle(&self.js, config, &rule_sets, &copy.state_file()).await;
        match verdict {
            Ok(digest) => Ok(digest),
            Err(error) => Err(error.context(self.kubelet.story().await)),
        }
    }

    /// Every alert by its id.
    pub(crate) async fn stored_alerts(&self) -> Result<BTreeMap<String, AlertRecord>> {
        let key = self.key();
        let (stream, subjects) = (key.alerts_stream(), key.alert_subjects());
        let mut alerts = BTreeMap::new();
        let reader = Reader::last_per_subject(&self.js, &stream, &subjects).await?;
        let mut messages = std::pin::pin!(reader.messages());
        while let Some(message) = messages.try_next().await? {
            let headers = message.headers.as_ref();
            if headers.is_some_and(|headers| headers.get(MOVED).is_some()) {
                continue;
            }
            let alert: AlertRecord = serde_json::from_slice(&message.payload)?;
            let id = alert.id.clone();
            ensure!(
                alerts.insert(id.clone(), alert).is_none(),
                "alert {id} is there twice"
            );
        }
        Ok(alerts)
    }

    /// The claims of replays of this pipeline in the audit, each with its subject; empty without an audit.
    pub(crate) async fn claims(&self) -> Result<Vec<(String, Value)>> {
        if streams::read(&self.connect().await?, AUDIT)
            .await?
            .is_none()
        {
            return Ok(Vec::new());
        }
        let subject = self.key().audit_subject(AuditKind::Replay, "*");
        let reader = Reader::open(&self.js, AUDIT, &[subject], StreamSeq(1)).await?;
        let mut messages = std::pin::pin!(reader.messages());
        let mut records = Vec::new();
        while let Some(message) = messages.try_next().await? {
            let record = serde_json::from_slice(&message.payload)?;
            records.push((message.subject.to_string(), record));
        }
        Ok(records)
    }
}
