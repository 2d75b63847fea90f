//! What the server writes around a pull's messages. Pure.

use std::str::FromStr;

use async_nats::HeaderName;
use jiff::Timestamp;
use lookback_protocol::position::StreamSeq;

/// What the reply subject of a delivery says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::nats) struct AckReply {
    pub(in crate::nats) sequence: StreamSeq,
    pub(in crate::nats) consumer_sequence: u64,
    pub(in crate::nats) published: Timestamp,
    pub(in crate::nats) pending: u64,
}

/// What a message with a status means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::nats) enum Status {
    /// The pull is alive.
    Heartbeat { last_consumer: u64 },
    /// The pull has ended and will not bring `unused` of its messages; `None` for all that are open.
    End { unused: Option<u64> },
    /// The consumer is not served.
    Gone,
    /// Its server stepped down or stops: what was open is lost.
    Lost,
    /// The request is not accepted as it is.
    Refused,
}

/// Reads `$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<consumer sequence>.<ns>.<pending>`, or
/// the newer form with a domain and an account before the stream and perhaps a token at the end.
pub(in crate::nats) fn ack_reply(reply: &str) -> Option<AckReply> {
    let tokens: Vec<&str> = reply.strip_prefix("$JS.ACK.")?.split('.').collect();
    let numbers = match tokens.len() {
        7 => &tokens[3..7],
        9 | 10 => &tokens[5..9],
        _ => return None,
    };
    let [sequence, consumer_sequence, published, pending] = numbers else {
        return None;
    };
    Some(AckReply {
        sequence: StreamSeq(sequence.parse().ok()?),
        consumer_sequence: consumer_sequence.parse().ok()?,
        published: Timestamp::from_nanosecond(published.parse().ok()?).ok()?,
        pending: pending.parse().ok()?,
    })
}

/// Whether the client can read a message at all. One bad line among the headers, or a white space that
/// is none to the server, and it drops the connection instead; a lone carriage return even ends it for
/// good. Anything unusual counts as unreadable.
pub(super) fn is_readable(subject: &str, headers: &[u8]) -> bool {
    let suspicious = |c: char| c.is_whitespace() || c == char::REPLACEMENT_CHARACTER;
    if subject.contains(suspicious) {
        return false;
    }
    let Ok(text) = std::str::from_utf8(headers) else {
        return false;
    };
    let mut lines = text.lines();
    let is_pair = |line: &str| {
        let name = line.split_once(':').map(|(name, _)| name);
        name.is_some_and(|name| HeaderName::from_str(name).is_ok()) && !line.contains('\r')
    };
    match lines.next() {
        None => true,
        Some(version) => {
            version == "NATS/1.0" && lines.all(|line| line.is_empty() || is_pair(line))
        }
    }
}

/// Judges a status message; `header` reads one of its numeric headers.
pub(in crate::nats) fn status(
    code: u16,
    description: &str,
    header: impl Fn(&str) -> Option<u64>,
) -> Status {
    let end = || Status::End {
        unused: header("Nats-Pending-Messages"),
    };
    match (code, description) {
        (100, _) => Status::Heartbeat {
            last_consumer: header("Nats-Last-Consumer").unwrap_or(0),
        },
        (404 | 408, _) => end(),
        (409, "Batch Completed" | "Message Size Exceeds MaxBytes") => end(),
        (409, "Consumer Deleted") | (503, _) => Status::Gone,
        (409, "Leadership Change" | "Server Shutdown") => Status::Lost,
        _ => Status::Refused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected() -> AckReply {
        AckReply {
            sequence: StreamSeq(42),
            consumer_sequence: 7,
            published: Timestamp::from_nanosecond(1_700_000_000_000_000_001).unwrap(),
            pending: 3,
        }
    }

    #[test]
    fn the_short_form_of_an_ack_reply_is_read() {
        let reply = "$JS.ACK.EVENTS.lb.2.42.7.1700000000000000001.3";
        assert_eq!(ack_reply(reply), Some(expected()));
    }

    #[test]
    fn the_long_form_of_an_ack_reply_is_read_with_and_without_a_token() {
        let reply = "$JS.ACK._.hash.EVENTS.lb.2.42.7.1700000000000000001.3";
        assert_eq!(ack_reply(reply), Some(expected()));
        assert_eq!(ack_reply(&format!("{reply}.token")), Some(expected()));
    }

    #[test]
    fn another_reply_is_none() {
        assert_eq!(ack_reply("_INBOX.abc"), None);
        assert_eq!(ack_reply("$JS.ACK.EVENTS.lb.2.x.7.1.3"), None);
    }

    #[test]
    fn the_end_of_a_pull_says_what_it_did_not_use() {
        let unused = |name: &str| (name == "Nats-Pending-Messages").then_some(12);
        assert_eq!(
            status(408, "Request Timeout", unused),
            Status::End { unused: Some(12) }
        );
    }

    #[test]
    fn a_deleted_consumer_is_gone_and_a_moved_one_is_lost() {
        assert_eq!(status(409, "Consumer Deleted", |_| None), Status::Gone);
        assert_eq!(status(503, "No Responders", |_| None), Status::Gone);
        assert_eq!(status(409, "Leadership Change", |_| None), Status::Lost);
    }

    #[test]
    fn usual_headers_are_readable() {
        assert!(is_readable("ev.a", b""));
        assert!(is_readable("ev.a", b"NATS/1.0\r\nA: 1\r\nB:\r\n\r\n"));
        assert!(is_readable("ev.a", "NATS/1.0\r\nA: ä\r\n\r\n".as_bytes()));
    }

    #[test]
    fn what_the_client_stumbles_over_is_not_readable() {
        for headers in [
            &b"NATS/1.0\r\nA: \xff\r\n\r\n"[..],
            b"NATS/1.0\r\nA: 1\r2\r\n\r\n",
            b"NATS/1.0\r\nno pair\r\n\r\n",
            b"NATS/1.0\r\n\xc3\xa4: 1\r\n\r\n",
            b"NATS/1.0 abc\r\n\r\n",
            b"\r\n",
        ] {
            assert!(!is_readable("ev.a", headers), "{headers:?}");
        }
        assert!(!is_readable("ev.a\u{2003}b", b""));
    }

    #[test]
    fn a_refused_request_is_not_taken_for_the_end_of_a_pull() {
        let description = "Exceeded MaxRequestBatch of 1";
        assert_eq!(status(409, description, |_| None), Status::Refused);
    }
}
