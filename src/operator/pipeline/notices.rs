//! Which changes of the status are worth an Event: that the phase changed, or why it is what it is.

use crate::api::DetectionPipelineStatus;
use crate::api::conditions::ConditionType;
use crate::api::status::{Condition, Phase};
use crate::operator::report::Notice;

/// At most one, with the reason and message of `Ready`, or of `Stalled` when it holds.
pub(super) fn changes(
    before: Option<&DetectionPipelineStatus>,
    now: &DetectionPipelineStatus,
) -> Option<Notice> {
    let phase = now.phase?;
    let ready = condition(now, ConditionType::Ready)?;
    let known = before.is_some_and(|before| {
        let reason = condition(before, ConditionType::Ready).map(|ready| &ready.reason);
        before.phase == Some(phase) && reason == Some(&ready.reason)
    });
    if known {
        return None;
    }
    if phase == Phase::Stalled {
        let stalled = condition(now, ConditionType::Stalled)?;
        return Some(Notice::warning(&stalled.reason, &stalled.message));
    }
    let note = format!("{phase:?}: {}", ready.message);
    Some(Notice::normal(&ready.reason, note))
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
    use crate::operator::report::Severity;

    fn status(phase: &str, reason: &str) -> DetectionPipelineStatus {
        let condition = |name: &str| {
            json!({
                "type": name, "status": "True", "reason": reason, "message": "because",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            })
        };
        let conditions = [condition("Ready"), condition("Stalled")];
        serde_json::from_value(json!({"phase": phase, "conditions": conditions})).unwrap()
    }

    #[test]
    fn a_status_that_says_the_same_is_no_event() {
        let status = status("Pending", "NatsUnavailable");
        assert_eq!(changes(Some(&status), &status), None);
    }

    #[test]
    fn a_new_phase_is_an_event() {
        let before = status("Pending", "NatsUnavailable");
        let notice = changes(Some(&before), &status("Running", "Running")).unwrap();
        assert_eq!(notice.note, "Running: because");
        assert_eq!(notice.severity, Severity::Normal);
    }

    #[test]
    fn another_reason_for_the_same_phase_is_an_event() {
        let before = status("Pending", "NatsUnavailable");
        let notice = changes(Some(&before), &status("Pending", "VolumePending")).unwrap();
        assert_eq!(notice.reason, "VolumePending");
    }

    #[test]
    fn what_someone_must_end_is_a_warning() {
        let notice = changes(None, &status("Stalled", "StateLost")).unwrap();
        assert_eq!(notice.severity, Severity::Warning);
    }
}
