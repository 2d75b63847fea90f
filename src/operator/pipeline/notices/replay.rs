//! The story of a replay as Events: each phase with the id of the request, the way back, and what
//! became of a request for which nothing is done.

use lookback_protocol::replay::plan::summary;
use lookback_protocol::replay::record::{Record, ReplayPhase};

use super::condition;
use crate::api::DetectionPipelineStatus;
use crate::api::conditions::{ConditionType, Effect, Reason};
use crate::api::pipeline::APPROVE;
use crate::operator::report::{Notice, Severity};

/// Reasons of `ReplayAccepted` for which no phase is written, and whether somebody should look.
const ASIDE: [(Reason, Severity); 4] = [
    (Reason::AlreadyApplied, Severity::Normal),
    (Reason::Queued, Severity::Normal),
    (Reason::Throttled, Severity::Warning),
    (Reason::IdReused, Severity::Warning),
];

/// What people should hear of.
pub(super) fn changes(
    before: Option<&DetectionPipelineStatus>,
    now: &DetectionPipelineStatus,
) -> Vec<Notice> {
    let recorded = recorded(
        before.and_then(|before| before.replay.as_ref()),
        now.replay.as_ref(),
    );
    recorded.into_iter().chain(aside(before, now)).collect()
}

/// Whether a reason of `Ready` is a phase that is told already.
pub(super) fn is_told(reason: &str) -> bool {
    Reason::ALL.iter().any(|it| {
        let row = it.row();
        row.condition == ConditionType::ReplayInProgress
            && row.effect < Effect::Stalled
            && it.to_string() == reason
    })
}

/// That a phase is written, before anything is done under it.
fn recorded(before: Option<&Record>, now: Option<&Record>) -> Option<Notice> {
    let now = now?;
    let before = before.filter(|before| before.request.id == now.request.id);
    let id = &now.request.id;
    if let Some(way_back) = &now.way_back
        && !now.phase.is_final()
    {
        let told = before.is_some_and(|before| before.way_back.is_some());
        let epoch = way_back.epoch;
        let because = &now.message;
        let note = format!(
            "request {id} is taken back before it was begun, in favour of epoch {epoch}: {because}"
        );
        return (!told).then(|| Notice::warning("ReplayTakenBack", note));
    }
    if before.is_some_and(|before| before.phase == now.phase) {
        return None;
    }
    let phase = now.phase;
    let note = format!("request {id}: {}", told(now));
    let reason = format!("Replay{phase:?}");
    Some(match phase {
        ReplayPhase::Failed | ReplayPhase::Rejected | ReplayPhase::Expired => {
            Notice::warning(reason, note)
        }
        _ => Notice::normal(reason, note),
    })
}

fn told(record: &Record) -> String {
    match &record.plan {
        Some(plan) if record.phase == ReplayPhase::AwaitingApproval => format!(
            "to run plan {hash} as it stands in status.replay.plan, annotate the pipeline with {APPROVE}={hash}",
            hash = plan.hash
        ),
        Some(plan) if record.phase == ReplayPhase::Planned => summary(plan),
        _ if record.message.is_empty() => Reason::of_phase(record.phase).row().meaning.to_owned(),
        _ => record.message.clone(),
    }
}

/// A request that is not the record. Each one is news: two of the same reason have other ids.
fn aside(
    before: Option<&DetectionPipelineStatus>,
    now: &DetectionPipelineStatus,
) -> Option<Notice> {
    let accepted = ConditionType::ReplayAccepted;
    let found = condition(now, accepted)?;
    let (reason, severity) = ASIDE
        .into_iter()
        .find(|(reason, _)| reason.to_string() == found.reason)?;
    let before = before.and_then(|before| condition(before, accepted));
    let known =
        before.is_some_and(|it| (&it.reason, &it.message) == (&found.reason, &found.message));
    (!known).then(|| Notice {
        severity,
        reason: format!("Replay{reason}"),
        note: found.message.clone(),
    })
}

#[cfg(test)]
mod tests {
    use lookback_protocol::position::Epoch;
    use lookback_protocol::replay::record::WayBack;
    use lookback_protocol::replay::request::RequestId;
    use serde_json::json;

    use super::*;
    use crate::operator::pipeline::test_support::record;

    fn status(record: Record) -> DetectionPipelineStatus {
        DetectionPipelineStatus {
            replay: Some(record),
            ..DetectionPipelineStatus::default()
        }
    }

    fn in_phase(phase: ReplayPhase) -> DetectionPipelineStatus {
        status(record(phase))
    }

    fn accepted(reason: &str, message: &str) -> DetectionPipelineStatus {
        let condition = json!({
            "type": "ReplayAccepted", "status": "False", "reason": reason, "message": message,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        DetectionPipelineStatus {
            conditions: vec![serde_json::from_value(condition).unwrap()],
            ..DetectionPipelineStatus::default()
        }
    }

    #[test]
    fn each_phase_is_an_event_with_the_id_of_the_request() {
        use ReplayPhase::{
            AwaitingApproval, CatchingUp, Completed, CursorCreated, Expired, Failed, Fencing,
            Planned, Rejected, Requested, RollingOut, StateApplied, Superseded,
        };
        let mut before = None;
        for (phase, severity) in [
            (Requested, Severity::Normal),
            (Planned, Severity::Normal),
            (AwaitingApproval, Severity::Normal),
            (Fencing, Severity::Normal),
            (CursorCreated, Severity::Normal),
            (RollingOut, Severity::Normal),
            (StateApplied, Severity::Normal),
            (CatchingUp, Severity::Normal),
            (Completed, Severity::Normal),
            (Failed, Severity::Warning),
            (Rejected, Severity::Warning),
            (Expired, Severity::Warning),
            (Superseded, Severity::Normal),
        ] {
            let now = in_phase(phase);
            let notices = changes(before.as_ref(), &now);
            assert_eq!(notices.len(), 1, "{notices:?}");
            assert_eq!(notices[0].reason, format!("Replay{phase:?}"));
            assert_eq!(notices[0].severity, severity, "{phase:?}");
            assert!(
                notices[0].note.starts_with("request again: "),
                "{notices:?}"
            );
            before = Some(now);
        }
    }

    #[test]
    fn a_plan_is_told_when_it_is_written() {
        let notices = changes(None, &in_phase(ReplayPhase::Planned));
        assert!(notices[0].note.contains("p-1"), "{notices:?}");
    }

    #[test]
    fn a_plan_that_waits_says_how_it_is_approved() {
        let notices = changes(None, &in_phase(ReplayPhase::AwaitingApproval));
        let note = &notices[0].note;
        assert!(note.contains("lookback.dev/approve=p-1"), "{note}");
    }

    #[test]
    fn only_phases_that_go_on_are_told_as_phases() {
        assert!(is_told("Fencing"));
        assert!(!is_told("FencingBlocked"));
        assert!(!is_told("WorkerStarting"));
    }

    #[test]
    fn the_same_phase_of_another_request_is_an_event() {
        let before = in_phase(ReplayPhase::Requested);
        assert_eq!(changes(Some(&before), &before), []);
        let mut other = record(ReplayPhase::Requested);
        other.request.id = RequestId::new("other").unwrap();
        let notices = changes(Some(&before), &status(other));
        assert_eq!(notices[0].reason, "ReplayRequested");
    }

    #[test]
    fn the_way_back_is_told_once_and_then_how_the_request_ended() {
        let mut taken_back = record(ReplayPhase::RollingOut);
        taken_back.message = "the image cannot be pulled".to_owned();
        taken_back.way_back = Some(WayBack {
            epoch: Epoch(3),
            to: ReplayPhase::Failed,
        });
        let before = in_phase(ReplayPhase::RollingOut);
        let now = status(taken_back.clone());
        let notices = changes(Some(&before), &now);
        assert_eq!(notices[0].reason, "ReplayTakenBack");
        assert!(
            notices[0].note.contains("epoch 3: the image"),
            "{notices:?}"
        );
        assert_eq!(changes(Some(&now), &now), []);
        taken_back.phase = ReplayPhase::Failed;
        let notices = changes(Some(&now), &status(taken_back));
        assert_eq!(notices[0].reason, "ReplayFailed");
    }

    #[test]
    fn a_request_for_which_nothing_is_done_is_an_event_each_time_it_is_another() {
        let first = accepted("AlreadyApplied", "request a was begun before");
        let notices = changes(None, &first);
        let expected = Notice::normal("ReplayAlreadyApplied", "request a was begun before");
        assert_eq!(notices, [expected]);
        assert_eq!(changes(Some(&first), &first), []);
        let second = accepted("AlreadyApplied", "request b was begun before");
        assert_eq!(changes(Some(&first), &second).len(), 1);
    }

    #[test]
    fn a_reused_id_is_a_warning_and_what_a_phase_tells_is_told_once() {
        let reused = changes(None, &accepted("IdReused", "id a was used before"));
        assert_eq!(reused[0].severity, Severity::Warning);
        assert_eq!(changes(None, &accepted("ReplayFailed", "so")), []);
    }
}
