//! `kubectl lookback rules explain`.

use std::io::{self, Write};

use anyhow::{Result, ensure};
use lookback_engine::rules::{CorrelationNeeds, DetectionNeeds, Explanation, Needs, explain};
use lookback_engine::{EngineOptions, RuleProblem};
use lookback_protocol::alert::{RuleKind, RuleRef};
use lookback_protocol::config::{CorrelationConfig, Refire, TimestampFallback};
use serde::Serialize;

use super::files::{self, Paths};
use super::settings::Settings;
use crate::ctl::output::{Answer, Format, Paint, Style, plain, print};

#[derive(Debug, clap::Args)]
pub(in super::super) struct Args {
    #[command(flatten)]
    paths: Paths,
    #[command(flatten)]
    settings: Settings,
    /// Only the rule with this id or title
    #[arg(long, value_name = "ID|TITLE")]
    rule: Option<String>,
}

/// What rules need.
#[derive(Debug, Serialize)]
struct Explained {
    rules: Vec<Explanation>,
    /// Documents that cannot be used.
    problems: Vec<RuleProblem>,
    #[serde(skip)]
    settings: CorrelationConfig,
}

pub(super) fn run(args: &Args, format: Format) -> Result<()> {
    let options = args.settings.options()?;
    let mut files = args.paths.read()?;
    files::with_processing(&mut files, &options.processing)?;
    let (mut rules, problems) = explain(&files, &options);
    if let Some(wanted) = &args.rule {
        rules.retain(|it| is_called(&it.rule, wanted));
        let unusable = problems.iter().find(|it| it.rule.as_ref() == Some(wanted));
        ensure!(
            !rules.is_empty(),
            "there is no usable rule with the id or title {wanted:?}{}",
            unusable.map(|it| format!(": {it}")).unwrap_or_default()
        );
    }
    let EngineOptions { correlation, .. } = options;
    let explained = Explained {
        rules,
        problems,
        settings: correlation,
    };
    print(&explained, format)?;
    let unusable = explained.problems.len();
    ensure!(
        unusable == 0 || args.rule.is_some(),
        "{unusable} documents cannot be used"
    );
    Ok(())
}

/// Titles are compared without case.
pub(super) fn is_called(rule: &RuleRef, wanted: &str) -> bool {
    rule.id == wanted || rule.title.to_lowercase() == wanted.to_lowercase()
}

impl Answer for Explained {
    fn table(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        for (at, rule) in self.rules.iter().enumerate() {
            if at > 0 {
                writeln!(out)?;
            }
            say(out, style, rule, &self.settings)?;
        }
        if !self.problems.is_empty() {
            writeln!(out, "\ncannot be used:")?;
        }
        for problem in &self.problems {
            writeln!(out, "  {}", plain(&problem.to_string()))?;
        }
        Ok(())
    }
}

fn say(
    out: &mut dyn Write,
    style: Style,
    it: &Explanation,
    settings: &CorrelationConfig,
) -> io::Result<()> {
    let kind = match it.rule.kind {
        RuleKind::Detection => "detection",
        RuleKind::Correlation => "correlation",
    };
    let level = it.rule.level.as_deref().unwrap_or("no level");
    let title = style.paint(Paint::Strong, &it.rule.title);
    writeln!(out, "{title} ({kind}, {level})")?;
    let origin = if it.has_own_id {
        ""
    } else {
        " (made from the rule's logic: the rule has none)"
    };
    writeln!(out, "  id: {}{origin}", plain(&it.rule.id))?;
    writeln!(out, "  from: {}, document {}", it.file, it.document)?;
    match &it.needs {
        Needs::Detection(needs) => say_detection(out, needs, it.alerts),
        Needs::Correlation(needs) => say_correlation(out, needs, settings),
    }
}

fn say_detection(out: &mut dyn Write, needs: &DetectionNeeds, alerts: bool) -> io::Result<()> {
    let named = needs.logsource.iter();
    let sources: Vec<_> = named
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    match sources.as_slice() {
        [] => writeln!(out, "  runs on: every event")?,
        _ => writeln!(
            out,
            "  runs on: events of {}; an event's own fields of these names decide, else what the stream holds",
            sources.join(", ")
        )?,
    }
    for (name, sentences) in &needs.selections {
        writeln!(out, "  {}:", plain(name))?;
        for sentence in sentences {
            writeln!(out, "    {}", plain(sentence))?;
        }
    }
    writeln!(
        out,
        "  matches when: {}",
        plain(&needs.conditions.join("; or "))
    )?;
    writeln!(out, "  looks at: {}", plain(&needs.fields.join(", ")))?;
    for rule in &needs.feeds {
        writeln!(
            out,
            "  is counted by: {} ({})",
            plain(&rule.title),
            plain(&rule.id)
        )?;
    }
    let gives = match (alerts, needs.feeds.is_empty()) {
        (true, true) => "an alert for each event that matches",
        (true, false) => {
            "an alert for each event that matches, because a correlation says generate: true"
        }
        (false, false) => "no alerts of its own: they are counted by correlations",
        (false, true) => "no alerts of its own: the pipeline emits those of correlations only",
    };
    writeln!(out, "  gives: {gives}")
}

fn say_correlation(
    out: &mut dyn Write,
    needs: &CorrelationNeeds,
    settings: &CorrelationConfig,
) -> io::Result<()> {
    writeln!(out, "  type: {}", needs.r#type)?;
    for (reference, rules) in &needs.counts {
        let titles: Vec<_> = rules.iter().map(|rule| rule.title.as_str()).collect();
        writeln!(out, "  counts: {} ({reference})", plain(&titles.join(", ")))?;
    }
    let groups = if needs.group_by.is_empty() {
        "all events are one group".to_owned()
    } else {
        format!(
            "{}; an event without one of them belongs to no group",
            needs.group_by.join(", ")
        )
    };
    writeln!(out, "  groups by: {groups}")?;
    let window = match needs.gap_seconds {
        Some(gap) => format!(
            "{} of at most {} s that {gap} s of silence end",
            needs.window, needs.timespan_seconds
        ),
        None => format!("{} of {} s", needs.window, needs.timespan_seconds),
    };
    writeln!(
        out,
        "  window: {window}, at most {} entries",
        needs.max_entries
    )?;
    writeln!(out, "  fires when: {}", needs.condition)?;
    let refire = match settings.refire {
        Refire::OncePerWindow => "an alert when that begins to hold",
        Refire::EveryEvent => "an alert on every event while that holds",
    };
    writeln!(out, "  gives: {refire}")?;
    let generate = if needs.generate {
        "give alerts of their own as well (generate: true)"
    } else {
        "give no alerts of their own, unless another correlation says generate: true"
    };
    writeln!(out, "  detections it counts: {generate}")?;
    let fallback = match settings.timestamp_fallback {
        TimestampFallback::Published => "else when it was published",
        TimestampFallback::WallClock => "else the worker's clock",
        TimestampFallback::Skip => "else it counts in no window",
    };
    let fields = settings.timestamp_fields.join(", ");
    writeln!(
        out,
        "  an event's time: the first of {fields} that holds one, {fallback}"
    )?;
    writeln!(
        out,
        "  does not count: an event more than {} s older than its group's newest or outside of its window, or more than {} s after it was published",
        settings.allowed_lateness_seconds, settings.max_future_skew_seconds
    )
}
