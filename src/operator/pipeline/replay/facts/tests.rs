use lookback_protocol::position::StreamSeq;
use lookback_protocol::replay::request::ReplayStart;
use serde_json::json;

use super::*;
use crate::operator::pipeline::test_support::{
    EPOCH, MINIMAL, at, now, pipeline, record, running_facts, stop, with_server,
};

const BLOCK: &str = "spec:\n  replay: {id: fix-1, fromSequence: 4711}";
const LOST: &str = "spec:\n  state: {onLoss: RebuildWindows}\n  replay: {id: fix-1, latest: true}";

fn asked(yaml: &str) -> DetectionPipeline {
    pipeline(&MINIMAL.replace("spec:", yaml))
}

fn in_epoch_one(phase: Option<ReplayPhase>) -> Written {
    Written {
        record: phase.map(record),
        epoch: Some(EPOCH),
        ..Written::default()
    }
}

fn id(request: Option<ReplayRequest>) -> Option<String> {
    request.map(|request| request.id.to_string())
}

/// A pipeline whose worker says that its state file is gone, and what is then wanted.
fn wanted_after_a_loss(yaml: &str, phase: Option<ReplayPhase>) -> Option<String> {
    let pipeline = asked(yaml);
    let mut facts = running_facts(&pipeline);
    stop(&mut facts, ExitReason::StateLost, "the volume is empty");
    id(wanted(&pipeline, &facts, &in_epoch_one(phase)))
}

#[test]
fn the_block_of_the_spec_is_wanted() {
    let pipeline = asked(BLOCK);
    let found = wanted(&pipeline, &running_facts(&pipeline), &in_epoch_one(None));
    let request = found.unwrap();
    assert_eq!(request.id.as_str(), "fix-1");
    let start = StreamSeq(4711);
    assert_eq!(request.start, ReplayStart::FromSequence(start));
}

#[test]
fn a_lost_state_comes_before_the_block_and_goes_on_behind_the_checkpoint() {
    assert_eq!(wanted_after_a_loss(LOST, None).as_deref(), Some("loss-1"));
    let pipeline = asked(LOST);
    let mut facts = running_facts(&pipeline);
    stop(&mut facts, ExitReason::StateLost, "the volume is empty");
    let request = wanted(&pipeline, &facts, &in_epoch_one(None)).unwrap();
    let behind = StreamSeq(498);
    assert_eq!(request.start, ReplayStart::FromSequence(behind));
    assert_eq!(request.state_policy, StatePolicy::Rebuild);
}

#[test]
fn a_lost_state_is_left_to_a_person_unless_the_spec_says_otherwise() {
    assert_eq!(wanted_after_a_loss(BLOCK, None).as_deref(), Some("fix-1"));
}

#[test]
fn a_request_whose_worker_is_being_replaced_is_not_taken_back_for_what_the_old_one_said() {
    for phase in [ReplayPhase::Fencing, ReplayPhase::CursorCreated] {
        let wanted = wanted_after_a_loss(LOST, Some(phase));
        assert_eq!(wanted.as_deref(), Some("fix-1"), "{phase:?}");
    }
}

#[test]
fn once_the_worker_of_a_request_is_started_its_word_counts_and_that_of_the_one_before_does_not() {
    for phase in [ReplayPhase::RollingOut, ReplayPhase::CatchingUp] {
        let wanted_when_lost_in = |epoch| {
            let pipeline = asked(LOST);
            let mut facts = running_facts(&pipeline);
            stop(&mut facts, ExitReason::StateLost, "the volume is empty");
            facts.pods[0].epoch = Some(epoch);
            id(wanted(&pipeline, &facts, &in_epoch_one(Some(phase))))
        };
        assert_eq!(wanted_when_lost_in(EPOCH).as_deref(), Some("fix-1"));
        assert_eq!(wanted_when_lost_in(Epoch(2)).as_deref(), Some("loss-2"));
    }
}

#[test]
fn who_asks_to_begin_anew_over_a_lost_state_has_decided_what_becomes_of_it() {
    let lost_under = |phase, block: &str| {
        let pipeline = asked(&format!("spec:\n  replay: {block}"));
        let mut facts = running_facts(&pipeline);
        stop(&mut facts, ExitReason::StateLost, "the volume is empty");
        facts.pods[0].epoch = Some(Epoch(2));
        id(wanted(&pipeline, &facts, &in_epoch_one(Some(phase))))
    };
    let anew = "{id: anew, fromSequence: 1, statePolicy: Clear}";
    let under_way = ReplayPhase::CatchingUp;
    assert_eq!(lost_under(under_way, anew).as_deref(), Some("loss-2"));
    // Neither the request itself, nor one that would keep what is gone, nor one that is over.
    let same = "{id: again, fromSequence: 1, statePolicy: Clear}";
    assert_eq!(lost_under(under_way, same).as_deref(), Some("again"));
    let keep = "{id: kept, fromSequence: 1, statePolicy: Keep}";
    assert_eq!(lost_under(under_way, keep).as_deref(), Some("kept"));
    let over = lost_under(ReplayPhase::Completed, anew);
    assert_eq!(over.as_deref(), Some("anew"));
}

/// A request of the operator's own, in epoch 2 and in this phase.
fn after_a_loss(phase: ReplayPhase) -> Written {
    let mut written = in_epoch_one(Some(phase));
    if let Some(record) = &mut written.record {
        record.request = ReplayRequest::loss(EPOCH, StreamSeq(498), StatePolicy::Rebuild);
    }
    written
}

#[test]
fn a_loss_is_remembered_when_the_pod_that_told_of_it_is_gone() {
    let pipeline = asked(LOST);
    let facts = running_facts(&pipeline);
    let wanted = |phase| id(wanted(&pipeline, &facts, &after_a_loss(phase)));
    assert_eq!(wanted(ReplayPhase::Fencing).as_deref(), Some("loss-1"));
    assert_eq!(wanted(ReplayPhase::Completed).as_deref(), Some("fix-1"));
}

#[test]
fn a_state_lost_again_while_it_is_made_again_is_another_loss() {
    let pipeline = asked(LOST);
    let mut facts = running_facts(&pipeline);
    stop(&mut facts, ExitReason::StateLost, "the volume is empty");
    facts.pods[0].epoch = Some(Epoch(2));
    let written = after_a_loss(ReplayPhase::CatchingUp);
    let wanted = id(wanted(&pipeline, &facts, &written));
    assert_eq!(wanted.as_deref(), Some("loss-2"));
}

#[test]
fn what_a_worker_of_another_epoch_said_is_no_loss() {
    let pipeline = asked(LOST);
    let mut facts = running_facts(&pipeline);
    stop(&mut facts, ExitReason::StateLost, "the volume is empty");
    facts.pods[0].epoch = Some(Epoch(2));
    let wanted = wanted(&pipeline, &facts, &in_epoch_one(None));
    assert_eq!(id(wanted).as_deref(), Some("fix-1"));
}

fn seen(set: Option<serde_json::Value>, pods: Vec<PodFacts>) -> Running {
    let pipeline = pipeline(MINIMAL);
    let mut facts = running_facts(&pipeline);
    facts.pods = pods;
    facts.running = None;
    let found = Found {
        pipeline,
        facts,
        set: set.map(|set| serde_json::from_value(set).unwrap()),
        nats: None,
        pods: Vec::new(),
    };
    let Workload::Seen(running) = workload(&found, now()) else {
        panic!("the workload is read live");
    };
    running
}

fn set(generation: i64, observed: i64, replicas: i32) -> serde_json::Value {
    json!({
        "metadata": {"generation": generation},
        "spec": {"replicas": 0, "selector": {}, "serviceName": "edr-worker", "template": {
            "metadata": {"annotations": {"lookback.dev/epoch": "3"}},
        }},
        "status": {"observedGeneration": observed, "replicas": replicas},
    })
}

fn pod(deadline: Option<&str>) -> PodFacts {
    PodFacts {
        name: "edr-0".to_owned(),
        ready: false,
        epoch: Some(EPOCH),
        terminating: deadline.is_some(),
        deadline: deadline.map(at),
        restarts: 0,
        waiting: None,
        stopped: None,
    }
}

#[test]
fn a_stateful_set_that_its_controller_has_not_seen_is_not_observed() {
    assert!(!seen(Some(set(4, 3, 0)), Vec::new()).observed);
    let current = seen(Some(set(4, 4, 1)), Vec::new());
    assert!(current.observed);
    assert_eq!((current.replicas, current.epoch), (1, Some(Epoch(3))));
}

#[test]
fn a_pod_that_is_gone_and_still_asked_for_is_owed() {
    let mut wanted = set(4, 4, 0);
    wanted["spec"]["replicas"] = json!(1);
    assert_eq!(seen(Some(wanted), Vec::new()).replicas, 1);
    assert_eq!(seen(Some(set(4, 4, 0)), Vec::new()).replicas, 0);
}

#[test]
fn a_stateful_set_that_does_not_exist_has_no_replicas_but_its_pods_count() {
    let running = seen(None, vec![pod(None)]);
    assert!(running.observed);
    assert_eq!((running.replicas, running.pods), (0, 1));
}

#[test]
fn a_pod_is_stuck_when_it_should_have_been_gone_for_a_while() {
    let stuck = |deadline| seen(None, vec![pod(Some(deadline))]).stuck;
    assert!(!stuck("2026-11-21T12:00:30Z"));
    assert!(!stuck("2026-11-21T11:59:55Z"));
    assert!(stuck("2026-11-21T11:59:30Z"));
}

#[test]
fn the_trouble_is_what_the_worker_said_last() {
    let pipeline = pipeline(MINIMAL);
    let mut facts = running_facts(&pipeline);
    stop(&mut facts, ExitReason::StateLost, "the volume is empty");
    facts.pods[0].waiting = Some(PodWait::Other("CrashLoopBackOff".to_owned()));
    let trouble = seen(None, facts.pods).trouble.unwrap();
    assert_eq!(trouble, "pod edr-0 stopped: the volume is empty");
}

fn viewed(subjects: &[&str], change: impl FnOnce(&mut ServerFacts)) -> CursorView {
    let pipeline = pipeline(MINIMAL);
    let mut facts = running_facts(&pipeline);
    with_server(&mut facts, change);
    let NatsFacts::Reached(server) = &facts.nats else {
        panic!("the fixture's NATS answers");
    };
    let subjects: Vec<String> = subjects.iter().map(|&it| it.to_owned()).collect();
    view(&server.consumers[&EPOCH], server, &subjects)
}

#[test]
fn a_filter_that_is_not_the_spec_s_is_not_ok() {
    assert!(viewed(&[], |_| {}).filter_ok);
    assert!(!viewed(&["events.windows.>"], |_| {}).filter_ok);
}

#[test]
fn a_filter_that_no_subject_of_the_stream_can_match_is_not_ok() {
    let filtered = |filter: &str| {
        let only = filter.to_owned();
        let view = viewed(&[filter], |server| {
            let consumer = server.consumers.get_mut(&EPOCH).unwrap();
            consumer.filters = [only].into();
        });
        view.filter_ok
    };
    assert!(filtered("events.windows.>"));
    assert!(filtered("*.linux"));
    assert!(!filtered("other.>"));
    assert!(!filtered("events"));
}

#[test]
fn a_consumer_that_was_put_beyond_the_end_is_not_bound() {
    assert!(viewed(&[], |_| {}).bound_ok);
    let beyond = viewed(&[], |server| {
        let consumer = server.consumers.get_mut(&EPOCH).unwrap();
        consumer.delivered = StreamSeq(501);
    });
    assert!(!beyond.bound_ok);
}

/// The rate after 30 seconds in which a worker came from `position` to 497.
fn rate_since(position: i64, lag: i64) -> Option<u64> {
    let mut pipeline = pipeline(MINIMAL);
    pipeline.status = serde_json::from_value(json!({"partitions": [{
        "id": 0, "position": position, "lag": lag, "observedTime": "2026-11-21T11:59:29Z",
    }]}))
    .unwrap();
    let facts = running_facts(&pipeline);
    let (_, checkpoint) = server(&facts).unwrap();
    rate(&pipeline, checkpoint)
}

#[test]
fn the_rate_is_that_of_a_worker_that_was_behind() {
    assert_eq!(rate_since(197, 303), Some(10));
    assert_eq!(rate_since(197, 0), None);
}

#[test]
fn a_worker_that_was_put_back_meanwhile_has_no_rate() {
    assert_eq!(rate_since(900, 10), None);
}

#[test]
fn alerts_of_a_range_are_known_only_when_there_are_none_at_all() {
    let known = |messages| {
        let pipeline = pipeline(MINIMAL);
        let mut facts = running_facts(&pipeline);
        with_server(&mut facts, |server| {
            server.alerts.as_mut().unwrap().messages = messages;
        });
        let (server, _) = server(&facts).unwrap();
        known_alerts(server.alerts)
    };
    assert_eq!(known(0), Some(0));
    assert_eq!(known(12), None);
}
