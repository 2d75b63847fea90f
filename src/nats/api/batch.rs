//! Several messages stored as one: an atomic batch (ADR-50). All of them or none are stored.

use async_nats::HeaderMap;
use async_nats::header::{NATS_BATCH_COMMIT, NATS_BATCH_ID, NATS_BATCH_SEQUENCE};
use bytes::Bytes;
use futures::future::join_all;

use super::ApiError;
use crate::nats::connect::Nats;

/// Messages that are on their way before the server has answered to the first of them: a short batch
/// costs one round trip, and a long one of large messages does not fill the client's buffers.
const IN_FLIGHT: usize = 16;

/// One message that is to be stored.
#[derive(Debug)]
pub(in crate::nats) struct Draft {
    pub(in crate::nats) subject: String,
    pub(in crate::nats) headers: HeaderMap,
    pub(in crate::nats) body: Bytes,
}

impl Nats {
    /// Stores messages as one; the sequence of the last of them. Each may carry an expectation of its
    /// own; when one does not hold, nothing is stored.
    pub(in crate::nats) async fn publish_batch(
        &self,
        mut drafts: Vec<Draft>,
    ) -> Result<u64, ApiError> {
        number(&mut drafts);
        let Some(last) = drafts.pop() else {
            return Err(ApiError::Unreadable("a batch without messages".into()));
        };
        let mut refused = None;
        let mut rest = drafts.into_iter().peekable();
        loop {
            // They are sent in the order in which they are first polled.
            let some: Vec<_> = rest
                .by_ref()
                .take(IN_FLIGHT)
                .map(|it| self.publish_part(it.subject, it.headers, it.body))
                .collect();
            if rest.peek().is_some() {
                let answers = join_all(some).await;
                refused = refused.or_else(|| first_refusal(answers));
                continue;
            }
            let commit = self.publish(last.subject, last.headers, last.body);
            let (some, commit) = futures::join!(join_all(some), commit);
            refused = refused.or_else(|| first_refusal(some));
            // The commit of a batch that broke before says only that it is incomplete.
            return commit.map_err(|error| match error {
                ApiError::Refused { .. } => refused.unwrap_or(error),
                error => error,
            });
        }
    }
}

fn first_refusal(answers: Vec<Result<(), ApiError>>) -> Option<ApiError> {
    answers
        .into_iter()
        .filter_map(Result::err)
        .find(|error| error.code().is_some())
}

fn number(drafts: &mut [Draft]) {
    let batch = uuid::Uuid::now_v7().simple().to_string();
    let count = drafts.len();
    for (at, draft) in drafts.iter_mut().enumerate() {
        let number = at + 1;
        draft.headers.insert(NATS_BATCH_ID, batch.as_str());
        draft
            .headers
            .insert(NATS_BATCH_SEQUENCE, number.to_string().as_str());
        if number == count {
            draft.headers.insert(NATS_BATCH_COMMIT, "1");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_numbered_from_1_and_its_last_message_commits_it() {
        let draft = || Draft {
            subject: "a".to_owned(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        };
        let mut drafts = [draft(), draft()];
        number(&mut drafts);
        let header = |at: usize, name| {
            let value = drafts[at].headers.get::<async_nats::HeaderName>(name);
            value.map(|value| value.as_str().to_owned())
        };
        assert_eq!(header(0, NATS_BATCH_ID), header(1, NATS_BATCH_ID));
        assert_eq!(header(0, NATS_BATCH_SEQUENCE).as_deref(), Some("1"));
        assert_eq!(header(1, NATS_BATCH_SEQUENCE).as_deref(), Some("2"));
        assert_eq!(header(0, NATS_BATCH_COMMIT), None);
        assert_eq!(header(1, NATS_BATCH_COMMIT).as_deref(), Some("1"));
    }
}
