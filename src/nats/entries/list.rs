//! Pages of entries. Nothing here makes a consumer.

use super::gathering::Gathering;
use super::newest::{ASKED_AGAIN, is_behind};
use super::{Cursor, Entries, MAX_PAGE, Page, ReadError, is_replicated};
use crate::nats::api::{Code, Copied, MAX_SUBJECTS, StoredMessage};
use crate::nats::streams::ObservedStream;

/// Messages asked for at least: among them may be tombstones, and small requests cost as much.
const MIN_ASKED: usize = 100;
/// Messages asked for at most.
const MAX_ASKED: usize = 2 * MAX_PAGE;
/// Subjects that a server looks up at once.
const FEW: u64 = MAX_SUBJECTS as u64;

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

#[cfg(test)]
mod tests {
    use super::*;

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
