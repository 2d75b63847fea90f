//! `kubectl lookback audit`.

use std::collections::VecDeque;
use std::io::{self, Write};

use anyhow::Result;
use clap::builder::PossibleValuesParser;
use jiff::Timestamp;
use lookback_protocol::audit::{Act, AuditKind, AuditRecord};
use serde::Serialize;

use super::context::Context;
use super::given::when;
use super::output::{Answer, Format, Items, Style, Table, moment, print};
use crate::nats::audit::{StoredRecord, page};
use crate::nats::entries::{Cursor, MAX_PAGE};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only acts of this kind
    #[arg(long, value_parser = PossibleValuesParser::new(AuditKind::ALL.map(AuditKind::as_str)))]
    kind: Option<String>,
    /// Only what was done since then: a time as 2026-01-05T08:00:00Z, or how long ago, as 90m or 7d
    #[arg(long, value_name = "TIME", value_parser = when)]
    since: Option<Timestamp>,
    /// The newest acts, at most so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
}

/// One act.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Line {
    pub(super) time: Timestamp,
    pub(super) sequence: u64,
    subject: String,
    #[serde(flatten)]
    record: Read,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum Read {
    Record(Box<AuditRecord>),
    /// Why this version cannot read it.
    Unreadable(String),
}

pub(super) async fn run(args: Args, context: &Context, format: Format) -> Result<()> {
    let pipeline = context.pipeline().await?;
    let reached = context.reach(pipeline).await?;
    let kinds = AuditKind::ALL.into_iter();
    let kind = args.kind.as_deref();
    let kind = kind.and_then(|wanted| kinds.clone().find(|kind| kind.as_str() == wanted));
    let key = &reached.owner.pipeline;
    let mut newest = VecDeque::new();
    let mut from = Cursor::default();
    loop {
        let page = page(&reached.nats, key, kind, from, MAX_PAGE).await?;
        let recent = page.items.into_iter();
        newest.extend(recent.filter(|it| args.since.is_none_or(|since| it.stored >= since)));
        let surplus = newest.len().saturating_sub(args.limit as usize);
        newest.drain(..surplus);
        match page.next {
            Some(next) => from = next,
            None => break,
        }
    }
    let items: Vec<Line> = newest.into_iter().map(Line::of).collect();
    print(&Items { items }, format)
}

impl Line {
    pub(super) fn of(stored: StoredRecord) -> Self {
        let StoredRecord {
            sequence,
            subject,
            stored,
            record,
        } = stored;
        Self {
            time: stored,
            sequence,
            subject,
            record: match record {
                Ok(record) => Read::Record(Box::new(record)),
                Err(why) => Read::Unreadable(why),
            },
        }
    }

    fn cells(&self) -> [String; 4] {
        match &self.record {
            Read::Record(record) => [
                moment(self.time),
                record.act.kind().as_str().to_owned(),
                record.by.clone(),
                what(&record.act),
            ],
            Read::Unreadable(why) => [
                moment(self.time),
                "?".to_owned(),
                "?".to_owned(),
                format!("{} cannot be read: {why}", self.subject),
            ],
        }
    }
}

impl Answer for Items<Line> {
    fn table(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        if self.items.is_empty() {
            return writeln!(out, "nothing was done");
        }
        let mut table = Table::new(["TIME", "KIND", "WHO", "WHAT"]);
        for line in &self.items {
            table.row(line.cells());
        }
        table.write(out, style)
    }
}

/// An act in one sentence.
fn what(act: &Act) -> String {
    let because = |reason: &str| match reason {
        "" => String::new(),
        reason => format!(": {reason}"),
    };
    match act {
        Act::Replay(claim) => format!(
            "began replay {} as epoch {} with plan {}",
            claim.request_id, claim.epoch, claim.plan_hash
        ),
        Act::Alert(act) => format!(
            "{} alert {} from {} to {}{}",
            act.transition,
            act.alert,
            act.from,
            act.to,
            because(&act.reason)
        ),
        Act::Archive(archived) => {
            let alert = &archived.alert;
            let last = alert.history.last();
            let reason = last.map_or_else(String::new, |step| because(&step.reason));
            format!(
                "archived alert {} of {}{reason}",
                alert.id, alert.rule.title
            )
        }
        Act::History(step) => format!(
            "step {} of alert {}: {} to {} by {}",
            step.number, step.alert, step.entry.transition, step.entry.to, step.entry.by
        ),
        Act::DeadLetter(act) => {
            let sent = act.redriven.map(|at| format!(", now message {at}"));
            format!(
                "dead letter {} from {} to {}{}{}",
                act.letter,
                act.from,
                act.to,
                sent.unwrap_or_default(),
                because(&act.reason)
            )
        }
        Act::Operator(act) => format!("{}: {}", act.reason, act.message),
    }
}

#[cfg(test)]
mod tests {
    use lookback_protocol::audit::{DeadLetterAct, OperatorAct};

    use super::*;

    #[test]
    fn acts_are_sentences() {
        let letter = Act::DeadLetter(DeadLetterAct {
            letter: "AAAA".to_owned(),
            op_id: "op".to_owned(),
            from: "redriving".to_owned(),
            to: "redriven".to_owned(),
            reason: "mended".to_owned(),
            redriven: Some(17),
        });
        assert_eq!(
            what(&letter),
            "dead letter AAAA from redriving to redriven, now message 17: mended"
        );
        let operator = Act::Operator(OperatorAct {
            key: "k".to_owned(),
            reason: "Adopted".to_owned(),
            message: "took over".to_owned(),
        });
        assert_eq!(what(&operator), "Adopted: took over");
    }
}
