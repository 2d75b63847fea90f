//! Leader election by a Lease. Every write is a compare-and-swap on the Lease's resourceVersion, so
//! of two candidates one wins. When a Lease has expired is counted from our own last observation of
//! a change, never from the other side's clock. A leader that could not renew for
//! [`Timing::renew_deadline`] is none any more, well before another may take over; the caller checks
//! [`Leadership`] before every destructive act and ends the process when it is lost.

mod candidate;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

pub use self::candidate::{Candidate, LeaseError};

/// How long things last; the defaults are those of Kubernetes' own controllers.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A candidate takes over when it saw no change for this long.
    pub duration: Duration,
    /// A leader steps down when it could not renew for this long; shorter than `duration`.
    pub renew_deadline: Duration,
    /// Between two tries.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// What a candidate does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// There is no Lease: create it.
    Create,
    /// It is ours: renew it.
    Renew,
    /// Nobody holds it, or its holder stopped renewing: take it.
    Take,
    /// Somebody else holds it.
    Wait,
}

/// The part of a Lease that decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whoever holds it; empty when it was released.
    pub holder: String,
    /// How long its holder wants others to wait.
    pub duration: Duration,
}

/// Decides from what stands in the Lease and how long we have seen no change of it.
#[must_use]
pub fn decide(me: &str, record: Option<&Record>, unchanged_for: Duration) -> Decision {
    match record {
        None => Decision::Create,
        Some(record) if record.holder == me => Decision::Renew,
        Some(record) if record.holder.is_empty() => Decision::Take,
        Some(record) if record.duration <= unchanged_for => Decision::Take,
        Some(_) => Decision::Wait,
    }
}

/// The permission to act. Clones share it.
#[derive(Clone, Debug)]
pub struct Leadership {
    until: Arc<Mutex<Option<Instant>>>,
}

/// Leadership is gone, or too old to rely on.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("this replica is not the leader any more")]
pub struct NotLeader;

impl Leadership {
    /// For a single replica that needs no election.
    #[must_use]
    pub fn unconditional() -> Self {
        Self {
            until: Arc::new(Mutex::new(None)),
        }
    }

    /// Whether we may still act.
    ///
    /// # Errors
    /// [`NotLeader`] when the last renewal is older than the renew deadline.
    pub fn check(&self) -> Result<(), NotLeader> {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        match until {
            Some(until) if until <= Instant::now() => Err(NotLeader),
            _ => Ok(()),
        }
    }

    /// A leadership that is over.
    #[cfg(test)]
    pub(crate) fn ended() -> Self {
        let leadership = Self::unconditional();
        leadership.extend(Instant::now());
        leadership
    }

    fn extend(&self, until: Instant) {
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Duration = Duration::from_secs(10);
    const FIFTEEN: Duration = Duration::from_secs(15);

    fn held_by(holder: &str) -> Record {
        Record {
            holder: holder.to_owned(),
            duration: FIFTEEN,
        }
    }

    #[test]
    fn a_missing_lease_is_created() {
        assert_eq!(decide("a", None, Duration::ZERO), Decision::Create);
    }

    #[test]
    fn our_own_lease_is_renewed_however_old_it_is() {
        let record = held_by("a");
        assert_eq!(decide("a", Some(&record), FIFTEEN * 9), Decision::Renew);
    }

    #[test]
    fn a_released_lease_is_taken_at_once() {
        let record = held_by("");
        assert_eq!(decide("a", Some(&record), Duration::ZERO), Decision::Take);
    }

    #[test]
    fn a_lease_that_changed_lately_is_left_alone() {
        let record = held_by("b");
        assert_eq!(decide("a", Some(&record), TEN), Decision::Wait);
    }

    #[test]
    fn a_lease_unchanged_for_its_duration_is_taken() {
        let record = held_by("b");
        assert_eq!(decide("a", Some(&record), FIFTEEN), Decision::Take);
    }

    #[tokio::test(start_paused = true)]
    async fn leadership_ends_by_our_own_clock_when_it_is_not_extended() {
        let leadership = Leadership::unconditional();
        leadership.extend(Instant::now() + TEN);
        assert_eq!(leadership.check(), Ok(()));
        tokio::time::advance(TEN).await;
        assert_eq!(leadership.check(), Err(NotLeader));
    }
}
