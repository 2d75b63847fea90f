//! A status on one screen.

use std::collections::BTreeMap;
use std::io::{self, Write};

use jiff::Timestamp;

use super::view::{Aspect, Status};
use crate::api::conditions::Effect;
use crate::api::status::{ConditionStatus, Phase};
use crate::ctl::output::{Answer, Cell, Fields, Paint, Style, Table, age, moment, shorten};

/// Columns of an event's message; `kubectl describe` has all of it.
const EVENT: usize = 100;

impl Answer for Status {
    fn table(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        let now = Timestamp::now();
        self.fields(now).write(out, style)?;
        if !self.events.is_empty() {
            writeln!(out)?;
            let mut table = Table::new(["AGE", "EVENT", "MESSAGE"]);
            for event in &self.events {
                let paint = match event.kind.as_str() {
                    "Warning" => Paint::Warn,
                    _ => Paint::Faint,
                };
                table.row([
                    Cell::from(age(event.time, now)),
                    Cell::painted(&event.reason, paint),
                    Cell::from(shorten(&event.message, EVENT)),
                ]);
            }
            table.write(out, style)?;
        }
        if !self.missing.is_empty() {
            writeln!(out)?;
        }
        for missing in &self.missing {
            writeln!(
                out,
                "{}",
                style.paint(Paint::Warn, &format!("note: {missing}"))
            )?;
        }
        Ok(())
    }
}

impl Status {
    fn fields(&self, now: Timestamp) -> Fields {
        let mut fields = Fields::default();
        fields.field("Pipeline", &self.pipeline);
        fields.field("Phase", self.phase());
        if let Some(ready) = &self.ready {
            fields.field("Ready", self.ready(ready, now));
        }
        let (hindering, warnings): (Vec<&Aspect>, _) = self
            .blocking
            .iter()
            .partition(|aspect| aspect.effect != Some(Effect::Warning));
        for (name, aspects) in [("Because", hindering), ("Look at", warnings)] {
            let mut name = name;
            for aspect in aspects {
                let text = format!("{}: {}", aspect.reason, aspect.message);
                fields.field(name, Cell::painted(text, paint(aspect.effect)));
                name = "";
                // The message of a warning says it all.
                if aspect.effect != Some(Effect::Warning) {
                    fields.more(format!("  what ends it: {}", aspect.ended_by));
                }
            }
        }
        fields.field("Source", self.source(now));
        fields.field("Position", self.position(now));
        let number = |number: Option<i64>| match number {
            Some(number) => number.to_string(),
            None => "unknown".to_owned(),
        };
        let lag = match self.lag {
            Some(0) => Cell::painted("0 events", Paint::Good),
            lag => Cell::from(format!("{} events", number(lag))),
        };
        fields.field("Lag", lag);
        fields.field("Windows", format!("{} groups", number(self.groups)));
        fields.field("Rules", self.rules());
        for (at, text) in self.replay(now).into_iter().enumerate() {
            match at {
                0 => fields.field("Replay", text),
                _ => fields.more(text),
            }
        }
        fields.field("Alerts", self.alerts());
        let letters = counts(&self.dead_letters.by_state);
        let parked = self.dead_letters.by_state.get("parked");
        fields.field(
            "Dead letters",
            match parked {
                Some(1..) => Cell::painted(letters, Paint::Warn),
                _ => Cell::from(letters),
            },
        );
        fields.field("Worker", self.worker(now));
        fields
    }

    fn phase(&self) -> Cell {
        let Some(phase) = self.phase else {
            return Cell::painted("not seen by the operator yet", Paint::Warn);
        };
        let paint = match phase {
            Phase::Running => Paint::Good,
            Phase::Pending | Phase::Starting | Phase::Held | Phase::Suspended => Paint::Warn,
            Phase::Deleting => Paint::Faint,
            Phase::Stalled => Paint::Bad,
        };
        let epoch = self.epoch.map(|epoch| format!(", epoch {epoch}"));
        let behind = if self.behind {
            "; the spec is newer than this"
        } else {
            ""
        };
        let text = format!("{phase:?}{}{behind}", epoch.unwrap_or_default());
        Cell::painted(text, paint)
    }

    fn ready(&self, ready: &Aspect, now: Timestamp) -> Cell {
        let paint = match ready.status {
            ConditionStatus::True => Paint::Good,
            ConditionStatus::False => Paint::Bad,
            ConditionStatus::Unknown => Paint::Warn,
        };
        let since = age(ready.since, now);
        Cell::painted(
            format!("{:?} ({}) for {since}", ready.status, ready.reason),
            paint,
        )
    }

    fn source(&self, now: Timestamp) -> String {
        let stream = &self.source.stream;
        match (self.source.first, self.source.last) {
            (Some(first), Some(last)) => {
                let back = self
                    .source
                    .first_time
                    .map(|time| format!(", back to {} ({} ago)", moment(time), age(time, now)));
                format!(
                    "{stream}, sequences {first} to {last}{}",
                    back.unwrap_or_default()
                )
            }
            _ => stream.clone(),
        }
    }

    fn position(&self, now: Timestamp) -> String {
        let Some(position) = &self.position else {
            return "none yet".to_owned();
        };
        let of = position
            .time
            .map(|time| format!(", stored {} ({} ago)", moment(time), age(time, now)));
        let seen = position
            .observed
            .map(|time| format!("; checkpoint {} ago", age(time, now)));
        format!(
            "{}{}{}",
            position.sequence,
            of.unwrap_or_default(),
            seen.unwrap_or_default()
        )
    }

    fn rules(&self) -> Cell {
        let Some(rules) = &self.rules else {
            return Cell::from("unknown");
        };
        let mut text = format!(
            "{} detections, {} correlations",
            rules.detections, rules.correlations
        );
        if rules.problems > 0 {
            text.push_str(&format!(", {} documents cannot be used", rules.problems));
        }
        if !rules.current {
            text.push_str("; the worker does not run these yet");
        }
        match rules.problems > 0 || !rules.current {
            true => Cell::painted(text, Paint::Warn),
            false => Cell::from(text),
        }
    }

    fn replay(&self, now: Timestamp) -> Vec<Cell> {
        let past = match self.past_replays {
            0 => String::new(),
            number => format!("; {number} before it"),
        };
        let Some(replay) = &self.replay else {
            return vec![Cell::from("none")];
        };
        let percent = replay.percent.map(|percent| format!(", {percent} %"));
        let since = age(replay.since, now);
        let text = format!(
            "{} is {:?}{} for {since}{past}",
            replay.id,
            replay.phase,
            percent.unwrap_or_default()
        );
        let mut lines = vec![Cell::from(text)];
        if !replay.message.is_empty() {
            lines.push(Cell::from(&replay.message));
        }
        if let Some(plan) = &replay.plan {
            let (_, name) = self.pipeline.split_once('/').unwrap_or_default();
            let text = format!("plan {plan} waits: kubectl lookback replay approve -p {name}");
            lines.push(Cell::painted(text, Paint::Warn));
        }
        lines
    }

    fn alerts(&self) -> String {
        let counts = match (&self.alerts.by_state, self.alerts.stored) {
            (Some(by_state), _) => counts(by_state),
            (None, Some(stored)) => format!("{stored} stored"),
            (None, None) => return "unknown".to_owned(),
        };
        match (self.alerts.new, self.alerts.known) {
            (Some(new), Some(known)) => format!("{counts}; found {new}, again {known}"),
            _ => counts,
        }
    }

    fn worker(&self, now: Timestamp) -> Cell {
        let Some(worker) = &self.worker else {
            return Cell::from("no pod");
        };
        let started = worker
            .started
            .map(|time| format!(", {} old", age(time, now)));
        let node = worker.node.as_ref().map(|node| format!(", on {node}"));
        let text = format!(
            "{} is {}{}{}, {} restarts",
            worker.pod,
            if worker.ready {
                "ready"
            } else {
                worker.phase.as_str()
            },
            started.unwrap_or_default(),
            node.unwrap_or_default(),
            worker.restarts
        );
        match worker.ready {
            true => Cell::painted(text, Paint::Good),
            false => Cell::painted(text, Paint::Warn),
        }
    }
}

/// `new 3, triage 1`.
fn counts(by_state: &BTreeMap<String, u64>) -> String {
    let some: Vec<String> = by_state
        .iter()
        .filter(|(_, count)| **count > 0)
        .map(|(state, count)| format!("{state} {count}"))
        .collect();
    match some.is_empty() {
        true => "none".to_owned(),
        false => some.join(", "),
    }
}

fn paint(effect: Option<Effect>) -> Paint {
    match effect {
        Some(Effect::Stalled) => Paint::Bad,
        Some(Effect::Warning | Effect::Waiting) => Paint::Warn,
        Some(Effect::Fine) | None => Paint::Faint,
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::{stalled, status};
    use super::*;

    #[test]
    fn one_screen_names_what_blocks_and_what_ends_it() {
        let mut found = status(stalled());
        found.missing.push("NATS was not asked".to_owned());
        let mut out = Vec::new();
        found.table(&mut out, Style::default()).unwrap();
        let text = String::from_utf8(out).unwrap();
        for line in [
            "Pipeline:      prod/edr",
            "Phase:         Stalled, epoch 3",
            "Because:       StateLost: says StateLost",
            "Look at:       EventsParked: says EventsParked",
            "Lag:           10 events",
            "Windows:       7 groups",
            "Rules:         4 detections, 2 correlations, 1 documents cannot be used",
            "Replay:        none",
            "Alerts:        12 stored; found 12, again 0",
            "Dead letters:  parked 2",
            "Worker:        no pod",
            "note: NATS was not asked",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line:?} in {text}"
            );
        }
        assert!(text.contains("what ends it: restore the volume"), "{text}");
        assert!(text.lines().count() < 40, "{text}");
    }
}
