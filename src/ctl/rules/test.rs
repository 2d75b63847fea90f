//! `kubectl lookback rules test`.

mod say;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail, ensure};
use lookback_engine::{RuleProblem, RuleSet};
use lookback_protocol::alert::{AlertRecord, RuleRef, Window};
use lookback_protocol::ids::GroupField;
use serde::Serialize;

use super::events::Events;
use super::expect::{self, Difference};
use super::files::{self, Paths};
use super::settings::Settings;
use crate::ctl::output::{Format, print, progress};
use crate::worker::trial::{Outcome, Refused, Trial};

/// Events in a batch, as many as a worker commits at once.
const BATCH: usize = 5_000;

#[derive(Debug, clap::Args)]
pub(in super::super) struct Args {
    #[command(flatten)]
    paths: Paths,
    #[command(flatten)]
    settings: Settings,
    /// The events, one JSON object a line; - for standard input
    #[arg(long, value_name = "FILE")]
    events: PathBuf,
    /// A field with the time at which an event counts as published, instead of the event's own time
    #[arg(long, value_name = "FIELD")]
    published_field: Option<String>,
    /// How many alerts of a rule to show
    #[arg(long, default_value_t = 3, value_name = "N")]
    show: usize,
    /// A map from ids or titles to numbers of alerts; exit code 1 when the run gives others. Rules that
    /// are not named must give none
    #[arg(long, value_name = "FILE")]
    expect: Option<PathBuf>,
}

/// What rules made of a file of events.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Tested {
    events: u64,
    bytes: u64,
    /// In the engine, reading the file not included.
    seconds: f64,
    engine_digest: String,
    detections: usize,
    correlations: usize,
    /// Rules that gave alerts or matched, in the order of the set.
    fired: Vec<Fired>,
    /// Rules that did not.
    silent: Vec<RuleRef>,
    /// Events that cannot be applied: a worker parks them.
    dead_letters: DeadLetters,
    /// Events older than their group allowed.
    late: u64,
    /// Events too far ahead of their published time.
    future: u64,
    /// Events that name no time.
    without_time: u64,
    /// Groups that hold a window at the end.
    groups: u64,
    /// Documents that cannot be used.
    problems: Vec<RuleProblem>,
    /// Where the counts are not what was expected; absent when nothing was.
    differences: Option<Vec<Difference>>,
}

/// One rule that gave alerts, or matched.
#[derive(Debug, Serialize)]
struct Fired {
    rule: RuleRef,
    alerts: u64,
    /// Events that matched; 0 for correlations.
    matches: u64,
    /// The first alerts.
    first: Vec<Shown>,
}

/// One alert.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    /// The lines of its events in the file, the one that gave the alert last.
    lines: Vec<u64>,
    group_key: Vec<GroupField>,
    window: Option<Window>,
    /// Of correlations.
    value: Option<serde_json::Value>,
}

#[derive(Debug, Default, Serialize)]
struct DeadLetters {
    reasons: BTreeMap<String, u64>,
    /// The first of them.
    first: Vec<DeadLetter>,
}

#[derive(Debug, Serialize)]
struct DeadLetter {
    line: u64,
    reason: String,
    error: String,
}

pub(super) fn run(args: &Args, format: Format) -> Result<()> {
    let options = args.settings.options_to_run()?;
    let expected = args.expect.as_deref().map(expect::read).transpose()?;
    let mut files = args.paths.read()?;
    files::with_processing(&mut files, &options.processing)?;
    let (rules, problems) = RuleSet::compile(&files, &options);
    ensure!(
        !rules.rules().is_empty(),
        "there is no usable rule{}",
        problems
            .first()
            .map(|it| format!(": {it}"))
            .unwrap_or_default()
    );
    let fields = match &args.published_field {
        Some(field) => vec![field.clone()],
        None => options.correlation.timestamp_fields.clone(),
    };
    let events = Events::open(&args.events, fields)?;
    let rules = Arc::new(rules);
    let mut run = Run::new(&rules, args.show)?;
    let (untimed, bytes) = run.through(events)?;
    let mut tested = run.finish(&rules, problems);
    (tested.without_time, tested.bytes) = (untimed, bytes);
    if let Some(expected) = &expected {
        let counts: Vec<u64> = run.counts.iter().map(|count| count.alerts).collect();
        tested.differences = Some(expect::compare(expected, rules.rules(), &counts)?);
    }
    let source = match args.events.as_os_str() == "-" {
        true => "standard input".to_owned(),
        false => args.events.display().to_string(),
    };
    ensure!(tested.events > 0, "there is no event in {source}");
    print(&tested, format)?;
    let refused: u64 = tested.dead_letters.reasons.values().sum();
    ensure!(
        refused < tested.events,
        "no event in {source} can be applied: give one JSON object a line"
    );
    match tested.differences.as_deref() {
        None => Ok(()),
        // A rule that is not there gives no alert, which may well be what is expected of it.
        Some([]) => match tested.problems.len() {
            0 => Ok(()),
            unusable => bail!("{unusable} documents cannot be used"),
        },
        Some([one]) => bail!(
            "rule {} gave {} alerts instead of {}",
            one.title,
            one.found,
            one.expected
        ),
        Some(many) => bail!(
            "{} rules gave other numbers of alerts than expected",
            many.len()
        ),
    }
}

/// A run and what it found.
struct Run {
    trial: Trial,
    /// Ids are unique in a set.
    places: BTreeMap<String, usize>,
    counts: Vec<Count>,
    show: usize,
    events: u64,
    dead_letters: DeadLetters,
    late: u64,
    skewed: u64,
    engine: Duration,
}

#[derive(Default)]
struct Count {
    alerts: u64,
    first: Vec<Shown>,
}

impl Run {
    fn new(rules: &Arc<RuleSet>, show: usize) -> Result<Self> {
        let ids = rules.rules().iter().map(|rule| rule.id.clone());
        Ok(Self {
            trial: Trial::new(Arc::clone(rules)).map_err(|error| anyhow!(error))?,
            places: ids.zip(0..).collect(),
            counts: rules.rules().iter().map(|_| Count::default()).collect(),
            show,
            events: 0,
            dead_letters: DeadLetters::default(),
            late: 0,
            skewed: 0,
            engine: Duration::ZERO,
        })
    }

    /// Gives events without a time, and bytes.
    fn through(&mut self, mut events: Events) -> Result<(u64, u64)> {
        let bar = progress("applying events", None);
        loop {
            let batch = events.next(BATCH)?;
            if batch.is_empty() {
                break;
            }
            let began = Instant::now();
            let outcome = self.trial.apply(&batch).map_err(|error| anyhow!(error))?;
            self.engine += began.elapsed();
            self.events += batch.len() as u64;
            self.take(outcome);
            bar.inc(batch.len() as u64);
        }
        bar.finish_and_clear();
        Ok((events.untimed, events.bytes))
    }

    fn take(&mut self, outcome: Outcome) {
        let Outcome {
            alerts,
            refused,
            late,
            skewed,
        } = outcome;
        self.late += late;
        self.skewed += skewed;
        for alert in alerts {
            let place = self.places.get(&alert.rule.id);
            let Some(count) = place.and_then(|at| self.counts.get_mut(*at)) else {
                continue;
            };
            count.alerts += 1;
            if count.first.len() < self.show {
                count.first.push(shown(alert));
            }
        }
        for Refused {
            sequence,
            reason,
            error,
        } in refused
        {
            let reasons = &mut self.dead_letters.reasons;
            *reasons.entry(reason.to_string()).or_default() += 1;
            if self.dead_letters.first.len() < self.show {
                self.dead_letters.first.push(DeadLetter {
                    line: sequence.0,
                    reason: reason.to_string(),
                    error,
                });
            }
        }
    }

    fn finish(&mut self, rules: &RuleSet, problems: Vec<RuleProblem>) -> Tested {
        let (mut fired, mut silent) = (Vec::new(), Vec::new());
        let counted = self.counts.iter_mut().zip(self.trial.matches());
        for (rule, (count, matches)) in rules.rules().iter().zip(counted) {
            if count.alerts == 0 && *matches == 0 {
                silent.push(rule.clone());
                continue;
            }
            fired.push(Fired {
                rule: rule.clone(),
                alerts: count.alerts,
                matches: *matches,
                first: std::mem::take(&mut count.first),
            });
        }
        Tested {
            events: self.events,
            bytes: 0,
            seconds: self.engine.as_secs_f64(),
            engine_digest: rules.digest().to_owned(),
            detections: rules.detections(),
            correlations: rules.correlations(),
            fired,
            silent,
            dead_letters: std::mem::take(&mut self.dead_letters),
            late: self.late,
            future: self.skewed,
            without_time: 0,
            groups: self.trial.groups(),
            problems,
            differences: None,
        }
    }
}

fn shown(mut alert: AlertRecord) -> Shown {
    Shown {
        lines: alert.events.iter().map(|event| event.sequence.0).collect(),
        group_key: alert.group_key,
        window: alert.window,
        value: alert.data.get_mut("value").map(serde_json::Value::take),
    }
}
