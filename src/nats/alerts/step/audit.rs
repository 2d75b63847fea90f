//! What a step leaves in the audit: before it what the record has no more room for, after it what was
//! done, and beside that what whoever took the step before left out.

use lookback_protocol::alert::ARCHIVED;
use lookback_protocol::audit::{self, Act, AlertAct, Archived, AuditRecord};
use lookback_protocol::workflow::{Ask, Step};
use serde_json::json;
use tracing::warn;

use super::StepError;
use crate::nats::alerts::store::{AlertStore, Version};
use crate::nats::audit::{AuditError, read, record, subject};
use crate::runtime::telemetry::chain;

impl AlertStore {
    /// Puts into the audit what is not in the stream any more once the step is taken.
    pub(super) async fn keep_past(&self, step: &Step, ask: &Ask) -> Result<(), AuditError> {
        for past in &step.overflow {
            let past = self.audit_record(Act::History(past.clone()), ask);
            record(&self.nats, &past).await?;
        }
        if step.record.state == ARCHIVED {
            let archived = Archived {
                alert: Box::new(step.record.clone()),
            };
            let archived = self.audit_record(Act::Archive(archived), ask);
            record(&self.nats, &archived).await?;
        }
        Ok(())
    }

    /// Puts into the audit what was done.
    pub(super) async fn audit(
        &self,
        id: &str,
        transition: &str,
        (from, to): (&str, &str),
        sequence: u64,
        ask: &Ask,
    ) -> Result<(), StepError> {
        let act = Act::Alert(AlertAct {
            alert: id.to_owned(),
            op_id: ask.op_id.clone(),
            transition: transition.to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
            reason: ask.reason.clone(),
            sequence,
        });
        record(&self.nats, &self.audit_record(act, ask))
            .await
            .map_err(|source| StepError::AuditAfter {
                id: id.to_owned(),
                state: to.to_owned(),
                source,
            })
    }

    /// Puts into the audit the step that made the version `found`, unless it is there: who took it may
    /// have died before. That this fails is nothing to whoever takes another step; it is only logged.
    pub(super) async fn audit_last(&self, found: &Version) {
        if let Err(error) = self.try_audit_last(found).await {
            let alert = &found.alert.id;
            warn!(alert, error = %chain(&*error), "Cannot see to it that the audit has an earlier step");
        }
    }

    async fn try_audit_last(
        &self,
        found: &Version,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let kept;
        let alert = match &found.alert.record {
            Some(alert) => alert,
            None => {
                kept = self.archived(&found.alert.id).await?;
                &kept
            }
        };
        // What a worker created was no step.
        let Some((entry, from)) = alert
            .history
            .last()
            .and_then(|entry| Some((entry, entry.from.as_ref()?)))
        else {
            return Ok(());
        };
        let act = AlertAct {
            alert: found.alert.id.clone(),
            op_id: found.op_id.clone(),
            transition: entry.transition.clone(),
            from: from.clone(),
            to: entry.to.clone(),
            reason: entry.reason.clone(),
            sequence: found.alert.sequence,
        };
        let step = AuditRecord {
            v: audit::VERSION,
            act: Act::Alert(act),
            owner: self.owner.clone(),
            by: entry.by.clone(),
            time: entry.time,
            details: json!({}),
        };
        if read(&self.nats, &subject(&step)).await?.is_none() {
            record(&self.nats, &step).await?;
        }
        Ok(())
    }

    fn audit_record(&self, act: Act, ask: &Ask) -> AuditRecord {
        AuditRecord {
            v: audit::VERSION,
            act,
            owner: self.owner.clone(),
            by: ask.by.clone(),
            time: ask.time,
            details: json!({}),
        }
    }
}
