use lookback_protocol::checkpoint::Phase;
use lookback_protocol::config::Rewind;
use lookback_protocol::consumer::ConsumerMetadata;
use lookback_protocol::replay::request::{Outputs, RequestId, StatePolicy};

use super::super::{ValidatedPipeline, Validation};
use super::*;
use crate::api::conditions::Reason;
use crate::operator::pipeline::build::{build, worker_config};
use crate::operator::pipeline::facts::Running;
use crate::operator::pipeline::test_support::{
    EPOCH, MINIMAL, at, consumer, facts, owner, pipeline, record, running_facts, validation_for,
    with_server,
};

const NEXT: Epoch = Epoch(2);

fn rewind(policy: StatePolicy) -> Cursor {
    Cursor::Rewind(Rewind {
        request_id: RequestId::new("fix-1").unwrap(),
        fingerprint: "h-0123456789ab".to_owned(),
        of: Some(EPOCH),
        start: StreamSeq(200),
        read_from: None,
        latest: false,
        state_policy: policy,
        outputs: Outputs::Live,
        target: StreamSeq(500),
        plan_hash: "p-0123456789ab".to_owned(),
    })
}

fn run(cursor: Cursor) -> Workers {
    Workers::Run {
        epoch: NEXT,
        cursor,
        hold_template: false,
    }
}

fn checked(workers: &Workers, facts: &Dereferenced) -> Validation {
    validation_for(workers, &pipeline(MINIMAL), facts)
}

fn turned(workers: &Workers, facts: &Dereferenced) -> ValidatedPipeline {
    let Validation {
        pipeline, problems, ..
    } = checked(workers, facts);
    pipeline.unwrap_or_else(|| panic!("nothing can be built: {problems:?}"))
}

/// A pipeline that runs its first epoch, and whose stream was then made again.
fn stream_made_again() -> Dereferenced {
    let mut facts = running_facts(&pipeline(MINIMAL));
    with_server(&mut facts, |server| {
        server.source.as_mut().unwrap().identity.created = at("2026-11-20T00:00:00Z");
        server.consumers.clear();
    });
    facts
}

#[test]
fn without_an_epoch_nothing_is_built_and_nothing_is_wrong() {
    let validation = checked(&Workers::Unchanged, &facts(&pipeline(MINIMAL)));
    assert!(validation.pipeline.is_none());
    assert_eq!(validation.problems, []);
}

#[test]
fn workers_that_are_stopped_have_no_replica_and_the_config_of_their_epoch() {
    let facts = facts(&pipeline(MINIMAL));
    let stop = Workers::Stop {
        epoch: NEXT,
        cursor: rewind(StatePolicy::Clear),
        hold_template: false,
    };
    let (stopped, running) = (
        turned(&stop, &facts),
        turned(&run(rewind(StatePolicy::Clear)), &facts),
    );
    let replicas = |pipeline| build(pipeline).stateful_set.spec.unwrap().replicas;
    assert_eq!(replicas(&stopped), Some(0));
    assert_eq!(replicas(&running), Some(1));
    assert_eq!(worker_config(&stopped), worker_config(&running));
}

#[test]
fn a_rewind_reaches_the_worker_and_the_consumer() {
    let facts = running_facts(&pipeline(MINIMAL));
    let cursor = rewind(StatePolicy::Auto);
    let turned = turned(&run(cursor.clone()), &facts);
    let config = worker_config(&turned);
    assert_eq!((config.epoch, &config.cursor), (NEXT, &cursor));
    assert_eq!(config.source.start, StreamSeq(200));
    assert_eq!(config.source.consumer, "lb_detections_edr_p0_e2");
    let built = build(&turned).consumer;
    let metadata =
        ConsumerMetadata::from_map(|key| built.metadata.get(key).map(String::as_str)).unwrap();
    assert_eq!((metadata.epoch, metadata.cursor), (NEXT, cursor));
}

#[test]
fn a_request_that_drops_the_windows_binds_to_the_stream_as_it_is_now() {
    for policy in [StatePolicy::Clear, StatePolicy::Rebuild] {
        let turned = turned(&run(rewind(policy)), &stream_made_again());
        let created = turned.source.stream.created;
        assert_eq!(created, at("2026-11-20T00:00:00Z"), "{policy:?}");
    }
}

#[test]
fn a_request_that_may_keep_the_windows_does_not_leave_their_stream() {
    for policy in [StatePolicy::Auto, StatePolicy::Keep] {
        let validation = checked(&run(rewind(policy)), &stream_made_again());
        let reasons: Vec<Reason> = validation.problems.iter().map(|it| it.reason).collect();
        assert_eq!(reasons, [Reason::StreamChanged], "{policy:?}");
    }
}

#[test]
fn an_epoch_stays_bound_to_the_stream_it_began_on() {
    let mut facts = running_facts(&pipeline(MINIMAL));
    let workers = run(rewind(StatePolicy::Clear));
    facts.running = Some(Running {
        config: worker_config(&turned(&workers, &facts)),
        files: None,
    });
    with_server(&mut facts, |server| {
        server.source.as_mut().unwrap().identity.created = at("2026-11-20T00:00:00Z");
    });
    assert!(checked(&workers, &facts).pipeline.is_none());
}

#[test]
fn an_undone_request_goes_on_behind_the_checkpoint_and_then_as_its_consumer_says() {
    let mut facts = running_facts(&pipeline(MINIMAL));
    let workers = run(Cursor::Resume { of: Some(EPOCH) });
    assert_eq!(turned(&workers, &facts).source.start, StreamSeq(498));
    with_server(&mut facts, |server| {
        let metadata = ConsumerMetadata::new(&owner(), NEXT, StreamSeq(490));
        server.consumers.insert(NEXT, consumer(metadata));
    });
    assert_eq!(turned(&workers, &facts).source.start, StreamSeq(490));
}

/// Whether a consumer of the second epoch would say that the epoch has begun on the state file.
fn applied(change: impl FnOnce(&mut Dereferenced)) -> bool {
    let mut facts = running_facts(&pipeline(MINIMAL));
    change(&mut facts);
    turned(&run(rewind(StatePolicy::Clear)), &facts)
        .turn
        .applied
}

fn in_epoch_two(facts: &mut Dereferenced, phase: Phase) {
    with_server(facts, |server| {
        let Ok(Some(checkpoint)) = &mut server.checkpoint else {
            panic!("the fixture has a checkpoint");
        };
        checkpoint.epoch = NEXT;
        checkpoint.phase = phase;
    });
}

#[test]
fn an_epoch_has_begun_when_the_checkpoint_says_so() {
    assert!(!applied(|_| {}));
    assert!(applied(|facts| in_epoch_two(facts, Phase::Started)));
    assert!(!applied(|facts| in_epoch_two(facts, Phase::Applying)));
    assert!(!applied(|facts| in_epoch_two(facts, Phase::TakenBack)));
}

#[test]
fn a_consumer_that_says_its_epoch_has_begun_says_so_for_ever() {
    assert!(applied(|facts| with_server(facts, |server| {
        let mut metadata = ConsumerMetadata::new(&owner(), NEXT, StreamSeq(200));
        metadata.applied = true;
        server.consumers.insert(NEXT, consumer(metadata));
        server.checkpoint = Ok(None);
    })));
}

#[test]
fn a_consumer_is_made_again_as_begun_when_the_record_says_so() {
    let by_record = |phase| {
        let mut pipeline = pipeline(MINIMAL);
        let mut facts = running_facts(&pipeline);
        with_server(&mut facts, |server| server.checkpoint = Ok(None));
        pipeline.status = Some(crate::api::DetectionPipelineStatus {
            replay: Some(record(phase)),
            ..Default::default()
        });
        let workers = run(rewind(StatePolicy::Clear));
        let validation = validation_for(&workers, &pipeline, &facts);
        validation.pipeline.unwrap().turn.applied
    };
    assert!(by_record(ReplayPhase::Completed));
    assert!(!by_record(ReplayPhase::RollingOut));
    assert!(!by_record(ReplayPhase::Failed));
}

#[test]
fn the_first_epoch_is_never_marked_so_that_a_lost_checkpoint_is_a_fresh_start() {
    let facts = running_facts(&pipeline(MINIMAL));
    let first = Workers::Run {
        epoch: EPOCH,
        cursor: Cursor::default(),
        hold_template: false,
    };
    assert!(!turned(&first, &facts).turn.applied);
}
