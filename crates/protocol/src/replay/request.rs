//! A request to replay, parsed once, and the identity under which it is remembered for ever.

use std::fmt;

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::position::{Epoch, StreamSeq};

/// The longest id.
const MAX_ID: usize = 64;
/// Begins the ids that are derived from what a request asks for.
const DERIVED: &str = "h-";
/// Begins the ids of requests that the operator makes when state was lost.
pub const LOSS: &str = "loss-";

/// The id of a request: one subject token.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("maxLength" = MAX_ID))]
pub struct RequestId(String);

/// A text that is no id, or none that a person may choose.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidId {
    /// It is no single subject token of bounded length.
    #[error("replay id {0:?} must have 1 to {MAX_ID} characters of A-Z, a-z, 0-9, '-' and '_'")]
    Malformed(String),
    /// It could meet an id that is derived or made by the operator.
    #[error(
        "replay id {0:?} begins with {DERIVED:?} or {LOSS:?}, which are reserved: choose another"
    )]
    Reserved(String),
}

impl RequestId {
    /// Checks it.
    ///
    /// # Errors
    /// [`InvalidId::Malformed`] when it is no single subject token of bounded length.
    pub fn new(text: &str) -> Result<Self, InvalidId> {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if (1..=MAX_ID).contains(&text.len()) && text.chars().all(fits) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId::Malformed(text.to_owned()))
        }
    }

    /// Checks an id that a person chose.
    ///
    /// # Errors
    /// [`InvalidId`] when it is malformed or reserved.
    pub fn chosen(text: &str) -> Result<Self, InvalidId> {
        if [DERIVED, LOSS].iter().any(|own| text.starts_with(own)) {
            return Err(InvalidId::Reserved(text.to_owned()));
        }
        Self::new(text)
    }

    /// The id of the operator's own request after the state of `epoch` was lost.
    #[must_use]
    pub fn of_loss(epoch: Epoch) -> Self {
        Self(format!("{LOSS}{epoch}"))
    }

    /// Whether the operator made it.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        self.0.starts_with(LOSS)
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

impl StatePolicy {
    /// Whether it needs nothing of the state before, so that it also ends what is wrong with that.
    #[must_use]
    pub fn begins_anew(self) -> bool {
        match self {
            Self::Clear | Self::Rebuild => true,
            Self::Auto | Self::Keep => false,
        }
    }
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
    /// Tells requests of one id apart: a hash over start and statePolicy.
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

impl ReplayRequest {
    /// A request with everything else at its default; set the other fields on it. Without an id it is
    /// remembered under its fingerprint.
    ///
    /// # Errors
    /// [`InvalidId`] when the id is malformed or reserved.
    pub fn new(
        id: Option<&str>,
        start: ReplayStart,
        state_policy: StatePolicy,
    ) -> Result<Self, InvalidId> {
        let fingerprint = fingerprint(start, state_policy);
        let id = match id {
            Some(id) => RequestId::chosen(id)?,
            None => RequestId(fingerprint.clone()),
        };
        Ok(Self::of_id(id, fingerprint, start, state_policy))
    }

    /// The operator's own request after the state of `epoch` was lost. It begins at the first message
    /// that is left: to wait for messages that are gone would stop detections for good.
    #[must_use]
    pub fn loss(epoch: Epoch, start: StreamSeq, state_policy: StatePolicy) -> Self {
        let start = ReplayStart::FromSequence(start);
        let id = RequestId::of_loss(epoch);
        Self {
            on_truncated: OnTruncated::Clamp,
            ..Self::of_id(id, fingerprint(start, state_policy), start, state_policy)
        }
    }

    /// Whether it asks for the same under the same id.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.id == other.id && self.fingerprint == other.fingerprint
    }

    /// Whether it is too late to begin it.
    #[must_use]
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.not_after.is_some_and(|not_after| now > not_after)
    }

    fn of_id(
        id: RequestId,
        fingerprint: String,
        start: ReplayStart,
        state_policy: StatePolicy,
    ) -> Self {
        Self {
            id,
            fingerprint,
            start,
            state_policy,
            outputs: Outputs::default(),
            on_truncated: OnTruncated::default(),
            approval: Approval::default(),
            not_after: None,
        }
    }
}

/// What a request moves, as one short text: `h-` and 12 hex digits of SHA-256 over a canonical form of
/// the start and the policy. The same instant in another time zone or precision is the same request,
/// and so is a default that is written out. It stands in ledgers for ever: no version may change it.
#[must_use]
pub fn fingerprint(start: ReplayStart, policy: StatePolicy) -> String {
    let (kind, value) = match start {
        ReplayStart::FromSequence(sequence) => ("fromSequence", sequence.to_string()),
        ReplayStart::FromTime(time) => ("fromTime", time.as_nanosecond().to_string()),
        ReplayStart::Latest(Yes) => ("latest", "true".to_owned()),
    };
    let policy = match policy {
        StatePolicy::Auto => "Auto",
        StatePolicy::Keep => "Keep",
        StatePolicy::Clear => "Clear",
        StatePolicy::Rebuild => "Rebuild",
    };
    let canonical = format!("lookback.dev/replay/v1\n{kind}={value}\nstatePolicy={policy}\n");
    let digest = Sha256::digest(canonical.as_bytes());
    format!("{DERIVED}{}", HEXLOWER.encode(&digest[..6]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(time: &str) -> ReplayStart {
        ReplayStart::FromTime(time.parse().unwrap())
    }

    fn sequence(n: u64) -> ReplayStart {
        ReplayStart::FromSequence(StreamSeq(n))
    }

    #[test]
    fn fingerprints_are_pinned_for_ever() {
        let of = |start, policy| fingerprint(start, policy);
        assert_eq!(of(sequence(1), StatePolicy::Auto), "h-bc0628e8b36f");
        assert_eq!(of(sequence(48_213), StatePolicy::Keep), "h-4f2f861404fa");
        assert_eq!(
            of(at("2026-03-04T05:06:07Z"), StatePolicy::Auto),
            "h-c3f9693d5f0d"
        );
        assert_eq!(
            of(at("2026-03-04T05:06:07.000000001Z"), StatePolicy::Clear),
            "h-7994cbd92550"
        );
        assert_eq!(
            of(ReplayStart::Latest(Yes), StatePolicy::Rebuild),
            "h-453aaf098c4a"
        );
    }

    #[test]
    fn the_same_instant_written_otherwise_is_the_same_request() {
        let written = fingerprint(at("2026-03-04T05:06:07Z"), StatePolicy::Auto);
        for same in [
            "2026-03-04T05:06:07.000Z",
            "2026-03-04T05:06:07.000000000Z",
            "2026-03-04T06:06:07+01:00",
            "2026-03-03T21:06:07-08:00",
        ] {
            assert_eq!(fingerprint(at(same), StatePolicy::Auto), written, "{same}");
        }
    }

    #[test]
    fn a_policy_that_is_left_out_is_the_default_written_out() {
        let json = |policy| {
            let mut json = serde_json::json!({"start": {"fromSequence": 7}});
            if let Some(policy) = policy {
                json["statePolicy"] = serde_json::json!(policy);
            }
            let start = serde_json::from_value(json["start"].clone()).unwrap();
            let policy = serde_json::from_value(json["statePolicy"].clone()).unwrap_or_default();
            fingerprint(start, policy)
        };
        assert_eq!(json(None), json(Some("Auto")));
        assert_ne!(json(None), json(Some("Clear")));
    }

    #[test]
    fn how_it_is_stored_and_approved_is_no_part_of_the_identity() {
        let request = ReplayRequest::new(None, sequence(7), StatePolicy::Auto).unwrap();
        assert_eq!(request.id.as_str(), request.fingerprint);
        assert_eq!(request.outputs, Outputs::Live);
        assert_eq!(request.on_truncated, OnTruncated::Fail);
        assert_eq!(request.approval, Approval::Automatic);
    }

    #[test]
    fn a_chosen_id_keeps_the_fingerprint_of_what_it_asks_for() {
        let request = ReplayRequest::new(Some("rewind_1"), sequence(7), StatePolicy::Auto).unwrap();
        assert_eq!(request.id.as_str(), "rewind_1");
        assert_eq!(
            request.fingerprint,
            fingerprint(sequence(7), StatePolicy::Auto)
        );
    }

    #[test]
    fn ids_that_are_reserved_or_no_subject_token_are_refused() {
        let new = |id: &str| ReplayRequest::new(Some(id), sequence(7), StatePolicy::Auto);
        for id in ["h-0123456789ab", "h-", "loss-3"] {
            assert_eq!(new(id), Err(InvalidId::Reserved(id.to_owned())));
        }
        let long = "x".repeat(MAX_ID + 1);
        for id in ["", "a.b", "a b", "a*", "ä", &long] {
            assert_eq!(new(id), Err(InvalidId::Malformed(id.to_owned())));
        }
        assert_eq!(new("h").unwrap().id.as_str(), "h");
        assert_eq!(
            new("h-1").unwrap_err().to_string(),
            "replay id \"h-1\" begins with \"h-\" or \"loss-\", which are reserved: choose another"
        );
    }

    #[test]
    fn the_request_after_a_loss_takes_what_is_left() {
        let request = ReplayRequest::loss(Epoch(3), StreamSeq(48_214), StatePolicy::Rebuild);
        assert_eq!(request.id.as_str(), "loss-3");
        assert_eq!(request.start, sequence(48_214));
        assert_eq!(request.on_truncated, OnTruncated::Clamp);
        assert_eq!(
            request.fingerprint,
            fingerprint(sequence(48_214), StatePolicy::Rebuild)
        );
    }

    fn starts() -> impl Strategy<Value = ReplayStart> {
        prop_oneof![
            (0..3u64).prop_map(sequence),
            (0..3i64)
                .prop_map(|n| ReplayStart::FromTime(Timestamp::from_nanosecond(n.into()).unwrap())),
            Just(ReplayStart::Latest(Yes)),
        ]
    }

    fn policies() -> impl Strategy<Value = StatePolicy> {
        proptest::sample::select(vec![
            StatePolicy::Auto,
            StatePolicy::Keep,
            StatePolicy::Clear,
            StatePolicy::Rebuild,
        ])
    }

    proptest! {
        #[test]
        fn fingerprints_are_equal_only_when_all_their_parts_are(
            a in (starts(), policies()), b in (starts(), policies()),
        ) {
            prop_assert_eq!(fingerprint(a.0, a.1) == fingerprint(b.0, b.1), a == b);
        }
    }
}
