//! How long ago something was, also for a process that was stopped or a computer that slept meanwhile.

use std::time::{Duration, Instant};

use jiff::Timestamp;

/// A moment in the life of this process.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    running: Instant,
    wall: Timestamp,
}

impl Moment {
    pub(super) fn now() -> Self {
        Self {
            running: Instant::now(),
            wall: Timestamp::now(),
        }
    }

    /// The time since, rather too long than too short: one clock stands still while the computer sleeps,
    /// and the other can be set, which counts as time however it is set.
    pub(super) fn elapsed(&self) -> Duration {
        let wall = Timestamp::now().duration_since(self.wall);
        self.running.elapsed().max(wall.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_counts_as_time_however_it_was_set() {
        let hour = Duration::from_secs(3600);
        for wall in [Timestamp::now() - hour, Timestamp::now() + hour] {
            let moment = Moment {
                wall,
                ..Moment::now()
            };
            assert!(moment.elapsed() > hour / 2);
        }
        assert!(Moment::now().elapsed() < hour / 2);
    }
}
