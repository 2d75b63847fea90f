//! `alerts show`.

use std::io::{self, Write};

use anyhow::Result;
use jiff::Timestamp;
use lookback_protocol::alert::{ARCHIVED, AlertRecord, HistoryEntry};
use lookback_protocol::workflow::sequences;
use serde::Serialize;

use super::find::{Store, find};
use super::view::{self, Alert};
use crate::ctl::context::Context;
use crate::ctl::output::{self, Answer, Fields, Format, Paint, Style, Table, age, moment, plain};

#[derive(Debug, clap::Args)]
pub(in super::super) struct Args {
    /// The id, or its first 6 characters or more
    #[arg(value_parser = view::given_id)]
    id: String,
}

/// An alert with the place of each of its steps.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    #[serde(flatten)]
    alert: Alert,
    /// What happened to it, oldest first, each with its sequence in the alerts stream.
    history: Vec<Step>,
    /// The transitions that lead on from here.
    next: Vec<Next>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Step {
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(flatten)]
    entry: HistoryEntry,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Next {
    transition: String,
    to: String,
}

pub(super) async fn run(args: Args, context: &Context, format: Format) -> Result<()> {
    let stores = Store::open_all(context).await?;
    let (store, mut alert) = find(&stores, &args.id).await?;
    if alert.state == ARCHIVED && alert.record.is_none() {
        alert.record = Some(store.alerts.archived(&alert.id).await?);
    }
    let workflow = store.alerts.workflow().await?;
    let next = workflow
        .from_state(&alert.state)
        .map(|transition| Next {
            transition: transition.spec.id.clone(),
            to: transition.spec.to.clone(),
        })
        .collect();
    let history = alert
        .record
        .as_ref()
        .map(|record| steps(record, alert.sequence))
        .unwrap_or_default();
    let shown = Shown {
        alert: Alert::new(&store.reached.owner.pipeline, alert),
        history,
        next,
    };
    output::print(&shown, format)
}

fn steps(record: &AlertRecord, stored: u64) -> Vec<Step> {
    let sequences = sequences(&record.history, Some(stored));
    let entries = record.history.iter().cloned();
    sequences
        .into_iter()
        .zip(entries)
        .map(|(sequence, entry)| Step { sequence, entry })
        .collect()
}

impl Answer for Shown {
    fn table(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        let now = Timestamp::now();
        let heading = |text: &str| style.paint(Paint::Strong, text);
        self.fields(now).write(out, style)?;
        let Some(record) = &self.alert.record else {
            return Ok(());
        };
        writeln!(out, "\n{}", heading("Events"))?;
        let mut events = Table::new(["STREAM", "SEQ", "TIME", "SUBJECT"]);
        for event in &record.events {
            events.row([
                event.stream.clone(),
                event.sequence.to_string(),
                moment(event.time),
                event.subject.clone().unwrap_or_default(),
            ]);
        }
        events.write(out, style)?;
        writeln!(out, "\n{}", heading("Data"))?;
        let data = serde_json::to_string_pretty(&record.data)?;
        for line in data.lines() {
            writeln!(out, "  {}", plain(line))?;
        }
        writeln!(out, "\n{}", heading("History"))?;
        if record.earlier > 0 {
            let pipeline = record.pipeline.name();
            writeln!(
                out,
                "{} earlier steps: kubectl lookback audit -p {pipeline} --kind history",
                record.earlier
            )?;
        }
        let mut history = Table::new(["SEQ", "TIME", "STEP", "FROM", "TO", "BY", "REASON"]);
        for step in &self.history {
            let sequence = step.sequence.map(|sequence| sequence.to_string());
            history.row([
                sequence.unwrap_or_default(),
                moment(step.entry.time),
                step.entry.transition.clone(),
                step.entry.from.clone().unwrap_or_default(),
                step.entry.to.clone(),
                step.entry.by.clone(),
                step.entry.reason.clone(),
            ]);
        }
        history.write(out, style)
    }
}

impl Shown {
    fn fields(&self, now: Timestamp) -> Fields {
        let alert = &self.alert;
        let mut fields = Fields::default();
        fields.field("Alert", &alert.id);
        fields.field("State", view::state(&alert.state));
        fields.field("Pipeline", &alert.pipeline);
        if let Some(record) = &alert.record {
            let rule = &record.rule;
            fields.field("Rule", format!("{} ({})", rule.title, rule.id));
            fields.field("Level", view::level(rule.level.as_deref()));
            if !rule.tags.is_empty() {
                fields.field("Tags", rule.tags.join(", "));
            }
            if !record.group_key.is_empty() {
                fields.field("Key", view::group_key(record));
            }
            if let Some(window) = &record.window {
                fields.field(
                    "Window",
                    format!("{} to {}", moment(window.from), moment(window.to)),
                );
            }
            let raised = alert.raised();
            fields.field(
                "Raised",
                format!("{} ({} ago)", moment(raised), age(raised, now)),
            );
            let replay = record.replay.as_ref();
            let replay = replay.map(|replay| format!(", found in replay {}", replay.id));
            let epoch = format!("{}{}", record.epoch.0, replay.unwrap_or_default());
            fields.field("Epoch", epoch);
        }
        let stored = format!("{} at sequence {}", moment(alert.stored), alert.sequence);
        fields.field("Stored", stored);
        let metadata = alert.record.iter().flat_map(|record| &record.metadata);
        for (at, (key, value)) in metadata.enumerate() {
            match at {
                0 => fields.field("Metadata", format!("{key}={value}")),
                _ => fields.more(format!("{key}={value}")),
            }
        }
        let next: Vec<String> = self
            .next
            .iter()
            .map(|next| format!("{} -> {}", next.transition, next.to))
            .collect();
        if !next.is_empty() {
            fields.field("Next", next.join(", "));
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::alert;
    use super::*;

    fn shown() -> Shown {
        let mut alert = alert("7QK2M4ZT", "triage");
        let record = alert.record.as_mut().unwrap();
        record.history.push(HistoryEntry {
            time: "2026-01-05T08:05:00Z".parse().unwrap(),
            transition: "triage".to_owned(),
            from: Some("new".to_owned()),
            to: "triage".to_owned(),
            by: "user/ann".to_owned(),
            reason: "checking".to_owned(),
            prev_seq: 5,
        });
        Shown {
            history: steps(record, 48_213),
            alert,
            next: vec![Next {
                transition: "close".to_owned(),
                to: "closed".to_owned(),
            }],
        }
    }

    #[test]
    fn each_step_has_its_sequence_time_actor_and_reason() {
        let mut out = Vec::new();
        shown().table(&mut out, Style::default()).unwrap();
        let text = String::from_utf8(out).unwrap();
        let mut lines = text.lines().rev();
        let last: Vec<&str> = lines.next().unwrap().split_whitespace().collect();
        let expected = [
            "48213",
            "2026-01-05T08:05:00Z",
            "triage",
            "new",
            "triage",
            "user/ann",
            "checking",
        ];
        assert_eq!(last, expected);
        assert!(lines.next().unwrap().starts_with("5 "), "{text}");
        assert!(text.contains("Next:      close -> closed"), "{text}");
    }

    #[test]
    fn json_has_the_same() {
        let json = serde_json::to_value(shown()).unwrap();
        assert_eq!(json["history"][0]["sequence"], 5);
        assert_eq!(json["history"][1]["by"], "user/ann");
        assert_eq!(json["next"][0]["to"], "closed");
        assert_eq!(json["record"]["rule"]["level"], "high");
    }
}
