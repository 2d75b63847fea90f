//! How many entries are in each state, without looking at them.
//!
//! The server knows how many subjects there are below a state. Those of entries that left it stand
//! there as tombstones; each such entry has a mark, so only what is marked is looked at. These are
//! several requests: when the stream is another afterwards, because others wrote or tombstones expired,
//! it is all done again, a few times.
//!
//! A server looks once at each subject that it counts. So where there is one copy, the first state, in
//! which most entries are, is not counted: it has what is left of the stream without all others. An
//! entry in a state that nobody asked for is counted there, too.
//!
//! On a replicated stream any copy may answer, and it may be behind. Writes never take a subject away,
//! so a copy that is behind knows of fewer subjects than the leader, never of more: when the answers
//! together account for every message of the stream, none of them was behind. That proof costs a look
//! at every entry. Copies expire messages each by itself: in the second in which tombstones expire,
//! counts may be off by them. When there is no such answer, or there are entries in states that nobody
//! asked for, the leader counts.

use std::collections::{BTreeMap, HashMap};

use futures::stream::{FuturesOrdered, TryStreamExt};
use lookback_protocol::alert::LEFT;

use super::newest::Newest;
use super::{Entries, ReadError, is_replicated};
use crate::nats::api::MAX_SUBJECTS;
use crate::nats::streams::{ObservedStream, StreamState};

/// How often copies count before the leader does.
const ROUNDS: usize = 8;
/// How often whoever knows best counts before the answer is taken as it is.
const LAST_ROUNDS: usize = 4;

/// Who counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counter {
    /// The only copy there is, all but the first state.
    Rest,
    /// The only copy there is, every state: while others write all the time, what is left of the stream
    /// says too little.
    Only,
    /// Any copy.
    Any,
    /// The leader, one name after the other.
    Leader,
}

/// What was seen in one round.
#[derive(Debug)]
struct Round {
    counter: Counter,
    /// Messages and last sequence of the stream, by its leader.
    before: (u64, u64),
    after: (u64, u64),
    /// Subjects of each state, tombstones among them.
    subjects: Vec<u64>,
    subjects_after: Vec<u64>,
    /// All other subjects.
    others: u64,
}

impl Round {
    /// Whether it can be trusted: it shows one moment of the stream or, by copies, at least what stood
    /// there when it began.
    fn is_sound(&self) -> bool {
        let known = self.subjects.iter().sum::<u64>() + self.others;
        let (messages, last) = self.before;
        let still = self.before == self.after && self.subjects == self.subjects_after;
        match self.counter {
            Counter::Rest | Counter::Only | Counter::Leader => still,
            Counter::Any if last == self.after.1 => still && known == messages,
            Counter::Any => known >= messages,
        }
    }
}

impl Entries {
    /// How many entries are in each of `states`; the first is the one in which they begin. What is
    /// moved meanwhile may be counted in either state, both or none; what is not, is counted once.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn counts(&self, states: &[&str]) -> Result<BTreeMap<String, u64>, ReadError> {
        let mut observed = self.observed().await?;
        let mut rounds = 0;
        loop {
            rounds += 1;
            let (counter, last_round) = match (is_replicated(&observed), rounds <= ROUNDS) {
                (false, true) if rounds < LAST_ROUNDS => (Counter::Rest, LAST_ROUNDS),
                (false, _) => (Counter::Only, LAST_ROUNDS),
                (true, true) => (Counter::Any, ROUNDS + LAST_ROUNDS),
                (true, false) => (Counter::Leader, ROUNDS + LAST_ROUNDS),
            };
            let (subjects, others) = self.subjects_of(states, counter, &observed).await?;
            let left = self.left(states, counter, observed.state.last_seq).await?;
            // Where there is one copy, the size of the stream says as much.
            let subjects_after = match counter {
                Counter::Rest | Counter::Only => subjects.clone(),
                _ if left.is_empty() => subjects.clone(),
                Counter::Any | Counter::Leader => {
                    self.subjects_of(states, counter, &observed).await?.0
                }
            };
            let after = self.observed().await?;
            let round = Round {
                counter,
                before: size(&observed.state),
                after: size(&after.state),
                subjects,
                subjects_after,
                others,
            };
            if round.is_sound() || rounds >= last_round {
                return Ok(without(states, &round.subjects, &left));
            }
            observed = after;
        }
    }

    /// How many subjects each of `states` has, and how many there are beside them: marks, and parts
    /// behind the first.
    async fn subjects_of(
        &self,
        states: &[&str],
        counter: Counter,
        observed: &ObservedStream,
    ) -> Result<(Vec<u64>, u64), ReadError> {
        let others = format!("{}.{}", self.prefix, self.beside);
        let derived = usize::from(counter == Counter::Rest).min(states.len());
        let filters = states[derived..]
            .iter()
            .map(|state| self.subject(state, "*"));
        let counted: FuturesOrdered<_> = filters
            .chain([others])
            .map(|filter| async move {
                match counter {
                    Counter::Rest | Counter::Only | Counter::Any => {
                        self.subjects_copied(&filter).await
                    }
                    // Behind the last subject: only their number is wanted.
                    Counter::Leader => {
                        let some = self.subjects_from(&filter, u64::from(u32::MAX)).await?;
                        Ok(some.total)
                    }
                }
            })
            .collect();
        let mut counted: Vec<_> = counted.try_collect().await?;
        let others = counted.pop().unwrap_or_default();
        if derived > 0 {
            let known = counted.iter().sum::<u64>() + others;
            counted.insert(0, observed.state.messages.saturating_sub(known));
        }
        Ok((counted, others))
    }

    pub(super) async fn subjects_copied(&self, filter: &str) -> Result<u64, ReadError> {
        let copied = self
            .nats
            .copies_of_next(&self.stream, 1, Some(filter), 1)
            .await
            .map_err(|source| self.stream_failed("count", source))?;
        Ok(copied.messages.len() as u64 + copied.pending)
    }

    /// How many tombstones each of `states` has.
    async fn left(
        &self,
        states: &[&str],
        counter: Counter,
        at_least: u64,
    ) -> Result<HashMap<String, u64>, ReadError> {
        let marks = self.names(&self.left_subject("*", "*")).await?;
        let marked: Vec<_> = marks
            .iter()
            .filter_map(|mark| self.marked(mark))
            .filter(|(state, _)| states.contains(state))
            .map(|(state, id)| self.subject(state, id))
            .collect();
        let newest = match counter {
            Counter::Rest | Counter::Only => self.newest(marked, None).await?,
            Counter::Leader if marked.len() <= MAX_SUBJECTS => {
                self.leader_newest(&marked).await?.into_iter().collect()
            }
            Counter::Leader | Counter::Any => self.newest(marked, Some(at_least)).await?,
        };
        Ok(tombstones(newest.iter().filter_map(|(subject, newest)| {
            let (state, _) = self.split(subject)?;
            Some((state, *newest))
        })))
    }

    /// The state that an entry left and its id.
    fn marked<'a>(&self, mark: &'a str) -> Option<(&'a str, &'a str)> {
        let rest = mark.strip_prefix(&self.prefix)?.strip_prefix('.')?;
        rest.strip_prefix(LEFT)?.strip_prefix('.')?.split_once('.')
    }
}

fn size(state: &StreamState) -> (u64, u64) {
    (state.messages, state.last_seq)
}

fn without(
    states: &[&str],
    subjects: &[u64],
    left: &HashMap<String, u64>,
) -> BTreeMap<String, u64> {
    let entries = |(&state, subjects): (&&str, &u64)| {
        let left = left.get(state).copied().unwrap_or_default();
        (state.to_owned(), subjects.saturating_sub(left))
    };
    states.iter().zip(subjects).map(entries).collect()
}

/// How many of what is marked are tombstones still: an entry may have come back, and its mark outlives
/// its tombstone.
fn tombstones<'a>(newest: impl Iterator<Item = (&'a str, Newest)>) -> HashMap<String, u64> {
    let mut tombstones = HashMap::new();
    for (state, newest) in newest {
        if newest.is_tombstone {
            *tombstones.entry(state.to_owned()).or_default() += 1;
        }
    }
    tombstones
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quiet(counter: Counter) -> Round {
        Round {
            counter,
            before: (10, 20),
            after: (10, 20),
            subjects: vec![5, 3],
            subjects_after: vec![5, 3],
            others: 2,
        }
    }

    #[test]
    fn copies_that_account_for_every_message_are_not_behind() {
        assert!(quiet(Counter::Any).is_sound());
        let behind = Round {
            subjects: vec![4, 3],
            subjects_after: vec![4, 3],
            ..quiet(Counter::Any)
        };
        assert!(!behind.is_sound());
    }

    #[test]
    fn copies_are_not_behind_either_when_there_is_more_than_stood_before() {
        let busy = Round {
            after: (12, 25),
            subjects: vec![5, 4],
            subjects_after: vec![6, 4],
            ..quiet(Counter::Any)
        };
        assert!(busy.is_sound());
        let behind = Round {
            subjects: vec![4, 3],
            ..busy
        };
        assert!(!behind.is_sound());
    }

    #[test]
    fn what_expires_in_between_is_counted_again() {
        for counter in [Counter::Rest, Counter::Only, Counter::Any, Counter::Leader] {
            let expired = Round {
                subjects_after: vec![5, 2],
                after: (9, 20),
                ..quiet(counter)
            };
            assert!(!expired.is_sound());
        }
    }

    #[test]
    fn tombstones_are_no_entries() {
        let left = HashMap::from([("new".to_owned(), 2)]);
        let counts = without(&["new", "triage"], &[5, 3], &left);
        let expected = [("new", 3), ("triage", 3)].map(|(state, n)| (state.to_owned(), n));
        assert_eq!(counts, BTreeMap::from(expected));
    }

    #[test]
    fn an_entry_that_came_back_is_no_tombstone() {
        let newest = |is_tombstone| Newest {
            sequence: 1,
            is_tombstone,
        };
        let left = tombstones(
            [
                ("new", newest(true)),
                ("new", newest(true)),
                ("new", newest(false)),
                ("triage", newest(false)),
            ]
            .into_iter(),
        );
        assert_eq!(left, HashMap::from([("new".to_owned(), 2)]));
    }
}
