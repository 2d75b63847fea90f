//! What a parked event may be sent again with, and how often.
//!
//! The server obeys `Nats-*` headers on whatever message carries them: a copied `Nats-Msg-Id` swallows
//! the event, and a copied `Nats-Expected-Last-Msg-Id` ends a replicated stream for good. So none of
//! them is ever sent again, however it is written; every other header is, value by value.

use super::{REDRIVE_OF, REDRIVES};

/// Header: the id by which the server, and a later look into the stream, tell a message that is there
/// already.
pub const MESSAGE_ID: &str = "Nats-Msg-Id";
/// Header: the only stream that may store the message.
const EXPECTED_STREAM: &str = "Nats-Expected-Stream";
/// The beginning of every header that the server may obey.
const OBEYED: &str = "nats-";
/// The beginning of every header that a redrive adds.
const OURS: &str = "lookback-redrive";
const VERSION: &str = "NATS/1.0";

/// One header of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// Its name, as it was written.
    pub name: &'a str,
    /// Its value.
    pub value: &'a str,
}

/// Why an event cannot be sent again as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResendError {
    /// The headers hold other bytes than text.
    #[error("its headers are no UTF-8")]
    NotText,
    /// The headers begin with something else, such as a status.
    #[error("its headers do not begin with {VERSION}")]
    Version,
    /// A line is none of `name: value`.
    #[error("line {0} of its headers is no header")]
    Line(usize),
    /// The subject holds what no client can send.
    #[error("its subject cannot be written")]
    Subject,
}

/// Reads headers in NATS wire form, in their order, a name as often as it stands there. Empty for none.
///
/// # Errors
/// [`ResendError`] when something stands there that could not be written again.
pub fn headers(wire: &[u8]) -> Result<Vec<Header<'_>>, ResendError> {
    if wire.is_empty() {
        return Ok(Vec::new());
    }
    let text = std::str::from_utf8(wire).map_err(|_| ResendError::NotText)?;
    let mut lines = text.split("\r\n");
    if lines.next() != Some(VERSION) {
        return Err(ResendError::Version);
    }
    lines
        .take_while(|line| !line.is_empty())
        .enumerate()
        .map(|(at, line)| header(line).ok_or(ResendError::Line(at + 1)))
        .collect()
}

fn header(line: &str) -> Option<Header<'_>> {
    let (name, value) = line.split_once(':')?;
    let fits = !name.is_empty() && name.chars().all(|c| c.is_ascii_graphic());
    (fits && !value.contains(['\r', '\n'])).then(|| Header {
        name,
        value: value.strip_prefix(' ').unwrap_or(value),
    })
}

/// Those headers of an event that are sent again with it.
///
/// # Errors
/// [`ResendError`]: the event cannot be sent again as it was, so it must not be sent.
pub fn kept<'a>(subject: &str, wire: &'a [u8]) -> Result<Vec<Header<'a>>, ResendError> {
    let unwritable = |c: char| c.is_whitespace() || c == char::REPLACEMENT_CHARACTER;
    if subject.is_empty() || subject.contains(unwritable) {
        return Err(ResendError::Subject);
    }
    let mut kept = headers(wire)?;
    kept.retain(|header| is_kept(header.name));
    Ok(kept)
}

/// Whether a header of this name is sent again.
fn is_kept(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    !name.starts_with(OBEYED) && !name.starts_with(OURS)
}

/// What is sent with the event of the dead letter `id` of `stream` when it is sent for the `number`th
/// time.
#[must_use]
pub fn added(id: &str, number: u32, stream: &str) -> [(&'static str, String); 4] {
    [
        (MESSAGE_ID, message_id(id, number)),
        (EXPECTED_STREAM, stream.to_owned()),
        (REDRIVE_OF, id.to_owned()),
        (REDRIVES, number.to_string()),
    ]
}

/// The [`MESSAGE_ID`] of the event of the dead letter `id` when it is sent for the `number`th time.
#[must_use]
pub fn message_id(id: &str, number: u32) -> String {
    format!("redrive-{id}-{number}")
}

/// How often an event was redriven before it was parked, as its headers in wire form say. What cannot
/// be read counts as never; anybody may have written it.
#[must_use]
pub fn redrives(wire: &[u8]) -> u32 {
    String::from_utf8_lossy(wire)
        .split("\r\n")
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| name.eq_ignore_ascii_case(REDRIVES))
        .filter_map(|(_, value)| value.trim().parse().ok())
        .max()
        .unwrap_or(0)
}

/// The number of the next redrive of an event that had `redrives`; `None` when that is one too many.
#[must_use]
pub fn next(redrives: u32, max_redrives: u32) -> Option<u32> {
    let next = redrives.checked_add(1)?;
    (next <= max_redrives).then_some(next)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn pairs<'a>(headers: &[Header<'a>]) -> Vec<(&'a str, &'a str)> {
        headers
            .iter()
            .map(|header| (header.name, header.value))
            .collect()
    }

    #[test]
    fn values_of_one_name_keep_their_number_and_order() {
        let wire = b"NATS/1.0\r\nA: 2\r\nB:x\r\nA: 1\r\nA:  1\r\n\r\n";
        assert_eq!(
            pairs(&kept("ev.a", wire).unwrap()),
            [("A", "2"), ("B", "x"), ("A", "1"), ("A", " 1")]
        );
    }

    #[test]
    fn an_event_without_headers_has_none() {
        assert_eq!(kept("ev.a", b""), Ok(Vec::new()));
    }

    #[test]
    fn nothing_that_the_server_would_obey_is_kept_however_it_is_written() {
        for name in [
            "Nats-Msg-Id",
            "nats-expected-last-msg-id",
            "NATS-ROLLUP",
            "Nats-TTL",
            "Nats-Anything-New",
        ] {
            assert!(!is_kept(name), "{name}");
        }
    }

    #[test]
    fn what_an_earlier_redrive_added_is_not_kept() {
        for (name, _) in added("0-7-e590fdd3", 1, "EVENTS") {
            assert!(!is_kept(name), "{name}");
            assert!(!is_kept(&name.to_lowercase()), "{name}");
        }
        assert!(!is_kept(super::super::REDRIVE_AFTER));
    }

    #[test]
    fn other_headers_are_kept() {
        for name in ["Content-Type", "traceparent", "Lookback-Tenant", "Natsu"] {
            assert!(is_kept(name), "{name}");
        }
    }

    #[test]
    fn headers_that_could_not_be_written_again_are_refused() {
        let cases: [(&[u8], ResendError); 6] = [
            (b"NATS/1.0\r\nLatin: caf\xe9\r\n\r\n", ResendError::NotText),
            (b"NATS/1.0 503\r\n\r\n", ResendError::Version),
            (b"A: 1\r\n\r\n", ResendError::Version),
            (
                b"NATS/1.0\r\nA: 1\r\nno colon\r\n\r\n",
                ResendError::Line(2),
            ),
            (b"NATS/1.0\r\nA b: 1\r\n\r\n", ResendError::Line(1)),
            (b"NATS/1.0\r\nA: 1\n2\r\n\r\n", ResendError::Line(1)),
        ];
        for (wire, expected) in cases {
            assert_eq!(kept("ev.a", wire), Err(expected));
        }
    }

    #[test]
    fn a_subject_that_could_not_be_written_is_refused() {
        for subject in ["", "ev.a b", "ev.caf\u{fffd}"] {
            assert_eq!(kept(subject, b""), Err(ResendError::Subject), "{subject}");
        }
    }

    #[test]
    fn earlier_redrives_are_read_from_headers_whatever_else_they_hold() {
        let cases: [(&[u8], u32); 5] = [
            (b"", 0),
            (b"NATS/1.0\r\nLookback-Redrives: 2\r\n\r\n", 2),
            (
                b"NATS/1.0\r\nLatin: caf\xe9\r\nlookback-redrives:3\r\n\r\n",
                3,
            ),
            (b"NATS/1.0\r\nLookback-Redrives: many\r\n\r\n", 0),
            (
                b"NATS/1.0\r\nLookback-Redrives: 1\r\nLookback-Redrives: 4\r\n\r\n",
                4,
            ),
        ];
        for (wire, expected) in cases {
            assert_eq!(redrives(wire), expected);
        }
    }

    #[test]
    fn the_last_allowed_redrive_is_allowed_and_the_next_is_not() {
        assert_eq!(next(0, 3), Some(1));
        assert_eq!(next(2, 3), Some(3));
        assert_eq!(next(3, 3), None);
        assert_eq!(next(u32::MAX, u32::MAX), None);
        assert_eq!(next(0, 0), None);
    }

    #[test]
    fn each_redrive_of_each_letter_has_a_message_id_of_its_own() {
        assert_eq!(message_id("0-7-e590fdd3", 2), "redrive-0-7-e590fdd3-2");
    }

    proptest! {
        #[test]
        fn every_header_of_a_readable_event_is_kept_or_is_one_that_may_not_be(
            pairs in vec(("[!-9;-~]{1,12}|[Nn][Aa]ts-[a-z]{1,5}", "[^\r\n]{0,20}"), 0..12),
        ) {
            let mut wire = String::from("NATS/1.0\r\n");
            for (name, value) in &pairs {
                wire.push_str(&format!("{name}: {value}\r\n"));
            }
            wire.push_str("\r\n");
            let kept = kept("ev.a", wire.as_bytes()).unwrap();
            let expected: Vec<_> = pairs
                .iter()
                .filter(|(name, _)| is_kept(name))
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            prop_assert_eq!(super::tests::pairs(&kept), expected);
        }

        #[test]
        fn no_bytes_make_the_parser_panic(bytes in vec(any::<u8>(), 0..200)) {
            drop(kept("ev.a", &bytes));
            prop_assert!(redrives(&bytes) == redrives(&bytes));
        }
    }
}
