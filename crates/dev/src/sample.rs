//! Alerts as the worker writes them, for tests and measurements that need some.

use std::collections::BTreeMap;

use jiff::Timestamp;
use lookback_protocol::alert::{self, AlertRecord, EventRef, HistoryEntry, NEW, RuleKind, RuleRef};
use lookback_protocol::ids::{EventOrigin, alert_id};
use lookback_protocol::names::PipelineKey;
use lookback_protocol::position::{Epoch, StreamSeq};
use serde_json::json;

/// The alert of the event `n` of `stream`.
///
/// # Panics
/// Where `n` is no number of an event of a test.
#[must_use]
pub fn alert(pipeline: &PipelineKey, stream: &str, n: u64) -> AlertRecord {
    let published = at(n);
    let origin = EventOrigin {
        stream_created: at(0),
        sequence: StreamSeq(n),
        published,
    };
    let by = "worker/edr-0".to_owned();
    AlertRecord {
        v: alert::VERSION,
        id: alert_id("r1", &[], &origin),
        state: NEW.to_owned(),
        rule: RuleRef {
            id: "r1".to_owned(),
            title: "A rule".to_owned(),
            level: Some("high".to_owned()),
            tags: vec!["attack.t1110".to_owned()],
            kind: RuleKind::Detection,
        },
        group_key: Vec::new(),
        window: None,
        events: vec![EventRef {
            stream: stream.to_owned(),
            sequence: StreamSeq(n),
            time: published,
            subject: Some("ev.a".to_owned()),
        }],
        data: json!({"event": {"n": n, "user": "alice"}}),
        metadata: BTreeMap::from([("team".to_owned(), "blue".to_owned())]),
        history: vec![HistoryEntry {
            time: published,
            transition: "create".to_owned(),
            from: None,
            to: NEW.to_owned(),
            by: by.clone(),
            reason: String::new(),
            prev_seq: 0,
        }],
        earlier: 0,
        op_id: "create".to_owned(),
        prev_seq: 0,
        pipeline: pipeline.clone(),
        epoch: Epoch(1),
        replay: None,
        engine_digest: "d".to_owned(),
        by,
    }
}

fn at(n: u64) -> Timestamp {
    let second = i64::try_from(n).expect("tests count to less");
    Timestamp::from_second(1_700_000_000 + second).expect("it is after 1970")
}
