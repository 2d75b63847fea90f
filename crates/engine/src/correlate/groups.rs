//! All groups of a partition: by correlation and key, by deadline, and which of them changed.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::group::{Group, Hit, Touch};
use super::{GroupRow, codec, key};
use crate::rules::RuleSet;

pub(super) type Key = Arc<[u8]>;

#[derive(Debug)]
pub(super) struct Groups {
    rules: Arc<RuleSet>,
    /// Parallel to the set's correlations.
    by_key: Vec<HashMap<Key, Slot>>,
    /// Each group once, at its deadline or before it: a touch moves the deadline and leaves the queue
    /// alone, and a group found too early is queued again. So order costs once per window, not once
    /// per event.
    queue: BTreeSet<(i64, usize, Key)>,
    /// Groups that changed, and those that are gone, since changes were last taken.
    changed: BTreeSet<(usize, Key)>,
    /// Rows of correlations that are not in the set.
    unknown: Vec<(String, Vec<u8>)>,
    len: u64,
}

#[derive(Debug)]
struct Slot {
    group: Group,
    /// Whether it is in `changed`.
    changed: bool,
}

impl Groups {
    pub(super) fn new(rules: Arc<RuleSet>) -> Self {
        Self {
            by_key: rules.correlations.iter().map(|_| HashMap::new()).collect(),
            rules,
            queue: BTreeSet::new(),
            changed: BTreeSet::new(),
            unknown: Vec::new(),
            len: 0,
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Adds one stored group; [`Self::new`] and one call per row give the groups that were stored.
    pub(super) fn restore(&mut self, row: GroupRow) -> Result<(), String> {
        let mut correlations = self.rules.correlations.iter();
        let Some(index) = correlations.position(|c| c.fingerprint == row.correlation) else {
            self.unknown.push((row.correlation, row.key));
            return Ok(());
        };
        let correlation = &self.rules.correlations[index].compiled;
        let read = || {
            let values = key::values(&row.key)?;
            if values.len() != correlation.group_by.len() {
                return Err(format!("its key has {} values", values.len()));
            }
            codec::decode(&row.state, correlation)
        };
        let title = &correlation.title;
        let group = read().map_err(|error| {
            format!(
                "a window of correlation {title:?} ({}) cannot be read: {error}",
                row.correlation
            )
        })?;
        self.insert(index, row.key.into(), group);
        Ok(())
    }

    /// Removes the groups whose deadline is before `published`, in seconds.
    pub(super) fn expire(&mut self, published: i64) {
        while let Some((deadline, ..)) = self.queue.first()
            && *deadline < published
        {
            self.pop(|actual, _| actual < published);
        }
    }

    /// Counts `hit` in its group, which it opens if need be.
    pub(super) fn touch(&mut self, index: usize, key: &[u8], hit: Hit) -> (Touch, Key, &Group) {
        let key = match self.by_key[index].get_key_value(key) {
            Some((key, _)) => Arc::clone(key),
            None => self.open(index, key, &hit),
        };
        let slot = self.by_key[index]
            .get_mut(&key)
            .expect("the group was found or opened above");
        let correlation = &self.rules.correlations[index];
        let touch = slot.group.touch(hit, correlation, &self.rules.settings);
        if touch != Touch::Late && !slot.changed {
            slot.changed = true;
            self.changed.insert((index, Arc::clone(&key)));
        }
        (touch, key, &slot.group)
    }

    /// Rows to write and (correlation, key) to delete, both in their order.
    pub(super) fn take_changes(&mut self) -> (Vec<GroupRow>, Vec<(String, Vec<u8>)>) {
        let mut upserts = Vec::new();
        let mut deletes = std::mem::take(&mut self.unknown);
        for (index, key) in std::mem::take(&mut self.changed) {
            if let Some(slot) = self.by_key[index].get_mut(&key) {
                slot.changed = false;
                upserts.push(row(&self.rules, index, &key, &slot.group));
            } else {
                let fingerprint = self.rules.correlations[index].fingerprint.clone();
                deletes.push((fingerprint, key.to_vec()));
            }
        }
        upserts.sort_unstable_by(|a, b| (&a.correlation, &a.key).cmp(&(&b.correlation, &b.key)));
        deletes.sort_unstable();
        (upserts, deletes)
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = GroupRow> + '_ {
        self.by_key
            .iter()
            .enumerate()
            .flat_map(move |(index, groups)| {
                groups
                    .iter()
                    .map(move |(key, slot)| row(&self.rules, index, key, &slot.group))
            })
    }

    fn open(&mut self, index: usize, key: &[u8], hit: &Hit) -> Key {
        while self.len >= self.rules.settings.limits.groups.max(1) {
            self.pop(|actual, queued| actual == queued);
        }
        let key: Key = key.into();
        let group = Group::opened(hit, &self.rules.correlations[index].compiled);
        self.insert(index, Arc::clone(&key), group);
        key
    }

    fn insert(&mut self, index: usize, key: Key, group: Group) {
        let slot = Slot {
            group,
            changed: false,
        };
        let deadline = deadline(&self.rules, index, &slot.group);
        self.queue.insert((deadline, index, Arc::clone(&key)));
        self.by_key[index].insert(key, slot);
        self.len += 1;
    }

    /// Takes the first group of the queue and removes it if `done(its deadline, its place in the
    /// queue)` says so, else queues it at its deadline.
    fn pop(&mut self, done: impl Fn(i64, i64) -> bool) {
        let Some((queued, index, key)) = self.queue.pop_first() else {
            return;
        };
        let slot = self.by_key[index]
            .get(&key)
            .expect("a queued group is there");
        let actual = deadline(&self.rules, index, &slot.group);
        if done(actual, queued) {
            self.by_key[index].remove(&key);
            self.changed.insert((index, key));
            self.len -= 1;
        } else {
            self.queue.insert((actual, index, key));
        }
    }
}

fn deadline(rules: &RuleSet, index: usize, group: &Group) -> i64 {
    let correlation = &rules.correlations[index].compiled;
    group.deadline(correlation, rules.settings.allowed_lateness_seconds)
}

fn row(rules: &RuleSet, index: usize, key: &Key, group: &Group) -> GroupRow {
    let correlation = &rules.correlations[index];
    GroupRow {
        correlation: correlation.fingerprint.clone(),
        key: key.to_vec(),
        state: codec::encode(group, &correlation.compiled),
    }
}
