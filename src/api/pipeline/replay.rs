//! What a spec may say about a replay. No field has a default in the schema: what is left out stays
//! out, so that no later default can change what a request was.

use kube::KubeSchema;
use lookback_protocol::position::StreamSeq;
use lookback_protocol::replay::request::{
    Approval, DERIVED, InvalidId, LOSS, OnTruncated, Outputs, ReplayRequest, ReplayStart,
    RequestId, StatePolicy, Yes,
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
    /// It cannot stand in a subject.
    #[error("spec.replay.id cannot be used")]
    Id(#[source] InvalidId),
    /// It could be taken for a derived one.
    #[error(
        "spec.replay.id {0:?} begins with {DERIVED:?} or {LOSS:?}, and such ids are given by the operator"
    )]
    Reserved(String),
}

impl ReplaySpec {
    /// Parses it; what is absent has the meaning that its description names.
    ///
    /// # Errors
    /// [`ReplaySpecError`] names the field to correct.
    pub fn request(&self) -> Result<ReplayRequest, ReplaySpecError> {
        let id = match self.id.as_deref() {
            None | Some("") => None,
            Some(id) if id.starts_with(DERIVED) || id.starts_with(LOSS) => {
                return Err(ReplaySpecError::Reserved(id.to_owned()));
            }
            Some(id) => Some(RequestId::new(id).map_err(ReplaySpecError::Id)?),
        };
        Ok(ReplayRequest {
            outputs: self.outputs.unwrap_or_default(),
            on_truncated: self.on_truncated.unwrap_or_default(),
            approval: self.approval.unwrap_or_default(),
            not_after: self.not_after.map(|Time(time)| time),
            ..parsed(id, self.start()?, self.state_policy.unwrap_or_default())
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

/// Stands in until the canonical form is there.
fn parsed(id: Option<RequestId>, start: ReplayStart, state_policy: StatePolicy) -> ReplayRequest {
    let fingerprint = format!("{DERIVED}000000000000");
    ReplayRequest {
        id: id.unwrap_or_else(|| RequestId::new(&fingerprint).expect("letters and digits")),
        fingerprint,
        start,
        state_policy,
        outputs: Outputs::default(),
        on_truncated: OnTruncated::default(),
        approval: Approval::default(),
        not_after: None,
    }
}
