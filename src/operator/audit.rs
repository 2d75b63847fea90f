//! What the operator did, for people who ask years later: each act once, whoever records it and however
//! often.
//!
//! Most acts can be told from how things stand, and are recorded from there: what an operator that died
//! left out is recorded by the next one, under the same key. This process remembers what it has recorded
//! and asks no more about it. An audit that does not answer holds nothing up: that is logged, and what
//! stands is tried again some time later. An act that is larger than a message may be is cut.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use lookback_protocol::audit::{Act, AuditRecord, OperatorAct, VERSION};
use lookback_protocol::names::{Owner, PipelineKey};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::warn;

use crate::nats::audit::{self, AuditError};
use crate::nats::connect::Nats;
use crate::runtime::telemetry::chain;

/// How long an audit that did not answer is left alone: each try may take as long as a request.
const AFTER_SILENCE: Duration = Duration::from_secs(30);
/// What the headers of a record need in its message.
const HEADERS: usize = 512;
/// Bytes of a message that are kept when it must be cut, and what is said then.
const KEPT: usize = 1024;
const CUT: &str = " [cut]";

/// An act, and what else people may want to know of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The same however often it is told.
    pub act: OperatorAct,
    /// More; may differ from time to time.
    pub details: Value,
}

/// Who records, for whom, and where.
#[derive(Clone, Copy, Debug)]
pub struct Author<'a> {
    /// The audit.
    pub nats: &'a Nats,
    /// The pipeline.
    pub owner: &'a Owner,
    /// This replica of the operator.
    pub instance: &'a str,
}

/// Remembers what is recorded.
#[derive(Debug, Default)]
pub struct Auditor(Mutex<HashMap<PipelineKey, Known>>);

#[derive(Debug, Default)]
struct Known {
    keys: BTreeSet<String>,
    silent: Option<Instant>,
}

impl Auditor {
    /// Records what stands and is not known to be recorded.
    pub async fn keep(&self, author: Author<'_>, standing: Vec<Told>) {
        for told in self.news(&author.owner.pipeline, standing) {
            let key = told.act.key.clone();
            let recorded = record(author, told).await;
            let mut known = self.known();
            let known = known.entry(author.owner.pipeline.clone()).or_default();
            if !recorded {
                known.silent = Some(Instant::now());
                return;
            }
            known.keys.insert(key);
        }
    }

    /// Remembers nothing of a pipeline that is gone.
    pub fn forget(&self, namespace: &str, name: &str) {
        let gone = |key: &PipelineKey| (key.namespace(), key.name()) == (namespace, name);
        self.known().retain(|key, _| !gone(key));
    }

    fn news(&self, key: &PipelineKey, mut standing: Vec<Told>) -> Vec<Told> {
        let mut known = self.known();
        let known = known.entry(key.clone()).or_default();
        if known.silent.is_some_and(|at| at.elapsed() < AFTER_SILENCE) {
            return Vec::new();
        }
        // What no longer stands is not told again.
        let told: BTreeSet<&str> = standing.iter().map(|told| told.act.key.as_str()).collect();
        known.keys.retain(|key| told.contains(key.as_str()));
        standing.retain(|told| !known.keys.contains(&told.act.key));
        standing
    }

    fn known(&self) -> MutexGuard<'_, HashMap<PipelineKey, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Records one act now. Whether the audit answered; that it did not is logged and nothing else.
pub async fn record(author: Author<'_>, told: Told) -> bool {
    let Told { act, details } = told;
    let key = act.key.clone();
    let record = AuditRecord {
        v: VERSION,
        act: Act::Operator(act),
        owner: author.owner.clone(),
        by: author.instance.to_owned(),
        time: Timestamp::now(),
        details,
    };
    let room = author.nats.max_payload().saturating_sub(HEADERS);
    let record = cut_to(record, room);
    let Err(error) = audit::record(author.nats, &record).await else {
        return true;
    };
    let pipeline = &author.owner.pipeline;
    warn!(%pipeline, key, error = %chain(&error), "Cannot record an act in the audit");
    match error {
        AuditError::Taken { .. }
        | AuditError::Unreadable { .. }
        | AuditError::Unwritable { .. } => true,
        AuditError::Unavailable(_) => false,
    }
}

/// What fits: the end of a long message goes first; then the details, and how many bytes they had is said
/// instead.
fn cut_to(mut record: AuditRecord, room: usize) -> AuditRecord {
    if size(&record) > room
        && let Act::Operator(act) = &mut record.act
        && act.message.len() > KEPT
    {
        act.message.truncate(act.message.floor_char_boundary(KEPT));
        act.message.push_str(CUT);
    }
    if size(&record) > room {
        record.details = json!({ "cut": size(&record.details) });
    }
    record
}

fn size(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(0, |bytes| bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(key: &str) -> Told {
        Told {
            act: OperatorAct {
                key: key.to_owned(),
                reason: "ReplayCompleted".to_owned(),
                message: "it has read everything".to_owned(),
            },
            details: Value::Null,
        }
    }

    fn remembering(keys: &[&str]) -> (Auditor, PipelineKey) {
        let key = PipelineKey::new("detections", "edr").unwrap();
        let known = Known {
            keys: keys.iter().map(|&key| key.to_owned()).collect(),
            silent: None,
        };
        (Auditor(Mutex::new([(key.clone(), known)].into())), key)
    }

    #[test]
    fn what_is_recorded_is_not_recorded_again() {
        let (auditor, key) = remembering(&["a"]);
        let news = auditor.news(&key, vec![told("a"), told("b")]);
        assert_eq!(news, [told("b")]);
    }

    #[test]
    fn what_no_longer_stands_takes_no_memory() {
        let (auditor, key) = remembering(&["a", "b"]);
        assert_eq!(auditor.news(&key, vec![told("b")]), []);
        assert_eq!(auditor.known()[&key].keys, BTreeSet::from(["b".to_owned()]));
    }

    #[tokio::test(start_paused = true)]
    async fn an_audit_that_did_not_answer_is_left_alone_for_a_while() {
        let (auditor, key) = remembering(&[]);
        auditor.known().entry(key.clone()).or_default().silent = Some(Instant::now());
        assert_eq!(auditor.news(&key, vec![told("a")]), []);
        tokio::time::advance(AFTER_SILENCE).await;
        assert_eq!(auditor.news(&key, vec![told("a")]), [told("a")]);
    }

    #[test]
    fn of_a_pipeline_that_is_gone_nothing_is_remembered() {
        let (auditor, key) = remembering(&["a"]);
        auditor.forget("detections", "other");
        assert_eq!(auditor.known().len(), 1);
        auditor.forget(key.namespace(), key.name());
        assert!(auditor.known().is_empty());
    }
}
