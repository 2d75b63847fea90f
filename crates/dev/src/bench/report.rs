//! Rounds -> Markdown tables.

use std::fmt;
use std::time::Duration;

use lookback_engine::RuleSet;

use super::evaluator::Pass;
use super::input::Events;
use super::page::Histogram;
use super::worker::Work;
use crate::compare::Comparison;

const MIB: f64 = 1024.0 * 1024.0;

/// What was measured in one round.
pub(super) struct Round {
    /// The evaluator alone, detection.
    pub(super) detection: Pass,
    /// The evaluator alone, detection and correlation.
    pub(super) correlation: Pass,
    pub(super) worker: Work,
}

/// Everything there is to tell.
pub(super) struct Report<'a> {
    pub(super) rules: &'a RuleSet,
    /// Detections and correlations of the evaluator.
    pub(super) evaluated: (usize, usize),
    pub(super) events: &'a Events,
    pub(super) commit_events: u64,
    pub(super) rounds: &'a [Round],
    /// The alerts of each round.
    pub(super) stored: &'a [Comparison],
}

/// Events a second, of time and of CPU time.
#[derive(Clone, Copy)]
struct Rate {
    wall: f64,
    cpu: f64,
}

impl Rate {
    fn new(events: u64, wall: Duration, cpu: Duration) -> Self {
        Self {
            wall: events as f64 / wall.as_secs_f64(),
            cpu: events as f64 / cpu.as_secs_f64(),
        }
    }

    fn to(self, other: Self) -> Self {
        Self {
            wall: self.wall / other.wall,
            cpu: self.cpu / other.cpu,
        }
    }
}

impl Round {
    fn detection(&self) -> Rate {
        Rate::new(
            self.detection.events,
            self.detection.wall,
            self.detection.cpu,
        )
    }

    fn correlation(&self) -> Rate {
        let Pass { events, wall, cpu } = self.correlation;
        Rate::new(events, wall, cpu)
    }

    fn worker(&self) -> Rate {
        Rate::new(self.worker.events, self.worker.wall, self.worker.cpu)
    }

    /// Percent of the worker's time in a step.
    fn share(&self, step: &Histogram) -> f64 {
        100.0 * step.sum / self.worker.wall.as_secs_f64()
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (detection, correlation) = (self.detection().wall, self.correlation().wall);
        let worker = self.worker().wall;
        write!(
            f,
            "events/s: evaluator {detection:.0}, with correlation {correlation:.0}, worker {worker:.0}"
        )
    }
}

impl Report<'_> {
    fn row(
        &self,
        f: &mut fmt::Formatter<'_>,
        name: &str,
        decimals: usize,
        value: impl Fn(&Round) -> f64,
    ) -> fmt::Result {
        let mut values: Vec<f64> = self.rounds.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        let (first, last) = (values[0], values[values.len() - 1]);
        let middle = (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0;
        writeln!(
            f,
            "| {name} | {first:.decimals$} | {middle:.decimals$} | {last:.decimals$} |"
        )
    }

    fn input(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} detections and {} correlations (the evaluator alone: {} and {}); {} events of {} bytes \
             on average; {} rounds; a commit at {} events or 1 s.\n",
            self.rules.detections(),
            self.rules.correlations(),
            self.evaluated.0,
            self.evaluated.1,
            self.events.payloads.len(),
            self.events.mean_bytes(),
            self.rounds.len(),
            self.commit_events,
        )
    }

    fn measures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| measure | min | median | max |\n|---|--:|--:|--:|")?;
        self.row(f, "evaluator, detection: events/s", 0, |r| {
            r.detection().wall
        })?;
        self.row(f, "evaluator, detection: events/CPU s", 0, |r| {
            r.detection().cpu
        })?;
        self.row(f, "evaluator, with correlation: events/s", 0, |r| {
            r.correlation().wall
        })?;
        self.row(f, "evaluator, with correlation: events/CPU s", 0, |r| {
            r.correlation().cpu
        })?;
        self.row(f, "worker: events/s", 0, |r| r.worker().wall)?;
        self.row(f, "worker: events/CPU s", 0, |r| r.worker().cpu)?;
        self.row(f, "worker: % of time in the engine", 0, |r| {
            r.share(&r.worker.apply)
        })?;
        self.row(f, "worker: % of time in commits", 0, |r| {
            r.share(&r.worker.commit)
        })?;
        self.row(f, "worker: start to ready, s", 2, |r| {
            r.worker.start.as_secs_f64()
        })?;
        self.row(f, "worker: peak RSS, MiB", 0, |r| {
            r.worker.peak_memory as f64 / MIB
        })
    }

    fn ratios(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n| worker / evaluator | detection, by time | by CPU time | with correlation, by time | by CPU time |\n\
             |---|--:|--:|--:|--:|"
        )?;
        for (number, round) in (1..).zip(self.rounds) {
            let alone = round.worker().to(round.detection());
            let both = round.worker().to(round.correlation());
            writeln!(
                f,
                "| round {number} | {:.2} | {:.2} | {:.2} | {:.2} |",
                alone.wall, alone.cpu, both.wall, both.cpu
            )?;
        }
        Ok(())
    }

    fn commits(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.rounds.iter().map(|round| round.worker.commit.clone());
        let Some(commits) = Histogram::merged(all) else {
            return Ok(());
        };
        writeln!(
            f,
            "\nCommits, all rounds: {} in {:.2} s, mean {:.1} ms, p50 <= {:.1} ms, p99 <= {:.1} ms (bounds of \
             the histogram's buckets).\n",
            commits.count,
            commits.sum,
            1e3 * commits.sum / commits.count as f64,
            1e3 * commits.at_most(0.5),
            1e3 * commits.at_most(0.99),
        )
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.input(f)?;
        self.measures(f)?;
        self.ratios(f)?;
        self.commits(f)?;
        for (number, stored) in (1..).zip(self.stored) {
            writeln!(f, "round {number}: {stored}")?;
        }
        Ok(())
    }
}
