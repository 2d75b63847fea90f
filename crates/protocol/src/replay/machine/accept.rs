//! What becomes of a request that is wanted while none is under way.

use jiff::Timestamp;

use super::facts::{Claim, Facts};
use crate::config::Cursor;
use crate::position::Epoch;
use crate::replay::ledger::Standing;
use crate::replay::record::ReplayPhase;
use crate::replay::request::ReplayRequest;

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Acceptance {
    /// It is the record, which is final, and nothing about it was corrected.
    Ended(ReplayPhase),
    /// It was begun before, and ended so where the status still knows it.
    Known(Known),
    /// Its id was begun with other numbers.
    IdReused(Known),
    /// Its `notAfter` has passed.
    Expired,
    /// It waits; for what, in one sentence.
    Waits(String),
    /// It waits until this time.
    Throttled(Timestamp),
    /// Nothing is in its way.
    Begin,
}

/// Where an id is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// How it ended; absent when only the state file, a consumer or the claim remembers it.
    pub(super) phase: Option<ReplayPhase>,
    /// The epoch it was given.
    pub(super) epoch: Option<Epoch>,
}

/// Decides, first match wins.
pub(super) fn acceptance(facts: &Facts<'_>, wanted: &ReplayRequest) -> Acceptance {
    if let Some(record) = &facts.written.record
        && record.request.id == wanted.id
    {
        let same = record.request.is_same(wanted);
        let corrected = !record.phase.is_remembered() && record.request != *wanted;
        match (same, corrected) {
            (true, false) => return Acceptance::Ended(record.phase),
            (false, false) => {
                return Acceptance::IdReused(Known {
                    phase: Some(record.phase),
                    epoch: record.epoch,
                });
            }
            (_, true) => {}
        }
    }
    if let Some(known) = known(facts, wanted) {
        return known;
    }
    // Before that is known, not even that it has expired can be said: it may have run.
    if facts.claim == Claim::Unknown {
        let why = "waits for NATS, to know whether its id was begun before";
        return Acceptance::Waits(why.to_owned());
    }
    if wanted.has_expired(facts.now) {
        return Acceptance::Expired;
    }
    if facts.suspended {
        return Acceptance::Waits("waits until the pipeline is resumed".to_owned());
    }
    match throttled_until(facts) {
        Some(until) => Acceptance::Throttled(until),
        None => Acceptance::Begin,
    }
}

/// Where the id is remembered: everywhere it could be is asked, not only what came last.
pub(super) fn known(facts: &Facts<'_>, wanted: &ReplayRequest) -> Option<Acceptance> {
    let of = |fingerprint: &str, known: Known| {
        if fingerprint == wanted.fingerprint {
            Acceptance::Known(known)
        } else {
            Acceptance::IdReused(known)
        }
    };
    let finished = facts
        .written
        .history
        .iter()
        .find(|finished| finished.id == wanted.id && finished.phase.is_remembered());
    if let Some(finished) = finished {
        let known = Known {
            phase: Some(finished.phase),
            epoch: finished.epoch,
        };
        return Some(of(&finished.fingerprint, known));
    }
    let elsewhere = |epoch| Known {
        phase: None,
        epoch: Some(epoch),
    };
    let applied = facts
        .checkpoint
        .and_then(|checkpoint| checkpoint.applied.as_ref());
    if let Some(applied) = applied.filter(|applied| applied.id == wanted.id) {
        return Some(of(&applied.fingerprint, elsewhere(applied.epoch)));
    }
    if let Standing::Stands {
        epoch,
        cursor: Cursor::Rewind(rewind),
    } = &facts.standing
        && rewind.request_id == wanted.id
    {
        return Some(of(&rewind.fingerprint, elsewhere(*epoch)));
    }
    match facts.claim {
        Claim::Used { .. } if facts.claimed_for_nothing(wanted).is_some() => None,
        Claim::Used { epoch, fingerprint } => Some(of(fingerprint, elsewhere(epoch))),
        Claim::Unknown | Claim::Free | Claim::Ours => None,
    }
}

/// When the next request may be begun, if that is not yet. What was never begun does not count: a
/// corrected block need not wait.
fn throttled_until(facts: &Facts<'_>) -> Option<Timestamp> {
    let last = facts
        .written
        .history
        .iter()
        .find(|one| one.phase.is_remembered())?;
    let until = last
        .requested_at
        .saturating_add(facts.limits.min_interval)
        .ok()?;
    (facts.now < until).then_some(until)
}
