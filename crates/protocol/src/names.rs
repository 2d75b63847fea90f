//! The names of everything one pipeline owns. They cannot clash: Kubernetes names hold no `_`, and
//! the namespace and name of a pipeline are single subject tokens.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::audit::AuditKind;
use crate::position::Epoch;

/// The KV bucket with checkpoints, one per NATS account.
pub const STATE_BUCKET: &str = "LOOKBACK_STATE";
/// The stream behind [`STATE_BUCKET`].
pub const STATE_STREAM: &str = "KV_LOOKBACK_STATE";
/// The write-once stream of what was done and by whom, one per NATS account.
pub const AUDIT_STREAM: &str = "LOOKBACK_AUDIT";
/// Every subject of [`AUDIT_STREAM`].
pub const AUDIT_SUBJECTS: &str = "lookback.audit.>";
/// The longest name of a pipeline, so that every derived name fits Kubernetes' 63 characters.
pub const MAX_NAME: usize = 40;

/// A namespace or name that cannot be a subject token or a Kubernetes name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    /// The namespace is no DNS label.
    #[error("namespace {0:?} is no DNS label (a-z, 0-9, '-', at most 63 characters)")]
    Namespace(String),
    /// The name breaks the pattern or is too long.
    #[error(
        "pipeline name {0:?} must match ^[a-z]([-a-z0-9]*[a-z0-9])?$ and have at most {MAX_NAME} characters"
    )]
    Name(String),
}

/// Namespace and name of a pipeline, checked once; every derived name comes from here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "RawKey")]
pub struct PipelineKey {
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
struct RawKey {
    namespace: String,
    name: String,
}

impl TryFrom<RawKey> for PipelineKey {
    type Error = NameError;

    fn try_from(raw: RawKey) -> Result<Self, NameError> {
        Self::new(&raw.namespace, &raw.name)
    }
}

impl PipelineKey {
    /// Checks both parts.
    ///
    /// # Errors
    /// [`NameError`] names the part that is no valid name.
    pub fn new(namespace: &str, name: &str) -> Result<Self, NameError> {
        if !is_dns_label(namespace) {
            return Err(NameError::Namespace(namespace.to_owned()));
        }
        let starts_with_letter = name.starts_with(|c: char| c.is_ascii_lowercase());
        if !is_dns_label(name) || !starts_with_letter || name.len() > MAX_NAME {
            return Err(NameError::Name(name.to_owned()));
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }

    /// The Kubernetes namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The name of the DetectionPipeline; also of its StatefulSet.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The durable consumer of one partition and epoch on the source stream.
    #[must_use]
    pub fn consumer(&self, partition: u32, epoch: Epoch) -> String {
        format!("lb_{}_{}_p{partition}_e{epoch}", self.namespace, self.name)
    }

    /// The epoch whose [`Self::consumer`] has this name; `None` when it is none of this pipeline's and
    /// partition's.
    #[must_use]
    pub fn epoch_of(&self, partition: u32, consumer: &str) -> Option<Epoch> {
        let (_, digits) = consumer.rsplit_once('e')?;
        let epoch = Epoch(digits.parse().ok()?);
        (consumer == self.consumer(partition, epoch)).then_some(epoch)
    }

    /// The stream that holds this pipeline's alerts.
    #[must_use]
    pub fn alerts_stream(&self) -> String {
        format!("LB_{}_{}_ALERTS", self.namespace, self.name)
    }

    /// What the subjects of [`Self::alerts_stream`] begin with.
    #[must_use]
    pub fn alert_prefix(&self) -> String {
        format!("lookback.v1.{}.{}.alert", self.namespace, self.name)
    }

    /// Every subject of [`Self::alerts_stream`].
    #[must_use]
    pub fn alert_subjects(&self) -> String {
        format!("{}.>", self.alert_prefix())
    }

    /// Where an alert in `state` stands; `*` for the state finds it wherever it is.
    #[must_use]
    pub fn alert_subject(&self, state: &str, id: &str) -> String {
        format!("{}.{state}.{id}", self.alert_prefix())
    }

    /// The stream that holds this pipeline's dead letters.
    #[must_use]
    pub fn dead_letters_stream(&self) -> String {
        format!("LB_{}_{}_DLQ", self.namespace, self.name)
    }

    /// What the subjects of [`Self::dead_letters_stream`] begin with.
    #[must_use]
    pub fn dead_letter_prefix(&self) -> String {
        format!("lookback.v1.{}.{}.dlq", self.namespace, self.name)
    }

    /// Every subject of [`Self::dead_letters_stream`].
    #[must_use]
    pub fn dead_letter_subjects(&self) -> String {
        format!("{}.>", self.dead_letter_prefix())
    }

    /// Where a dead letter in `state` stands; `*` for the state finds it wherever it is.
    #[must_use]
    pub fn dead_letter_subject(&self, state: &str, id: &str) -> String {
        format!("{}.{state}.{id}", self.dead_letter_prefix())
    }

    /// The key in [`STATE_BUCKET`] of one partition's checkpoint.
    #[must_use]
    pub fn checkpoint_key(&self, partition: u32) -> String {
        format!("{}.{}.ckpt.{partition}", self.namespace, self.name)
    }

    /// The subject behind [`Self::checkpoint_key`].
    #[must_use]
    pub fn checkpoint_subject(&self, partition: u32) -> String {
        format!("$KV.{STATE_BUCKET}.{}", self.checkpoint_key(partition))
    }

    /// Where the server publishes again what is stored under [`Self::alert_subject`], for whoever
    /// listens at that moment.
    #[must_use]
    pub fn alert_event_subject(&self, state: &str, id: &str) -> String {
        format!(
            "lookback.v1ev.{}.{}.alert.{state}.{id}",
            self.namespace, self.name
        )
    }

    /// The key in [`STATE_BUCKET`] of the workflow of this pipeline's alerts.
    #[must_use]
    pub fn definition_key(&self) -> String {
        format!("{}.{}.def", self.namespace, self.name)
    }

    /// The subject behind [`Self::definition_key`].
    #[must_use]
    pub fn definition_subject(&self) -> String {
        format!("$KV.{STATE_BUCKET}.{}", self.definition_key())
    }

    /// Where the act of `kind` with this key is recorded; `*` stands for any key.
    #[must_use]
    pub fn audit_subject(&self, kind: AuditKind, key: &str) -> String {
        let kind = kind.as_str();
        format!(
            "lookback.audit.{}.{}.{kind}.{key}",
            self.namespace, self.name
        )
    }

    /// Where all acts of this pipeline are recorded.
    #[must_use]
    pub fn every_audit_subject(&self) -> String {
        format!("lookback.audit.{}.{}.*.*", self.namespace, self.name)
    }
}

impl fmt::Display for PipelineKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Who owns streams, consumers and state files: a pipeline of one cluster. Not the object's uid, so
/// that an object deleted and created again adopts what it left, and a second cluster does not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// The cluster's id: the uid of the kube-system namespace, unless the operator was given another.
    pub cluster: String,
    /// The pipeline.
    #[serde(flatten)]
    pub pipeline: PipelineKey,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.cluster, self.pipeline)
    }
}

fn is_dns_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len())
        && text.chars().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_two_subject_tokens_is_refused() {
        assert_eq!(
            PipelineKey::new("prod", "a.b"),
            Err(NameError::Name("a.b".to_owned()))
        );
    }

    #[test]
    fn a_namespace_with_a_wildcard_is_refused() {
        assert_eq!(
            PipelineKey::new("*", "edr"),
            Err(NameError::Namespace("*".to_owned()))
        );
    }

    #[test]
    fn a_name_of_41_characters_is_refused() {
        assert!(PipelineKey::new("prod", &"a".repeat(41)).is_err());
        assert!(PipelineKey::new("prod", &"a".repeat(40)).is_ok());
    }

    #[test]
    fn names_are_the_documented_ones() {
        let key = PipelineKey::new("prod", "edr").unwrap();
        assert_eq!(key.consumer(0, Epoch(3)), "lb_prod_edr_p0_e3");
        assert_eq!(key.alerts_stream(), "LB_prod_edr_ALERTS");
        assert_eq!(
            key.alert_subject("new", "X"),
            "lookback.v1.prod.edr.alert.new.X"
        );
        assert_eq!(key.dead_letters_stream(), "LB_prod_edr_DLQ");
        assert_eq!(
            key.checkpoint_subject(0),
            "$KV.LOOKBACK_STATE.prod.edr.ckpt.0"
        );
        assert_eq!(
            key.audit_subject(AuditKind::Replay, "h-0123456789ab"),
            "lookback.audit.prod.edr.replay.h-0123456789ab"
        );
    }

    #[test]
    fn a_consumer_names_its_epoch_to_its_own_pipeline_only() {
        let key = PipelineKey::new("a", "b").unwrap();
        assert_eq!(key.epoch_of(0, "lb_a_b_p0_e12"), Some(Epoch(12)));
        for other in [
            "lb_a_b_p1_e1",
            "lb_a_b_p0_e",
            "lb_a_b_p0_e01",
            "lb_a_b_p0_e+1",
            "lb_a_b_p0_e1_e2",
            "lb_a_b-p0_p0_e1",
            "xlb_a_b_p0_e1",
        ] {
            assert_eq!(key.epoch_of(0, other), None, "{other}");
        }
    }
}
