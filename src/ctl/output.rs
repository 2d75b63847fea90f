//! Answers: a table for people, JSON or YAML for programs.
//!
//! What is printed for people came from events, and whoever writes events may not write to a person's
//! terminal: control characters and those that turn the direction of text are shown as escapes. JSON
//! and YAML have escapes of their own.

mod live;
mod table;
mod text;

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use serde::Serialize;

pub use self::live::{Interval, Watch, progress};
pub use self::table::{Cell, Fields, Table, write_cells};
pub use self::text::{age, moment, plain, shorten, width};

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
    /// Writes it for people; `style` knows whether colours may be used.
    ///
    /// # Errors
    /// What `out` says.
    fn table(&self, out: &mut dyn Write, style: Style) -> io::Result<()>;
}

/// A list as programs read it: `{"items": [...]}`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Items<T> {
    /// In the order of the table.
    pub items: Vec<T>,
}

/// How to write for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Colours, only on a terminal.
    pub colour: bool,
}

/// What a colour means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// As it should be.
    Good,
    /// Somebody should look.
    Warn,
    /// Somebody must act.
    Bad,
    /// Not so important.
    Faint,
    /// Headings.
    Strong,
}

impl Style {
    /// Colours when standard output is a terminal and `NO_COLOR` is not set.
    #[must_use]
    pub fn of_stdout() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|value| value == "dumb");
        Self {
            colour: io::stdout().is_terminal() && !refused && !dumb,
        }
    }

    /// `text` in a colour, if there are any. The text is made [`plain`] before.
    #[must_use]
    pub fn paint(self, paint: Paint, text: &str) -> String {
        let text = plain(text);
        if !self.colour {
            return text;
        }
        let code = match paint {
            Paint::Good => "32",
            Paint::Warn => "33",
            Paint::Bad => "31",
            Paint::Faint => "2",
            Paint::Strong => "1",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

/// Prints an answer to standard output.
///
/// # Errors
/// Standard output is closed.
pub fn print(answer: &impl Answer, format: Format) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    write(answer, format, &mut out, Style::of_stdout())?;
    Ok(out.flush()?)
}

/// Writes an answer: JSON and YAML as one document that ends with a line end.
///
/// # Errors
/// What `out` says.
pub fn write(
    answer: &impl Answer,
    format: Format,
    out: &mut dyn Write,
    style: Style,
) -> anyhow::Result<()> {
    match format {
        Format::Table => answer.table(out, style)?,
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, answer)?;
            writeln!(out)?;
        }
        Format::Yaml => {
            let text = serde_saphyr::to_string(answer)?;
            writeln!(out, "{}", text.trim_end())?;
        }
    }
    Ok(())
}

/// Whether an error only says that nobody reads on, as `head` does when it has enough.
#[must_use]
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause
            .downcast_ref::<io::Error>()
            .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
        let json = cause
            .downcast_ref::<serde_json::Error>()
            .is_some_and(|error| error.io_error_kind() == Some(io::ErrorKind::BrokenPipe));
        io || json
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Thing {
        its_name: String,
    }

    impl Answer for Thing {
        fn table(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
            writeln!(out, "{}", style.paint(Paint::Good, &self.its_name))
        }
    }

    fn written(format: Format, colour: bool) -> String {
        let thing = Thing {
            its_name: "a\x1b[2J".to_owned(),
        };
        let mut out = Vec::new();
        write(&thing, format, &mut out, Style { colour }).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn json_and_yaml_are_one_document_with_a_line_end() {
        assert_eq!(
            written(Format::Json, false),
            "{\n  \"itsName\": \"a\\u001b[2J\"\n}\n"
        );
        assert_eq!(written(Format::Yaml, false), "itsName: \"a\\e[2J\"\n");
    }

    #[test]
    fn what_stands_in_an_event_cannot_write_to_a_terminal() {
        assert_eq!(written(Format::Table, false), "a\\u{1b}[2J\n");
        assert_eq!(written(Format::Table, true), "\x1b[32ma\\u{1b}[2J\x1b[0m\n");
    }

    #[test]
    fn a_reader_that_has_enough_is_no_failure() {
        let closed = io::Error::from(io::ErrorKind::BrokenPipe);
        assert!(is_closed_pipe(
            &anyhow::Error::from(closed).context("print")
        ));
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert!(!is_closed_pipe(&anyhow::Error::from(full)));
    }
}
