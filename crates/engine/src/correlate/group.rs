//! One group's window, and how one event changes it.

use std::collections::VecDeque;

use lookback_protocol::config::{CorrelationConfig, Refire};
use rsigma_eval::correlation::{WindowDecision, apply_window_open};
use rsigma_eval::{CompiledCorrelation, WindowState};
use rsigma_parser::WindowMode;

use super::EventPoint;
use super::value::Counted;
use crate::rules::Correlation;

/// The events an alert refers to.
pub(super) const MAX_POINTS: usize = 10;

/// A window and what is known about it. The bytes of a row hold `newest`, `touched`, `points` and
/// `window`; the rest follows from these.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) window: WindowState,
    /// The newest event time counted, in seconds.
    pub(super) newest: i64,
    /// The latest of all published times counted, in seconds.
    pub(super) touched: i64,
    /// The newest events counted, in order of arrival.
    pub(super) points: VecDeque<EventPoint>,
    /// Whether the condition holds for `window`, once known.
    holds: Option<bool>,
    /// The event being applied, and whether the condition held before it.
    current: Option<(u64, bool)>,
}

/// One match, on its way into a window.
#[derive(Debug)]
pub(super) struct Hit {
    pub(super) point: EventPoint,
    /// In seconds.
    pub(super) published: i64,
    /// Which of the correlation's rule references matched.
    pub(super) reference: usize,
    pub(super) value: Counted,
}

/// What became of a [`Hit`].
#[derive(Debug, PartialEq)]
pub(super) enum Touch {
    /// Too old; nothing changed.
    Late,
    /// The window changed.
    Counted {
        /// The aggregated value, when this gives an alert.
        fired: Option<f64>,
    },
}

impl Group {
    /// The group that `hit` opens.
    pub(super) fn opened(hit: &Hit, correlation: &CompiledCorrelation) -> Self {
        Self::restored(
            hit.point.time.as_second(),
            hit.published,
            VecDeque::new(),
            WindowState::new_for(correlation.correlation_type),
        )
    }

    pub(super) fn restored(
        newest: i64,
        touched: i64,
        points: VecDeque<EventPoint>,
        window: WindowState,
    ) -> Self {
        Self {
            window,
            newest,
            touched,
            points,
            holds: None,
            current: None,
        }
    }

    /// The last published second at which the group is still there.
    pub(super) fn deadline(&self, correlation: &CompiledCorrelation, lateness: i64) -> i64 {
        let reach = match correlation.window_mode {
            WindowMode::Sliding | WindowMode::Tumbling => timespan(correlation),
            WindowMode::Session => gap(correlation),
        };
        self.newest
            .max(self.touched)
            .saturating_add(reach)
            .saturating_add(lateness)
    }

    /// Counts `hit`, unless it is late.
    pub(super) fn touch(
        &mut self,
        hit: Hit,
        correlation: &Correlation,
        settings: &CorrelationConfig,
    ) -> Touch {
        let compiled = &correlation.compiled;
        let second = hit.point.time.as_second();
        if self.is_late(second, compiled, settings.allowed_lateness_seconds) {
            return Touch::Late;
        }
        let held = self.holds.unwrap_or_else(|| self.value(compiled).is_some());
        self.newest = self.newest.max(second);
        self.touched = self.touched.max(hit.published);
        let opened_anew = self.open(compiled);
        let sequence = hit.point.sequence.0;
        let held_before = match self.current {
            Some((current, held_before)) if current == sequence => held_before,
            _ => held && !opened_anew,
        };
        self.current = Some((sequence, held_before));
        self.push(hit, compiled);
        self.window.truncate_oldest(
            correlation.max_entries,
            compiled.window_mode == WindowMode::Session,
        );
        let value = self.value(compiled);
        self.holds = Some(value.is_some());
        let fires = match settings.refire {
            Refire::OncePerWindow => !held_before,
            Refire::EveryEvent => true,
        };
        Touch::Counted {
            fired: value.filter(|_| fires),
        }
    }

    fn is_late(&self, second: i64, correlation: &CompiledCorrelation, allowed: i64) -> bool {
        let behind = self.newest - second;
        if behind <= 0 {
            return false;
        }
        let timespan = timespan(correlation);
        let outside = match correlation.window_mode {
            WindowMode::Sliding => behind > timespan,
            WindowMode::Tumbling => second.div_euclid(timespan) != self.newest.div_euclid(timespan),
            WindowMode::Session => {
                let start = self.window.earliest_timestamp().unwrap_or(self.newest);
                behind > timespan || start - second > gap(correlation)
            }
        };
        outside || behind > allowed
    }

    /// Moves the window to the group's newest event; true when nothing of it is left.
    fn open(&mut self, correlation: &CompiledCorrelation) -> bool {
        let decision = apply_window_open(
            &mut self.window,
            self.newest,
            correlation.timespan_secs,
            correlation.window_mode,
            correlation.gap_secs,
        );
        if correlation.window_mode == WindowMode::Sliding {
            let start = self.newest - timespan(correlation);
            self.points.retain(|point| point.time.as_second() >= start);
        } else if decision == WindowDecision::Reset {
            self.points.clear();
        }
        self.window.is_empty()
    }

    fn push(&mut self, hit: Hit, correlation: &CompiledCorrelation) {
        let second = hit.point.time.as_second();
        match hit.value {
            Counted::Nothing => return,
            Counted::Distinct(value) => self.window.push_value_count(second, value),
            Counted::Number(value) => self.window.push_numeric(second, value),
            Counted::Event => {
                self.window.push_event_count(second);
                let reference = &correlation.rule_refs[hit.reference];
                self.window.push_temporal(second, reference);
            }
        }
        settle_last(&mut self.window, &correlation.rule_refs[hit.reference]);
        if self.points.back() != Some(&hit.point) {
            if self.points.len() == MAX_POINTS {
                self.points.pop_front();
            }
            self.points.push_back(hit.point);
        }
    }

    /// The aggregated value, if the condition holds.
    fn value(&self, correlation: &CompiledCorrelation) -> Option<f64> {
        self.window.check_condition(
            &correlation.condition,
            correlation.correlation_type,
            &correlation.rule_refs,
            correlation.extended_expr.as_ref(),
        )
    }
}

/// Moves the entry pushed last to its place in time, after entries of the same second: the evaluator
/// evicts from the front and reads the newest entry at the back.
fn settle_last(window: &mut WindowState, reference: &str) {
    match window {
        WindowState::EventCount { timestamps } => settle(timestamps, |time| *time),
        WindowState::ValueCount { entries } => settle(entries, |entry| entry.0),
        WindowState::NumericAgg { entries } => settle(entries, |entry| entry.0),
        WindowState::Temporal { rule_hits } => {
            if let Some(hits) = rule_hits.get_mut(reference) {
                settle(hits, |time| *time);
            }
        }
    }
}

fn settle<T>(entries: &mut VecDeque<T>, time: impl Fn(&T) -> i64) {
    let mut index = entries.len().saturating_sub(1);
    while index > 0 && time(&entries[index - 1]) > time(&entries[index]) {
        entries.swap(index - 1, index);
        index -= 1;
    }
}

fn timespan(correlation: &CompiledCorrelation) -> i64 {
    seconds(correlation.timespan_secs)
}

fn gap(correlation: &CompiledCorrelation) -> i64 {
    seconds(correlation.gap_secs.unwrap_or(correlation.timespan_secs))
}

fn seconds(seconds: u64) -> i64 {
    i64::try_from(seconds).expect("windows are at most 100 years long")
}
