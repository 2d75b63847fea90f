//! The container of one pod object, and what its pod's status says of it.

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

use super::Hold;
use super::mounts::Mounts;
use super::pod_status::{self, Now, Stopped, View};
use crate::process_fixture::{Ended, Process};

/// The wait before a container is started again doubles from the first to the last of these.
const FIRST_BACK_OFF: Duration = Duration::from_millis(100);
const LAST_BACK_OFF: Duration = Duration::from_secs(2);
/// A container that ran for so long starts over with the first wait.
const RAN_WELL: Duration = Duration::from_secs(5);

/// The container of one pod object.
pub(super) struct Container {
    pub(super) uid: String,
    pub(super) image: String,
    pub(super) mounts: Option<Mounts>,
    /// The directory of its volume, once its claim is bound.
    pub(super) volume: Option<PathBuf>,
    pub(super) process: Option<Process>,
    pub(super) is_frozen: bool,
    pub(super) started: Timestamp,
    pub(super) is_ready: bool,
    pub(super) is_terminating: bool,
    pub(super) last: Option<Stopped>,
    pub(super) restarts: u32,
    back_off: Duration,
    pub(super) next_start: Instant,
    pub(super) written: Option<Value>,
}

impl Container {
    pub(super) fn new(uid: String, image: String) -> Self {
        Self {
            uid,
            image,
            mounts: None,
            volume: None,
            process: None,
            is_frozen: false,
            started: Timestamp::UNIX_EPOCH,
            is_ready: false,
            is_terminating: false,
            last: None,
            restarts: 0,
            back_off: FIRST_BACK_OFF,
            next_start: Instant::now(),
            written: None,
        }
    }

    /// Notes the end of its process.
    pub(super) fn stopped(&mut self, ended: Ended) {
        self.process = None;
        self.is_frozen = false;
        self.is_ready = false;
        let to = Timestamp::now();
        let ran = Duration::try_from(to.duration_since(self.started)).unwrap_or_default();
        if ran >= RAN_WELL {
            self.back_off = FIRST_BACK_OFF;
        }
        self.next_start = Instant::now() + self.back_off;
        self.back_off = LAST_BACK_OFF.min(2 * self.back_off);
        let from = self.started;
        self.last = Some(Stopped { ended, from, to });
    }

    pub(super) fn status(&self, hold: Option<Hold>) -> Value {
        let now = if self.process.is_some() {
            Now::Running {
                since: self.started,
                ready: self.is_ready,
            }
        } else if self.is_terminating {
            Now::Terminated
        } else if hold == Some(Hold::Image) {
            Now::Waiting("ImagePullBackOff", "Back-off pulling the worker's image")
        } else if self.last.is_some() {
            Now::Waiting(
                "CrashLoopBackOff",
                "back-off restarting the failed container",
            )
        } else {
            Now::Waiting("ContainerCreating", "the volumes are being mounted")
        };
        pod_status::status(&View {
            image: &self.image,
            now,
            last: self.last.as_ref(),
            restarts: self.restarts,
        })
    }
}
