//! Moves and updates. Each is compared with what was read; what became of it is told apart exactly.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::{NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MESSAGE_TTL};
use bytes::Bytes;
use lookback_protocol::alert::MOVED_TO;

use super::Entries;
use crate::nats::api::{ApiError, Draft};
use crate::nats::outbox::expecting;

/// How much longer a mark stays than its tombstone, at most twice as long. A tombstone without
/// its mark would be counted as an entry, and copies do not let go of them in the same instant.
const MARK_LONGER: Duration = Duration::from_secs(60);

/// One message of the new version of an entry.
#[derive(Debug)]
pub(in crate::nats) struct NewPart {
    /// What follows `<prefix>.<state>.<id>`: nothing for the first part, `.2` for the second.
    pub(in crate::nats) suffix: String,
    pub(in crate::nats) headers: HeaderMap,
    pub(in crate::nats) body: Bytes,
}

/// An entry's move to another state.
#[derive(Debug)]
pub(in crate::nats) struct Move<'a> {
    pub(in crate::nats) id: &'a str,
    pub(in crate::nats) from: &'a str,
    /// Never `from`: that is an update.
    pub(in crate::nats) to: &'a str,
    /// The sequences at which its parts were read, the first part first.
    pub(in crate::nats) expected: &'a [u64],
    pub(in crate::nats) parts: Vec<NewPart>,
}

/// What became of a move or update.
#[derive(Debug)]
pub(in crate::nats) enum Written {
    /// Done; the first part of the new version stands at this sequence.
    At(u64),
    /// Not done by this very call: the entry does not stand where it was read, or another write of it
    /// is in process, which may be an earlier try of one's own. Compare what the leader holds; while
    /// that still is what was read, the write can be tried again.
    Conflict,
    /// Not done: there is no room.
    Full,
    /// Not done, for a reason that has nothing to do with the entry.
    Refused(ApiError),
    /// There was no answer: it was done, or will be when a late write arrives, or not. Compare what the
    /// leader holds.
    Unknown(ApiError),
}

impl Entries {
    /// Moves an entry by one atomic batch: tombstones where its parts were read, the mark, and its new
    /// parts.
    pub(in crate::nats) async fn write_move(&self, entry: Move<'_>) -> Written {
        let behind_first = entry.parts.len().saturating_sub(1) as u64;
        let written = self.nats.publish_batch(self.drafts(entry)).await;
        settled(written.map(|last| last - behind_first))
    }

    /// Writes a new version of one part of an entry where it stands.
    pub(in crate::nats) async fn write_update(
        &self,
        subject: &str,
        expected: u64,
        part: NewPart,
    ) -> Written {
        let mut headers = part.headers;
        headers.insert(
            NATS_EXPECTED_LAST_SUBJECT_SEQUENCE,
            expected.to_string().as_str(),
        );
        let subject = format!("{subject}{}", part.suffix);
        settled(self.nats.publish(subject, headers, part.body).await)
    }

    /// The tombstones come first: the entry then has the highest sequence of its subjects.
    fn drafts(&self, entry: Move<'_>) -> Vec<Draft> {
        let Move {
            id,
            from,
            to,
            expected,
            parts,
        } = entry;
        let old = self.subject(from, id);
        let new = self.subject(to, id);
        let gone = |subject: String, mut headers: HeaderMap, ttl: Duration| {
            headers.insert(NATS_MESSAGE_TTL, ttl.as_secs().to_string().as_str());
            Draft {
                subject,
                headers,
                body: Bytes::new(),
            }
        };
        let mut drafts: Vec<_> = expected
            .iter()
            .enumerate()
            .map(|(at, &sequence)| {
                let suffix = match at {
                    0 => String::new(),
                    at => format!(".{}", at + 1),
                };
                let mut headers = expecting(sequence);
                headers.insert(MOVED_TO, to);
                gone(format!("{old}{suffix}"), headers, self.tombstone_ttl)
            })
            .collect();
        drafts.push(gone(
            self.left_subject(from, id),
            HeaderMap::new(),
            self.tombstone_ttl + MARK_LONGER.min(self.tombstone_ttl),
        ));
        drafts.extend(parts.into_iter().map(|part| Draft {
            subject: format!("{new}{}", part.suffix),
            headers: part.headers,
            body: part.body,
        }));
        drafts
    }
}

fn settled(written: Result<u64, ApiError>) -> Written {
    match written {
        Ok(sequence) => Written::At(sequence),
        Err(error) => match error.code() {
            Some(code) if code.is_conflict() => Written::Conflict,
            Some(code) if code.is_full() => Written::Full,
            Some(_) => Written::Refused(error),
            None if error.was_not_sent() => Written::Refused(error),
            None => Written::Unknown(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use async_nats::RequestErrorKind;

    use super::*;
    use crate::nats::api::Code;

    fn refused(code: u64) -> Written {
        settled(Err(ApiError::Refused {
            code: Code(code),
            description: String::new(),
        }))
    }

    fn unanswered(kind: RequestErrorKind) -> Written {
        settled(Err(ApiError::NoAnswer(kind.into())))
    }

    #[test]
    fn a_refusal_is_told_from_silence() {
        assert!(matches!(settled(Ok(7)), Written::At(7)));
        assert!(matches!(refused(10071), Written::Conflict));
        assert!(matches!(refused(10164), Written::Conflict));
        assert!(matches!(refused(10077), Written::Full));
        assert!(matches!(refused(10176), Written::Refused(_)));
        assert!(matches!(
            unanswered(RequestErrorKind::TimedOut),
            Written::Unknown(_)
        ));
        assert!(matches!(
            unanswered(RequestErrorKind::MaxPayloadExceeded),
            Written::Refused(_)
        ));
    }
}
