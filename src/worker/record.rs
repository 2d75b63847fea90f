//! What the engine found -> what is stored. An alert made again from the same event is the same
//! record, but for the epoch and the pod that wrote it: times come from the event, never from a clock.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lookback_engine::Alert;
use lookback_protocol::alert::{
    self, AlertRecord, EventRef, HistoryEntry, MAX_DATA_BYTES, ReplayMark,
};
use lookback_protocol::config::WorkerConfig;
use lookback_protocol::deadletter::Reason;
use lookback_protocol::ids::{EventOrigin, GroupField, alert_id, dead_letter_id};
use lookback_protocol::names::PipelineKey;
use lookback_protocol::position::{Epoch, StreamIdentity};
use lookback_protocol::start::{Fate, FileState, OutputRule};
use serde_json::Value;

use super::ports::{DeadLetter, Delivery};

/// The transition, and the write, that makes an alert.
const CREATE: &str = "create";
/// Metadata: how many bytes of data there were before some were left out.
const DATA_TRUNCATED: &str = "lookback.dev/data-truncated";
/// Metadata: the longest group value's bytes before it was cut.
const GROUP_KEY_TRUNCATED: &str = "lookback.dev/group-key-truncated";
/// A group value is cut at this many bytes; the id is made from the whole.
const MAX_GROUP_VALUE_BYTES: usize = 4096;

/// Writes alerts and dead letters in the name of one worker, as the request that moved its file last
/// wants them.
#[derive(Clone, Debug)]
pub(super) struct Scribe {
    stream: StreamIdentity,
    pipeline: PipelineKey,
    partition: u32,
    epoch: Epoch,
    engine_digest: String,
    by: String,
    rule: OutputRule,
    mark: Option<ReplayMark>,
}

impl Scribe {
    pub(super) fn new(config: &WorkerConfig, pod: &str, file: &FileState) -> Self {
        Self {
            stream: config.source.stream.clone(),
            pipeline: config.owner.pipeline.clone(),
            partition: config.partition,
            epoch: config.epoch,
            engine_digest: config.rules.engine_digest.clone(),
            by: format!("worker/{pod}"),
            rule: file.output,
            mark: file.ledger.last().map(|applied| ReplayMark {
                id: applied.id.clone(),
                epoch: applied.epoch,
            }),
        }
    }

    /// For events that come from no stream, under rules that are tried out.
    pub(super) fn of_a_trial(engine_digest: &str) -> Self {
        Self {
            stream: StreamIdentity {
                name: "events".to_owned(),
                created: Timestamp::UNIX_EPOCH,
            },
            pipeline: PipelineKey::new("rules", "trial").expect("names within the pattern"),
            partition: 0,
            epoch: Epoch(0),
            engine_digest: engine_digest.to_owned(),
            by: "trial".to_owned(),
            rule: OutputRule::default(),
            mark: None,
        }
    }

    /// The record of an alert that `delivery` triggered; nothing when it is not to be stored.
    pub(super) fn alert(&self, delivery: &Delivery, alert: Alert) -> Option<AlertRecord> {
        let replay = match self.rule.fate(delivery.sequence) {
            Fate::Stored => None,
            Fate::Tagged => self.mark.clone(),
            Fate::NoAlerts | Fate::Nothing => return None,
        };
        let Alert {
            rule,
            mut group_key,
            window,
            events,
            mut data,
        } = alert;
        let id = alert_id(&rule.id, &group_key, &self.origin(delivery));
        let mut metadata = BTreeMap::new();
        if let Some(bytes) = cut_data(&mut data) {
            metadata.insert(DATA_TRUNCATED.to_owned(), bytes.to_string());
        }
        if let Some(bytes) = cut_group_key(&mut group_key) {
            metadata.insert(GROUP_KEY_TRUNCATED.to_owned(), bytes.to_string());
        }
        let events = events.into_iter().map(|event| EventRef {
            stream: self.stream.name.clone(),
            sequence: event.sequence,
            time: event.time,
            subject: (event.sequence == delivery.sequence).then(|| delivery.subject.clone()),
        });
        Some(AlertRecord {
            v: alert::VERSION,
            id,
            state: alert::NEW.to_owned(),
            rule,
            group_key,
            window,
            events: events.collect(),
            data,
            metadata,
            history: vec![HistoryEntry {
                time: delivery.published,
                transition: CREATE.to_owned(),
                from: None,
                to: alert::NEW.to_owned(),
                by: self.by.clone(),
                reason: String::new(),
                prev_seq: 0,
            }],
            earlier: 0,
            op_id: CREATE.to_owned(),
            prev_seq: 0,
            pipeline: self.pipeline.clone(),
            epoch: self.epoch,
            replay,
            engine_digest: self.engine_digest.clone(),
            by: self.by.clone(),
        })
    }

    /// The dead letter of an event that was tried `attempts` times; nothing when it is not to be
    /// stored.
    pub(super) fn dead_letter(
        &self,
        delivery: &Delivery,
        reason: Reason,
        error: &str,
        attempts: u32,
    ) -> Option<DeadLetter> {
        match self.rule.fate(delivery.sequence) {
            Fate::Stored | Fate::Tagged | Fate::NoAlerts => {}
            Fate::Nothing => return None,
        }
        Some(DeadLetter {
            id: dead_letter_id(self.partition, &self.origin(delivery)),
            reason,
            error: error.to_owned(),
            stream: self.stream.name.clone(),
            delivery: delivery.clone(),
            attempts,
            epoch: self.epoch,
        })
    }

    fn origin(&self, delivery: &Delivery) -> EventOrigin {
        EventOrigin::new(&self.stream, delivery.sequence, delivery.published)
    }
}

/// Leaves out members, the largest first, until the rest fits; gives the bytes there were.
fn cut_data(data: &mut Value) -> Option<usize> {
    let whole = size(data);
    if whole <= MAX_DATA_BYTES {
        return None;
    }
    let Value::Object(members) = data else {
        *data = Value::Null;
        return Some(whole);
    };
    let mut sizes: Vec<(usize, String)> = members
        .iter()
        .map(|(key, value)| (key.len() + size(value), key.clone()))
        .collect();
    sizes.sort_unstable_by(|a, b| b.cmp(a));
    for (_, key) in sizes {
        members.remove(&key);
        if size(members) <= MAX_DATA_BYTES {
            break;
        }
    }
    Some(whole)
}

fn size(value: &impl serde::Serialize) -> usize {
    serde_json::to_vec(value).map_or(0, |bytes| bytes.len())
}

fn cut_group_key(group_key: &mut [GroupField]) -> Option<usize> {
    let longest = group_key.iter().map(|part| part.value.len()).max()?;
    if longest <= MAX_GROUP_VALUE_BYTES {
        return None;
    }
    for part in group_key {
        cut(&mut part.value, MAX_GROUP_VALUE_BYTES);
    }
    Some(longest)
}

fn cut(text: &mut String, bytes: usize) {
    text.truncate(text.floor_char_boundary(bytes));
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use lookback_engine::EventPoint;
    use lookback_protocol::alert::{RuleKind, RuleRef};
    use lookback_protocol::position::StreamSeq;
    use serde_json::json;

    use crate::worker::fakes;

    use super::*;

    fn record(value: &str, data: Value) -> AlertRecord {
        let point = |sequence| EventPoint {
            sequence: StreamSeq(sequence),
            time: fakes::published(sequence),
        };
        let alert = Alert {
            rule: RuleRef {
                id: "r1".to_owned(),
                title: "A rule".to_owned(),
                level: None,
                tags: Vec::new(),
                kind: RuleKind::Correlation,
            },
            group_key: vec![GroupField {
                field: "User".to_owned(),
                value: value.to_owned(),
            }],
            window: None,
            events: vec![point(6), point(7)],
            data,
        };
        let scribe = Scribe::new(&fakes::config(), "edr-0", &fakes::file_state());
        let delivery = fakes::delivery(1, 7, &Bytes::new());
        scribe.alert(&delivery, alert).unwrap()
    }

    #[test]
    fn a_record_made_again_is_the_same_record() {
        let data = json!({"event": {"a": 1}});
        assert_eq!(record("alice", data.clone()), record("alice", data));
    }

    #[test]
    fn only_the_triggering_event_has_a_subject() {
        let subjects: Vec<_> = record("alice", Value::Null)
            .events
            .into_iter()
            .map(|event| event.subject)
            .collect();
        assert_eq!(subjects, [None, Some("events.windows".to_owned())]);
    }

    #[test]
    fn the_largest_member_of_too_much_data_is_left_out_and_the_rest_stays() {
        let event = "x".repeat(MAX_DATA_BYTES);
        let cut = record("alice", json!({"event": event, "matched": [1]}));
        assert_eq!(cut.data, json!({"matched": [1]}));
        let bytes: usize = cut.metadata[DATA_TRUNCATED].parse().unwrap();
        assert!(bytes > MAX_DATA_BYTES);
    }

    #[test]
    fn a_long_group_value_is_cut_and_keeps_its_own_id() {
        let long = "\u{e9}".repeat(MAX_GROUP_VALUE_BYTES);
        let longer = format!("{long}x");
        let (a, b) = (record(&long, Value::Null), record(&longer, Value::Null));
        assert_eq!(a.group_key, b.group_key);
        assert_eq!(a.group_key[0].value.len(), MAX_GROUP_VALUE_BYTES);
        assert_ne!(a.id, b.id);
    }
}
