//! An alert as it is printed.

use std::collections::BTreeSet;

use jiff::Timestamp;
use lookback_protocol::alert::{AlertRecord, RuleRef};
use lookback_protocol::names::PipelineKey;
use serde::Serialize;

use crate::ctl::output::{Cell, Paint, Table, age, shorten};
use crate::nats::alerts::StoredAlert;

/// Characters of an id that are shown at least where ids are short.
const SHORT_ID: usize = 8;
/// Columns of a rule's title and of a group key at most, in tables.
const COLUMNS: usize = 40;
/// The heading of every table of alerts.
pub(super) const HEADER: [&str; 8] = ["ID", "STATE", "SEV", "RULE", "KEY", "AGE", "SEQ", "BY"];

/// An alert: where it stands, and its record.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Alert {
    /// Its id.
    pub(super) id: String,
    /// `<namespace>/<name>`.
    pub(super) pipeline: String,
    /// Its state.
    pub(super) state: String,
    /// The sequence of this version in the alerts stream; what `--expect` takes.
    pub(super) sequence: u64,
    /// When the server stored this version.
    pub(super) stored: Timestamp,
    /// The subject it stands under.
    pub(super) subject: String,
    /// The record as it is stored; that of an archived alert comes from the audit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) record: Option<AlertRecord>,
}

impl Alert {
    pub(super) fn new(pipeline: &PipelineKey, stored: StoredAlert) -> Self {
        let StoredAlert {
            record,
            id,
            state,
            subject,
            sequence,
            time,
        } = stored;
        Self {
            id,
            pipeline: pipeline.to_string(),
            state,
            sequence,
            stored: time,
            subject,
            record,
        }
    }

    /// When the alert came up: the published time of its event, where the record still says it.
    pub(super) fn raised(&self) -> Timestamp {
        self.record.as_ref().map_or(self.stored, raised)
    }

    pub(super) fn rule(&self) -> Option<&RuleRef> {
        self.record.as_ref().map(|record| &record.rule)
    }

    /// Its row under [`HEADER`].
    pub(super) fn row(&self, id: &str, now: Timestamp) -> [Cell; 8] {
        let record = self.record.as_ref();
        let title = self.rule().map_or("", |rule| &rule.title);
        [
            Cell::from(id),
            state(&self.state),
            level(self.rule().and_then(|rule| rule.level.as_deref())),
            Cell::from(shorten(title, COLUMNS)),
            Cell::from(shorten(&record.map(group_key).unwrap_or_default(), COLUMNS)),
            Cell::from(age(self.raised(), now)),
            Cell::from(self.sequence.to_string()),
            Cell::from(record.map_or("", |record| &record.by)),
        ]
    }
}

pub(super) fn raised(record: &AlertRecord) -> Timestamp {
    let first = record.history.first().filter(|_| record.earlier == 0);
    let event = record.events.last().map(|event| event.time);
    first
        .map(|step| step.time)
        .or(event)
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

/// `user=alice,host=a`.
pub(super) fn group_key(record: &AlertRecord) -> String {
    let parts: Vec<String> = record
        .group_key
        .iter()
        .map(|part| format!("{}={}", part.field, part.value))
        .collect();
    parts.join(",")
}

/// A state, in a colour where every workflow has it.
pub(super) fn state(state: &str) -> Cell {
    match state {
        "new" => Cell::painted(state, Paint::Warn),
        "archived" | "closed" => Cell::painted(state, Paint::Faint),
        _ => Cell::from(state),
    }
}

/// Sigma's level, in a colour.
pub(super) fn level(level: Option<&str>) -> Cell {
    match level {
        Some(level @ ("critical" | "high")) => Cell::painted(level, Paint::Bad),
        Some(level @ "medium") => Cell::painted(level, Paint::Warn),
        other => Cell::from(other.unwrap_or_default()),
    }
}

/// A table of alerts.
pub(super) fn table(alerts: &[Alert], full_ids: bool, now: Timestamp) -> Table {
    let ids: Vec<&str> = alerts.iter().map(|alert| alert.id.as_str()).collect();
    let characters = match full_ids {
        true => usize::MAX,
        false => short(&ids),
    };
    let mut table = Table::new(HEADER);
    for alert in alerts {
        table.row(alert.row(cut(&alert.id, characters), now));
    }
    table
}

/// How many characters tell these ids apart, [`SHORT_ID`] at least.
fn short(ids: &[&str]) -> usize {
    let ids: BTreeSet<&str> = ids.iter().copied().collect();
    let neighbours = ids.iter().zip(ids.iter().skip(1));
    let needed = neighbours.map(|(a, b)| common(a, b) + 1).max();
    needed.unwrap_or(0).max(SHORT_ID)
}

fn common(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count()
}

fn cut(id: &str, characters: usize) -> &str {
    match id.char_indices().nth(characters) {
        Some((at, _)) => id.get(..at).unwrap_or(id),
        None => id,
    }
}

/// What a person gives for an id: of whatever case, and at least six characters of it.
pub(super) fn given_id(text: &str) -> Result<String, String> {
    let id = text.trim().to_ascii_uppercase();
    let fits = id.chars().all(|c| c.is_ascii_alphanumeric());
    match id.len() {
        0..6 => Err("give at least 6 characters of the id".to_owned()),
        _ if !fits => Err("an id has letters and digits only".to_owned()),
        _ => Ok(id),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(in super::super) fn alert(id: &str, state: &str) -> Alert {
        let record = json!({
            "v": 1, "id": id, "state": state,
            "rule": {"id": "r", "title": "規則 brute force", "level": "high", "tags": [], "kind": "correlation"},
            "groupKey": [{"field": "user", "value": "alice\u{1b}[2J"}],
            "events": [{"stream": "EVENTS", "sequence": 7, "time": "2026-01-05T08:00:00Z"}],
            "data": null, "metadata": {},
            "history": [{"time": "2026-01-05T08:00:00Z", "transition": "create", "to": "new", "by": "worker/edr-0"}],
            "opId": "o", "prevSeq": 0, "pipeline": {"namespace": "prod", "name": "edr"},
            "epoch": 1, "engineDigest": "d", "by": "worker/edr-0",
        });
        Alert {
            id: id.to_owned(),
            pipeline: "prod/edr".to_owned(),
            state: state.to_owned(),
            sequence: 48_213,
            stored: "2026-01-05T08:00:01Z".parse().unwrap(),
            subject: format!("lookback.v1.prod.edr.alert.{state}.{id}"),
            record: Some(serde_json::from_value(record).unwrap()),
        }
    }

    fn written(alerts: &[Alert], full_ids: bool) -> String {
        let mut out = Vec::new();
        let now = "2026-01-05T08:03:00Z".parse().unwrap();
        table(alerts, full_ids, now)
            .write(&mut out, crate::ctl::output::Style::default())
            .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_alert_is_one_row_and_cannot_write_to_a_terminal() {
        let expected = "\
ID        STATE  SEV   RULE              KEY                    AGE  SEQ    BY
7QK2M4ZT  new    high  規則 brute force  user=alice\\u{1b}[2J  3m   48213  worker/edr-0
";
        let shown = written(&[alert("7QK2M4ZTABCDEFGHIJKLMNOPQR", "new")], false);
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(squeezed(&shown), squeezed(expected));
        let columns: Vec<usize> = shown
            .lines()
            .map(|line| crate::ctl::output::width(line.rsplit_once("  ").unwrap().0))
            .collect();
        assert_eq!(columns[0], columns[1], "{shown}");
    }

    #[test]
    fn short_ids_have_as_many_characters_as_tell_them_apart() {
        assert_eq!(short(&[]), 8);
        assert_eq!(short(&["ABCDEFGHIJ", "ABCDEFGZZZ"]), 8);
        assert_eq!(short(&["ABCDEFGHIJ", "ABCDEFGHIK", "B"]), 10);
        assert_eq!(short(&["ABCDEFGHIJ", "ABCDEFGHIJ"]), 8);
        let both = [alert("ABCDEFGHIJKL", "new"), alert("ABCDEFGHIJZZ", "new")];
        assert!(written(&both, false).contains("ABCDEFGHIJK "));
        assert!(written(&both, true).contains("ABCDEFGHIJKL "));
    }

    #[test]
    fn an_id_may_be_given_in_lower_case_and_not_shorter_than_six() {
        assert_eq!(given_id("7qk2m4"), Ok("7QK2M4".to_owned()));
        assert!(given_id("7qk2m").is_err());
        assert!(given_id("7qk2m4.*").is_err());
    }

    #[test]
    fn the_json_of_an_alert_is_as_documented() {
        let json = serde_json::to_value(alert("7QK2M4ZT", "new")).unwrap();
        let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
        let expected = [
            "id", "pipeline", "record", "sequence", "state", "stored", "subject",
        ];
        let mut keys = keys;
        keys.sort();
        assert_eq!(keys, expected);
    }
}
