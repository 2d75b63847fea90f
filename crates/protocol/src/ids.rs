//! Deterministic ids. The same event through the same rule gives the same id in every run, so a
//! repeated alert meets itself in the store.

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::position::{StreamIdentity, StreamSeq};

/// One field of a correlation's group key, with the value as the evaluator renders it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GroupField {
    /// The group-by field.
    pub field: String,
    /// Its value; parts are kept apart, never joined.
    pub value: String,
}

/// The event that made an alert or became a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventOrigin {
    /// When the source stream was created.
    pub stream_created: Timestamp,
    /// The event's sequence in it.
    pub sequence: StreamSeq,
    /// When JetStream stored the event; tells a reused sequence from the lost one.
    pub published: Timestamp,
}

impl EventOrigin {
    /// The origin of the message `sequence` of `stream`.
    #[must_use]
    pub fn new(stream: &StreamIdentity, sequence: StreamSeq, published: Timestamp) -> Self {
        Self {
            stream_created: stream.created,
            sequence,
            published,
        }
    }
}

/// The id of an alert: 26 characters of base32.
///
/// The first 16 bytes of SHA-256 over the length-prefixed rule id, each part of the group key, the
/// stream's creation time, the triggering sequence and its published time.
#[must_use]
pub fn alert_id(rule_id: &str, group_key: &[GroupField], origin: &EventOrigin) -> String {
    let mut hash = Sha256::new();
    prefixed(&mut hash, rule_id.as_bytes());
    hash.update((group_key.len() as u64).to_be_bytes());
    for part in group_key {
        prefixed(&mut hash, part.field.as_bytes());
        prefixed(&mut hash, part.value.as_bytes());
    }
    update_origin(&mut hash, origin);
    BASE32_NOPAD.encode(&hash.finalize()[..16])
}

/// The id of a dead letter, `<partition>-<sequence>-<hash8>`: readable, and still unique when a
/// sequence is used twice.
#[must_use]
pub fn dead_letter_id(partition: u32, origin: &EventOrigin) -> String {
    let mut hash = Sha256::new();
    update_origin(&mut hash, origin);
    let hash8 = HEXLOWER.encode(&hash.finalize()[..4]);
    format!("{partition}-{}-{hash8}", origin.sequence)
}

fn update_origin(hash: &mut Sha256, origin: &EventOrigin) {
    prefixed(hash, &origin.stream_created.as_nanosecond().to_be_bytes());
    prefixed(hash, &origin.sequence.0.to_be_bytes());
    prefixed(hash, &origin.published.as_nanosecond().to_be_bytes());
}

fn prefixed(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn origin(sequence: u64, published: i64) -> EventOrigin {
        EventOrigin {
            stream_created: Timestamp::UNIX_EPOCH,
            sequence: StreamSeq(sequence),
            published: Timestamp::from_nanosecond(published.into()).unwrap(),
        }
    }

    fn part(field: &str, value: &str) -> GroupField {
        GroupField {
            field: field.to_owned(),
            value: value.to_owned(),
        }
    }

    #[test]
    fn an_alert_id_is_pinned_for_ever() {
        let id = alert_id("r1", &[part("User", "alice")], &origin(7, 9));
        assert_eq!(id, "NALWT6VCLWV6SU6LYVNMPAL6JE");
    }

    #[test]
    fn a_dead_letter_id_is_pinned_for_ever() {
        assert_eq!(dead_letter_id(0, &origin(7, 9)), "0-7-e590fdd3");
    }

    #[test]
    fn parts_of_a_group_key_do_not_run_together() {
        let at = origin(1, 1);
        let a = alert_id("r", &[part("u", "ab"), part("h", "c")], &at);
        let b = alert_id("r", &[part("u", "a"), part("h", "bc")], &at);
        assert_ne!(a, b);
    }

    #[test]
    fn a_reused_sequence_gives_another_id() {
        assert_ne!(
            alert_id("r", &[], &origin(1, 1)),
            alert_id("r", &[], &origin(1, 2))
        );
    }

    type Parts = (String, Vec<(String, String)>, u64, i64);

    /// Few letters and small numbers, so that different parts often look alike when joined.
    fn parts() -> impl Strategy<Value = Parts> {
        let text = || "[ab]{0,3}";
        (text(), vec((text(), text()), 0..3), 0..3u64, 0..3i64)
    }

    fn id_of((rule, key, sequence, published): &Parts) -> String {
        let key: Vec<_> = key
            .iter()
            .map(|(field, value)| part(field, value))
            .collect();
        alert_id(rule, &key, &origin(*sequence, *published))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn alert_ids_are_equal_only_when_all_their_parts_are(a in parts(), b in parts()) {
            prop_assert_eq!(id_of(&a) == id_of(&b), a == b);
        }
    }
}
