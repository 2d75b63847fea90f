//! Between a record and the cursor it gives its epoch, both ways.

use crate::config::{Cursor, Rewind};
use crate::position::StreamSeq;
use crate::replay::record::{Plan, ReadBack, Record};
use crate::replay::request::{Approval, OnTruncated, ReplayRequest, ReplayStart, Yes};
use crate::replay::restore::decide_windows;

/// In [`Plan::reason`]: the plan was found on a consumer, and only what a worker needs is known of it.
pub const RECOVERED: &str = "Recovered";

impl Record {
    /// What its epoch does to the state file; none before it is planned.
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        Rewind::of(self).map(Cursor::Rewind)
    }

    pub(super) fn is_recovered(&self) -> bool {
        self.plan
            .as_ref()
            .is_some_and(|plan| plan.reason == RECOVERED)
    }
}

impl Rewind {
    /// The request it was made from, as far as it still says.
    pub(super) fn request(&self) -> ReplayRequest {
        ReplayRequest {
            id: self.request_id.clone(),
            fingerprint: self.fingerprint.clone(),
            start: if self.latest {
                ReplayStart::Latest(Yes)
            } else {
                ReplayStart::FromSequence(self.start)
            },
            state_policy: self.state_policy,
            outputs: self.outputs,
            on_truncated: OnTruncated::default(),
            approval: Approval::default(),
            not_after: None,
        }
    }

    /// The plan it was made from, as far as it still says.
    pub(super) fn plan(&self, position: Option<StreamSeq>) -> Plan {
        let (windows, _) = decide_windows(self.state_policy, position, self.restore_start());
        Plan {
            hash: self.plan_hash.clone(),
            start: self.start,
            start_time: None,
            target: self.target,
            messages: 0,
            bytes: 0,
            eta_seconds: None,
            position,
            truncated: false,
            gap: 0,
            double_counted: 0,
            windows,
            reason: RECOVERED.to_owned(),
            groups: 0,
            read_back: self.read_from.map(|from| ReadBack {
                from,
                seconds_needed: 0,
                seconds_available: 0,
                exact: false,
                inexact_because: "found on its consumer, which does not say".to_owned(),
            }),
            known_alerts: None,
        }
    }
}
