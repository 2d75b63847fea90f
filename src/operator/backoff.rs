//! How long to wait before an object is tried again: exponential for each object, with jitter, so
//! that a hundred pipelines of one dead NATS do not come back in step.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// The failures in a row of each object.
#[derive(Debug)]
pub struct Backoffs<K> {
    running: Mutex<HashMap<K, ExponentialBackoff>>,
}

impl<K> Default for Backoffs<K> {
    fn default() -> Self {
        Self {
            running: Mutex::default(),
        }
    }
}

impl<K: Eq + Hash> Backoffs<K> {
    /// The wait after one more failure of `key`.
    pub fn failed(&self, key: K) -> Duration {
        let mut running = self.lock();
        let waits = running.entry(key).or_insert_with(|| {
            ExponentialBuilder::default()
                .with_min_delay(FIRST)
                .with_max_delay(LONGEST)
                .with_factor(2.0)
                .with_jitter()
                .without_max_times()
                .build()
        });
        waits.next().unwrap_or(LONGEST)
    }

    /// `key` succeeded, or is gone: its next failure is a first one.
    pub fn forget(&self, key: &K) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, ExponentialBackoff>> {
        // No call panics between two changes that belong together.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_for_one_object_and_are_capped() {
        let backoffs = Backoffs::default();
        let waits: Vec<Duration> = (0..10).map(|_| backoffs.failed("edr")).collect();
        assert!(waits[0] < Duration::from_secs(2), "{waits:?}");
        assert!(Duration::from_secs(8) <= waits[3], "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= LONGEST * 2), "{waits:?}");
    }

    #[test]
    fn objects_do_not_wait_for_each_other() {
        let backoffs = Backoffs::default();
        for _ in 0..6 {
            backoffs.failed("edr");
        }
        assert!(backoffs.failed("siem") < Duration::from_secs(2));
    }

    #[test]
    fn a_success_starts_over() {
        let backoffs = Backoffs::default();
        for _ in 0..6 {
            backoffs.failed("edr");
        }
        backoffs.forget(&"edr");
        assert!(backoffs.failed("edr") < Duration::from_secs(2));
    }
}
