//! Consumers of epochs that were left: seen, kept a while, deleted.

use super::decision::Effect;
use super::facts::Facts;
use super::written::Written;
use crate::replay::record::{MAX_RETIRED, Retired};

/// The consumers that are known to be left. What is found is listed, whoever left it, so that the list
/// is right again after the status was lost; what is gone is listed no more.
pub(super) fn retired(next: &Written, facts: &Facts<'_>) -> Vec<Retired> {
    let mut retired = next.retired.clone();
    let (Some(current), Some(consumers)) = (next.epoch, facts.consumers) else {
        return retired;
    };
    retired.retain(|one| consumers.contains(&one.epoch));
    // While a request is under way, the consumer it leaves may be gone back to.
    if next.unfinished().is_none() {
        for epoch in consumers {
            if *epoch != current && !retired.iter().any(|one| one.epoch == *epoch) {
                retired.push(Retired {
                    name: facts.key.consumer(0, *epoch),
                    epoch: *epoch,
                    since: facts.now,
                });
            }
        }
    }
    retired.sort_by_key(|one| one.epoch);
    let beyond = retired.len().saturating_sub(MAX_RETIRED);
    retired.split_off(beyond)
}

/// Deletes those that were kept long enough, and those that there is no room to list.
pub(super) fn deletions(facts: &Facts<'_>) -> Vec<Effect> {
    let Written { retired, epoch, .. } = facts.written;
    let is_over = |since| facts.now.duration_since(since) >= facts.limits.keep_consumers;
    let listed = retired.iter().map(|one| one.epoch).min();
    let unlisted = facts
        .consumers
        .unwrap_or_default()
        .iter()
        .copied()
        .filter(|one| {
            retired.len() == MAX_RETIRED
                && listed.is_some_and(|oldest| *one < oldest)
                && Some(*one) != *epoch
        });
    let over = retired
        .iter()
        .filter(|one| is_over(one.since))
        .map(|one| one.epoch);
    unlisted.chain(over).map(Effect::DeleteConsumer).collect()
}
