//! What a kubelet writes into the status of a pod with one container.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::process_fixture::Ended;

/// The container, as far as its pod's status tells.
pub(super) struct View<'a> {
    pub(super) image: &'a str,
    pub(super) now: Now,
    /// How it ended last.
    pub(super) last: Option<&'a Stopped>,
    pub(super) restarts: u32,
}

/// What the container does.
pub(super) enum Now {
    /// A reason, and what the kubelet says about it.
    Waiting(&'static str, &'static str),
    Running {
        since: Timestamp,
        ready: bool,
    },
    /// For good: its pod goes.
    Terminated,
}

/// A container that ended.
#[derive(Clone, Debug)]
pub(super) struct Stopped {
    pub(super) ended: Ended,
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
}

/// The pod's status.
pub(super) fn status(view: &View<'_>) -> Value {
    let View {
        image,
        now,
        last,
        restarts,
    } = view;
    let last = last.map(terminated);
    let (state, ready, before) = match now {
        Now::Waiting(reason, message) => {
            let waiting = json!({"waiting": {"reason": reason, "message": message}});
            (waiting, false, last)
        }
        Now::Running { since, ready } => (
            json!({"running": {"startedAt": seconds(*since)}}),
            *ready,
            last,
        ),
        Now::Terminated => (last.unwrap_or_else(|| json!({})), false, None),
    };
    let started = matches!(now, Now::Running { .. });
    let phase = match (started, &before, now) {
        (false, None, Now::Waiting(..)) => "Pending",
        _ => "Running",
    };
    let condition = |name: &str, holds: bool| {
        let status = if holds { "True" } else { "False" };
        json!({"type": name, "status": status})
    };
    json!({
        "phase": phase,
        "conditions": [
            condition("PodScheduled", true),
            condition("Initialized", true),
            condition("ContainersReady", ready),
            condition("Ready", ready),
        ],
        "containerStatuses": [{
            "name": "worker", "image": image, "imageID": image,
            "ready": ready, "started": started, "restartCount": restarts,
            "state": state, "lastState": before.unwrap_or_else(|| json!({})),
        }],
    })
}

/// The status of a pod that the scheduler finds no node for.
pub(super) fn unschedulable() -> Value {
    json!({
        "phase": "Pending",
        "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/1 nodes are available: 1 node is held by the test",
        }],
    })
}

fn terminated(stopped: &Stopped) -> Value {
    let Stopped { ended, from, to } = stopped;
    let reason = match ended.exit_code() {
        0 => "Completed",
        _ => "Error",
    };
    json!({"terminated": {
        "exitCode": ended.exit_code(), "reason": reason, "message": ended.said,
        "startedAt": seconds(*from), "finishedAt": seconds(*to),
    }})
}

/// Kubernetes' times have no fractions.
fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
