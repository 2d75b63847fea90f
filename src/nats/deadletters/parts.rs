//! How a dead letter is cut into messages. Pure.

use async_nats::HeaderMap;
use bytes::Bytes;
use data_encoding::BASE64;
use lookback_protocol::deadletter::{
    ATTEMPTS, EPOCH, ERROR, HEADERS, MAX_INLINE_HEADERS, PARKED, PART, PARTS, PUBLISHED, REASON,
    REDRIVES, SEQUENCE, STREAM, SUBJECT, resend,
};
use lookback_protocol::names::PipelineKey;

use crate::nats::api::{Draft, header_text, wire_form};
use crate::nats::entries::NewPart;
use crate::nats::outbox::expecting;
use crate::worker::ports::DeadLetter;

/// The value of `Lookback-Headers` on a part whose body is original headers; no base64 looks like it.
pub const RAW: &str = "raw";
/// The longest text, in bytes: of an error, or of what a person says.
const MAX_TEXT: usize = 1024;
/// What a part's own headers need: its number, the batch and the compare-and-swap.
const PART_HEADERS: usize = 512;

/// Cuts a new entry, of at least one message, so that no message, headers included, is larger than `max_payload`.
pub(super) fn parts(key: &PipelineKey, letter: &DeadLetter, max_payload: usize) -> Vec<Draft> {
    let subject = key.dead_letter_subject(PARKED, &letter.id);
    let event = &letter.delivery;
    let create = |part: NewPart| Draft {
        subject: format!("{subject}{}", part.suffix),
        headers: with(expecting(0), &part.headers),
        body: part.body,
    };
    cut_up(
        description(letter),
        &event.headers,
        &event.payload,
        max_payload,
    )
    .into_iter()
    .map(create)
    .collect()
}

/// Cuts an entry whose first part is described by `first`, so that no message, with what its write adds
/// to the headers, is larger than `max_payload`.
pub(super) fn cut_up(
    mut first: HeaderMap,
    original: &Bytes,
    payload: &Bytes,
    max_payload: usize,
) -> Vec<NewPart> {
    let inline = original.len() <= MAX_INLINE_HEADERS && original.len() * 3 <= max_payload;
    if inline && !original.is_empty() {
        first.insert(HEADERS, BASE64.encode(original).as_str());
    }
    let room = max_payload.saturating_sub(PART_HEADERS).max(1);
    let first_room = room.saturating_sub(wire_form(Some(&first)).len());
    let mut payload = payload.clone();
    let head = payload.split_to(first_room.min(payload.len()));
    let mut bodies = vec![(first, head)];
    bodies.extend(cut(payload, room).map(|body| (HeaderMap::new(), body)));
    if !inline {
        bodies.extend(cut(original.clone(), room).map(|body| {
            let mut headers = HeaderMap::new();
            headers.insert(HEADERS, RAW);
            (headers, body)
        }));
    }
    numbered(bodies)
}

fn numbered(bodies: Vec<(HeaderMap, Bytes)>) -> Vec<NewPart> {
    let count = bodies.len();
    let number = |(at, (mut headers, body)): (usize, (HeaderMap, Bytes))| {
        let part = at + 1;
        headers.insert(PART, part.to_string().as_str());
        headers.insert(PARTS, count.to_string().as_str());
        NewPart {
            suffix: suffix(part),
            headers,
            body,
        }
    };
    bodies.into_iter().enumerate().map(number).collect()
}

/// What the subject of part `part` has more than that of the first.
pub(super) fn suffix(part: usize) -> String {
    match part {
        1 => String::new(),
        _ => format!(".{part}"),
    }
}

fn with(mut headers: HeaderMap, more: &HeaderMap) -> HeaderMap {
    for (name, values) in more.iter() {
        for value in values {
            headers.append(name.clone(), value.clone());
        }
    }
    headers
}

fn description(letter: &DeadLetter) -> HeaderMap {
    let event = &letter.delivery;
    let mut headers = HeaderMap::new();
    headers.insert(REASON, letter.reason.to_string().as_str());
    headers.insert(ERROR, one_line(&letter.error).as_str());
    headers.insert(STREAM, one_line(&letter.stream).as_str());
    headers.insert(SEQUENCE, event.sequence.to_string().as_str());
    // Whole, because the event is sent there again, unless it was a subject that no client can write.
    let unwritable = char::REPLACEMENT_CHARACTER.to_string();
    let subject = event.subject.replace(char::is_control, &unwritable);
    headers.insert(SUBJECT, subject.as_str());
    headers.insert(PUBLISHED, format!("{:.9}", event.published).as_str());
    headers.insert(ATTEMPTS, letter.attempts.to_string().as_str());
    headers.insert(EPOCH, letter.epoch.to_string().as_str());
    let redrives = resend::redrives(&event.headers);
    if redrives > 0 {
        headers.insert(REDRIVES, redrives.to_string().as_str());
    }
    headers
}

/// Text that may stand in a header: an error can hold anything, since it may quote the event.
pub(super) fn one_line(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    header_text(&text[..end])
}

fn cut(mut bytes: Bytes, room: usize) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let size = room.min(bytes.len());
        (size > 0).then(|| bytes.split_to(size))
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use lookback_protocol::deadletter::{BY, NOTE, OP_ID, REDRIVE_AFTER, Reason};
    use lookback_protocol::position::{Epoch, StreamSeq};
    use proptest::prelude::*;

    use super::*;
    use crate::worker::ports::{AckToken, Delivery};

    fn letter(headers: usize, payload: usize, error: &str) -> DeadLetter {
        DeadLetter {
            id: "0-7-e590fdd3".to_owned(),
            reason: Reason::NotJson,
            error: error.to_owned(),
            stream: "EVENTS".to_owned(),
            delivery: Delivery {
                consumer_sequence: 1,
                sequence: StreamSeq(7),
                published: Timestamp::UNIX_EPOCH,
                subject: "ev.a".to_owned(),
                headers: vec![b'h'; headers].into(),
                payload: vec![b'p'; payload].into(),
                pending: 0,
                ack: AckToken(String::new()),
            },
            attempts: 1,
            epoch: Epoch(1),
        }
    }

    fn created(letter: &DeadLetter, max_payload: usize) -> Vec<Draft> {
        parts(
            &PipelineKey::new("prod", "edr").unwrap(),
            letter,
            max_payload,
        )
    }

    fn size(part: &Draft) -> usize {
        wire_form(Some(&part.headers)).len() + part.body.len()
    }

    #[test]
    fn a_small_entry_is_one_message_with_its_headers_inline() {
        let parts = created(&letter(30_000, 100, "bad"), 1 << 20);
        assert_eq!(parts.len(), 1);
        let inline = parts[0].headers.get(HEADERS).unwrap().as_str();
        assert_eq!(BASE64.decode(inline.as_bytes()).unwrap().len(), 30_000);
    }

    #[test]
    fn an_event_without_headers_has_no_header_for_them() {
        let parts = created(&letter(0, 100, "bad"), 1 << 20);
        assert_eq!(parts[0].headers.get(HEADERS), None);
    }

    #[test]
    fn large_headers_are_a_part_of_their_own() {
        let parts = created(&letter(60 * 1024, 100, "bad"), 1 << 20);
        assert_eq!(parts.len(), 2);
        assert_eq!(parts[0].headers.get(HEADERS), None);
        assert_eq!(parts[1].headers.get(HEADERS).unwrap().as_str(), RAW);
        assert_eq!(parts[1].body.len(), 60 * 1024);
    }

    #[test]
    fn each_part_has_a_subject_of_its_own_and_expects_it_to_be_free() {
        let parts = created(&letter(0, 1 << 20, "bad"), 1 << 20);
        let subjects: Vec<_> = parts.iter().map(|part| part.subject.as_str()).collect();
        let first = "lookback.v1.prod.edr.dlq.parked.0-7-e590fdd3";
        assert_eq!(subjects, [first, &format!("{first}.2")]);
        for part in &parts {
            let expected = part.headers.get("Nats-Expected-Last-Subject-Sequence");
            assert_eq!(expected.unwrap().as_str(), "0");
        }
    }

    #[test]
    fn an_error_with_line_ends_stays_one_header() {
        let parts = created(&letter(0, 1, "bad\r\nNats-Rollup: all"), 1 << 20);
        assert_eq!(
            parts[0].headers.get(ERROR).unwrap().as_str(),
            "bad  Nats-Rollup: all"
        );
        assert_eq!(parts[0].headers.get("Nats-Rollup"), None);
    }

    #[test]
    fn a_long_error_is_cut_between_characters() {
        let parts = created(&letter(0, 1, &"ä".repeat(1_000)), 1 << 20);
        assert_eq!(
            parts[0].headers.get(ERROR).unwrap().as_str().len(),
            MAX_TEXT
        );
    }

    #[test]
    fn the_subject_is_kept_whole() {
        let mut letter = letter(0, 1, "bad");
        letter.delivery.subject = "t".repeat(3_000);
        let parts = created(&letter, 1 << 20);
        let subject = parts[0].headers.get(SUBJECT).unwrap().as_str();
        assert_eq!(subject, letter.delivery.subject);
    }

    #[test]
    fn a_letter_says_how_often_its_event_was_redriven_before() {
        let mut letter = letter(0, 1, "bad");
        assert_eq!(created(&letter, 1 << 20)[0].headers.get(REDRIVES), None);
        letter.delivery.headers = "NATS/1.0\r\nLookback-Redrives: 2\r\n\r\n".into();
        let parts = created(&letter, 1 << 20);
        assert_eq!(parts[0].headers.get(REDRIVES).unwrap().as_str(), "2");
    }

    /// The first part of a letter that was moved, with as much in it as there can be.
    fn longest(letter: &DeadLetter) -> HeaderMap {
        let mut first = description(letter);
        let text = one_line(&"x".repeat(2 * MAX_TEXT));
        first.insert(BY, text.as_str());
        first.insert(NOTE, text.as_str());
        first.insert(OP_ID, uuid::Uuid::now_v7().to_string().as_str());
        first.insert(REDRIVES, u32::MAX.to_string().as_str());
        first.insert(REDRIVE_AFTER, u64::MAX.to_string().as_str());
        first
    }

    proptest! {
        #[test]
        fn no_part_of_a_moved_entry_is_too_large_and_nothing_is_lost(
            headers in 0_usize..65_536,
            payload in 0_usize..300_000,
            max_payload in 16_384_usize..200_000,
        ) {
            let mut letter = letter(headers, payload, &"e".repeat(2 * MAX_TEXT));
            letter.delivery.subject = "t".repeat(3_000);
            let first = longest(&letter);
            let event = &letter.delivery;
            let parts = cut_up(first, &event.headers, &event.payload, max_payload);
            // What the batch and a compare-and-swap add to each part, at most.
            let write = 250;
            for part in &parts {
                let headers = wire_form(Some(&part.headers)).len();
                prop_assert!(headers + part.body.len() + write <= max_payload);
                prop_assert!(headers + write <= usize::from(u16::MAX));
            }
            let (mut raw, mut body) = (0, 0);
            for part in &parts {
                match part.headers.get(HEADERS).map(async_nats::HeaderValue::as_str) {
                    Some(RAW) => raw += part.body.len(),
                    Some(inline) => {
                        raw += BASE64.decode(inline.as_bytes()).unwrap().len();
                        body += part.body.len();
                    }
                    None => body += part.body.len(),
                }
            }
            prop_assert_eq!((raw, body), (headers, payload));
        }

        #[test]
        fn no_part_is_too_large_and_nothing_is_lost(
            headers in 0_usize..65_536,
            payload in 0_usize..300_000,
            max_payload in 16_384_usize..200_000,
        ) {
            let letter = letter(headers, payload, "bad");
            let parts = created(&letter, max_payload);
            // What the batch adds to each part, at most.
            let batch = 150;
            prop_assert!(parts.iter().all(|part| size(part) + batch <= max_payload));
            let raw: usize = parts.iter().map(|part| part.body.len()).sum();
            let inline = parts[0].headers.get(HEADERS).map_or(0, |it| {
                BASE64.decode(it.as_str().as_bytes()).unwrap().len()
            });
            prop_assert_eq!(raw + inline, headers + payload);
        }
    }
}
