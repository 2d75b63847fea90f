//! Every wire format against its golden file, byte for byte, and back.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy exempts tests, but not the functions they share"
)]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::Path;

use jiff::Timestamp;
use lookback_protocol::alert::{
    self, AlertRecord, EventRef, HistoryEntry, ReplayMark, RuleKind, RuleRef, Window,
};
use lookback_protocol::audit::{
    self, Act, AlertAct, Archived, AuditRecord, DeadLetterAct, OperatorAct, PastStep, ReplayClaim,
};
use lookback_protocol::checkpoint::{
    self, AppliedRequest, Checkpoint, Counters, Gap, Hold, HoldReason, Phase, RequestOutcome,
    RequestProgress,
};
use lookback_protocol::config::{
    self, CommitConfig, CorrelationConfig, Cursor, DeadLettersConfig, Emit, Limits, LogSource,
    NatsAuth, NatsConfig, Refire, Rewind, RuleFileRef, RulesConfig, SourceConfig,
    TimestampFallback, WorkerConfig,
};
use lookback_protocol::consumer::{self, ConsumerMetadata};
use lookback_protocol::deadletter::{self, Reason};
use lookback_protocol::ids::{self, EventOrigin, GroupField};
use lookback_protocol::names::{Owner, PipelineKey};
use lookback_protocol::position::{Epoch, Position, StreamIdentity, StreamSeq};
use lookback_protocol::replay::record::{Plan, ReadBack, Record, ReplayPhase, WayBack, Windows};
use lookback_protocol::replay::request::{
    Approval, OnTruncated, Outputs, ReplayRequest, ReplayStart, RequestId, StatePolicy, Yes,
};
use lookback_protocol::replay::restore::Reason as RestoreReason;
use lookback_protocol::termination::{ExitReason, TerminationMessage};
use lookback_protocol::workflow::{Ask, Definition, To, Workflow, WorkflowSpec};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

const DIGEST: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn pipeline() -> PipelineKey {
    PipelineKey::new("prod", "edr").unwrap()
}

fn owner() -> Owner {
    Owner {
        cluster: "0b6f2c1e-5d3a-4e57-9c6f-3f0a4b1d2e3c".to_owned(),
        pipeline: pipeline(),
    }
}

fn stream() -> StreamIdentity {
    StreamIdentity {
        name: "EVENTS".to_owned(),
        created: time("2026-01-02T03:04:05.123456789Z"),
    }
}

fn position() -> Position {
    Position {
        sequence: StreamSeq(48213),
        published: Some(time("2026-02-03T04:05:06.000000001Z")),
    }
}

fn strings<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).to_vec()
}

fn golden(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(file);
    std::fs::read_to_string(&path).unwrap_or_default()
}

#[track_caller]
fn assert_written(file: &str, value: &impl Serialize) {
    let written = serde_json::to_string_pretty(value).unwrap() + "\n";
    assert!(
        written == golden(file),
        "a wire format changed: bump its version or revert; tests/golden/{file} is now written as\n{written}"
    );
}

#[track_caller]
fn assert_pinned<T: Serialize + DeserializeOwned + PartialEq + Debug>(file: &str, value: &T) {
    assert_written(file, value);
    let read: T = serde_json::from_str(&golden(file)).unwrap_or_else(|error| {
        panic!("a wire format changed: bump its version or revert; {file} is not read: {error}")
    });
    assert_eq!(
        &read, value,
        "{file} does not read back as what was written"
    );
}

fn worker_config() -> WorkerConfig {
    WorkerConfig {
        v: config::VERSION,
        owner: owner(),
        partition: 0,
        epoch: Epoch(3),
        cursor: Cursor::default(),
        adopt: None,
        nats: NatsConfig {
            urls: strings(["nats://a:4222", "nats://b:4222"]),
            auth: Some(NatsAuth::Credentials {
                file: "/etc/lookback/nats/user.creds".to_owned(),
            }),
            ca_file: Some("/etc/lookback/ca/ca.crt".to_owned()),
            tls_required: true,
            ..NatsConfig::default()
        },
        source: SourceConfig {
            stream: stream(),
            consumer: "lb_prod_edr_p0_e3".to_owned(),
            subjects: strings(["events.windows.>"]),
            logsource: LogSource {
                product: "windows".to_owned(),
                service: Some("sysmon".to_owned()),
                category: Some("process_creation".to_owned()),
            },
            start: StreamSeq(4711),
        },
        rules: RulesConfig {
            files: vec![RuleFileRef {
                name: "sigma-rules/logon.yml".to_owned(),
                path: "/etc/lookback/rules/0/logon.yml".to_owned(),
            }],
            processing: strings(["sysmon"]),
            engine_digest: DIGEST.to_owned(),
        },
        correlation: CorrelationConfig {
            timestamp_fields: strings(["UtcTime", "@timestamp"]),
            timestamp_fallback: TimestampFallback::Published,
            allowed_lateness_seconds: 300,
            max_future_skew_seconds: 300,
            refire: Refire::OncePerWindow,
            emit: Emit::All,
            limits: Limits {
                groups: 1_000_000,
                events_per_group: 10_000,
            },
        },
        commit: CommitConfig {
            interval_ms: 1000,
            events: 5000,
        },
        alerts_stream: "LB_prod_edr_ALERTS".to_owned(),
        dead_letters: DeadLettersConfig {
            stream: "LB_prod_edr_DLQ".to_owned(),
            max_attempts: 3,
        },
    }
}

fn minimal_worker_config() -> WorkerConfig {
    let mut config = worker_config();
    config.nats = NatsConfig {
        urls: strings(["nats://a:4222"]),
        auth: Some(NatsAuth::UserPassword {
            username_file: "/etc/lookback/nats/username".to_owned(),
            password_file: "/etc/lookback/nats/password".to_owned(),
        }),
        ..NatsConfig::default()
    };
    config.source.subjects.clear();
    config.source.logsource.service = None;
    config.source.logsource.category = None;
    config.rules.processing.clear();
    config
}

fn checkpoint() -> Checkpoint {
    Checkpoint {
        v: checkpoint::VERSION,
        incarnation: "0198c0de-0000-7000-8000-000000000001".to_owned(),
        owner: owner(),
        epoch: Epoch(3),
        phase: Phase::Held,
        stream: stream(),
        position: position(),
        published_through: StreamSeq(48300),
        engine_digest: DIGEST.to_owned(),
        groups: 12,
        gaps: vec![Gap {
            from: StreamSeq(7),
            to: StreamSeq(9),
            possible: true,
        }],
        counters: Counters {
            events: 48000,
            alerts_new: 40,
            alerts_known: 2,
            dead_letters: 3,
            late: 4,
            skewed: 5,
        },
        request: None,
        applied: None,
        resumes: None,
        held: Some(Hold {
            reason: HoldReason::AlertsFull,
            message: "archive alerts".to_owned(),
        }),
        time: time("2026-02-03T04:05:07.5Z"),
    }
}

fn first_checkpoint() -> Checkpoint {
    Checkpoint {
        phase: Phase::Started,
        position: Position::before(StreamSeq(1)),
        published_through: StreamSeq(0),
        groups: 0,
        gaps: Vec::new(),
        counters: Counters::default(),
        request: None,
        applied: None,
        resumes: None,
        held: None,
        ..checkpoint()
    }
}

fn request() -> ReplayRequest {
    let start = ReplayStart::FromTime(time("2026-02-03T05:05:06+01:00"));
    ReplayRequest {
        outputs: Outputs::Tag,
        on_truncated: OnTruncated::Clamp,
        approval: Approval::Manual,
        not_after: Some(time("2026-02-04T00:00:00Z")),
        ..ReplayRequest::new(Some("rule-fix_1"), start, StatePolicy::Rebuild).unwrap()
    }
}

fn plan() -> Plan {
    Plan {
        hash: "p-0123456789ab".to_owned(),
        start: StreamSeq(47_000),
        start_time: Some(time("2026-02-03T04:05:06.000000001Z")),
        target: StreamSeq(48_300),
        messages: 1500,
        bytes: 1_650_000,
        eta_seconds: Some(2),
        position: Some(StreamSeq(48_213)),
        truncated: true,
        gap: 1,
        double_counted: 2,
        windows: Windows::Rebuilt,
        reason: RestoreReason::Rebuild.to_string(),
        groups: 12,
        read_back: Some(ReadBack {
            from: StreamSeq(46_800),
            seconds_needed: 7800,
            seconds_available: 3600,
            exact: false,
            inexact_because: "why".to_owned(),
        }),
        known_alerts: Some(7),
    }
}

fn record() -> Record {
    let mut record = requested();
    record.request = request();
    record.phase = ReplayPhase::RollingOut;
    record.message = "the worker is being started".to_owned();
    record.epoch = Some(Epoch(4));
    record.of = Some(Epoch(3));
    record.plan = Some(plan());
    record.way_back = Some(WayBack {
        epoch: Epoch(5),
        to: ReplayPhase::Failed,
    });
    record
}

/// As it is first written.
fn requested() -> Record {
    let start = ReplayStart::FromSequence(StreamSeq(4711));
    Record {
        request: ReplayRequest::new(None, start, StatePolicy::default()).unwrap(),
        phase: ReplayPhase::Requested,
        message: String::new(),
        requested_at: time("2026-02-03T04:05:06Z"),
        paused: false,
        since: time("2026-02-03T04:05:07Z"),
        epoch: None,
        of: None,
        plan: None,
        way_back: None,
    }
}

fn rewind() -> Rewind {
    Rewind::of(&record()).unwrap()
}

/// A worker that is about to move its file, one that has, and the operator's way back.
fn checkpoints_of_a_request() -> [(&'static str, Checkpoint); 3] {
    let applied = AppliedRequest {
        epoch: Epoch(3),
        id: RequestId::new("h-0123456789ab").unwrap(),
        fingerprint: "h-0123456789ab".to_owned(),
    };
    let progress = |outcome| {
        Some(RequestProgress {
            id: request().id,
            outcome,
        })
    };
    let applying = Checkpoint {
        epoch: Epoch(4),
        phase: Phase::Applying,
        request: progress(RequestOutcome::Applying),
        applied: Some(applied),
        held: None,
        ..checkpoint()
    };
    let done = Checkpoint {
        phase: Phase::Started,
        request: progress(RequestOutcome::Applied),
        applied: Some(AppliedRequest {
            epoch: Epoch(4),
            id: request().id,
            fingerprint: request().fingerprint,
        }),
        ..applying.clone()
    };
    let taken_back = Checkpoint {
        epoch: Epoch(5),
        phase: Phase::TakenBack,
        request: None,
        resumes: Some(Epoch(3)),
        ..applying.clone()
    };
    [
        ("checkpoint-applying.json", applying),
        ("checkpoint-applied.json", done),
        ("checkpoint-taken-back.json", taken_back),
    ]
}

fn correlation_alert() -> AlertRecord {
    AlertRecord {
        v: alert::VERSION,
        id: "NALWT6VCLWV6SU6LYVNMPAL6JE".to_owned(),
        state: alert::NEW.to_owned(),
        rule: RuleRef {
            id: "8f3c0f9e-0000-4000-8000-000000000001".to_owned(),
            title: "Many failed logons".to_owned(),
            level: Some("high".to_owned()),
            tags: strings(["attack.t1110"]),
            kind: RuleKind::Correlation,
        },
        group_key: vec![GroupField {
            field: "User".to_owned(),
            value: "alice".to_owned(),
        }],
        window: Some(Window {
            from: time("2026-02-03T04:05:00Z"),
            to: time("2026-02-03T04:05:06Z"),
        }),
        events: vec![
            EventRef {
                stream: "EVENTS".to_owned(),
                sequence: StreamSeq(48210),
                time: time("2026-02-03T04:05:00Z"),
                subject: None,
            },
            EventRef {
                stream: "EVENTS".to_owned(),
                sequence: StreamSeq(48213),
                time: time("2026-02-03T04:05:06Z"),
                subject: Some("events.windows.dc1".to_owned()),
            },
        ],
        data: json!({"count": 5}),
        metadata: BTreeMap::from([("owner".to_owned(), "soc".to_owned())]),
        history: vec![HistoryEntry {
            time: time("2026-02-03T04:05:06.000000001Z"),
            transition: "create".to_owned(),
            from: None,
            to: alert::NEW.to_owned(),
            by: "worker/edr-0".to_owned(),
            reason: String::new(),
            prev_seq: 0,
        }],
        earlier: 0,
        op_id: "NALWT6VCLWV6SU6LYVNMPAL6JE".to_owned(),
        prev_seq: 0,
        pipeline: pipeline(),
        epoch: Epoch(3),
        replay: None,
        engine_digest: DIGEST.to_owned(),
        by: "worker/edr-0".to_owned(),
    }
}

fn replayed_alert() -> AlertRecord {
    AlertRecord {
        replay: Some(ReplayMark {
            id: RequestId::new("rules-fixed").unwrap(),
            epoch: Epoch(2),
        }),
        ..detection_alert()
    }
}

fn detection_alert() -> AlertRecord {
    let mut alert = correlation_alert();
    alert.rule.kind = RuleKind::Detection;
    alert.rule.level = None;
    alert.group_key.clear();
    alert.window = None;
    alert.events.remove(0);
    alert.metadata.clear();
    alert
}

fn ask(to: To) -> Ask {
    Ask {
        to,
        by: "user/alice".to_owned(),
        reason: "checking".to_owned(),
        metadata: BTreeMap::from([("ticket".to_owned(), Some("INC-1".to_owned()))]),
        op_id: "0198c0de-0000-7000-8000-000000000001".to_owned(),
        time: time("2026-02-03T05:00:00Z"),
    }
}

/// Its history is full: the oldest of 66 steps is in the audit.
fn moved_alert() -> (AlertRecord, PastStep) {
    let mut alert = detection_alert();
    alert.earlier = 1;
    for prev_seq in 101..164 {
        alert.history.push(HistoryEntry {
            transition: "update".to_owned(),
            from: Some(alert::NEW.to_owned()),
            prev_seq,
            ..alert.history[0].clone()
        });
    }
    let mut step = Workflow::default()
        .step(&alert, 164, &ask(To::State("triage".to_owned())))
        .unwrap();
    // Sixty entries say no more than one.
    step.record.history.drain(1..62);
    (step.record, step.overflow.remove(0))
}

fn guarded_definition() -> Definition {
    let mut spec = WorkflowSpec::default();
    spec.transitions[2].guard = Some("has(alert.metadata.verdict)".to_owned());
    let mut earlier = WorkflowSpec::default();
    earlier.states.push("waiting".to_owned());
    let workflow = |spec| Definition::new(owner(), &Workflow::new(spec).unwrap());
    earlier.transitions[0].to = "waiting".to_owned();
    earlier.transitions[1].from.push("waiting".to_owned());
    earlier.transitions[3].from.push("escalated".to_owned());
    workflow(spec).after(workflow(earlier))
}

/// One of each kind beside a replay.
fn acts() -> [(&'static str, Act); 5] {
    let (alert, past) = moved_alert();
    let archived = Workflow::default().step(&alert, 165, &ask(To::Archive));
    let op_id = || "0198c0de-0000-7000-8000-000000000001".to_owned();
    [
        (
            "audit-alert.json",
            Act::Alert(AlertAct {
                alert: alert.id.clone(),
                op_id: op_id(),
                transition: "triage".to_owned(),
                from: alert::NEW.to_owned(),
                to: "triage".to_owned(),
                reason: "checking".to_owned(),
                sequence: 165,
            }),
        ),
        (
            "audit-archive.json",
            Act::Archive(Archived {
                alert: Box::new(archived.unwrap().record),
            }),
        ),
        ("audit-history.json", Act::History(past)),
        (
            "audit-dead-letter.json",
            Act::DeadLetter(DeadLetterAct {
                letter: "3-48213-0a1b2c3d".to_owned(),
                op_id: op_id(),
                from: "redriving".to_owned(),
                to: "redriven".to_owned(),
                reason: "the parser is fixed".to_owned(),
                redriven: Some(50_000),
            }),
        ),
        (
            "audit-operator.json",
            Act::Operator(OperatorAct {
                key: "repaired-0a1b2c3d".to_owned(),
                reason: "Repaired".to_owned(),
                message: "stream LB_prod_edr_ALERTS is set back in max_bytes".to_owned(),
            }),
        ),
    ]
}

fn replay_claim() -> ReplayClaim {
    ReplayClaim {
        request_id: RequestId::new("h-0123456789ab").unwrap(),
        fingerprint: "h-0123456789ab".to_owned(),
        epoch: Epoch(4),
        plan_hash: "5f0c".to_owned(),
    }
}

fn audit_record() -> AuditRecord {
    AuditRecord {
        v: audit::VERSION,
        act: Act::Replay(replay_claim()),
        owner: owner(),
        by: "operator/lookback-7d9f".to_owned(),
        time: time("2026-02-03T04:05:08.000000001Z"),
        details: json!({"start": 4711}),
    }
}

fn termination_message() -> TerminationMessage {
    TerminationMessage::new(
        ExitReason::StreamRegressed,
        "position 48213 is beyond the last sequence 48000",
        [("position", "48213"), ("lastSequence", "48000")],
    )
}

#[test]
fn the_worker_config_is_pinned() {
    assert_pinned("worker-config.json", &worker_config());
    assert_pinned("worker-config-minimal.json", &minimal_worker_config());
}

#[test]
fn time_outs_that_someone_asked_for_are_pinned() {
    let mut config = minimal_worker_config();
    config.nats.connect_timeout_ms = Some(2_000);
    config.nats.request_timeout_ms = Some(15_000);
    assert_pinned("worker-config-timeouts.json", &config);
}

#[test]
fn what_an_epoch_does_to_the_state_file_is_pinned() {
    let mut config = worker_config();
    config.epoch = Epoch(4);
    config.cursor = Cursor::Rewind(rewind());
    config.adopt = Some(Owner {
        cluster: "c0ffee00-5d3a-4e57-9c6f-3f0a4b1d2e3c".to_owned(),
        pipeline: pipeline(),
    });
    assert_pinned("worker-config-rewind.json", &config);
    config.epoch = Epoch(5);
    config.cursor = Cursor::Resume { of: Some(Epoch(3)) };
    config.adopt = None;
    assert_pinned("worker-config-resume.json", &config);
}

#[test]
fn a_worker_is_told_what_was_planned() {
    let rewind = rewind();
    let plan = plan();
    assert_eq!(rewind.request_id, request().id);
    assert_eq!(rewind.fingerprint, request().fingerprint);
    assert_eq!((rewind.of, rewind.latest), (Some(Epoch(3)), false));
    assert_eq!((rewind.start, rewind.target), (plan.start, plan.target));
    assert_eq!(rewind.read_from, Some(StreamSeq(46_800)));
    assert_eq!(rewind.plan_hash, plan.hash);
    assert_eq!(Rewind::of(&requested()), None);
    let mut latest = record();
    latest.request.start = ReplayStart::Latest(Yes);
    assert!(Rewind::of(&latest).unwrap().latest);
}

/// Stands in the pipeline's status.
#[test]
fn the_record_of_a_request_is_pinned() {
    assert_pinned("replay-record.json", &record());
    assert_pinned("replay-record-first.json", &requested());
}

#[test]
fn the_checkpoint_is_pinned() {
    assert_pinned("checkpoint.json", &checkpoint());
    assert_pinned("checkpoint-first.json", &first_checkpoint());
    for (file, checkpoint) in checkpoints_of_a_request() {
        assert_pinned(file, &checkpoint);
    }
}

#[test]
fn the_alert_record_is_pinned() {
    assert_pinned("alert-correlation.json", &correlation_alert());
    assert_pinned("alert-detection.json", &detection_alert());
    assert_pinned("alert-replayed.json", &replayed_alert());
    assert_pinned("alert-moved.json", &moved_alert().0);
}

#[test]
fn the_audit_record_is_pinned() {
    assert_pinned("audit-replay.json", &audit_record());
}

#[test]
fn what_people_and_the_operator_did_is_pinned() {
    for (file, act) in acts() {
        let record = AuditRecord {
            act,
            by: "user/alice".to_owned(),
            details: serde_json::Value::Null,
            ..audit_record()
        };
        assert_pinned(file, &record);
    }
}

#[test]
fn the_definition_of_a_workflow_is_pinned() {
    assert_pinned("definition.json", &guarded_definition());
}

#[test]
fn a_claim_is_the_same_whoever_wrote_it_and_whenever() {
    let before = AuditRecord {
        by: "operator/before".to_owned(),
        time: time("2026-02-03T04:05:07Z"),
        details: json!({}),
        ..audit_record()
    };
    assert!(audit_record().is_same_claim(&before));
}

#[test]
fn a_claim_of_anything_else_is_another() {
    let mut owner = owner();
    owner.cluster = "other".to_owned();
    let claims = [
        ReplayClaim {
            request_id: RequestId::new("other").unwrap(),
            ..replay_claim()
        },
        ReplayClaim {
            fingerprint: "h-ba9876543210".to_owned(),
            ..replay_claim()
        },
        ReplayClaim {
            epoch: Epoch(5),
            ..replay_claim()
        },
        ReplayClaim {
            plan_hash: "5f0d".to_owned(),
            ..replay_claim()
        },
    ];
    let others = claims.into_iter().map(|claim| AuditRecord {
        act: Act::Replay(claim),
        ..audit_record()
    });
    let of_another = AuditRecord {
        owner,
        ..audit_record()
    };
    for other in others.chain([of_another]) {
        assert!(!audit_record().is_same_claim(&other), "{other:?}");
    }
}

#[test]
fn the_termination_message_is_pinned() {
    assert_pinned("termination-message.json", &termination_message());
}

#[test]
fn the_metadata_of_a_consumer_is_pinned() {
    let first = ConsumerMetadata::new(&owner(), Epoch(3), StreamSeq(4711));
    let mut rewound = ConsumerMetadata::new(&owner(), Epoch(4), StreamSeq(4711));
    rewound.cursor = Cursor::Rewind(rewind());
    rewound.applied = true;
    for (file, metadata) in [
        ("consumer-metadata.json", first),
        ("consumer-metadata-rewind.json", rewound),
    ] {
        let map = metadata.to_map();
        assert_pinned(file, &map);
        let read = ConsumerMetadata::from_map(|key| map.get(key).map(String::as_str));
        assert_eq!(read, Ok(metadata));
    }
}

#[test]
fn the_headers_of_a_dead_letter_are_pinned() {
    assert_written(
        "dead-letter-headers.json",
        &json!({
            "reason": deadletter::REASON,
            "error": deadletter::ERROR,
            "stream": deadletter::STREAM,
            "sequence": deadletter::SEQUENCE,
            "subject": deadletter::SUBJECT,
            "published": deadletter::PUBLISHED,
            "attempts": deadletter::ATTEMPTS,
            "epoch": deadletter::EPOCH,
            "headers": deadletter::HEADERS,
            "part": deadletter::PART,
            "parts": deadletter::PARTS,
            "by": deadletter::BY,
            "note": deadletter::NOTE,
            "opId": deadletter::OP_ID,
            "redrives": deadletter::REDRIVES,
            "redriveAfter": deadletter::REDRIVE_AFTER,
        }),
    );
}

#[test]
fn the_headers_of_a_redriven_event_are_pinned() {
    let added = deadletter::resend::added("0-7-e590fdd3", 2, "EVENTS");
    assert_written("redriven-event-headers.json", &json!(BTreeMap::from(added)));
}

#[test]
fn ids_are_pinned() {
    let published = position().published.unwrap();
    let origin = EventOrigin::new(&stream(), StreamSeq(48213), published);
    let parts = [("User", "alice"), ("Computer", "dc1")].map(|(field, value)| GroupField {
        field: field.to_owned(),
        value: value.to_owned(),
    });
    assert_written(
        "ids.json",
        &json!({
            "detection": ids::alert_id("8f3c0f9e-0000-4000-8000-000000000001", &[], &origin),
            "correlation": ids::alert_id("8f3c0f9e-0000-4000-8000-000000000001", &parts, &origin),
            "deadLetter": ids::dead_letter_id(0, &origin),
        }),
    );
}

/// The words of every closed set that stands on the wire.
#[test]
fn words_are_pinned() {
    use ExitReason as Exit;
    let exits = [
        Exit::Drained,
        Exit::Internal,
        Exit::BadConfig,
        Exit::Corrupt,
        Exit::NewerSchema,
        Exit::StateLocked,
        Exit::OwnedByOther,
        Exit::Fenced,
        Exit::StreamChanged,
        Exit::StreamRegressed,
        Exit::StoreRegressed,
        Exit::StateLost,
        Exit::VolumeFull,
        Exit::NatsUnavailable,
        Exit::ConsumerMissing,
    ];
    let exit_codes: BTreeMap<String, u8> = exits
        .map(|reason| (format!("{reason:?}"), reason.exit_code()))
        .into();
    assert_written(
        "words.json",
        &json!({
            "exitReasons": exits,
            "exitCodes": exit_codes,
            "phases": [
                Phase::Started, Phase::Held, Phase::Drained, Phase::Applying, Phase::TakenBack,
            ],
            "requestOutcomes": [
                RequestOutcome::Applying, RequestOutcome::Applied, RequestOutcome::AlreadyApplied,
            ],
            "replayPhases": [
                ReplayPhase::Requested, ReplayPhase::Planned, ReplayPhase::AwaitingApproval,
                ReplayPhase::Fencing, ReplayPhase::CursorCreated, ReplayPhase::RollingOut,
                ReplayPhase::StateApplied, ReplayPhase::CatchingUp, ReplayPhase::Completed,
                ReplayPhase::Failed, ReplayPhase::Rejected, ReplayPhase::Expired,
                ReplayPhase::Superseded,
            ],
            "statePolicies": [
                StatePolicy::Auto, StatePolicy::Keep, StatePolicy::Clear, StatePolicy::Rebuild,
            ],
            "outputs": [Outputs::Live, Outputs::Tag, Outputs::Suppress],
            "onTruncated": [OnTruncated::Fail, OnTruncated::Clamp],
            "approvals": [Approval::Automatic, Approval::Manual],
            "windows": [Windows::Kept, Windows::Dropped, Windows::Rebuilt],
            "holdReasons": [
                HoldReason::AlertsFull, HoldReason::DeadLettersFull, HoldReason::StoreUnavailable,
            ],
            "deadLetterReasons": [
                Reason::Empty, Reason::NotJson, Reason::NotObject, Reason::TooDeep,
                Reason::TooLarge, Reason::EnginePanic, Reason::CrashLoop,
            ],
            "timestampFallbacks": [
                TimestampFallback::Published, TimestampFallback::WallClock, TimestampFallback::Skip,
            ],
            "refires": [Refire::OncePerWindow, Refire::EveryEvent],
            "emits": [Emit::All, Emit::Correlations],
            "firstAlertState": alert::NEW,
            "firstDeadLetterState": deadletter::PARKED,
            "ownerKey": consumer::OWNER_KEY,
        }),
    );
}

#[test]
fn times_keep_their_nanoseconds() {
    let written = serde_json::to_value(stream()).unwrap();
    assert_eq!(written["created"], "2026-01-02T03:04:05.123456789Z");
    assert_eq!(
        serde_json::from_value::<StreamIdentity>(written).unwrap(),
        stream()
    );
}

#[track_caller]
fn assert_refuses_version_2<T: Serialize + DeserializeOwned + Debug>(value: &T) {
    let mut newer = serde_json::to_value(value).unwrap();
    newer["v"] = json!(2);
    let error = serde_json::from_value::<T>(newer).unwrap_err().to_string();
    assert!(error.contains("format version 2"), "{error}");
}

#[test]
fn latest_may_only_be_true() {
    let read = |json| serde_json::from_value::<ReplayStart>(json);
    assert_eq!(
        read(json!({"latest": true})).unwrap(),
        ReplayStart::Latest(Yes)
    );
    let error = read(json!({"latest": false})).unwrap_err().to_string();
    assert!(error.contains("may only be true"), "{error}");
}

#[test]
fn another_version_is_refused_by_name() {
    assert_refuses_version_2(&worker_config());
    assert_refuses_version_2(&checkpoint());
    assert_refuses_version_2(&correlation_alert());
    assert_refuses_version_2(&audit_record());
    assert_refuses_version_2(&guarded_definition());
    assert_refuses_version_2(&termination_message());
}

#[test]
fn a_config_with_a_field_unknown_here_is_refused() {
    let mut config = serde_json::to_value(worker_config()).unwrap();
    config["replay"] = json!({});
    assert!(serde_json::from_value::<WorkerConfig>(config).is_err());
}

#[test]
fn a_name_that_is_no_subject_token_is_not_read() {
    let mut checkpoint = serde_json::to_value(checkpoint()).unwrap();
    checkpoint["name"] = json!("a.b");
    assert!(serde_json::from_value::<Checkpoint>(checkpoint).is_err());
}

#[test]
fn metadata_of_a_consumer_that_is_not_ours_names_what_is_missing() {
    let error = ConsumerMetadata::from_map(|_| None).unwrap_err();
    assert_eq!(
        error.to_string(),
        "consumer metadata has no lookback.dev/owner"
    );
}

#[test]
fn metadata_of_a_consumer_that_holds_no_number_says_what_it_holds() {
    let map = BTreeMap::from([
        ("lookback.dev/owner", "o"),
        ("lookback.dev/epoch", "three"),
        ("lookback.dev/start", "1"),
    ]);
    let error = ConsumerMetadata::from_map(|key| map.get(key).copied()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "consumer metadata lookback.dev/epoch is \"three\", not a number"
    );
}
