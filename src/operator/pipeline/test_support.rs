//! Fixtures of the pure steps: a pipeline as a person writes it, and an outside in which everything
//! is as it should be. A test changes the one thing it is about.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use lookback_protocol::checkpoint::{Checkpoint, Counters, Phase};
use lookback_protocol::config::Cursor;
use lookback_protocol::consumer::ConsumerMetadata;
use lookback_protocol::deadletter::STATES;
use lookback_protocol::names::{Owner, PipelineKey};
use lookback_protocol::position::{Epoch, Position, StreamIdentity, StreamSeq};
use lookback_protocol::replay::machine::{Limits, Workers};
use lookback_protocol::replay::record::{Plan, Record, ReplayPhase, Windows};
use lookback_protocol::replay::request::{ReplayRequest, ReplayStart, StatePolicy};
use lookback_protocol::termination::{ExitReason, TerminationMessage};

use super::build::{self, Desired, build};
use super::facts::{
    AlertCounts, ConfigMapFact, ConsumerFacts, Counts, Dereferenced, Fill, NatsFacts, PodFacts,
    Retention, Running, SecretContent, SecretFact, ServerFacts, Settings, SourceFacts, Stop,
    StoreFacts, VolumeFacts,
};
use super::validate::{self, Compiler, ValidatedPipeline, Validation, needed_secrets, validate};
use crate::api::DetectionPipeline;

/// The first epoch of a pipeline.
pub(crate) const EPOCH: Epoch = Epoch(1);

pub(crate) const MINIMAL: &str = "
apiVersion: lookback.dev/v1alpha1
kind: DetectionPipeline
metadata: {name: edr, namespace: detections, uid: 9d1f, generation: 1}
spec:
  nats: {urls: ['nats://nats.nats.svc:4222']}
  source: {stream: EVENTS, logsource: {product: windows}}
  rules: {configMaps: [{name: rules}]}
";

pub(crate) const FULL: &str = "
apiVersion: lookback.dev/v1alpha1
kind: DetectionPipeline
metadata: {name: edr, namespace: detections, uid: 9d1f, generation: 7}
spec:
  nats:
    urls: ['tls://nats-0.nats:4222', 'tls://nats-1.nats:4333']
    credentialsSecretRef: {name: nats, key: user.creds}
    tls: {caSecretRef: {name: nats-ca, key: ca.pem}, required: true}
  source:
    stream: EVENTS
    subjects: ['events.windows.>']
    start: Earliest
    logsource: {product: windows, service: sysmon}
  rules: {configMaps: [{name: rules}], onError: LoadGood}
  correlation:
    timestampFields: [EventTime]
    timestampFallback: Skip
    allowedLateness: 90s
    maxFutureSkew: 1m
    refire: EveryEvent
    emit: Correlations
    limits: {groups: 1000, eventsPerGroup: 100}
  commit: {interval: 250ms, events: 100}
  state: {storage: {size: 20Gi, storageClassName: fast, accessMode: ReadWriteOncePod}}
  alerts:
    replicas: 3
    maxAge: 90d
    maxBytes: 50Gi
    workflow:
      states: [looking, done]
      transitions:
      - {id: look, from: [new], to: looking}
      - {id: finish, from: [looking], to: done, guard: by != ''}
      - {id: again, from: [done], to: looking}
  deadLetters: {maxAge: 7d, maxBytes: 1Gi, maxAttempts: 5}
  worker:
    image: registry.example/lookback:1
    resources: {requests: {cpu: '1', memory: 1Gi}, limits: {memory: 2Gi}}
    nodeSelector: {disk: ssd}
    tolerations: [{key: dedicated, operator: Equal, value: siem, effect: NoSchedule}]
    affinity:
      nodeAffinity:
        requiredDuringSchedulingIgnoredDuringExecution:
          nodeSelectorTerms: [{matchExpressions: [{key: zone, operator: In, values: [a]}]}]
    priorityClassName: high
    annotations: {team: blue}
    labels: {cost-center: '42'}
    logLevel: debug
  deletionPolicy: Delete
";

pub(crate) const RULE: &str = "
title: A shell
id: 6a7a2b7e-6f0f-4c06-9f4c-6a1f6b1c0f01
status: test
logsource: {product: windows, category: process_creation}
detection:
  selection: {Image|endswith: '\\cmd.exe'}
  condition: selection
level: low
";

/// A document without a condition.
pub(crate) const BAD_RULE: &str = "
title: Broken
id: 6a7a2b7e-6f0f-4c06-9f4c-6a1f6b1c0f02
logsource: {product: windows}
detection:
  selection: {Image: x}
";

pub(crate) fn settings() -> Settings {
    Settings {
        cluster: "c1".to_owned(),
        image: "lookback.dev/lookback:test".to_owned(),
    }
}

pub(crate) fn limits() -> Limits {
    Limits {
        min_interval: SignedDuration::from_secs(60),
        step_timeout: SignedDuration::from_mins(30),
        keep_consumers: SignedDuration::from_hours(24),
    }
}

pub(crate) fn pipeline(yaml: &str) -> DetectionPipeline {
    serde_saphyr::from_str(yaml).expect("a fixture is a pipeline")
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().expect("a fixture is a time")
}

/// Long after everything in the fixtures.
pub(crate) fn now() -> Timestamp {
    at("2026-11-21T12:00:00Z")
}

pub(crate) fn owner() -> Owner {
    Owner {
        cluster: settings().cluster,
        pipeline: PipelineKey::new("detections", "edr").expect("a valid name"),
    }
}

pub(crate) fn config_map(name: &str, files: &[(&str, &str)]) -> ConfigMapFact {
    let files = files
        .iter()
        .map(|(key, text)| ((*key).to_owned(), text.as_bytes().to_vec()));
    ConfigMapFact {
        name: name.to_owned(),
        files: Some(files.collect()),
    }
}

/// An outside in which a pipeline that was never applied finds everything it needs.
pub(crate) fn facts(pipeline: &DetectionPipeline) -> Dereferenced {
    let present = |secret: crate::api::pipeline::SecretKeyRef| SecretFact {
        name: secret.name,
        key: secret.key,
        content: SecretContent::Present,
    };
    let named = &pipeline.spec.rules.config_maps;
    Dereferenced {
        secrets: needed_secrets(&pipeline.spec.nats)
            .into_iter()
            .map(present)
            .collect(),
        rules: named
            .iter()
            .map(|it| config_map(&it.name, &[("shell.yml", RULE)]))
            .collect(),
        running: None,
        nats: NatsFacts::Reached(Box::new(server())),
        stateful_set: None,
        pods: Vec::new(),
        volumes: Vec::new(),
    }
}

pub(crate) fn server() -> ServerFacts {
    ServerFacts {
        version: "2.15.2".to_owned(),
        api_level: 5,
        clustered: true,
        source: Some(SourceFacts {
            identity: StreamIdentity {
                name: "EVENTS".to_owned(),
                created: at("2026-11-01T00:00:00.123456789Z"),
            },
            retention: Retention::Limits,
            first: StreamSeq(101),
            first_time: Some(at("2026-11-20T00:00:00Z")),
            last: StreamSeq(500),
            last_time: Some(at("2026-11-21T11:59:58Z")),
            subjects: vec!["events.>".to_owned()],
            max_age: None,
            messages: Fill {
                held: 400,
                limit: None,
            },
            bytes: Fill {
                held: 400_000,
                limit: None,
            },
            replicas: 3,
        }),
        alerts: None,
        dead_letters: None,
        counts: Counts::default(),
        owners: BTreeSet::new(),
        consumer: None,
        consumers: BTreeMap::new(),
        checkpoint: Ok(None),
    }
}

/// A consumer that has delivered all but three messages.
pub(crate) fn consumer(metadata: ConsumerMetadata) -> ConsumerFacts {
    ConsumerFacts {
        metadata: Some(metadata),
        pending: 3,
        ack_pending: 0,
        delivered: StreamSeq(497),
        filters: BTreeSet::from([">".to_owned()]),
    }
}

/// The consumer of the pipeline's first epoch.
pub(crate) fn with_consumer(server: &mut ServerFacts, consumer: Option<ConsumerFacts>) {
    server.consumers = consumer.iter().cloned().map(|it| (EPOCH, it)).collect();
    server.consumer = consumer;
}

/// Changes what NATS answered.
pub(crate) fn with_server(facts: &mut Dereferenced, change: impl FnOnce(&mut ServerFacts)) {
    let NatsFacts::Reached(server) = &mut facts.nats else {
        panic!("the fixture's NATS answers");
    };
    change(server);
}

/// What runs in a pipeline that was never replayed.
pub(crate) fn workers() -> Workers {
    Workers::Run {
        epoch: EPOCH,
        cursor: Cursor::default(),
        hold_template: false,
    }
}

pub(crate) fn validation(pipeline: &DetectionPipeline, facts: &Dereferenced) -> Validation {
    validation_for(&workers(), pipeline, facts)
}

pub(crate) fn validation_for(
    workers: &Workers,
    pipeline: &DetectionPipeline,
    facts: &Dereferenced,
) -> Validation {
    let chosen = validate::rules(pipeline, facts, &Compiler::default());
    validate(pipeline, facts, chosen, workers, &settings())
}

pub(crate) fn validated(pipeline: &DetectionPipeline, facts: &Dereferenced) -> ValidatedPipeline {
    let Validation {
        pipeline, problems, ..
    } = validation(pipeline, facts);
    pipeline.unwrap_or_else(|| panic!("nothing can be built: {problems:?}"))
}

/// The fixture, built.
pub(crate) fn desired(yaml: &str) -> Desired {
    let pipeline = pipeline(yaml);
    build(&validated(&pipeline, &facts(&pipeline)))
}

/// The outside of a pipeline that was applied and whose worker is ready.
pub(crate) fn running_facts(pipeline: &DetectionPipeline) -> Dereferenced {
    let mut facts = facts(pipeline);
    let validated = validated(pipeline, &facts);
    let desired = build(&validated);
    facts.running = Some(Running {
        config: build::worker_config(&validated),
        files: Some(validated.rules.files.clone()),
    });
    facts.stateful_set = Some(desired.stateful_set);
    facts.pods = vec![PodFacts {
        name: "edr-0".to_owned(),
        ready: true,
        epoch: Some(EPOCH),
        terminating: false,
        deadline: None,
        restarts: 0,
        waiting: None,
        stopped: None,
    }];
    facts.volumes = vec![VolumeFacts {
        name: "state-edr-0".to_owned(),
        bound: true,
        requested: None,
    }];
    let checkpoint = checkpoint(&validated);
    with_server(&mut facts, |server| {
        let store = StoreFacts {
            messages: 0,
            replicas: 3,
        };
        server.alerts = Some(StoreFacts {
            messages: 12,
            ..store
        });
        server.dead_letters = Some(store);
        server.counts = counts(&[("new", 12)]);
        let metadata = ConsumerMetadata::new(&owner(), EPOCH, validated.source.start);
        with_consumer(server, Some(consumer(metadata)));
        server.checkpoint = Ok(Some(checkpoint));
    });
    facts
}

pub(crate) fn checkpoint(pipeline: &ValidatedPipeline) -> Checkpoint {
    Checkpoint {
        v: lookback_protocol::checkpoint::VERSION,
        incarnation: "0190b7a2-0000-7000-8000-000000000001".to_owned(),
        owner: pipeline.owner.clone(),
        epoch: pipeline.turn.epoch,
        phase: Phase::Started,
        stream: pipeline.source.stream.clone(),
        position: Position {
            sequence: StreamSeq(497),
            published: Some(at("2026-11-21T11:59:58Z")),
        },
        published_through: StreamSeq(497),
        engine_digest: pipeline.rules.engine_digest.clone(),
        groups: 7,
        gaps: Vec::new(),
        counters: Counters {
            events: 400,
            alerts_new: 12,
            alerts_known: 1,
            ..Counters::default()
        },
        request: None,
        applied: None,
        resumes: None,
        held: None,
        time: at("2026-11-21T11:59:59Z"),
    }
}

/// Alerts in these states, the default workflow, and no dead letters.
pub(crate) fn counts(alerts: &[(&str, u64)]) -> Counts {
    let states = ["new", "triage", "escalated", "closed", "archived"];
    let mut by_state: BTreeMap<String, u64> = states.map(|it| (it.to_owned(), 0)).into();
    by_state.extend(
        alerts
            .iter()
            .map(|(state, count)| ((*state).to_owned(), *count)),
    );
    Counts {
        alerts: Some(AlertCounts {
            by_state,
            workflow: states.map(str::to_owned).into(),
        }),
        dead_letters: Some(STATES.map(|state| (state.to_owned(), 0)).into()),
    }
}

/// A replay from sequence 400 of the fixture's stream, as epoch 2.
pub(crate) fn record(phase: ReplayPhase) -> Record {
    let start = ReplayStart::FromSequence(StreamSeq(400));
    Record {
        request: ReplayRequest::new(Some("again"), start, StatePolicy::Auto).expect("a valid id"),
        phase,
        message: String::new(),
        requested_at: now(),
        since: now(),
        epoch: Some(Epoch(2)),
        of: Some(EPOCH),
        plan: Some(Plan {
            hash: "p-1".to_owned(),
            start: StreamSeq(400),
            start_time: Some(at("2026-11-21T11:00:00Z")),
            target: StreamSeq(500),
            messages: 101,
            bytes: 101_000,
            eta_seconds: Some(1),
            position: Some(StreamSeq(497)),
            truncated: false,
            gap: 0,
            double_counted: 0,
            windows: Windows::Dropped,
            reason: "Backward".to_owned(),
            groups: 7,
            read_back: None,
            known_alerts: None,
        }),
        way_back: None,
        paused: false,
    }
}

/// The worker's only pod stopped and said why.
pub(crate) fn stop(facts: &mut Dereferenced, reason: ExitReason, message: &str) {
    let pod = facts.pods.first_mut().expect("the fixture has a pod");
    pod.ready = false;
    pod.restarts += 1;
    pod.stopped = Some(Stop {
        message: Some(TerminationMessage::new(
            reason,
            message,
            BTreeMap::<String, String>::new(),
        )),
        exit_code: i32::from(reason.exit_code()),
        finished: None,
    });
}
