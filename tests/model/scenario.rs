//! What every case runs: a detection, two more that only feed correlations, three correlations with
//! windows a few seconds long, and events small enough to read in a trace.

use bytes::Bytes;
use lookback_engine::{EngineOptions, RuleFile, RuleSet};
use lookback_protocol::config::{
    self, CommitConfig, CorrelationConfig, Cursor, DeadLettersConfig, Emit, Limits, LogSource,
    NatsConfig, Refire, RuleFileRef, RulesConfig, SourceConfig, TimestampFallback, WorkerConfig,
};
use lookback_protocol::names::{Owner, PipelineKey};
use lookback_protocol::position::{Epoch, StreamIdentity, StreamSeq};

use crate::sim::rng::Rng;

/// Subjects under the filter begin with this.
pub(crate) const FILTER: &str = "ev.";
pub(crate) const STREAM: &str = "EVENTS";

const RULES: &str = r"
title: Any failed logon
id: 00000000-0000-4000-8000-000000000001
logsource: {product: windows}
detection:
  selection: {kind: fail}
  condition: selection
level: informational
---
title: Failed logon
id: 11111111-0000-4000-8000-000000000001
logsource: {product: windows}
detection:
  selection: {kind: fail}
  condition: selection
level: low
---
title: Logon
id: 11111111-0000-4000-8000-000000000002
logsource: {product: windows}
detection:
  selection: {kind: ok}
  condition: selection
level: low
---
title: Many failed logons
id: 22222222-0000-4000-8000-000000000001
correlation:
  type: event_count
  rules: [11111111-0000-4000-8000-000000000001]
  group-by: [user]
  timespan: 20s
  condition: {gte: 3}
level: high
---
title: Failed logons on several hosts
id: 22222222-0000-4000-8000-000000000002
correlation:
  type: value_count
  rules: [11111111-0000-4000-8000-000000000001]
  group-by: [user]
  timespan: 30s
  condition: {field: host, gte: 3}
level: high
---
title: Failed logon and logon
id: 22222222-0000-4000-8000-000000000003
correlation:
  type: temporal
  rules:
    - 11111111-0000-4000-8000-000000000001
    - 11111111-0000-4000-8000-000000000002
  group-by: [user]
  timespan: 10s
level: high
";

pub(crate) fn rule_files() -> Vec<RuleFile> {
    vec![RuleFile {
        name: "rules/model.yml".to_owned(),
        bytes: RULES.as_bytes().to_vec(),
    }]
}

pub(crate) fn engine_options(config: &WorkerConfig) -> EngineOptions {
    EngineOptions {
        processing: config.rules.processing.clone(),
        logsource: config.source.logsource.clone(),
        correlation: config.correlation.clone(),
    }
}

/// The configuration the operator would write for `stream`, read from its first message.
pub(crate) fn config(
    stream: &StreamIdentity,
    commit: CommitConfig,
    filtered: bool,
) -> WorkerConfig {
    let key = PipelineKey::new("detections", "edr").expect("a valid name");
    let subjects = if filtered {
        vec![format!("{FILTER}>")]
    } else {
        Vec::new()
    };
    let mut config = WorkerConfig {
        v: config::VERSION,
        partition: 0,
        epoch: Epoch(1),
        cursor: Cursor::default(),
        adopt: None,
        nats: NatsConfig::default(),
        source: SourceConfig {
            stream: stream.clone(),
            consumer: key.consumer(0, Epoch(1)),
            subjects,
            logsource: LogSource {
                product: "windows".to_owned(),
                ..LogSource::default()
            },
            start: StreamSeq(1),
        },
        rules: RulesConfig {
            files: vec![RuleFileRef {
                name: "rules/model.yml".to_owned(),
                path: "/unused".to_owned(),
            }],
            processing: Vec::new(),
            engine_digest: String::new(),
        },
        correlation: CorrelationConfig {
            timestamp_fields: Vec::new(),
            timestamp_fallback: TimestampFallback::Published,
            allowed_lateness_seconds: 300,
            max_future_skew_seconds: 300,
            refire: Refire::OncePerWindow,
            emit: Emit::All,
            limits: Limits {
                groups: 1_000,
                events_per_group: 1_000,
            },
        },
        commit,
        alerts_stream: "ALERTS".to_owned(),
        dead_letters: DeadLettersConfig {
            stream: "DLQ".to_owned(),
            // Kills are what the model is made of: they must not make an event suspect.
            max_attempts: 10_000,
        },
        owner: Owner {
            cluster: "model".to_owned(),
            pipeline: key,
        },
    };
    let (rules, problems) = RuleSet::compile(&rule_files(), &engine_options(&config));
    assert!(problems.is_empty(), "the model's rules: {problems:?}");
    config.rules.engine_digest = rules.digest().to_owned();
    config
}

/// An event: mostly logons of three users, now and then something else, poison, or another subject.
pub(crate) fn event(rng: &mut Rng, poison: u64, foreign: u64) -> (&'static str, Bytes) {
    if rng.chance(foreign) {
        return ("other.app", logon("fail", "alice", "h1"));
    }
    if rng.chance(poison) {
        let bytes: &[u8] = rng.pick::<&[u8]>(&[b"", b"  ", b"{\"kind\":", b"[1]", b"\xff\xfe"]);
        return ("ev.win", Bytes::copy_from_slice(bytes));
    }
    let kind = *rng.pick(&["fail", "fail", "fail", "ok", "idle"]);
    let user = *rng.pick(&["alice", "bob", "carol"]);
    let host = *rng.pick(&["h1", "h2", "h3", "h4"]);
    ("ev.win", logon(kind, user, host))
}

pub(crate) fn logon(kind: &str, user: &str, host: &str) -> Bytes {
    let event = serde_json::json!({"kind": kind, "user": user, "host": host});
    Bytes::from(event.to_string())
}
