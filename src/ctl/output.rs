//! Answers: a table for people, JSON or YAML for programs.

use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
    /// For programs and people
    Yaml,
}

/// Something that is printed as a table of its own kind, or as it is.
pub trait Answer: Serialize {
    /// Writes it for people; `style` knows whether colours and a terminal's width may be used.
    ///
    /// # Errors
    /// What `out` says.
    fn table(&self, out: &mut dyn Write, style: Style) -> io::Result<()>;
}

/// How to write for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Colours, only on a terminal.
    pub colour: bool,
}

/// Columns, padded; the last one is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Without rows.
    #[must_use]
    pub fn new<const N: usize>(header: [&str; N]) -> Self {
        Self {
            header: header.map(str::to_owned).to_vec(),
            rows: Vec::new(),
        }
    }

    /// One more row.
    pub fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// Writes it.
    ///
    /// # Errors
    /// What `out` says.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        todo!("ctl: {:?} {:?}", self.header, out.flush())
    }
}

/// Prints an answer to standard output.
///
/// # Errors
/// Standard output is closed.
pub fn print(answer: &impl Answer, format: Format) -> anyhow::Result<()> {
    let _ = answer;
    todo!("ctl: {format:?}")
}

/// A time as people say it: `3m`, `2d`.
#[must_use]
pub fn age(since: jiff::Timestamp, now: jiff::Timestamp) -> String {
    todo!("ctl: {since} {now}")
}
