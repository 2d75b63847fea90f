//! What a spec may say about a replay. No field has a default in the schema: what is left out stays
//! out, so that no later default can change what a request was.

use kube::KubeSchema;
use lookback_protocol::position::StreamSeq;
use lookback_protocol::replay::request::{
    Approval, InvalidId, OnTruncated, Outputs, ReplayRequest, ReplayStart, StatePolicy, Yes,
};
use serde::{Deserialize, Serialize};

use crate::api::status::Time;

/// A request to move the cursor, once.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("[has(self.fromSequence), has(self.fromTime), has(self.latest)].filter(it, it).size() == 1").message("exactly one of fromSequence, fromTime and latest must be set"))]
#[serde(rename_all = "camelCase")]
pub struct ReplaySpec {
    /// Under which the request is remembered: what was asked under one id is never done again. Derived
    /// from the start and statePolicy when absent or empty. To run the same replay again, set a new one.
    #[x_kube(validation = Rule::new("!self.startsWith('h-') && !self.startsWith('loss-')").message("ids that begin with h- or loss- are given by the operator"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "String",
        length(max = 64),
        regex(pattern = r"^[A-Za-z0-9_-]*$")
    )]
    pub id: Option<String>,
    /// Read from this sequence of the source stream on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i64", range(min = 1))]
    pub from_sequence: Option<i64>,
    /// Read from the first message stored at or after this time on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    pub from_time: Option<Time>,
    /// Read from the next message on: skips what is not read yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool", extend("enum" = [true]))]
    pub latest: Option<Yes>,
    /// What becomes of the windows: Auto (when absent) keeps them when the cursor moves forward and
    /// drops them when it moves back; Keep; Clear; or Rebuild, which drops them and reads back far
    /// enough before the start to make them again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "StatePolicy")]
    pub state_policy: Option<StatePolicy>,
    /// What becomes of alerts on events up to what was the end of the stream: Live (when absent) stores
    /// them as ever; Tag marks them with the request; Suppress stores none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Outputs")]
    pub outputs: Option<Outputs>,
    /// What to do when the start is no longer in the stream: Fail (when absent), or Clamp to begin with
    /// the first message that is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "OnTruncated")]
    pub on_truncated: Option<OnTruncated>,
    /// Automatic (when absent) runs the plan at once; Manual waits for the annotation
    /// lookback.dev/approve with the plan's hash, see status.replay.plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Approval")]
    pub approval: Option<Approval>,
    /// The request does not begin after this time: a block left in Git does nothing in a new cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Time")]
    pub not_after: Option<Time>,
}

/// Why a block is no request. The definition refuses all of these; an object from before it may hold
/// them.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ReplaySpecError {
    /// No start, or more than one.
    #[error("spec.replay must have exactly one of fromSequence, fromTime and latest")]
    Start,
    /// Sequences begin with 1.
    #[error("spec.replay.fromSequence is {0}, but sequences begin with 1")]
    Sequence(i64),
    /// It cannot stand in a subject, or could be taken for a derived one.
    #[error("spec.replay.id cannot be used")]
    Id(#[source] InvalidId),
}

impl ReplaySpec {
    /// Parses it; what is absent has the meaning that its description names.
    ///
    /// # Errors
    /// [`ReplaySpecError`] names the field to correct.
    pub fn request(&self) -> Result<ReplayRequest, ReplaySpecError> {
        let id = self.id.as_deref().filter(|id| !id.is_empty());
        let state_policy = self.state_policy.unwrap_or_default();
        let request =
            ReplayRequest::new(id, self.start()?, state_policy).map_err(ReplaySpecError::Id)?;
        Ok(ReplayRequest {
            outputs: self.outputs.unwrap_or_default(),
            on_truncated: self.on_truncated.unwrap_or_default(),
            approval: self.approval.unwrap_or_default(),
            not_after: self.not_after.map(|Time(time)| time),
            ..request
        })
    }

    fn start(&self) -> Result<ReplayStart, ReplaySpecError> {
        match (self.from_sequence, self.from_time, self.latest) {
            (Some(sequence), None, None) => u64::try_from(sequence)
                .ok()
                .filter(|sequence| *sequence > 0)
                .map(|sequence| ReplayStart::FromSequence(StreamSeq(sequence)))
                .ok_or(ReplaySpecError::Sequence(sequence)),
            (None, Some(Time(time)), None) => Ok(ReplayStart::FromTime(time)),
            (None, None, Some(yes)) => Ok(ReplayStart::Latest(yes)),
            _ => Err(ReplaySpecError::Start),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn request(block: Value) -> Result<ReplayRequest, ReplaySpecError> {
        let spec: ReplaySpec = serde_json::from_value(block).unwrap();
        spec.request()
    }

    #[test]
    fn what_is_left_out_means_what_the_description_says() {
        let request = request(json!({"fromSequence": 4711})).unwrap();
        let whole = ReplayRequest {
            id: request.id.clone(),
            fingerprint: request.fingerprint.clone(),
            start: ReplayStart::FromSequence(StreamSeq(4711)),
            state_policy: StatePolicy::Auto,
            outputs: Outputs::Live,
            on_truncated: OnTruncated::Fail,
            approval: Approval::Automatic,
            not_after: None,
        };
        assert_eq!(request, whole);
        assert_eq!(request.id.as_str(), request.fingerprint);
    }

    #[test]
    fn what_is_said_is_taken() {
        let request = request(json!({
            "id": "again-2", "fromTime": "2026-11-20T06:00:00+01:00", "statePolicy": "Rebuild",
            "outputs": "Tag", "onTruncated": "Clamp", "approval": "Manual",
            "notAfter": "2026-12-31T00:00:00Z",
        }))
        .unwrap();
        let whole = ReplayRequest {
            fingerprint: request.fingerprint.clone(),
            id: request.id.clone(),
            start: ReplayStart::FromTime("2026-11-20T05:00:00Z".parse().unwrap()),
            state_policy: StatePolicy::Rebuild,
            outputs: Outputs::Tag,
            on_truncated: OnTruncated::Clamp,
            approval: Approval::Manual,
            not_after: Some("2026-12-31T00:00:00Z".parse().unwrap()),
        };
        assert_eq!(request, whole);
        assert_eq!(request.id.as_str(), "again-2");
    }

    #[test]
    fn an_empty_id_is_none() {
        let without = request(json!({"latest": true})).unwrap();
        assert_eq!(request(json!({"id": "", "latest": true})), Ok(without));
    }

    #[test]
    fn what_is_written_out_although_it_is_the_default_changes_no_identity() {
        let short = request(json!({"fromSequence": 1})).unwrap();
        let long = json!({"fromSequence": 1, "statePolicy": "Auto", "outputs": "Live"});
        assert_eq!(request(long), Ok(short));
    }

    #[test]
    fn what_an_older_definition_let_through_is_refused() {
        assert_eq!(request(json!({})), Err(ReplaySpecError::Start));
        assert_eq!(
            request(json!({"fromSequence": 1, "latest": true})),
            Err(ReplaySpecError::Start)
        );
        for sequence in [0, -1] {
            let refused = request(json!({"fromSequence": sequence}));
            assert_eq!(refused, Err(ReplaySpecError::Sequence(sequence)));
        }
        for id in ["a.b", "h-0123456789ab", "loss-1"] {
            let refused = request(json!({"id": id, "latest": true}));
            assert!(
                matches!(refused, Err(ReplaySpecError::Id(_))),
                "{refused:?}"
            );
        }
    }
}
