//! Windows per group, sequential per partition.

use std::sync::Arc;

use jiff::Timestamp;
use lookback_protocol::alert::{RuleRef, Window};
use lookback_protocol::ids::GroupField;
use lookback_protocol::position::StreamSeq;

use crate::decode::Event;
use crate::detect::Match;
use crate::rules::RuleSet;

/// Where an event stands in the source stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Its sequence.
    pub sequence: StreamSeq,
    /// When JetStream stored it.
    pub published: Timestamp,
}

/// An alert, before it has an id and a place.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// The rule that fired.
    pub rule: RuleRef,
    /// Empty for detections.
    pub group_key: Vec<GroupField>,
    /// The window's span; absent for detections.
    pub window: Option<Window>,
    /// The events behind it, at most ten, the triggering one last.
    pub events: Vec<EventPoint>,
    /// For detections the event and what matched; for correlations the aggregated value.
    pub data: serde_json::Value,
}

/// An event behind an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventPoint {
    /// Its sequence in the source stream.
    pub sequence: StreamSeq,
    /// Its event time.
    pub time: Timestamp,
}

/// One group of one correlation, as the store keeps it. Equal states have equal bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRow {
    /// The fingerprint of the correlation: an edit that changes it begins with empty windows.
    pub correlation: String,
    /// The group key in canonical encoding.
    pub key: Vec<u8>,
    /// The window in canonical encoding.
    pub state: Vec<u8>,
}

/// What the store must write for the events applied since the last call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Groups to insert or replace.
    pub upserts: Vec<GroupRow>,
    /// (correlation, key) of groups to delete.
    pub deletes: Vec<(String, Vec<u8>)>,
    /// Events older than their group allowed.
    pub late: u64,
    /// Events too far ahead of their published time.
    pub skewed: u64,
}

/// The windows of one partition.
#[derive(Debug)]
pub struct Correlator {
    _rules: Arc<RuleSet>,
}

impl Correlator {
    /// Empty windows over `rules`.
    #[must_use]
    pub fn new(rules: Arc<RuleSet>) -> Self {
        Self { _rules: rules }
    }

    /// Windows as a store kept them. Rows of correlations that `rules` no longer holds are dropped
    /// and leave as deletes with the next [`Self::take_changes`].
    ///
    /// # Errors
    /// A sentence that names the row that cannot be read.
    pub fn restore(
        rules: Arc<RuleSet>,
        _rows: impl IntoIterator<Item = GroupRow>,
    ) -> Result<Self, String> {
        Ok(Self::new(rules))
    }

    /// Applies one event and gives its alerts, detections first, in the order of rules in the set.
    pub fn apply(&mut self, _at: At, _event: &Event, _matches: &[Match]) -> Vec<Alert> {
        Vec::new()
    }

    /// What changed since the last call.
    pub fn take_changes(&mut self) -> Changes {
        Changes::default()
    }

    /// Groups that hold a window.
    #[must_use]
    pub fn groups(&self) -> u64 {
        0
    }

    /// Every group, in no particular order.
    pub fn rows(&self) -> impl Iterator<Item = GroupRow> + '_ {
        std::iter::empty()
    }
}

/// SHA-256, hex, over the groups sorted by correlation and key: equal states, equal digests.
#[must_use]
pub fn state_digest(_rows: impl IntoIterator<Item = GroupRow>) -> String {
    String::new()
}
