//! How many entries are in each state, without looking at them.
//!
//! The server knows how many subjects there are below a state. Those of entries that left it stand
//! there as tombstones; each such entry has a mark, so only what is marked is looked at.
//!
//! On a replicated stream any copy may answer, and it may be behind. Writes never take a subject away:
//! so a copy that is behind knows of fewer subjects than the leader, never of more, and when the
//! answers together account for every message of the stream, none of them was behind.

use std::collections::{BTreeMap, HashMap};

use futures::stream::{FuturesOrdered, TryStreamExt};
use lookback_protocol::alert::LEFT;

use super::list::{ASKED_AGAIN, Newest};
use super::{Entries, ReadError, is_replicated};
use crate::nats::streams::ObservedStream;

impl Entries {
    /// How many entries are in each of `states`. What is moved meanwhile may be counted in either
    /// state, both or none; what is not, is counted once.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn counts(&self, states: &[&str]) -> Result<BTreeMap<String, u64>, ReadError> {
        let observed = self.observed().await?;
        let (subjects, left) = futures::try_join!(
            self.subjects_of(states, &observed),
            self.left(states, &observed)
        )?;
        Ok(states
            .iter()
            .zip(subjects)
            .map(|(&state, subjects)| {
                let left = left.get(state).copied().unwrap_or_default();
                (state.to_owned(), subjects.saturating_sub(left))
            })
            .collect())
    }

    /// How many subjects each of `states` has, tombstones among them.
    async fn subjects_of(
        &self,
        states: &[&str],
        observed: &ObservedStream,
    ) -> Result<Vec<u64>, ReadError> {
        let filters: Vec<_> = states
            .iter()
            .map(|state| self.subject(state, "*"))
            .collect();
        if !is_replicated(observed) {
            return self.subjects_copied(&filters).await;
        }
        // Marks, and parts behind the first.
        let others = [format!("{}.*.*.*", self.prefix)];
        for _ in 0..ASKED_AGAIN {
            let (subjects, others) = futures::try_join!(
                self.subjects_copied(&filters),
                self.subjects_copied(&others)
            )?;
            let known: u64 = subjects.iter().chain(&others).sum();
            if known >= observed.state.messages {
                return Ok(subjects);
            }
        }
        // There are entries in states that nobody asked for, or copies that are far behind.
        let exact: FuturesOrdered<_> = filters
            .iter()
            .map(|filter| async move {
                // Behind the last subject: only their number is wanted.
                let some = self.subjects_from(filter, u64::from(u32::MAX)).await?;
                Ok::<_, ReadError>(some.total)
            })
            .collect();
        exact.try_collect().await
    }

    async fn subjects_copied(&self, filters: &[String]) -> Result<Vec<u64>, ReadError> {
        let asked: FuturesOrdered<_> = filters
            .iter()
            .map(|filter| async move {
                let copied = self
                    .nats
                    .copies_of_next(&self.stream, 1, filter, 1)
                    .await
                    .map_err(|source| self.stream_failed("count", source))?;
                Ok::<_, ReadError>(copied.messages.len() as u64 + copied.pending)
            })
            .collect();
        asked.try_collect().await
    }

    /// How many tombstones each of `states` has.
    async fn left(
        &self,
        states: &[&str],
        observed: &ObservedStream,
    ) -> Result<HashMap<String, u64>, ReadError> {
        let marks = self.names(&self.left_subject("*", "*")).await?;
        let marked = marks
            .iter()
            .filter_map(|mark| self.marked(mark))
            .filter(|(state, _)| states.contains(state))
            .map(|(state, id)| self.subject(state, id))
            .collect();
        let at_least = is_replicated(observed).then_some(observed.state.last_seq);
        let newest = self.newest(marked, at_least).await?;
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
