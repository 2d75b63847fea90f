//! A store of alerts or dead letters: one message a subject, moves between states by people, room that
//! runs out, and the sequence that every write moves on. And the one key of a checkpoint.

use std::collections::BTreeMap;

/// What a record counts against the room, whatever its size: the model needs no real bytes.
pub(crate) const RECORD_BYTES: u64 = 1_000;

/// A stream with one message a subject, written by compare-and-swap only.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    pub(crate) name: &'static str,
    /// (id, state) -> what was written.
    records: BTreeMap<(String, String), Record>,
    last: u64,
    foreign: u64,
    pub(crate) max_bytes: Option<u64>,
}

/// A stored message.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) sequence: u64,
    pub(crate) body: serde_json::Value,
}

/// What a write by compare-and-swap came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    At(u64),
    Conflict,
    NoRoom,
}

impl Store {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            records: BTreeMap::new(),
            last: 0,
            foreign: 0,
            max_bytes: None,
        }
    }

    /// Writes `id` in `state` if nothing stands on that subject.
    pub(crate) fn create(&mut self, id: &str, state: &str, body: serde_json::Value) -> Written {
        let subject = (id.to_owned(), state.to_owned());
        if self.records.contains_key(&subject) {
            return Written::Conflict;
        }
        let full = self
            .max_bytes
            .is_some_and(|max| self.bytes() + RECORD_BYTES > max);
        if full {
            return Written::NoRoom;
        }
        self.last += 1;
        let record = Record {
            sequence: self.last,
            body,
        };
        self.records.insert(subject, record);
        Written::At(self.last)
    }

    /// Whether `id` stands in any state.
    pub(crate) fn knows(&self, id: &str) -> bool {
        self.records.keys().any(|(known, _)| known == id)
    }

    /// A person moves `id` on, and its tombstone is gone already: the worst case.
    pub(crate) fn move_on(&mut self, id: &str, from: &str, to: &str) {
        if let Some(record) = self.records.remove(&(id.to_owned(), from.to_owned())) {
            self.last += 2;
            self.records.insert(
                (id.to_owned(), to.to_owned()),
                Record {
                    sequence: self.last,
                    body: record.body,
                },
            );
        }
    }

    /// People move every new record on.
    pub(crate) fn move_all_on(&mut self, to: &str) {
        for id in self.in_state("new") {
            self.move_on(&id, "new", to);
        }
    }

    /// Ids that stand in `state`.
    pub(crate) fn in_state(&self, state: &str) -> Vec<String> {
        self.records
            .keys()
            .filter(|(_, at)| at == state)
            .map(|(id, _)| id.clone())
            .collect()
    }

    /// Every record with its id; an id that stands in two states comes twice.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &Record)> {
        self.records
            .iter()
            .map(|((id, _), record)| (id.as_str(), record))
    }

    /// Others fill the stream until no create fits any more.
    pub(crate) fn fill(&mut self, max: u64) {
        self.max_bytes = Some(max);
        self.foreign = max.saturating_sub(self.records.len() as u64 * RECORD_BYTES);
    }

    pub(crate) fn make_room(&mut self) {
        self.foreign = 0;
        self.max_bytes = None;
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.foreign + self.records.len() as u64 * RECORD_BYTES
    }

    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// The server comes back from an older copy of its data, with the first `keep` writes.
    pub(crate) fn regress_to(&mut self, keep: u64) {
        self.records.retain(|_, record| record.sequence <= keep);
        self.last = keep;
    }
}

/// The key of a partition's checkpoint: bytes under a revision.
#[derive(Clone, Debug, Default)]
pub(crate) struct CheckpointKey {
    pub(crate) value: Option<(Vec<u8>, u64)>,
    /// Everything that ever stood there, oldest first.
    pub(crate) written: Vec<Vec<u8>>,
    revisions: u64,
}

impl CheckpointKey {
    /// Writes by compare-and-swap; `None` is a conflict.
    pub(crate) fn write(&mut self, body: Vec<u8>, expected: Option<u64>) -> Option<u64> {
        let current = self.value.as_ref().map(|(_, revision)| *revision);
        if current != expected {
            return None;
        }
        self.revisions += 1;
        self.written.push(body.clone());
        self.value = Some((body, self.revisions));
        Some(self.revisions)
    }
}
