//! A request to replay, parsed once, and the identity under which it is remembered for ever.

use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::position::StreamSeq;

/// The longest id.
pub const MAX_ID: usize = 64;
/// Begins the ids that are derived from what a request asks for.
pub const DERIVED: &str = "h-";
/// Begins the ids of requests that the operator makes when state was lost.
pub const LOSS: &str = "loss-";

/// The id of a request: one subject token.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
pub struct RequestId(
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[A-Za-z0-9_-]+$"))] String,
);

/// A text that is no id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("replay id {0:?} must have 1 to {MAX_ID} characters of A-Z, a-z, 0-9, '-' and '_'")]
pub struct InvalidId(pub String);

impl RequestId {
    /// Checks it.
    ///
    /// # Errors
    /// [`InvalidId`] when it is no single subject token of bounded length.
    pub fn new(text: &str) -> Result<Self, InvalidId> {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if (1..=MAX_ID).contains(&text.len()) && text.chars().all(fits) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId(text.to_owned()))
        }
    }

    /// As it stands in subjects and metadata.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for RequestId {
    type Error = InvalidId;

    fn try_from(text: String) -> Result<Self, InvalidId> {
        Self::new(&text)
    }
}

impl From<RequestId> for String {
    fn from(id: RequestId) -> Self {
        id.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// From where to read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum ReplayStart {
    /// From this sequence on.
    FromSequence(StreamSeq),
    /// From the first message stored at or after this time on.
    FromTime(#[schemars(with = "String", length(max = 40))] Timestamp),
    /// From the next message on.
    Latest(Yes),
}

/// `true`, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "bool", into = "bool")]
#[schemars(with = "bool")]
pub struct Yes;

impl TryFrom<bool> for Yes {
    type Error = &'static str;

    fn try_from(value: bool) -> Result<Self, Self::Error> {
        value.then_some(Self).ok_or("may only be true")
    }
}

impl From<Yes> for bool {
    fn from(_: Yes) -> Self {
        true
    }
}

/// What becomes of the windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum StatePolicy {
    /// Kept when the cursor moves forward, dropped when it moves back.
    #[default]
    Auto,
    /// Kept.
    Keep,
    /// Dropped.
    Clear,
    /// Dropped, and made again by reading back far enough before the start.
    Rebuild,
}

/// What becomes of alerts on events up to the catch-up target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Outputs {
    /// Stored as ever; an alert that is stored already is met by its id.
    #[default]
    Live,
    /// Stored, and marked with the request and its epoch.
    Tag,
    /// Not stored.
    Suppress,
}

/// What to do when the start is no longer in the stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnTruncated {
    /// Reject the request.
    #[default]
    Fail,
    /// Begin with the first message that is left.
    Clamp,
}

/// Who lets a plan run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Approval {
    /// It runs once it is planned.
    #[default]
    Automatic,
    /// It waits for the annotation with the plan's hash.
    Manual,
}

/// A request as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReplayRequest {
    /// Under which it is remembered.
    pub id: RequestId,
    /// Tells requests of one id apart: see [`fingerprint`].
    #[schemars(length(max = 64))]
    pub fingerprint: String,
    /// From where.
    pub start: ReplayStart,
    /// What becomes of the windows.
    pub state_policy: StatePolicy,
    /// What becomes of the alerts.
    pub outputs: Outputs,
    /// What to do when the start is gone.
    pub on_truncated: OnTruncated,
    /// Who lets it run.
    pub approval: Approval,
    /// It does not begin after this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", length(max = 40))]
    pub not_after: Option<Timestamp>,
}
