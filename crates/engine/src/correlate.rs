//! Windows per group, sequential per partition.
//!
//! # Time
//! An event's time is the first of the configured timestamp fields that holds a time; else the
//! fallback. Windows count whole seconds, rounded down. An event whose own time is more than
//! `maxFutureSkew` after its published time touches no window.
//!
//! # Windows
//! A group is one correlation and one value of its group-by fields; an event without one of them
//! belongs to no group. Entries are kept in order of time, whatever order they arrive in, and the
//! window always ends at the group's newest event. An older event is *late*, and touches nothing,
//! when it is more than `allowedLateness` behind that, or when it does not belong to the window that
//! is open now: before a sliding window's start, in an earlier tumbling bucket, or too far from a
//! session to be part of it.
//!
//! # Alerts
//! One alert at most per rule, group and event. With `EveryEvent` an event gives an alert when the
//! condition holds after one of its matches is counted, and the last such value is reported. With
//! `OncePerWindow` the condition must also not have held after the group's previous event. A window
//! that an event opens anew (an empty sliding window, a new tumbling bucket, a new session) never
//! held before. Both depend on the window's content alone, so an edited threshold takes effect at
//! the next event.
//!
//! # Memory
//! A group expires when nothing touched it for its window (a session's gap) and `allowedLateness`,
//! counted from its newest event's time or that event's published time, whichever is later, up to
//! the published time of the event being applied. Published time, because it is the one clock that
//! is part of the log and that no event can set: one wrong timestamp, or a host that sends its
//! backlog late, must not end the windows of others. Every event expires groups, also one that
//! matches nothing. When there are more groups than allowed, the one that would expire first goes
//! first (ties: order of correlations in the set, then key).

mod alert;
mod bytes;
mod codec;
mod group;
mod groups;
mod key;
mod time;
mod value;

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use lookback_protocol::alert::{RuleRef, Window};
use lookback_protocol::ids::GroupField;
use lookback_protocol::position::StreamSeq;
use rsigma_eval::JsonEvent;

use self::group::{Hit, Touch};
use self::groups::{Groups, Key};
use crate::canonical::Hash;
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
    /// When the worker received it; read only with `timestampFallback: WallClock`.
    pub received: Timestamp,
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
    /// For detections `{"event", "matched"}`: the event and what matched, see [`Match::detail`]. For
    /// correlations `{"type", "value", "timespanSeconds"}`: the aggregated value.
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
    /// Groups to insert or replace, by correlation and key.
    pub upserts: Vec<GroupRow>,
    /// (correlation, key) of groups to delete, in this order; a row need not exist.
    pub deletes: Vec<(String, Vec<u8>)>,
    /// Events older than their group allowed.
    pub late: u64,
    /// Events too far ahead of their published time.
    pub skewed: u64,
}

/// The windows of one partition.
///
/// After a panic in [`Self::apply`] the windows may be half changed: drop the correlator and restore
/// one from the store.
#[derive(Debug)]
pub struct Correlator {
    rules: Arc<RuleSet>,
    groups: Groups,
    late: u64,
    skewed: u64,
}

impl Correlator {
    /// Empty windows over `rules`.
    #[must_use]
    pub fn new(rules: Arc<RuleSet>) -> Self {
        Self {
            groups: Groups::new(Arc::clone(&rules)),
            rules,
            late: 0,
            skewed: 0,
        }
    }

    /// Windows as a store kept them. Rows of correlations that `rules` no longer holds are dropped
    /// and leave as deletes with the next [`Self::take_changes`].
    ///
    /// # Errors
    /// A sentence that names the row that cannot be read.
    pub fn restore(
        rules: Arc<RuleSet>,
        rows: impl IntoIterator<Item = GroupRow>,
    ) -> Result<Self, String> {
        let mut correlator = Self::new(rules);
        for row in rows {
            correlator.groups.restore(row)?;
        }
        Ok(correlator)
    }

    /// Applies one event and gives its alerts, detections first, in the order of rules in the set.
    pub fn apply(&mut self, at: At, event: &Event, matches: &[Match]) -> Vec<Alert> {
        let rules = Arc::clone(&self.rules);
        self.groups.expire(at.published.as_second());
        if matches.is_empty() {
            return Vec::new();
        }
        let json = JsonEvent::borrow(&event.value);
        let time = time::of(&json, at, &rules.settings);
        let mut alerts: Vec<Alert> = matches
            .iter()
            .filter(|found| rules.detections[found.rule].alerts)
            .map(|found| alert::of_detection(&rules, found, event, at, time.shown()))
            .collect();
        if let Some(time) = time.for_windows() {
            if time::is_skewed(&time, at, &rules.settings) {
                let counts = |found: &Match| !rules.detections[found.rule].feeds.is_empty();
                self.skewed += u64::from(matches.iter().any(counts));
            } else {
                let fired = self.count(&rules, at, time.time, &json, matches);
                alerts.extend(fired.into_values());
            }
        }
        alerts
    }

    /// What changed since the last call.
    pub fn take_changes(&mut self) -> Changes {
        let (upserts, deletes) = self.groups.take_changes();
        Changes {
            upserts,
            deletes,
            late: std::mem::take(&mut self.late),
            skewed: std::mem::take(&mut self.skewed),
        }
    }

    /// Groups that hold a window.
    #[must_use]
    pub fn groups(&self) -> u64 {
        self.groups.len()
    }

    /// Every group, in no particular order.
    pub fn rows(&self) -> impl Iterator<Item = GroupRow> + '_ {
        self.groups.rows()
    }

    /// Counts the matches in their windows. The result is ordered by correlation and key.
    fn count(
        &mut self,
        rules: &RuleSet,
        at: At,
        time: Timestamp,
        json: &JsonEvent<'_>,
        matches: &[Match],
    ) -> BTreeMap<(usize, Key), Alert> {
        let mut fired = BTreeMap::new();
        let mut late = false;
        let feeds = matches
            .iter()
            .flat_map(|found| &rules.detections[found.rule].feeds);
        for feed in feeds {
            let correlation = &rules.correlations[feed.correlation];
            let Some(key) = key::of(json, &feed.group_fields) else {
                continue;
            };
            let hit = Hit {
                point: EventPoint {
                    sequence: at.sequence,
                    time,
                },
                published: at.published.as_second(),
                reference: feed.reference,
                value: value::of(json, &correlation.compiled),
            };
            match self.groups.touch(feed.correlation, &key, hit) {
                (Touch::Late, ..) => late = true,
                (Touch::Counted { fired: None }, ..) => {}
                (Touch::Counted { fired: Some(value) }, key, group) => {
                    let alert = alert::of_correlation(correlation, &key, group, value);
                    fired.insert((feed.correlation, key), alert);
                }
            }
        }
        self.late += u64::from(late);
        fired
    }
}

/// The first of `fields` that holds a time in `event`, as windows read it.
#[must_use]
pub fn event_time(event: &Event, fields: &[String]) -> Option<Timestamp> {
    time::claimed(&JsonEvent::borrow(&event.value), fields)
}

/// SHA-256, hex, over the groups sorted by correlation and key: equal states, equal digests.
#[must_use]
pub fn state_digest(rows: impl IntoIterator<Item = GroupRow>) -> String {
    let mut rows: Vec<GroupRow> = rows.into_iter().collect();
    rows.sort_unstable_by(|a, b| (&a.correlation, &a.key).cmp(&(&b.correlation, &b.key)));
    let mut hash = Hash::new();
    for GroupRow {
        correlation,
        key,
        state,
    } in rows
    {
        hash.part(correlation).part(key).part(state);
    }
    hash.hex()
}

#[cfg(test)]
mod tests;
