//! What was measured -> Markdown tables.

use std::fmt;

use super::growth::{Grown, MOVED, Question, RARE};
use super::operations::{Measured, Operation};
use super::samples::{Samples, spread};

/// Everything there is to tell.
pub(super) struct Report<'a> {
    pub(super) rounds: usize,
    pub(super) times: usize,
    pub(super) measured: &'a [Measured],
    pub(super) growth: &'a [Grown],
}

impl Report<'_> {
    fn operations(&self, f: &mut fmt::Formatter<'_>, measured: &Measured) -> fmt::Result {
        writeln!(
            f,
            "\n{}; {} rounds of {} turns; alerts of {} bytes. *Times raw* is the ratio of the medians of one \
             round: the smallest, the middle and the largest of the rounds.\n\n\
             | operation | p50, ms | p99, ms | times raw: min | median | max | target | in the document |\n\
             |---|--:|--:|--:|--:|--:|---|--:|",
            measured.servers, self.rounds, self.times, measured.bytes
        )?;
        for operation in Operation::ALL {
            let all = measured.all(operation);
            let (least, middle, most) = spread(measured.ratios(operation));
            let target = operation.target().map(|target| {
                let met = if middle <= target { "met" } else { "missed" };
                format!("<= {target}: {met}")
            });
            writeln!(
                f,
                "| {} | {:.2} | {:.2} | {least:.2} | {middle:.2} | {most:.2} | {} | {} |",
                operation.name(),
                all.median(),
                all.at_most(0.99),
                target.unwrap_or_default(),
                operation.in_the_document(),
            )?;
        }
        Ok(())
    }

    fn growth(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "\nOne server; pipelines asked in turn, {} times; in each, {RARE} alerts are in another state and \
             {MOVED} were moved. p50 in ms.\n\n| question |",
            self.times
        )?;
        for grown in self.growth {
            write!(f, " {} alerts |", grown.alerts)?;
        }
        writeln!(f, " largest / smallest |")?;
        writeln!(f, "|---|{}--:|", "--:|".repeat(self.growth.len()))?;
        for question in Question::ALL {
            let median = |grown: &Grown| grown.answers.get(&question).map_or(0.0, Samples::median);
            write!(f, "| {} |", question.name())?;
            for grown in self.growth {
                write!(f, " {:.2} |", median(grown))?;
            }
            let first = self.growth.first().map_or(0.0, median);
            let last = self.growth.last().map_or(0.0, median);
            writeln!(f, " {:.2} |", last / first)?;
        }
        Ok(())
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for measured in self.measured {
            self.operations(f, measured)?;
        }
        if self.growth.is_empty() {
            return Ok(());
        }
        self.growth(f)
    }
}
