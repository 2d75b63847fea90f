//! Pages of entries, and what the leader knows by name. Nothing here makes a consumer.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::json;

use super::{Cursor, Entries, MAX_PAGE, Page, ReadError, is_replicated, is_tombstone};
use crate::nats::api::{ApiError, Code, Copied, MAX_SUBJECTS, StoredMessage};
use crate::nats::streams::ObservedStream;

/// Messages asked for at least: among them may be tombstones, and small requests cost as much.
const MIN_ASKED: usize = 100;
/// Messages asked for at most.
const MAX_ASKED: usize = 2 * MAX_PAGE;
/// Bytes of a page after which it takes no more: a dead letter may be as large as a message can be.
const PAGE_BYTES: usize = 16 * 1024 * 1024;
/// Subjects that a server looks up at once.
const FEW: u64 = MAX_SUBJECTS as u64;
/// How often names are read anew because some expired meanwhile.
const NAMES_ANEW: usize = 16;
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
        let observed = self.observed().await?;
        let empty = Gathering::new(from, limit.clamp(1, MAX_PAGE));
        let state = state.unwrap_or("*");
        Ok(self.gather(empty, state, &observed).await?.done())
    }

    async fn gather(
        &self,
        empty: Gathering,
        state: &str,
        observed: &ObservedStream,
    ) -> Result<Gathering, ReadError> {
        let filter = self.subject(state, "*");
        let replicated = is_replicated(observed);
        let mut page = empty.clone();
        let mut is_proven = true;
        let mut way = match observed.state.messages <= FEW {
            true => Way::Few,
            false => Way::Everything,
        };
        // A server looks at each of its subjects to say how many messages follow one in the midst of
        // the stream, but knows how many there are in all. So a few from the beginning show how dense
        // it is, and then all are asked for from there again.
        let mut probing = way == Way::Everything && page.at <= observed.state.first_seq;
        let mut ask = match probing {
            true => MIN_ASKED,
            false => enough(page.room(), 1, 1),
        };
        loop {
            let filtered = match way {
                Way::Few => match self.look_up(page.clone(), &filter, observed).await? {
                    Some(found) => {
                        page = found;
                        break;
                    }
                    None => {
                        way = Way::Filtered;
                        continue;
                    }
                },
                Way::Filtered => Some(filter.as_str()),
                Way::Everything => None,
            };
            let copied = self
                .nats
                .copies_of_next(&self.stream, page.at, filtered, ask)
                .await
                .map_err(|source| self.stream_failed("list", source))?;
            is_proven = !replicated;
            let came = copied.messages.len();
            let fitting = page.take(copied, |message| self.is_in(state, message));
            // A copy that is behind knows of no more; the leader does.
            if !page.more && replicated {
                let next = self.leader_next(page.at, &filter).await?;
                page.take(next, |_| true);
            }
            if !page.more || page.is_full() {
                break;
            }
            if way == Way::Everything && !is_dense(fitting, came) {
                way = match self.subjects_copied(&filter).await? <= FEW {
                    true => Way::Few,
                    false => Way::Filtered,
                };
                ask = enough(page.room(), 1, 1);
            } else {
                if probing {
                    page = empty.clone();
                }
                ask = enough(page.room(), fitting, came);
            }
            probing = false;
        }
        if !is_proven {
            let before = page.items.len();
            self.confirm(&mut page.items, observed.state.last_seq)
                .await?;
            // What was left out may stand further on by now.
            page.more |= page.items.len() < before;
        }
        Ok(page)
    }

    /// Whether a message is the first part of an entry, or its tombstone, in this state.
    fn is_in(&self, state: &str, message: &StoredMessage) -> bool {
        let fits = |(its, _): (&str, &str)| state == "*" || its == state;
        self.split(&message.subject).is_some_and(fits)
    }

    /// Puts a page together of entries that are few. `None` when they turn out to be many, or copies
    /// are behind.
    async fn look_up(
        &self,
        mut page: Gathering,
        filter: &str,
        observed: &ObservedStream,
    ) -> Result<Option<Gathering>, ReadError> {
        let filter = [filter.to_owned()];
        let at_least = is_replicated(observed).then_some(observed.state.last_seq);
        let mut asked = 0;
        loop {
            let copied = self
                .nats
                .copies_of_last(&self.stream, page.at, &filter, MAX_SUBJECTS)
                .await;
            let copied = match copied {
                Err(error) if error.code() == Some(Code::TOO_MANY_RESULTS) => return Ok(None),
                copied => copied.map_err(|source| self.stream_failed("list", source))?,
            };
            if is_behind(&copied, at_least) {
                asked += 1;
                if asked < ASKED_AGAIN {
                    continue;
                }
                return Ok(None);
            }
            page.take(copied, |_| true);
            if !page.more || page.is_full() {
                return Ok(Some(page));
            }
        }
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

/// How messages are come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// All of the stream, one after the other, and what does not fit is left out here. A server finds
    /// them fastest, because it need not know how many would fit.
    Everything,
    /// By their names, all at once. A server finds them without passing what is in between.
    Few,
    /// From one that fits to the next.
    Filtered,
}

/// How many messages to ask for when `wanted` of them shall fit, as `fitting` of `came` did; some more
/// than that, as another request costs more than they.
fn enough(wanted: usize, fitting: usize, came: usize) -> usize {
    let expected = (wanted * came).div_ceil(fitting.max(1));
    (expected + expected / 8).clamp(MIN_ASKED, MAX_ASKED)
}

/// Whether it is worth to go on with everything.
fn is_dense(fitting: usize, came: usize) -> bool {
    2 * fitting >= came
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
fn is_behind(copied: &Copied, at_least: Option<u64>) -> bool {
    at_least.is_some_and(|at_least| copied.up_to.is_none_or(|up_to| up_to < at_least))
}

/// A page that is being put together.
#[derive(Clone, Debug)]
struct Gathering {
    limit: usize,
    items: Vec<StoredMessage>,
    /// Of their payloads.
    bytes: usize,
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
            bytes: 0,
            at: from.0,
            more: false,
        }
    }

    fn is_full(&self) -> bool {
        self.items.len() >= self.limit || self.bytes >= PAGE_BYTES
    }

    /// Entries that it can still take, unless they are large.
    fn room(&self) -> usize {
        self.limit.saturating_sub(self.items.len())
    }

    /// Takes what fits and is no tombstone, as long as there is room; how many fitted so.
    fn take(&mut self, copied: Copied, fits: impl Fn(&StoredMessage) -> bool) -> usize {
        self.more = copied.pending > 0;
        let before = self.items.len();
        for message in copied.messages {
            let wanted = fits(&message) && !is_tombstone(&message);
            if wanted && self.is_full() {
                self.more = true;
                break;
            }
            self.at = message.sequence + 1;
            if wanted {
                self.bytes += message.payload.len();
                self.items.push(message);
            }
        }
        self.items.len() - before
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
        page.take(copied(&[3, 5, 9], 0), |_| true);
        assert!(page.is_full());
        let page = page.done();
        assert_eq!(sequences(&page), [3, 5]);
        assert_eq!(page.next, Some(Cursor(6)));
    }

    #[test]
    fn a_full_page_with_nothing_behind_it_is_the_last() {
        let mut page = Gathering::new(Cursor(0), 2);
        page.take(copied(&[3, 5], 0), |_| true);
        assert_eq!(page.done().next, None);
    }

    #[test]
    fn of_an_entry_that_moves_meanwhile_a_page_has_the_last_version() {
        let mut page = Gathering::new(Cursor(0), 5);
        page.take(copied(&[3, 5], 1), |_| true);
        let mut moved = message(7, "");
        moved.subject = "p.triage.3".to_owned();
        page.take(
            Copied {
                messages: vec![moved],
                pending: 0,
                up_to: None,
            },
            |_| true,
        );
        let page = page.done();
        assert_eq!(sequences(&page), [5, 7]);
        assert_eq!(page.next, None);
    }

    #[test]
    fn a_page_goes_on_behind_tombstones() {
        let mut page = Gathering::new(Cursor(2), 2);
        let gone = message(4, "NATS/1.0\r\nLookback-Moved-To: triage\r\n\r\n");
        page.take(
            Copied {
                messages: vec![message(3, ""), gone],
                pending: 7,
                up_to: None,
            },
            |_| true,
        );
        assert!(page.more && !page.is_full());
        let page = page.done();
        assert_eq!(sequences(&page), [3]);
        assert_eq!(page.next, Some(Cursor(5)));
    }

    #[test]
    fn a_page_passes_over_what_does_not_fit_even_when_it_is_full() {
        let mut page = Gathering::new(Cursor(0), 1);
        let fitting = page.take(copied(&[3, 5, 7, 9], 0), |it| it.sequence % 4 == 1);
        assert_eq!(fitting, 1);
        let page = page.done();
        assert_eq!(sequences(&page), [5]);
        assert_eq!(page.next, Some(Cursor(8)));
    }

    #[test]
    fn an_eighth_more_is_asked_for_than_has_to_come() {
        for (wanted, fitting, came, ask) in [
            (1000, 1, 1, 1125),
            (800, 50, 100, 1800),
            (10, 1, 1, MIN_ASKED),
            (1000, 0, 100, MAX_ASKED),
        ] {
            assert_eq!(enough(wanted, fitting, came), ask, "{wanted}");
        }
    }

    #[test]
    fn everything_is_asked_for_while_half_of_it_fits() {
        for (fitting, came, dense) in [(0, 0, true), (50, 100, true), (49, 100, false)] {
            assert_eq!(is_dense(fitting, came), dense, "{fitting} of {came}");
        }
    }
}
