use lookback_protocol::checkpoint::{Checkpoint, Gap, Hold, HoldReason, Phase as WorkerPhase};
use lookback_protocol::position::StreamSeq;
use lookback_protocol::termination::ExitReason;

use super::*;
use crate::api::conditions::ConditionType::{
    ConsumerReady, DeadLettersClear, Deterministic, DurabilityAtRisk, NatsReady, Ready,
    Reconciling, RetentionSafe, RulesLoaded, Stalled, StateReady,
};
use crate::api::status::Condition;
use crate::api::status::ConditionStatus::{self, False, True, Unknown};
use crate::operator::pipeline::build::build;
use crate::operator::pipeline::facts::{Counts, PodWait, Stop};
use crate::operator::pipeline::test_support::{
    BAD_RULE, MINIMAL, RULE, at, config_map, counts, facts, now, pipeline, running_facts, stop,
    validation, with_server,
};

/// The status of `pipeline` in an outside that differs from the running one by `change`.
pub(super) fn status_of(
    pipeline: &DetectionPipeline,
    now: Timestamp,
    change: impl FnOnce(&mut Dereferenced),
) -> DetectionPipelineStatus {
    status_by(pipeline, now, change, None)
}

/// The same, with what was decided over the replay.
pub(super) fn status_by(
    pipeline: &DetectionPipeline,
    now: Timestamp,
    change: impl FnOnce(&mut Dereferenced),
    decision: Option<&Decision>,
) -> DetectionPipelineStatus {
    let mut facts = running_facts(pipeline);
    change(&mut facts);
    let validation = validation(pipeline, &facts);
    let mut desired = validation.pipeline.as_ref().map(build);
    if let Some(desired) = desired.as_mut().filter(|_| pipeline.spec.suspend) {
        desired.stateful_set.spec.as_mut().unwrap().replicas = Some(0);
    }
    status(&Observation {
        pipeline,
        facts: &facts,
        validation: &validation,
        desired: desired.as_ref(),
        refused: &[],
        decision,
        now,
    })
}

fn status_when(change: impl FnOnce(&mut Dereferenced)) -> DetectionPipelineStatus {
    status_of(&pipeline(MINIMAL), now(), change)
}

pub(super) fn condition(status: &DetectionPipelineStatus, wanted: ConditionType) -> &Condition {
    let mut conditions = status.conditions.iter();
    conditions
        .find(|it| it.r#type == wanted.to_string())
        .unwrap()
}

/// (status, reason) of a condition.
pub(super) fn on(
    status: &DetectionPipelineStatus,
    wanted: ConditionType,
) -> (ConditionStatus, &str) {
    let condition = condition(status, wanted);
    (condition.status, condition.reason.as_str())
}

pub(super) fn checkpoint(facts: &mut Dereferenced, change: impl FnOnce(&mut Checkpoint)) {
    with_server(facts, |server| {
        change(server.checkpoint.as_mut().unwrap().as_mut().unwrap());
    });
}

#[test]
fn a_pipeline_that_runs_is_ready_and_neither_reconciling_nor_stalled() {
    let status = status_when(|_| {});
    assert_eq!(status.phase, Some(Phase::Running));
    assert_eq!(on(&status, Ready), (True, "Running"));
    assert_eq!(on(&status, Reconciling), (False, "Settled"));
    assert_eq!(on(&status, Stalled), (False, "NotStalled"));
}

#[test]
fn every_condition_is_there_once_with_the_generation_it_is_about() {
    let status = status_when(|_| {});
    let names: Vec<&str> = status
        .conditions
        .iter()
        .map(|it| it.r#type.as_str())
        .collect();
    assert_eq!(names, ConditionType::ALL.map(|it| it.to_string()));
    assert!(
        status
            .conditions
            .iter()
            .all(|it| it.observed_generation == Some(1))
    );
    assert_eq!(status.observed_generation, Some(1));
}

#[test]
fn every_refusal_of_a_worker_stalls_the_pipeline_and_says_the_verb() {
    for (exit, home) in [
        (ExitReason::Corrupt, StateReady),
        (ExitReason::NewerSchema, StateReady),
        (ExitReason::OwnedByOther, StateReady),
        (ExitReason::StateLost, StateReady),
        (ExitReason::VolumeFull, StateReady),
        (ExitReason::BadConfig, StateReady),
        (ExitReason::Internal, StateReady),
        (ExitReason::StreamChanged, ConsumerReady),
        (ExitReason::StreamRegressed, ConsumerReady),
        (ExitReason::StoreRegressed, NatsReady),
    ] {
        let status = status_when(|facts| stop(facts, exit, "what the worker said"));
        let reason = format!("{exit:?}");
        assert_eq!(status.phase, Some(Phase::Stalled), "{reason}");
        assert_eq!(on(&status, home), (False, reason.as_str()));
        assert_eq!(on(&status, Ready), (False, reason.as_str()));
        assert_eq!(on(&status, Stalled), (True, reason.as_str()));
        assert_eq!(on(&status, Reconciling), (False, "Settled"));
        let said = &condition(&status, Stalled).message;
        assert!(
            said.starts_with("what the worker said. To end it: "),
            "{said}"
        );
    }
}

#[test]
fn a_worker_that_heals_by_itself_is_waited_for() {
    for exit in [
        ExitReason::StateLocked,
        ExitReason::Fenced,
        ExitReason::NatsUnavailable,
    ] {
        let status = status_when(|facts| stop(facts, exit, "x"));
        let reason = format!("{exit:?}");
        assert_eq!(on(&status, Ready), (False, reason.as_str()));
        assert_eq!(on(&status, Reconciling), (True, reason.as_str()));
        assert_eq!(on(&status, Stalled), (False, "NotStalled"));
    }
}

#[test]
fn a_worker_that_was_killed_is_starting() {
    let status = status_when(|facts| {
        facts.pods[0].ready = false;
        facts.pods[0].stopped = Some(Stop {
            message: None,
            exit_code: 137,
            finished: None,
        });
    });
    assert_eq!(status.phase, Some(Phase::Starting));
    assert_eq!(on(&status, StateReady), (False, "WorkerStarting"));
}

#[test]
fn a_worker_that_panicked_without_a_message_is_a_bug() {
    let status = status_when(|facts| {
        facts.pods[0].ready = false;
        facts.pods[0].stopped = Some(Stop {
            message: None,
            exit_code: 101,
            finished: None,
        });
    });
    assert_eq!(on(&status, Stalled), (True, "Internal"));
}

#[test]
fn what_a_ready_worker_said_before_it_was_started_again_is_over() {
    let status = status_when(|facts| {
        stop(facts, ExitReason::StateLost, "x");
        facts.pods[0].ready = true;
    });
    assert_eq!(on(&status, Ready), (True, "Running"));
}

#[test]
fn what_keeps_a_pod_from_starting_is_named() {
    for (wait, reason) in [
        (
            PodWait::Unschedulable("no node".to_owned()),
            "Unschedulable",
        ),
        (
            PodWait::Image("no such image".to_owned()),
            "ImageUnavailable",
        ),
        (
            PodWait::Other("ContainerCreating".to_owned()),
            "WorkerStarting",
        ),
    ] {
        let status = status_when(|facts| {
            facts.pods[0].ready = false;
            facts.pods[0].waiting = Some(wait);
        });
        assert_eq!(on(&status, StateReady), (False, reason));
    }
}

#[test]
fn a_volume_that_is_not_bound_is_named() {
    let status = status_when(|facts| {
        facts.pods.clear();
        facts.volumes[0].bound = false;
    });
    assert_eq!(on(&status, StateReady), (False, "VolumePending"));
}

#[test]
fn a_full_alerts_stream_holds_the_pipeline_with_the_workers_words() {
    let status = status_when(|facts| {
        facts.pods[0].ready = false;
        checkpoint(facts, |checkpoint| {
            checkpoint.phase = WorkerPhase::Held;
            checkpoint.held = Some(Hold {
                reason: HoldReason::AlertsFull,
                message: "stream LB_x_ALERTS is full".to_owned(),
            });
        });
    });
    assert_eq!(status.phase, Some(Phase::Held));
    assert_eq!(on(&status, NatsReady), (False, "AlertsFull"));
    assert_eq!(on(&status, Stalled), (True, "AlertsFull"));
    assert_eq!(
        condition(&status, NatsReady).message,
        "stream LB_x_ALERTS is full"
    );
    assert_eq!(on(&status, StateReady), (True, "StateOpen"));
}

#[test]
fn an_unreachable_nats_is_waited_for_and_the_numbers_stay() {
    let mut running = pipeline(MINIMAL);
    running.status = Some(status_when(|_| {}));
    let status = status_of(&running, at("2026-11-21T13:00:00Z"), |facts| {
        facts.nats = NatsFacts::Unavailable("no server answers".to_owned());
    });
    assert_eq!(status.phase, Some(Phase::Pending));
    assert_eq!(on(&status, NatsReady), (False, "NatsUnavailable"));
    assert_eq!(on(&status, Reconciling), (True, "NatsUnavailable"));
    assert_eq!(on(&status, ConsumerReady), (Unknown, "ConsumerUnknown"));
    assert_eq!(status.partitions, running.status.unwrap().partitions);
}

#[test]
fn a_pipeline_without_its_config_map_stalls_until_it_is_created() {
    let pipeline = pipeline(MINIMAL);
    let mut facts = facts(&pipeline);
    facts.rules[0].files = None;
    let validation = validation(&pipeline, &facts);
    let status = status(&Observation {
        pipeline: &pipeline,
        facts: &facts,
        validation: &validation,
        desired: None,
        refused: &[],
        decision: None,
        now: now(),
    });
    assert_eq!(on(&status, Stalled), (True, "ConfigMapMissing"));
    assert_eq!(on(&status, Ready), (False, "ConfigMapMissing"));
    assert_eq!(on(&status, StateReady), (Unknown, "StateUnknown"));
}

#[test]
fn rejected_rules_stall_a_pipeline_that_stays_ready() {
    let status = status_when(|facts| {
        facts.rules = vec![config_map(
            "rules",
            &[("a.yml", RULE), ("bad.yml", BAD_RULE)],
        )];
    });
    assert_eq!(on(&status, RulesLoaded), (False, "RulesRejected"));
    assert_eq!(on(&status, Stalled), (True, "RulesRejected"));
    assert_eq!(on(&status, Ready), (True, "Running"));
    assert_eq!(status.phase, Some(Phase::Running));
    let rules = status.rules.unwrap();
    assert_eq!((rules.detections, rules.problem_count), (1, 1));
    assert_eq!(rules.problems[0].file, "rules/bad.yml");
    assert_ne!(rules.desired, rules.loaded);
}

#[test]
fn s03_a_workflow_that_cannot_be_followed_stalls_a_pipeline_whose_worker_runs() {
    let block = "spec:\n  alerts: {workflow: {states: [lost], transitions: [{id: a, from: [lost], to: new}]}}";
    let pipeline = pipeline(&MINIMAL.replace("spec:", block));
    let status = status_of(&pipeline, now(), |_| {});
    assert_eq!(on(&status, Ready), (False, "InvalidWorkflow"));
    assert_eq!(on(&status, Stalled), (True, "InvalidWorkflow"));
    assert_eq!(on(&status, StateReady), (True, "StateOpen"));
    let message = &condition(&status, Ready).message;
    assert!(
        message.contains("no way leads from new to lost"),
        "{message}"
    );
}

#[test]
fn a_changed_set_of_rules_is_a_rollout_in_progress() {
    let status = status_when(|facts| {
        facts.rules = vec![config_map("rules", &[("a.yml", RULE)])];
    });
    assert_eq!(status.phase, Some(Phase::Starting));
    assert_eq!(on(&status, Reconciling), (True, "RolloutInProgress"));
}

#[test]
fn what_apply_could_not_do_is_said() {
    let pipeline = pipeline(MINIMAL);
    let facts = running_facts(&pipeline);
    let validation = validation(&pipeline, &facts);
    let refused = [Problem::new(
        Reason::ForeignStream,
        "stream LB_x_ALERTS is another's",
    )];
    let status = status(&Observation {
        pipeline: &pipeline,
        facts: &facts,
        validation: &validation,
        desired: None,
        refused: &refused,
        decision: None,
        now: now(),
    });
    assert_eq!(on(&status, NatsReady), (False, "ForeignStream"));
    assert_eq!(on(&status, Stalled), (True, "ForeignStream"));
}

#[test]
fn parked_events_are_counted_and_the_pipeline_stays_ready() {
    let status = status_when(|facts| {
        with_server(facts, |server| {
            let letters = server.counts.dead_letters.as_mut().unwrap();
            letters.extend([("parked".to_owned(), 2), ("discarded".to_owned(), 3)]);
        });
    });
    assert_eq!(on(&status, DeadLettersClear), (False, "EventsParked"));
    let message = &condition(&status, DeadLettersClear).message;
    let said = "events that could not be applied are parked, 2 of them: read them with `kubectl lookback dlq list -p edr`";
    assert!(message.starts_with(said), "{message}");
    assert_eq!(on(&status, Ready), (True, "Running"));
    let letters = status.dead_letters.unwrap();
    assert_eq!((letters.parked, letters.redriving), (2, 0));
    assert_eq!((letters.redriven, letters.discarded), (0, 3));
}

#[test]
fn a_letter_that_was_left_half_way_through_its_redrive_is_not_clear() {
    let status = status_when(|facts| {
        with_server(facts, |server| {
            let letters = server.counts.dead_letters.as_mut().unwrap();
            letters.extend([("redriving".to_owned(), 1)]);
        });
    });
    assert_eq!(on(&status, DeadLettersClear), (False, "EventsParked"));
    let message = &condition(&status, DeadLettersClear).message;
    assert!(
        message.starts_with("dead letters are being redriven, 1 of them"),
        "{message}"
    );
    assert_eq!(on(&status, Ready), (True, "Running"));
}

#[test]
fn dead_letters_that_were_decided_on_are_clear() {
    let status = status_when(|facts| {
        with_server(facts, |server| {
            let letters = server.counts.dead_letters.as_mut().unwrap();
            letters.extend([("redriven".to_owned(), 2), ("discarded".to_owned(), 3)]);
        });
    });
    assert_eq!(on(&status, DeadLettersClear), (True, "NoDeadLetters"));
}

#[test]
fn an_archived_alert_is_counted_but_not_stored() {
    let status = status_when(|facts| {
        with_server(facts, |server| {
            server.counts = counts(&[("new", 2), ("triage", 3), ("archived", 5)]);
        });
    });
    let alerts = status.alerts.unwrap();
    assert_eq!(alerts.stored, 5);
    let by_state: Vec<_> = alerts
        .by_state
        .iter()
        .map(|(it, n)| (it.as_str(), *n))
        .collect();
    let expected = [
        ("archived", 5),
        ("closed", 0),
        ("escalated", 0),
        ("new", 2),
        ("triage", 3),
    ];
    assert_eq!(by_state, expected);
}

#[test]
fn alerts_in_states_that_the_workflow_lost_are_named_until_they_are_gone() {
    let with = |waiting| {
        status_when(|facts| {
            with_server(facts, |server| {
                server.counts = counts(&[("new", 2), ("waiting", waiting)]);
            });
        })
    };
    let status = with(7);
    assert_eq!(on(&status, NatsReady), (True, "StatesOrphaned"));
    let message = &condition(&status, NatsReady).message;
    assert!(message.contains("waiting (7)"), "{message}");
    assert_eq!(on(&status, Ready), (True, "Running"));
    let alerts = status.alerts.unwrap();
    assert_eq!((alerts.stored, alerts.by_state["waiting"]), (9, 7));
    let status = with(0);
    assert_eq!(on(&status, NatsReady), (True, "Connected"));
    assert!(!status.alerts.unwrap().by_state.contains_key("waiting"));
}

#[test]
fn states_that_hold_alerts_have_room_before_those_that_are_empty() {
    let status = status_when(|facts| {
        with_server(facts, |server| {
            let alerts = server.counts.alerts.as_mut().unwrap();
            for n in 0..40 {
                let state = format!("s{n:02}");
                alerts.by_state.insert(state.clone(), u64::from(n == 39));
                alerts.workflow.insert(state);
            }
        });
    });
    let by_state = status.alerts.unwrap().by_state;
    assert_eq!(by_state.len(), 33);
    assert_eq!((by_state["new"], by_state["s39"]), (12, 1));
}

#[test]
fn what_cannot_be_counted_is_shown_as_it_was() {
    let pipeline = pipeline(MINIMAL);
    let before = status_of(&pipeline, now(), |_| {});
    let mut later = pipeline;
    later.status = Some(before.clone());
    let status = status_of(&later, now() + SignedDuration::from_mins(1), |facts| {
        with_server(facts, |server| server.counts = Counts::default());
    });
    assert_eq!(status.alerts, before.alerts);
    assert_eq!(status.dead_letters, before.dead_letters);
    assert_eq!(
        on(&status, DeadLettersClear),
        (Unknown, "DeadLettersUnknown")
    );
}

#[test]
fn events_expired_unread_are_shown_until_they_are_acknowledged() {
    let gap = |facts: &mut Dereferenced| {
        let gap = Gap {
            from: StreamSeq(10),
            to: StreamSeq(20),
            possible: true,
        };
        checkpoint(facts, |checkpoint| checkpoint.gaps = vec![gap]);
    };
    let mut pipeline = pipeline(MINIMAL);
    let shown = status_of(&pipeline, now(), gap);
    assert_eq!(on(&shown, RetentionSafe), (False, "EventsExpired"));
    let message = &condition(&shown, RetentionSafe).message;
    assert!(message.contains("10..20"), "{message}");
    assert!(message.contains("lookback.dev/acknowledge=20"), "{message}");
    let annotation = ("lookback.dev/acknowledge".to_owned(), "20".to_owned());
    pipeline.metadata.annotations = Some([annotation].into());
    let acknowledged = status_of(&pipeline, now(), gap);
    assert_eq!(on(&acknowledged, RetentionSafe), (True, "EventsRetained"));
}

#[test]
fn the_workers_clock_gives_up_determinism() {
    let yaml = format!("{MINIMAL}  correlation: {{timestampFallback: WallClock}}\n");
    let status = status_of(&pipeline(&yaml), now(), |_| {});
    assert_eq!(on(&status, Deterministic), (False, "WallClock"));
    assert_eq!(on(&status_when(|_| {}), Deterministic), (True, "EventTime"));
}

#[test]
fn one_copy_is_at_risk_and_three_are_not() {
    assert_eq!(
        on(&status_when(|_| {}), DurabilityAtRisk),
        (False, "Replicated")
    );
    let one_copy = status_when(|facts| {
        with_server(facts, |server| server.source.as_mut().unwrap().replicas = 1);
    });
    assert_eq!(on(&one_copy, DurabilityAtRisk), (True, "SingleReplica"));
    let single = status_when(|facts| with_server(facts, |server| server.clustered = false));
    assert_eq!(on(&single, DurabilityAtRisk), (True, "SingleServer"));
}

#[test]
fn an_idle_pipeline_writes_nothing_however_late_it_is() {
    let mut pipeline = pipeline(MINIMAL);
    let first = status_of(&pipeline, now(), |_| {});
    pipeline.status = Some(first.clone());
    assert_eq!(
        status_of(&pipeline, at("2026-11-22T00:00:00Z"), |_| {}),
        first
    );
}

#[test]
fn moving_numbers_are_written_every_thirty_seconds() {
    let mut pipeline = pipeline(MINIMAL);
    let first = status_of(&pipeline, now(), |_| {});
    pipeline.status = Some(first.clone());
    let moved = |facts: &mut Dereferenced| {
        checkpoint(facts, |it| it.position.sequence = StreamSeq(498));
    };
    assert_eq!(
        status_of(&pipeline, at("2026-11-21T12:00:29Z"), moved),
        first
    );
    let later = status_of(&pipeline, at("2026-11-21T12:00:30Z"), moved);
    assert_eq!(later.partitions[0].position, 498);
}

#[test]
fn moving_numbers_are_written_when_the_phase_changes() {
    let mut pipeline = pipeline(MINIMAL);
    pipeline.status = Some(status_of(&pipeline, now(), |_| {}));
    let status = status_of(&pipeline, at("2026-11-21T12:00:01Z"), |facts| {
        facts.pods[0].ready = false;
        checkpoint(facts, |it| it.position.sequence = StreamSeq(498));
    });
    assert_eq!(status.phase, Some(Phase::Starting));
    assert_eq!(status.partitions[0].position, 498);
}

#[test]
fn a_transition_time_changes_with_the_status_and_not_with_the_reason() {
    let mut pipeline = pipeline(MINIMAL);
    pipeline.status = Some(status_of(&pipeline, now(), |it| {
        stop(it, ExitReason::StateLost, "x");
    }));
    let later = at("2026-11-21T12:05:00Z");
    let other = status_of(&pipeline, later, |it| stop(it, ExitReason::Corrupt, "x"));
    assert_eq!(condition(&other, Ready).last_transition_time.0, now());
    let ready = status_of(&pipeline, later, |_| {});
    assert_eq!(condition(&ready, Ready).last_transition_time.0, later);
}

#[test]
fn a_pipeline_that_is_deleted_is_reconciling_and_not_stalled() {
    let mut pipeline = pipeline(MINIMAL);
    let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(now());
    pipeline.metadata.deletion_timestamp = Some(time);
    let status = status_of(&pipeline, now(), |facts| {
        stop(facts, ExitReason::StateLost, "x");
    });
    assert_eq!(status.phase, Some(Phase::Deleting));
    assert_eq!(on(&status, Reconciling), (True, "Deleting"));
    assert_eq!(on(&status, Stalled), (False, "NotStalled"));
}

#[test]
fn what_is_written_is_read_back() {
    let status = status_when(|_| {});
    let text = serde_json::to_string(&status).unwrap();
    assert_eq!(
        serde_json::from_str::<DetectionPipelineStatus>(&text).unwrap(),
        status
    );
}
