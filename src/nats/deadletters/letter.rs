//! A dead letter as it stands in its stream: read whole, and ready to be moved.

use async_nats::{HeaderMap, HeaderName};
use data_encoding::BASE64;
use lookback_protocol::deadletter::{
    ATTEMPTS, BY, EPOCH, ERROR, HEADERS, NOTE, OP_ID, PART, PARTS, PUBLISHED, REASON,
    REDRIVE_AFTER, REDRIVES, Reason, SEQUENCE, STREAM, SUBJECT, is_id, resend,
};
use lookback_protocol::names::PipelineKey;
use lookback_protocol::position::{Epoch, StreamSeq};

use super::parts::suffix;
use super::{ParkedEvent, StoredDeadLetter};
use crate::nats::api::StoredMessage;
use crate::nats::connect::Nats;
use crate::nats::entries::{self, ReadError, is_tombstone};

/// A letter changes its state so often at most, so this many reads of its parts meet a move.
const MOVES: usize = 4;
/// The beginning of every header that describes a letter.
const DESCRIPTION: &str = "Lookback-";

/// A dead letter, and what its next version is made from.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    pub(super) stored: StoredDeadLetter,
    /// The sequences of its parts.
    pub(super) sequences: Vec<u64>,
    /// What describes it, without what says how it is cut.
    pub(super) described: HeaderMap,
    /// The operation that moved it here.
    pub(super) op_id: Option<String>,
    /// The last sequence of the source stream before its event was sent again.
    pub(super) after: Option<u64>,
}

/// What is wrong with a stored dead letter.
#[derive(Debug, thiserror::Error)]
enum Malformed {
    /// People can delete single messages only where `deny_delete` is off.
    #[error("part {0} is missing")]
    MissingPart(usize),
    #[error("there is no valid header {0}")]
    Header(&'static str),
    #[error("its headers are none")]
    Headers(#[source] resend::ResendError),
    #[error("{0} is no subject of a dead letter")]
    Subject(String),
}

/// What the first part of a letter says.
pub(super) struct Head<'a> {
    pub(super) message: &'a StoredMessage,
    pub(super) state: &'a str,
    pub(super) id: &'a str,
}

/// Reads a dead letter from the leader; `None` when there is none under this id.
pub(super) async fn read(
    nats: &Nats,
    key: &PipelineKey,
    id: &str,
) -> Result<Option<Letter>, ReadError> {
    if !is_id(id) {
        return Ok(None);
    }
    let stream = key.dead_letters_stream();
    let get = async |subject: String| {
        nats.last_of_subject(&stream, &subject)
            .await
            .map_err(|source| ReadError::Api {
                operation: "read",
                object: format!("dead letter {id}"),
                source,
            })
    };
    let mut missing = 1;
    for _ in 0..MOVES {
        // What a letter leaves behind when it is moved is no letter, also when it was purged since.
        let first = get(key.dead_letter_subject("*", id)).await?;
        let Some(first) = first.filter(|first| !is_tombstone(first)) else {
            return Ok(None);
        };
        let head = Head::of(key, &first)?;
        let mut rest = Vec::new();
        let count: usize = head.parsed(PARTS)?;
        for part in 2..=count {
            let found = get(format!("{}{}", first.subject, suffix(part))).await?;
            match found.filter(|message| is_part(message, part)) {
                Some(message) => rest.push(message),
                None => {
                    missing = part;
                    break;
                }
            }
        }
        if rest.len() + 1 == count {
            return letter(&head, rest).map(Some);
        }
        // It was moved meanwhile, or a part is really gone: then the first part has not changed.
        let again = get(key.dead_letter_subject("*", id)).await?;
        if again.is_none_or(|again| again.sequence == first.sequence) {
            break;
        }
    }
    Err(unreadable(id, Malformed::MissingPart(missing)))
}

/// Whether this is part `part` of an entry, and not the tombstone of one.
fn is_part(message: &StoredMessage, part: usize) -> bool {
    let number = message.header(PART).and_then(|number| number.parse().ok());
    !is_tombstone(message) && number == Some(part)
}

fn letter(head: &Head<'_>, rest: Vec<StoredMessage>) -> Result<Letter, ReadError> {
    let first = head.message;
    let mut sequences = vec![first.sequence];
    let mut payload = first.payload.to_vec();
    let mut headers = match first.header(HEADERS) {
        Some(encoded) => BASE64
            .decode(encoded.as_bytes())
            .map_err(|_| head.malformed(Malformed::Header(HEADERS)))?,
        None => Vec::new(),
    };
    for message in rest {
        sequences.push(message.sequence);
        match message.header(HEADERS) {
            Some(_) => headers.extend_from_slice(&message.payload),
            None => payload.extend_from_slice(&message.payload),
        }
    }
    let event = ParkedEvent {
        stream: head.text(STREAM)?,
        sequence: StreamSeq(head.parsed(SEQUENCE)?),
        published: head.parsed(PUBLISHED)?,
        subject: head.text(SUBJECT)?,
        headers: headers.into(),
        payload: payload.into(),
    };
    let stored = StoredDeadLetter {
        id: head.id.to_owned(),
        state: head.state.to_owned(),
        subject: first.subject.clone(),
        sequence: first.sequence,
        stored: first.time,
        reason: head.reason()?,
        error: head.text(ERROR)?,
        attempts: head.parsed(ATTEMPTS)?,
        epoch: Epoch(head.parsed(EPOCH)?),
        redrives: head.redrives()?.max(resend::redrives(&event.headers)),
        by: head.optional(BY),
        note: head.optional(NOTE),
        event,
    };
    Ok(Letter {
        stored,
        sequences,
        described: head.described()?,
        op_id: head.optional(OP_ID),
        after: match first.header(REDRIVE_AFTER) {
            Some(_) => Some(head.parsed(REDRIVE_AFTER)?),
            None => None,
        },
    })
}

impl<'a> Head<'a> {
    /// The head of the letter in `message`, which is its first part.
    pub(super) fn of(key: &PipelineKey, message: &'a StoredMessage) -> Result<Self, ReadError> {
        let named = entries::split(&key.dead_letter_prefix(), &message.subject);
        match named.filter(|(_, id)| is_id(id)) {
            Some((state, id)) => Ok(Self { message, state, id }),
            None => {
                let subject = message.subject.clone();
                Err(unreadable("", Malformed::Subject(subject)))
            }
        }
    }

    /// A header that each letter has.
    pub(super) fn text(&self, name: &'static str) -> Result<String, ReadError> {
        self.optional(name)
            .ok_or_else(|| self.malformed(Malformed::Header(name)))
    }

    pub(super) fn optional(&self, name: &str) -> Option<String> {
        self.message.header(name).map(str::to_owned)
    }

    pub(super) fn parsed<T: std::str::FromStr>(&self, name: &'static str) -> Result<T, ReadError> {
        self.message
            .header(name)
            .and_then(|value| value.parse().ok())
            .ok_or_else(|| self.malformed(Malformed::Header(name)))
    }

    pub(super) fn reason(&self) -> Result<Reason, ReadError> {
        serde_json::from_value(self.text(REASON)?.into())
            .map_err(|_| self.malformed(Malformed::Header(REASON)))
    }

    /// How often its event was redriven, as the letter itself says.
    pub(super) fn redrives(&self) -> Result<u32, ReadError> {
        match self.message.header(REDRIVES) {
            Some(_) => self.parsed(REDRIVES),
            None => Ok(0),
        }
    }

    /// Whatever describes the letter, also what a newer version may have written.
    fn described(&self) -> Result<HeaderMap, ReadError> {
        let all = resend::headers(&self.message.headers)
            .map_err(|error| self.malformed(Malformed::Headers(error)))?;
        let mut described = HeaderMap::new();
        for header in all {
            let is_cut = [HEADERS, PART, PARTS].contains(&header.name);
            let name: Option<HeaderName> = header.name.parse().ok();
            if let Some(name) = name
                && header.name.starts_with(DESCRIPTION)
                && !is_cut
            {
                described.append(name, header.value);
            }
        }
        Ok(described)
    }

    fn malformed(&self, source: Malformed) -> ReadError {
        unreadable(self.id, source)
    }
}

fn unreadable(id: &str, source: Malformed) -> ReadError {
    ReadError::Unreadable {
        object: format!("dead letter {id}").trim_end().to_owned(),
        source: Box::new(source),
    }
}

/// A dead letter that lacks a header it must have in its state.
pub(super) fn malformed(id: &str, header: &'static str) -> ReadError {
    unreadable(id, Malformed::Header(header))
}

/// The headers with which an event is sent again.
pub(super) fn resent(letter: &StoredDeadLetter) -> Result<HeaderMap, resend::ResendError> {
    let event = &letter.event;
    let mut headers = HeaderMap::new();
    let kept = resend::kept(&event.subject, &event.headers)?;
    for (at, header) in kept.into_iter().enumerate() {
        let name: HeaderName = header
            .name
            .parse()
            .map_err(|_| resend::ResendError::Line(at + 1))?;
        headers.append(name, header.value);
    }
    for (name, value) in resend::added(&letter.id, letter.redrives, &event.stream) {
        headers.insert(name, value.as_str());
    }
    Ok(headers)
}
