//! Which changes of the status are worth an Event: that the phase changed, or why it is what it is;
//! and what was lost, parked or left out while the pipeline runs on; and the story of a replay.

mod replay;

use crate::api::DetectionPipelineStatus;
use crate::api::conditions::ConditionType;
use crate::api::status::{Condition, ConditionStatus, Phase};
use crate::operator::report::Notice;

/// Conditions whose becoming false is news also when the pipeline is ready all the same.
const NEWS: [ConditionType; 3] = [
    ConditionType::RulesLoaded,
    ConditionType::DeadLettersClear,
    ConditionType::RetentionSafe,
];

/// What people should hear of, each reason once.
pub(super) fn changes(
    before: Option<&DetectionPipelineStatus>,
    now: &DetectionPipelineStatus,
) -> Vec<Notice> {
    let mut notices = replay::changes(before, now);
    notices.extend(phase(before, now));
    for wanted in NEWS {
        let news = news(before, now, wanted);
        let news = news.filter(|news| notices.iter().all(|said| said.reason != news.reason));
        notices.extend(news);
    }
    notices
}

/// The reason and message of `Ready`, or of `Stalled` when it holds.
fn phase(
    before: Option<&DetectionPipelineStatus>,
    now: &DetectionPipelineStatus,
) -> Option<Notice> {
    let phase = now.phase?;
    let ready = condition(now, ConditionType::Ready)?;
    let known = before.is_some_and(|before| {
        let reason = condition(before, ConditionType::Ready).map(|ready| &ready.reason);
        before.phase == Some(phase) && reason == Some(&ready.reason)
    });
    if known || replay::is_told(&ready.reason) {
        return None;
    }
    if phase == Phase::Stalled {
        let stalled = condition(now, ConditionType::Stalled)?;
        return Some(Notice::warning(&stalled.reason, &stalled.message));
    }
    let note = format!("{phase:?}: {}", ready.message);
    Some(Notice::normal(&ready.reason, note))
}

fn news(
    before: Option<&DetectionPipelineStatus>,
    now: &DetectionPipelineStatus,
    wanted: ConditionType,
) -> Option<Notice> {
    let found = condition(now, wanted)?;
    let before = before.and_then(|before| condition(before, wanted));
    let known = before.is_some_and(|before| before.reason == found.reason);
    (found.status == ConditionStatus::False && !known)
        .then(|| Notice::warning(&found.reason, &found.message))
}

fn condition(status: &DetectionPipelineStatus, wanted: ConditionType) -> Option<&Condition> {
    let wanted = wanted.to_string();
    let mut conditions = status.conditions.iter();
    conditions.find(|condition| condition.r#type == wanted)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn condition(name: &str, status: &str, reason: &str) -> Condition {
        serde_json::from_value(json!({
            "type": name, "status": status, "reason": reason, "message": "because",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }))
        .unwrap()
    }

    fn status(phase: &str, reason: &str) -> DetectionPipelineStatus {
        DetectionPipelineStatus {
            phase: serde_json::from_value(json!(phase)).unwrap(),
            conditions: ["Ready", "Stalled"]
                .map(|name| condition(name, "True", reason))
                .into(),
            ..DetectionPipelineStatus::default()
        }
    }

    fn running_but(name: &str, reason: &str) -> DetectionPipelineStatus {
        let mut status = status("Running", "Running");
        status.conditions.push(condition(name, "False", reason));
        status
    }

    fn reasons(notices: &[Notice]) -> Vec<&str> {
        notices.iter().map(|notice| &*notice.reason).collect()
    }

    #[test]
    fn a_status_that_says_the_same_is_no_event() {
        let status = running_but("RetentionSafe", "EventsExpired");
        assert_eq!(changes(Some(&status), &status), []);
    }

    #[test]
    fn a_new_phase_is_an_event() {
        let before = status("Pending", "NatsUnavailable");
        let notices = changes(Some(&before), &status("Running", "Running"));
        assert_eq!(notices, [Notice::normal("Running", "Running: because")]);
    }

    #[test]
    fn another_reason_for_the_same_phase_is_an_event() {
        let before = status("Pending", "NatsUnavailable");
        let notices = changes(Some(&before), &status("Pending", "VolumePending"));
        assert_eq!(reasons(&notices), ["VolumePending"]);
    }

    #[test]
    fn what_someone_must_end_is_a_warning() {
        let notices = changes(None, &status("Stalled", "StateLost"));
        assert_eq!(notices, [Notice::warning("StateLost", "because")]);
    }

    #[test]
    fn what_is_lost_or_left_out_while_it_runs_is_an_event() {
        let before = status("Running", "Running");
        for (name, reason) in [
            ("RetentionSafe", "EventsExpired"),
            ("DeadLettersClear", "EventsParked"),
            ("RulesLoaded", "RulesRejected"),
        ] {
            let notices = changes(Some(&before), &running_but(name, reason));
            assert_eq!(notices, [Notice::warning(reason, "because")]);
        }
    }

    #[test]
    fn a_reason_is_said_once() {
        let mut now = status("Stalled", "NoRules");
        now.conditions
            .push(condition("RulesLoaded", "False", "NoRules"));
        assert_eq!(reasons(&changes(None, &now)), ["NoRules"]);
    }
}
