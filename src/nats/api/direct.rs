//! Direct gets of many messages (ADR-31): read from whichever copy of the stream answers, which may be
//! behind its leader. Several messages come to one inbox and a message without a body ends them.

use async_nats::client::RequestErrorKind;
use async_nats::{Message, StatusCode};
use bytes::Bytes;
use futures::StreamExt;
use serde_json::{Value, json};

use super::{ApiError, Code, StoredMessage};
use crate::nats::connect::Nats;

/// Bytes after which a server ends its answer; what is left is asked for again.
const MAX_BYTES: usize = 8 << 20;
/// Subjects that a server looks up at once.
pub(in crate::nats) const MAX_SUBJECTS: usize = 1024;

/// What one copy of a stream answered.
#[derive(Debug, Default)]
pub(in crate::nats) struct Copied {
    /// In the order of their sequences.
    pub(in crate::nats) messages: Vec<StoredMessage>,
    /// How many more would have fitted.
    pub(in crate::nats) pending: u64,
    /// For [`Nats::copies_of_last`]: the last sequence that the copy held. `None` when it held none of
    /// the subjects, which proves nothing.
    pub(in crate::nats) up_to: Option<u64>,
}

impl Nats {
    /// Up to `count` messages at or after `sequence` under `subject`, which may hold wildcards, or of the
    /// whole stream. There are fewer when they are large; [`Copied::pending`] says how many are left,
    /// which the server finds out first: by one look at each subject that fits.
    pub(in crate::nats) async fn copies_of_next(
        &self,
        stream: &str,
        sequence: u64,
        subject: Option<&str>,
        count: usize,
    ) -> Result<Copied, ApiError> {
        let mut by = json!({
            "seq": sequence.max(1),
            "batch": count,
            "max_bytes": MAX_BYTES,
        });
        if let Some(subject) = subject {
            by["next_by_subj"] = subject.into();
        }
        self.copies(stream, &by).await
    }

    /// Of the last messages of up to [`MAX_SUBJECTS`] subjects, which may be given by wildcards, up to
    /// `count` that stand at or after `sequence`. There are fewer when they are large;
    /// [`Copied::pending`] says how many are left.
    pub(in crate::nats) async fn copies_of_last(
        &self,
        stream: &str,
        sequence: u64,
        subjects: &[String],
        count: usize,
    ) -> Result<Copied, ApiError> {
        let by = json!({
            "seq": sequence,
            "multi_last": subjects,
            "batch": count,
            "max_bytes": MAX_BYTES,
        });
        self.copies(stream, &by).await
    }

    async fn copies(&self, stream: &str, by: &Value) -> Result<Copied, ApiError> {
        let client = self.client();
        // What is under way when the connection is cut is lost, and the rest may still come.
        let mut cuts = self.disconnects();
        cuts.mark_unchanged();
        let inbox = client.new_inbox();
        let mut answers = client
            .subscribe(inbox.clone())
            .await
            .map_err(|error| ApiError::NoAnswer(error.into()))?;
        client
            .publish_with_reply(
                format!("$JS.API.DIRECT.GET.{stream}"),
                inbox,
                Bytes::from(by.to_string()),
            )
            .await
            .map_err(|error| ApiError::NoAnswer(error.into()))?;
        let mut messages = Vec::new();
        loop {
            let silence = |_| ApiError::NoAnswer(RequestErrorKind::TimedOut.into());
            let answer = tokio::time::timeout(self.request_timeout(), answers.next())
                .await
                .map_err(silence)?
                .ok_or_else(|| ApiError::NoAnswer(RequestErrorKind::Other.into()))?;
            match answer.status {
                None => messages.push(StoredMessage::copied(&answer)?),
                Some(_) if cuts.has_changed().unwrap_or(true) => {
                    return Err(ApiError::NoAnswer(RequestErrorKind::Other.into()));
                }
                Some(status) => return end(messages, status, &answer),
            }
        }
    }
}

/// What the message that ends an answer means.
fn end(
    messages: Vec<StoredMessage>,
    status: StatusCode,
    message: &Message,
) -> Result<Copied, ApiError> {
    let number = |name: &str| -> Option<u64> {
        let value = message.headers.as_ref()?.get(name)?;
        value.as_str().parse().ok()
    };
    match status.as_u16() {
        204 => Ok(Copied {
            messages,
            pending: number("Nats-Num-Pending").ok_or_else(|| {
                ApiError::Unreadable("an end of a direct get without Nats-Num-Pending".into())
            })?,
            up_to: number("Nats-UpTo-Sequence"),
        }),
        404 if messages.is_empty() => Ok(Copied::default()),
        503 => Err(ApiError::NoCopies),
        code => Err(ApiError::Refused {
            code: Code(code.into()),
            description: message
                .description
                .as_deref()
                .unwrap_or_default()
                .to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use async_nats::HeaderMap;
    use jiff::Timestamp;

    use super::*;

    fn message(status: Option<u16>, headers: &[(&str, &str)], payload: &'static str) -> Message {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, *value);
        }
        Message {
            subject: "_INBOX.x".into(),
            reply: None,
            payload: Bytes::from_static(payload.as_bytes()),
            headers: Some(map),
            status: status.map(|status| StatusCode::from_u16(status).expect("it has three digits")),
            description: None,
            length: 0,
        }
    }

    fn ended(status: u16, headers: &[(&str, &str)]) -> Result<Copied, ApiError> {
        let message = message(Some(status), headers, "");
        end(Vec::new(), message.status.expect("it was given"), &message)
    }

    #[test]
    fn a_copy_is_told_from_what_the_server_says_of_it() {
        let answer = message(
            None,
            &[
                ("Lookback-By", "user/alice"),
                ("Nats-Stream", "LB_prod_edr_ALERTS"),
                ("Nats-Subject", "lookback.v1.prod.edr.alert.new.X"),
                ("Nats-Sequence", "7"),
                ("Nats-Time-Stamp", "2026-11-21T10:00:00.000000001Z"),
                ("Nats-Num-Pending", "3"),
                ("Nats-Last-Sequence", "5"),
            ],
            "{}",
        );
        let copied = StoredMessage::copied(&answer).unwrap();
        let time: Timestamp = "2026-11-21T10:00:00.000000001Z".parse().unwrap();
        assert_eq!(copied.subject, "lookback.v1.prod.edr.alert.new.X");
        assert_eq!((copied.sequence, copied.time), (7, time));
        assert_eq!(
            &copied.headers[..],
            b"NATS/1.0\r\nLookback-By: user/alice\r\n\r\n"
        );
        assert_eq!(&copied.payload[..], b"{}");
    }

    #[test]
    fn a_copy_without_a_sequence_cannot_be_read() {
        let answer = message(None, &[("Nats-Subject", "a")], "");
        assert!(matches!(
            StoredMessage::copied(&answer),
            Err(ApiError::Unreadable(_))
        ));
    }

    #[test]
    fn an_end_says_how_many_are_left_and_how_recent_the_copy_is() {
        let copied = ended(
            204,
            &[("Nats-Num-Pending", "3"), ("Nats-UpTo-Sequence", "9")],
        )
        .unwrap();
        assert_eq!((copied.pending, copied.up_to), (3, Some(9)));
        assert!(matches!(ended(204, &[]), Err(ApiError::Unreadable(_))));
    }

    #[test]
    fn only_404_means_that_there_is_nothing() {
        let copied = ended(404, &[]).unwrap();
        assert_eq!(
            (copied.messages.len(), copied.pending, copied.up_to),
            (0, 0, None)
        );
        assert!(matches!(ended(503, &[]), Err(ApiError::NoCopies)));
        for status in [408, 412, 413, 500] {
            let code = ended(status, &[]).unwrap_err().code();
            assert_eq!(code, Some(Code(status.into())));
        }
    }
}
