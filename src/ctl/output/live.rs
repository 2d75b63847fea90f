//! What goes on for a while: watching, and work that takes long.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{Answer, Format, Style, write};

/// How often to look.
#[derive(Args, Clone, Copy, Debug)]
pub struct Interval {
    /// How long to wait between two looks, or between two tries to reach what does not answer
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    pub interval: Duration,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "give a number of seconds")?;
    if !(0.1..=86_400.0).contains(&seconds) {
        return Err("give a number of seconds from 0.1 to 86400".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// Shows an answer again each time it is another: on a terminal in the place of the one before, else
/// below it; JSON is one line a change, YAML one document.
#[derive(Debug)]
pub struct Watch {
    format: Format,
    redraw: bool,
    style: Style,
    last: Option<String>,
}

impl Watch {
    /// To standard output.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self {
            format,
            redraw: format == Format::Table && io::stdout().is_terminal(),
            style: Style::of_stdout(),
            last: None,
        }
    }

    /// Shows it, if programs would see a difference. A table on a terminal is always drawn anew, since
    /// there are ages in it.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn show(&mut self, answer: &impl Answer) -> anyhow::Result<()> {
        self.show_to(answer, &mut io::stdout().lock())
    }

    fn show_to(&mut self, answer: &impl Answer, out: &mut dyn Write) -> anyhow::Result<()> {
        let json = serde_json::to_string(answer)?;
        let changed = self.last.as_ref() != Some(&json);
        if self.redraw {
            let mut screen = Vec::new();
            write(answer, self.format, &mut screen, self.style)?;
            // Home, then each line with what was right of it before, then what was below.
            let text = String::from_utf8_lossy(&screen).replace('\n', "\x1b[K\n");
            write!(out, "\x1b[H{text}\x1b[J")?;
        } else if changed {
            match self.format {
                Format::Json => writeln!(out, "{json}")?,
                Format::Yaml => {
                    writeln!(out, "---")?;
                    write(answer, self.format, out, self.style)?;
                }
                Format::Table => write(answer, self.format, out, self.style)?,
            }
        }
        self.last = Some(json);
        Ok(out.flush()?)
    }

    /// Looks and shows until Ctrl-C.
    ///
    /// # Errors
    /// What a look says, or standard output is closed.
    pub async fn run<A: Answer>(
        mut self,
        interval: Interval,
        mut look: impl AsyncFnMut() -> anyhow::Result<A>,
    ) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(interval.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let looks = async {
            if self.redraw {
                write!(io::stdout(), "\x1b[2J")?;
            }
            loop {
                ticks.tick().await;
                let answer = look().await?;
                self.show(&answer)?;
            }
        };
        tokio::select! {
            failed = looks => failed,
            signal = tokio::signal::ctrl_c() => Ok(signal?),
        }
    }
}

/// A bar on standard error for work of `length` steps, or one that turns when nobody knows how many.
/// There is none when standard error is no terminal.
#[must_use]
pub fn progress(what: &str, length: Option<u64>) -> ProgressBar {
    let template = match length {
        Some(_) => "{msg} [{wide_bar}] {human_pos}/{human_len} {per_sec} {eta}",
        None => "{spinner} {msg} {human_pos} {per_sec}",
    };
    let style = ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
    ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr())
        .with_style(style)
        .with_message(what.to_owned())
}

#[cfg(test)]
mod tests {
    use serde::Serialize;

    use super::*;

    #[derive(Serialize)]
    struct Number(u64);

    impl Answer for Number {
        fn table(&self, out: &mut dyn Write, _: Style) -> io::Result<()> {
            writeln!(out, "it is {}", self.0)
        }
    }

    fn watched(format: Format, redraw: bool) -> String {
        let mut out = Vec::new();
        let mut watch = Watch {
            format,
            redraw,
            style: Style::default(),
            last: None,
        };
        for number in [1, 1, 2] {
            watch.show_to(&Number(number), &mut out).unwrap();
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn where_nothing_is_redrawn_each_change_is_shown_once() {
        assert_eq!(watched(Format::Json, false), "1\n2\n");
        assert_eq!(watched(Format::Yaml, false), "---\n1\n---\n2\n");
        assert_eq!(watched(Format::Table, false), "it is 1\nit is 2\n");
    }

    #[test]
    fn a_terminal_shows_the_newest_in_one_place() {
        let once = |number| format!("\x1b[Hit is {number}\x1b[K\n\x1b[J");
        let expected = [once(1), once(1), once(2)].concat();
        assert_eq!(watched(Format::Table, true), expected);
    }

    #[test]
    fn an_interval_is_a_time_that_a_server_can_bear() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for text in ["0", "-1", "nan", "inf", "2s"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
