//! What stands on each of many subjects, and which subjects there are.

use std::collections::{BTreeMap, HashMap};

use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::json;

use super::{Entries, ReadError, is_tombstone};
use crate::nats::api::{ApiError, Copied, MAX_SUBJECTS, StoredMessage};

/// How often names are read anew because some expired meanwhile.
const NAMES_ANEW: usize = 16;
/// How often copies are asked that are behind, before the leader is.
pub(super) const ASKED_AGAIN: usize = 8;
/// Gets of the leader under way at once.
const LEADER_GETS: usize = 32;

impl Entries {
    /// The newest message of each subject that has one, from copies that hold the stream up to
    /// `at_least`; from any with `None`, which is enough where there is one copy.
    pub(super) async fn newest(
        &self,
        subjects: Vec<String>,
        at_least: Option<u64>,
    ) -> Result<HashMap<String, Newest>, ReadError> {
        let mut newest = HashMap::with_capacity(subjects.len());
        for some in subjects.chunks(MAX_SUBJECTS) {
            let mut from = 0;
            let mut asked = 0;
            loop {
                let copied = self
                    .nats
                    .copies_of_last(&self.stream, from, some, MAX_SUBJECTS)
                    .await
                    .map_err(|source| self.stream_failed("list", source))?;
                if is_behind(&copied, at_least) {
                    asked += 1;
                    if asked < ASKED_AGAIN {
                        continue;
                    }
                    newest.extend(self.leader_newest(some).await?);
                    break;
                }
                let last = copied.messages.last().map(|message| message.sequence);
                newest.extend(copied.messages.into_iter().map(Newest::of));
                match last {
                    Some(last) if copied.pending > 0 => from = last + 1,
                    _ => break,
                }
            }
        }
        Ok(newest)
    }

    /// As [`Self::newest`], from the leader, one by one.
    pub(super) async fn leader_newest(
        &self,
        subjects: &[String],
    ) -> Result<Vec<(String, Newest)>, ReadError> {
        // Not `map` of the stream: then the compiler cannot tell that this may move between threads.
        let gets: Vec<_> = subjects
            .iter()
            .map(|subject| self.nats.last_of_subject(&self.stream, subject))
            .collect();
        let found: Vec<_> = stream::iter(gets)
            .buffer_unordered(LEADER_GETS)
            .try_collect()
            .await
            .map_err(|source| self.stream_failed("list", source))?;
        Ok(found.into_iter().flatten().map(Newest::of).collect())
    }

    /// Every subject under `filter`, from the leader. They come sorted and in pages, and one that expires
    /// moves those behind it to a page already read. So each page begins with the last subject of the
    /// one before; when it does not, they are read anew.
    pub(super) async fn names(&self, filter: &str) -> Result<Vec<String>, ReadError> {
        let mut names: Vec<String> = Vec::new();
        let mut anew = 0;
        loop {
            let offset = names.len().saturating_sub(1) as u64;
            let some = self.subjects_from(filter, offset).await?;
            let mut subjects = some.state.subjects.into_keys().peekable();
            let last = names.pop();
            if last.is_some() && last.as_ref() != subjects.peek() {
                anew += 1;
                if anew > NAMES_ANEW {
                    let moving = "its subjects expire faster than they are read";
                    let source = ApiError::Unreadable(moving.into());
                    return Err(self.stream_failed("read the subjects of", source));
                }
                names.clear();
                continue;
            }
            names.extend(subjects);
            if names.len() as u64 >= some.total {
                return Ok(names);
            }
        }
    }

    /// Subjects under `filter` from the leader, in order; as many as it gives in one answer.
    pub(super) async fn subjects_from(
        &self,
        filter: &str,
        offset: u64,
    ) -> Result<Subjects, ReadError> {
        let by = json!({ "subjects_filter": filter, "offset": offset });
        let info: Result<_, ApiError> = self
            .nats
            .api(&format!("STREAM.INFO.{}", self.stream), &by)
            .await;
        info.map_err(|source| self.stream_failed("read the subjects of", source))
    }
}

/// What the newest message of a subject is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Newest {
    pub(super) sequence: u64,
    pub(super) is_tombstone: bool,
}

impl Newest {
    fn of(message: StoredMessage) -> (String, Self) {
        let newest = Self {
            sequence: message.sequence,
            is_tombstone: is_tombstone(&message),
        };
        (message.subject, newest)
    }
}

/// Some subjects of a stream.
#[derive(Debug, Deserialize)]
pub(super) struct Subjects {
    /// How many there are in all.
    #[serde(default)]
    pub(super) total: u64,
    state: SubjectsState,
}

#[derive(Debug, Deserialize)]
struct SubjectsState {
    /// With the messages of each; absent for none.
    #[serde(default)]
    subjects: BTreeMap<String, u64>,
}

/// Whether a copy does not prove that it holds the stream up to there.
pub(super) fn is_behind(copied: &Copied, at_least: Option<u64>) -> bool {
    at_least.is_some_and(|at_least| copied.up_to.is_none_or(|up_to| up_to < at_least))
}
