//! Pages of entries, and what the leader knows by name. Nothing here makes a consumer.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::json;

use super::{Cursor, Entries, MAX_PAGE, Page, ReadError, is_replicated, is_tombstone};
use crate::nats::api::{ApiError, Copied, MAX_SUBJECTS, StoredMessage};

/// Messages asked for at least: among them may be tombstones, and small requests cost as much.
const MIN_ASKED: usize = 100;
/// How often copies are asked that are behind, before the leader is.
const ASKED_AGAIN: usize = 8;
/// Gets of the leader under way at once.
const LEADER_GETS: usize = 32;

impl Entries {
    /// Entries in `state`, or in any with `None`; only their first parts. Fewer than `limit` does not
    /// mean that these are the last: [`Page::next`] says so.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn page(
        &self,
        state: Option<&str>,
        from: Cursor,
        limit: usize,
    ) -> Result<Page<StoredMessage>, ReadError> {
        self.check_state(state)?;
        let filter = self.subject(state.unwrap_or("*"), "*");
        let observed = self.observed().await?;
        let replicated = is_replicated(&observed);
        let mut page = Gathering::new(from, limit.clamp(1, MAX_PAGE));
        let mut ask = page.limit.max(MIN_ASKED);
        loop {
            let copied = self
                .nats
                .copies_of_next(&self.stream, page.at, &filter, ask)
                .await
                .map_err(|source| self.stream_failed("list", source))?;
            page.take(copied);
            // A copy that is behind knows of no more; the leader does.
            if !page.more && replicated {
                let copied = self.leader_next(page.at, &filter).await?;
                page.take(copied);
            }
            if !page.more || page.is_full() {
                break;
            }
            ask = (ask * 2).min(MAX_PAGE);
        }
        if replicated {
            let before = page.items.len();
            self.confirm(&mut page.items, observed.state.last_seq)
                .await?;
            // What was left out may stand further on by now.
            page.more |= page.items.len() < before;
        }
        Ok(page.done())
    }

    /// The next message as the leader has it, and nothing about those behind it.
    async fn leader_next(&self, sequence: u64, filter: &str) -> Result<Copied, ReadError> {
        let next = self
            .nats
            .next_of_subject(&self.stream, sequence, filter)
            .await
            .map_err(|source| self.stream_failed("list", source))?;
        Ok(Copied {
            pending: next.iter().len() as u64,
            messages: next.into_iter().collect(),
            up_to: None,
        })
    }

    /// Leaves out what a copy took for an entry because it did not know yet that it went elsewhere. It
    /// cannot lack one: it knows everything up to the last sequence it gave.
    async fn confirm(
        &self,
        items: &mut Vec<StoredMessage>,
        at_least: u64,
    ) -> Result<(), ReadError> {
        let subjects = items.iter().map(|item| item.subject.clone()).collect();
        let newest = self.newest(subjects, Some(at_least)).await?;
        items.retain(|item| {
            let newest = newest.get(&item.subject);
            newest.is_some_and(|newest| newest.sequence == item.sequence)
        });
        Ok(())
    }

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
                    .copies_of_last(&self.stream, from, some)
                    .await
                    .map_err(|source| self.stream_failed("list", source))?;
                if at_least.is_some_and(|at_least| copied.up_to.is_none_or(|it| it < at_least)) {
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
        loop {
            let offset = names.len().saturating_sub(1) as u64;
            let some = self.subjects_from(filter, offset).await?;
            let mut subjects = some.state.subjects.into_keys().peekable();
            let last = names.pop();
            if last.is_some() && last.as_ref() != subjects.peek() {
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

/// A page that is being put together.
#[derive(Debug)]
struct Gathering {
    limit: usize,
    items: Vec<StoredMessage>,
    /// The sequence from which on nothing was looked at.
    at: u64,
    /// Whether there is something from there on, as far as is known.
    more: bool,
}

impl Gathering {
    fn new(from: Cursor, limit: usize) -> Self {
        Self {
            limit,
            items: Vec::new(),
            at: from.0,
            more: false,
        }
    }

    fn is_full(&self) -> bool {
        self.items.len() >= self.limit
    }

    fn take(&mut self, copied: Copied) {
        self.more = copied.pending > 0;
        for message in copied.messages {
            if self.is_full() {
                self.more = true;
                return;
            }
            self.at = message.sequence + 1;
            if !is_tombstone(&message) {
                self.items.push(message);
            }
        }
    }

    /// What was written while the page was put together may be on it in several versions: the last
    /// one stays.
    fn done(mut self) -> Page<StoredMessage> {
        let mut later = HashSet::new();
        self.items.reverse();
        self.items
            .retain(|item| later.insert(last_token(&item.subject).to_owned()));
        self.items.reverse();
        Page {
            items: self.items,
            next: self.more.then_some(Cursor(self.at)),
        }
    }
}

fn last_token(subject: &str) -> &str {
    subject.rsplit('.').next().unwrap_or(subject)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use jiff::Timestamp;

    use super::*;

    fn message(sequence: u64, headers: &'static str) -> StoredMessage {
        StoredMessage {
            subject: format!("p.new.{sequence}"),
            sequence,
            time: Timestamp::UNIX_EPOCH,
            headers: Bytes::from_static(headers.as_bytes()),
            payload: Bytes::new(),
        }
    }

    fn copied(sequences: &[u64], pending: u64) -> Copied {
        Copied {
            messages: sequences.iter().map(|&it| message(it, "")).collect(),
            pending,
            up_to: None,
        }
    }

    fn sequences(page: &Page<StoredMessage>) -> Vec<u64> {
        page.items.iter().map(|item| item.sequence).collect()
    }

    #[test]
    fn a_page_ends_before_the_first_entry_that_it_has_no_room_for() {
        let mut page = Gathering::new(Cursor(0), 2);
        page.take(copied(&[3, 5, 9], 0));
        assert!(page.is_full());
        let page = page.done();
        assert_eq!(sequences(&page), [3, 5]);
        assert_eq!(page.next, Some(Cursor(6)));
    }

    #[test]
    fn a_full_page_with_nothing_behind_it_is_the_last() {
        let mut page = Gathering::new(Cursor(0), 2);
        page.take(copied(&[3, 5], 0));
        assert_eq!(page.done().next, None);
    }

    #[test]
    fn of_an_entry_that_moves_meanwhile_a_page_has_the_last_version() {
        let mut page = Gathering::new(Cursor(0), 5);
        page.take(copied(&[3, 5], 1));
        let mut moved = message(7, "");
        moved.subject = "p.triage.3".to_owned();
        page.take(Copied {
            messages: vec![moved],
            pending: 0,
            up_to: None,
        });
        let page = page.done();
        assert_eq!(sequences(&page), [5, 7]);
        assert_eq!(page.next, None);
    }

    #[test]
    fn a_page_goes_on_behind_tombstones() {
        let mut page = Gathering::new(Cursor(2), 2);
        let gone = message(4, "NATS/1.0\r\nLookback-Moved-To: triage\r\n\r\n");
        page.take(Copied {
            messages: vec![message(3, ""), gone],
            pending: 7,
            up_to: None,
        });
        assert!(page.more && !page.is_full());
        let page = page.done();
        assert_eq!(sequences(&page), [3]);
        assert_eq!(page.next, Some(Cursor(5)));
    }
}
