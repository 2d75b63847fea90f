//! What is known of a pipeline, as programs read it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lookback_protocol::names::PipelineKey;
use lookback_protocol::replay::record::{Finished, Record, ReplayPhase};
use serde::Serialize;

use crate::api::DetectionPipeline;
use crate::api::conditions::{Effect, Reason};
use crate::api::status::{Condition, ConditionStatus, DetectionPipelineStatus, Phase};

/// A pipeline.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    /// `<namespace>/<name>`.
    pub(super) pipeline: String,
    /// One word.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) phase: Option<Phase>,
    /// The spec is newer than what all this is about.
    pub(super) behind: bool,
    /// The condition Ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ready: Option<Aspect>,
    /// Every condition that is not as it should be, the gravest first, each with what ends it.
    pub(super) blocking: Vec<Aspect>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) epoch: Option<i64>,
    /// The last event applied and committed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) position: Option<Position>,
    /// Events under the filter not yet read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lag: Option<i64>,
    /// Groups that hold a window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) groups: Option<i64>,
    pub(super) source: Source,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rules: Option<Rules>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) replay: Option<Replay>,
    /// Replays before that one which ended and are remembered in the status.
    pub(super) past_replays: usize,
    pub(super) alerts: Alerts,
    pub(super) dead_letters: DeadLetters,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) worker: Option<Worker>,
    /// Events of the object, the newest first.
    pub(super) events: Vec<Event>,
    /// What could not be looked at, and why; in words.
    pub(super) missing: Vec<String>,
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Aspect {
    pub(super) condition: String,
    pub(super) status: ConditionStatus,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) since: Timestamp,
    /// Empty when nothing needs to be done.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) ended_by: &'static str,
    #[serde(skip)]
    pub(super) effect: Option<Effect>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Position {
    pub(super) sequence: i64,
    /// When that event was stored in the source stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) time: Option<Timestamp>,
    /// When this was observed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) observed: Option<Timestamp>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Source {
    pub(super) stream: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) first: Option<i64>,
    /// The replay horizon.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) first_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rules {
    pub(super) detections: i64,
    pub(super) correlations: i64,
    /// Documents that cannot be used.
    pub(super) problems: i64,
    /// Whether the worker runs what the spec asks for.
    pub(super) current: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Replay {
    pub(super) id: String,
    pub(super) phase: ReplayPhase,
    pub(super) message: String,
    pub(super) since: Timestamp,
    /// From 0 to 100, by sequences; only while it catches up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) percent: Option<i64>,
    /// What to approve, when it waits for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) plan: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Alerts {
    /// Absent when nobody counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) by_state: Option<BTreeMap<String, u64>>,
    /// All that are not archived, as the operator counted them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stored: Option<i64>,
    /// Stored for the first time since the state file was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) new: Option<i64>,
    /// Found again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) known: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeadLetters {
    pub(super) by_state: BTreeMap<String, u64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Worker {
    pub(super) pod: String,
    pub(super) phase: String,
    pub(super) ready: bool,
    pub(super) restarts: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) started: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Event {
    pub(super) time: Timestamp,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) reason: String,
    pub(super) message: String,
}

impl Status {
    /// As the API server has it.
    pub(super) fn of(pipeline: &DetectionPipeline, key: &PipelineKey) -> Self {
        let status = pipeline.status.clone().unwrap_or_default();
        let partition = status.partitions.first();
        let source = status.source.as_ref();
        let alerts = status.alerts.as_ref();
        let dead_letters = status.dead_letters.as_ref();
        Self {
            pipeline: key.to_string(),
            phase: status.phase,
            behind: status.observed_generation != pipeline.metadata.generation,
            ready: condition(&status, "Ready"),
            blocking: blocking(&status),
            epoch: status.epoch,
            position: partition.map(|partition| Position {
                sequence: partition.position,
                time: partition.position_time.map(|time| time.0),
                observed: partition.observed_time.map(|time| time.0),
            }),
            lag: partition.and_then(|partition| partition.lag),
            groups: partition.map(|partition| partition.groups),
            source: Source {
                stream: pipeline.spec.source.stream.clone(),
                first: source.map(|source| source.first_sequence),
                first_time: source.and_then(|source| source.first_time.map(|time| time.0)),
                last: source.map(|source| source.last_sequence),
            },
            rules: status.rules.as_ref().map(|rules| Rules {
                detections: rules.detections,
                correlations: rules.correlations,
                problems: rules.problem_count,
                current: rules.desired.is_some() && rules.desired == rules.loaded,
            }),
            replay: status.replay.as_ref().map(|record| {
                let position = partition.map(|partition| partition.position);
                replay(record, position)
            }),
            past_replays: past_replays(&status),
            alerts: Alerts {
                by_state: alerts
                    .map(|alerts| counts(&alerts.by_state))
                    .filter(|counts| !counts.is_empty()),
                stored: alerts.map(|alerts| alerts.stored),
                new: alerts.map(|alerts| alerts.new),
                known: alerts.map(|alerts| alerts.known),
            },
            dead_letters: DeadLetters {
                by_state: dead_letters
                    .map(|found| counts(&found.by_state()))
                    .unwrap_or_default(),
            },
            worker: None,
            events: Vec::new(),
            missing: Vec::new(),
        }
    }
}

fn condition(status: &DetectionPipelineStatus, name: &str) -> Option<Aspect> {
    let mut conditions = status.conditions.iter();
    let found = conditions.find(|condition| condition.r#type == name)?;
    Some(aspect(found))
}

/// `Ready`, `Reconciling` and `Stalled` only repeat the reasons of others.
fn blocking(status: &DetectionPipelineStatus) -> Vec<Aspect> {
    let own = |condition: &&Condition| {
        !matches!(
            condition.r#type.as_str(),
            "Ready" | "Reconciling" | "Stalled"
        )
    };
    let mut found: Vec<Aspect> = status
        .conditions
        .iter()
        .filter(own)
        .map(aspect)
        .filter(|aspect| aspect.effect.is_some_and(|effect| effect != Effect::Fine))
        .collect();
    found.sort_by_key(|aspect| std::cmp::Reverse(aspect.effect));
    found
}

/// A newer operator may give reasons that this version does not know; they say what their message says.
fn aspect(condition: &Condition) -> Aspect {
    let mut reasons = Reason::ALL.iter();
    let reason = reasons.find(|reason| reason.to_string() == condition.reason);
    let row = reason.map(|reason| reason.row());
    Aspect {
        condition: condition.r#type.clone(),
        status: condition.status,
        reason: condition.reason.clone(),
        message: condition.message.clone(),
        since: condition.last_transition_time.0,
        ended_by: row.map_or("", |row| row.ended_by),
        effect: row.map(|row| row.effect),
    }
}

/// The history already holds the replay of the status, once that has ended.
fn past_replays(status: &DetectionPipelineStatus) -> usize {
    let current = status.replay.as_ref().map(Record::finished);
    let is_current = |past: &&Finished| {
        let current = current.as_ref();
        current.is_some_and(|it| (&it.id, &it.fingerprint) == (&past.id, &past.fingerprint))
    };
    let history = status.replay_history.iter();
    history.filter(|past| !is_current(past)).count()
}

pub(super) fn replay(record: &Record, position: Option<i64>) -> Replay {
    let plan = record.plan.as_ref();
    Replay {
        id: record.request.id.to_string(),
        phase: record.phase,
        message: record.message.clone(),
        since: record.since,
        percent: plan
            .filter(|_| record.phase == ReplayPhase::CatchingUp)
            .zip(position)
            .map(|(plan, position)| percent(plan.start.0, plan.target.0, unsigned(position))),
        plan: plan
            .filter(|_| record.phase == ReplayPhase::AwaitingApproval)
            .map(|plan| plan.hash.clone()),
    }
}

/// How much of `start..=target` lies at or below `position`.
pub(super) fn percent(start: u64, target: u64, position: u64) -> i64 {
    let all = (target + 1).saturating_sub(start);
    let done = (position + 1).saturating_sub(start).min(all);
    match all {
        0 => 100,
        _ => i64::try_from(u128::from(done) * 100 / u128::from(all)).unwrap_or(100),
    }
}

fn counts(by_state: &BTreeMap<String, i64>) -> BTreeMap<String, u64> {
    let counts = by_state.iter();
    counts
        .map(|(state, count)| (state.clone(), unsigned(*count)))
        .collect()
}

pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    pub(in super::super) fn status(given: Value) -> Status {
        let pipeline: DetectionPipeline = serde_json::from_value(json!({
            "apiVersion": "lookback.dev/v1alpha1", "kind": "DetectionPipeline",
            "metadata": {"name": "edr", "namespace": "prod", "generation": 2},
            "spec": {
                "nats": {"urls": ["nats://nats:4222"]},
                "source": {"stream": "EVENTS", "logsource": {"product": "windows"}},
                "rules": {"configMaps": [{"name": "rules"}]},
            },
            "status": given,
        }))
        .unwrap();
        Status::of(&pipeline, &PipelineKey::new("prod", "edr").unwrap())
    }

    pub(in super::super) fn stalled() -> Value {
        let condition = |kind: &str, status: &str, reason: &str| {
            json!({
                "type": kind, "status": status, "reason": reason, "message": format!("says {reason}"),
                "lastTransitionTime": "2026-01-05T08:00:00Z",
            })
        };
        json!({
            "phase": "Stalled", "observedGeneration": 2, "epoch": 3,
            "conditions": [
                condition("Ready", "False", "StateLost"),
                condition("NatsReady", "True", "Connected"),
                condition("DeadLettersClear", "False", "EventsParked"),
                condition("StateReady", "False", "StateLost"),
            ],
            "source": {"firstSequence": 5, "firstTime": "2026-01-01T00:00:00Z", "lastSequence": 900},
            "rules": {"desired": "d", "loaded": "d", "detections": 4, "correlations": 2, "problemCount": 1},
            "partitions": [{"id": 0, "position": 890, "positionTime": "2026-01-05T07:59:00Z", "lag": 10,
                "groups": 7, "incarnation": "x", "observedTime": "2026-01-05T08:00:00Z"}],
            "alerts": {"stored": 12, "new": 12, "known": 0},
            "deadLetters": {"parked": 2},
        })
    }

    #[test]
    fn what_blocks_is_named_with_what_ends_it_the_gravest_first() {
        let found = status(stalled());
        let blocking: Vec<&str> = found.blocking.iter().map(|it| it.reason.as_str()).collect();
        assert_eq!(blocking, ["StateLost", "EventsParked"]);
        assert!(found.blocking[0].ended_by.contains("request a replay"));
        assert_eq!(found.ready.unwrap().reason, "StateLost");
    }

    #[test]
    fn an_object_that_the_operator_has_not_seen_is_behind() {
        assert!(status(json!({"observedGeneration": -1})).behind);
        assert!(!status(stalled()).behind);
    }

    #[test]
    fn a_replay_that_ended_is_not_one_before_itself() {
        let times = json!({
            "requestedAt": "2026-01-05T08:00:00Z", "since": "2026-01-05T08:01:00Z",
            "finishedAt": "2026-01-05T08:01:00Z",
        });
        let replay = |id: &str, start: Value| {
            let mut replay = times.clone();
            replay["id"] = json!(id);
            replay["phase"] = json!("Completed");
            replay["fingerprint"] = json!(format!("h-{id}"));
            replay["statePolicy"] = json!("Auto");
            replay["outputs"] = json!("Live");
            replay["onTruncated"] = json!("Fail");
            replay["approval"] = json!("Automatic");
            replay["start"] = start;
            replay
        };
        let current = replay("second", json!({"fromSequence": 7}));
        let fingerprint = {
            let record: Record = serde_json::from_value(current.clone()).unwrap();
            record.finished().fingerprint
        };
        let mut second = replay("second", json!(7));
        second["fingerprint"] = json!(fingerprint);
        let history = json!([replay("first", json!(1)), second]);
        let found = status(json!({"replay": current, "replayHistory": history}));
        assert_eq!(found.past_replays, 1);
    }

    #[test]
    fn progress_is_what_lies_behind_of_the_range() {
        assert_eq!(percent(11, 20, 5), 0);
        assert_eq!(percent(11, 20, 10), 0);
        assert_eq!(percent(11, 20, 15), 50);
        assert_eq!(percent(11, 20, 20), 100);
        assert_eq!(percent(11, 20, 99), 100);
        assert_eq!(percent(11, 10, 0), 100);
    }

    #[test]
    fn the_json_of_a_status_is_as_documented() {
        let json = serde_json::to_value(status(stalled())).unwrap();
        assert_eq!(json["position"]["sequence"], 890);
        assert_eq!(
            json["blocking"][0]["endedBy"].as_str().map(str::is_empty),
            Some(false)
        );
        assert_eq!(json["deadLetters"]["byState"]["parked"], 2);
        assert_eq!(json["rules"]["current"], true);
        assert_eq!(json["missing"], json!([]));
    }
}
