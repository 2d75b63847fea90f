//! What rules made of a file of events, for people.

use std::io::{self, Write};

use super::{Shown, Tested};
use crate::ctl::output::{Answer, Paint, Style, Table, plain};

/// Rules that never fired shown by name at most.
const SILENT: usize = 20;

impl Answer for Tested {
    fn table(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        let mut table = Table::new(["ALERTS", "MATCHES", "LEVEL", "RULE", "ID"]);
        for fired in &self.fired {
            table.row([
                fired.alerts.to_string(),
                fired.matches.to_string(),
                fired.rule.level.clone().unwrap_or_else(|| "-".to_owned()),
                fired.rule.title.clone(),
                fired.rule.id.clone(),
            ]);
        }
        table.write(out, style)?;
        self.alerts(out, style)?;
        self.silence(out)?;
        self.letters(out)?;
        self.totals(out)?;
        self.expectation(out, style)
    }
}

impl Tested {
    fn alerts(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        for fired in self.fired.iter().filter(|fired| !fired.first.is_empty()) {
            writeln!(out, "\n{}", style.paint(Paint::Strong, &fired.rule.title))?;
            for alert in &fired.first {
                writeln!(out, "  {}", plain(&sentence(alert)))?;
            }
            let more = fired.alerts - fired.first.len() as u64;
            if more > 0 {
                writeln!(out, "  and {more} more")?;
            }
        }
        Ok(())
    }

    fn silence(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.silent.is_empty() {
            return Ok(());
        }
        writeln!(out, "\n{} rules never matched:", self.silent.len())?;
        for rule in self.silent.iter().take(SILENT) {
            writeln!(out, "  {} ({})", plain(&rule.title), plain(&rule.id))?;
        }
        let more = self.silent.len().saturating_sub(SILENT);
        if more > 0 {
            writeln!(out, "  and {more} more, see -o json")?;
        }
        Ok(())
    }

    fn letters(&self, out: &mut dyn Write) -> io::Result<()> {
        if self.dead_letters.reasons.is_empty() {
            return Ok(());
        }
        writeln!(
            out,
            "\nevents that cannot be applied, dead letters in a pipeline:"
        )?;
        for (reason, count) in &self.dead_letters.reasons {
            writeln!(out, "  {reason}: {count}")?;
        }
        for letter in &self.dead_letters.first {
            writeln!(out, "  line {}: {}", letter.line, plain(&letter.error))?;
        }
        Ok(())
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "a rate is rounded for people anyway"
    )]
    fn totals(&self, out: &mut dyn Write) -> io::Result<()> {
        let seconds = self.seconds.max(1e-9);
        writeln!(
            out,
            "\n{} events in {:.2} s: {:.0} events/s, {:.1} MB/s with {} detections and {} correlations",
            self.events,
            self.seconds,
            self.events as f64 / seconds,
            self.bytes as f64 / 1e6 / seconds,
            self.detections,
            self.correlations
        )?;
        writeln!(
            out,
            "late: {}, from the future: {}, without a time: {}, groups at the end: {}",
            self.late, self.future, self.without_time, self.groups
        )?;
        for problem in &self.problems {
            writeln!(out, "cannot be used: {}", plain(&problem.to_string()))?;
        }
        writeln!(out, "engine digest {}", self.engine_digest)
    }

    fn expectation(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        let Some(differences) = &self.differences else {
            return Ok(());
        };
        if differences.is_empty() {
            return writeln!(out, "\nevery rule gave the alerts that were expected");
        }
        writeln!(out)?;
        let mut table = Table::new(["EXPECTED", "FOUND", "RULE", "ID"]);
        for it in differences {
            table.row([
                it.expected.to_string(),
                it.found.to_string(),
                it.title.clone(),
                it.id.clone(),
            ]);
        }
        table.write(out, style)
    }
}

fn sentence(alert: &Shown) -> String {
    let lines: Vec<_> = alert.lines.iter().map(u64::to_string).collect();
    let noun = if lines.len() == 1 { "line" } else { "lines" };
    let mut out = format!("{noun} {}", lines.join(", "));
    if !alert.group_key.is_empty() {
        let key = alert.group_key.iter();
        let key: Vec<_> = key
            .map(|part| format!("{}={}", part.field, part.value))
            .collect();
        out = format!("{out}; {}", key.join(", "));
    }
    if let Some(value) = &alert.value {
        out = format!("{out}; value {value}");
    }
    if let Some(window) = &alert.window {
        out = format!("{out}; {} to {}", window.from, window.to);
    }
    out
}
