//! `alerts watch`: alerts as they come, by what the server publishes again. What came while the
//! connection was cut is listed when it is back, so nothing is missed; of an alert that moved several
//! times meanwhile the last version is shown. With `--since` those that are there already come first.

use std::io::{self, Write};

use anyhow::{Result, bail};
use jiff::Timestamp;
use lookback_protocol::alert::ARCHIVED;
use serde::Serialize;
use tokio::time::MissedTickBehavior;

use super::find::Store;
use super::list;
use super::view::{self, Alert};
use crate::ctl::context::Context;
use crate::ctl::output::{self, Answer, Cell, Format, Interval, Paint, Style, plain, write_cells};
use crate::nats::alerts::{Heard, Live, StoredAlert};
use crate::nats::entries::{Cursor, MAX_PAGE};
use crate::nats::streams;

/// Of the columns of [`view::HEADER`]: lines come one by one, so none knows how wide the others are.
const WIDTHS: [usize; 8] = [26, 10, 8, 40, 24, 4, 8, 0];

#[derive(Debug, clap::Args)]
pub(in super::super) struct Args {
    #[command(flatten)]
    filter: list::Filter,
    #[command(flatten)]
    interval: Interval,
}

pub(super) async fn run(args: Args, context: &Context, format: Format) -> Result<()> {
    let store = Store::open(context).await?;
    if let Some(state) = &args.filter.state {
        store.has_state(state).await?;
    }
    let following = Following {
        seen: 0,
        store,
        filter: args.filter,
        interval: args.interval,
        printer: Printer(format),
    };
    tokio::select! {
        ended = following.run() => ended,
        signal = tokio::signal::ctrl_c() => Ok(signal?),
    }
}

struct Following {
    store: Store,
    filter: list::Filter,
    interval: Interval,
    /// The highest sequence that was shown, or was there before anything was.
    seen: u64,
    printer: Printer,
}

impl Following {
    async fn run(mut self) -> Result<()> {
        let nats = &self.store.reached.nats;
        let key = &self.store.reached.owner.pipeline;
        let mut live = Live::open(nats, key, self.filter.state.as_deref()).await?;
        let stream = streams::read(nats, &key.alerts_stream()).await?;
        self.printer.begin()?;
        let mut missed_after = match self.filter.since {
            // A long list takes longer than what is heard meanwhile is kept.
            Some(_) => {
                let through = self.missed(0).await?;
                self.missed(through).await?
            }
            None => stream.map_or(0, |stream| stream.state.last_seq),
        };
        let mut interrupted = false;
        let mut tries = tokio::time::interval(self.interval.interval);
        tries.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let heard = tokio::select! {
                heard = live.next() => heard,
                _ = tries.tick(), if interrupted => {
                    // Still cut off, more often than not; what was heard meanwhile is in the list, too.
                    if let Ok(through) = self.missed(missed_after).await {
                        missed_after = through;
                        interrupted = false;
                    }
                    continue;
                }
            };
            match heard {
                None => bail!("the connection to NATS is closed"),
                Some(Err(error)) => return Err(error.into()),
                Some(Ok(Heard::Interrupted)) => {
                    if !std::mem::replace(&mut interrupted, true) {
                        note(
                            "the connection to NATS was cut: what comes meanwhile is listed after",
                        )?;
                    }
                }
                Some(Ok(Heard::Alert(alert))) if !interrupted => {
                    missed_after = missed_after.max(alert.sequence);
                    self.show(*alert)?;
                }
                Some(Ok(Heard::Alert(_))) => {}
            }
        }
    }

    /// Shows what is newer than `after`, and says how far that was. Nothing is shown twice when it fails
    /// in between and is tried again.
    async fn missed(&mut self, mut after: u64) -> Result<u64> {
        let state = self.filter.state.clone();
        let mut from = Some(Cursor(after + 1));
        while let Some(cursor) = from {
            let page = self
                .store
                .alerts
                .list(state.as_deref(), cursor, MAX_PAGE)
                .await?;
            from = page.next;
            for alert in page.items {
                after = after.max(alert.sequence);
                self.show(alert)?;
            }
        }
        Ok(after)
    }

    fn show(&mut self, alert: StoredAlert) -> Result<()> {
        if alert.sequence <= self.seen {
            return Ok(());
        }
        self.seen = alert.sequence;
        // As in a list: those that are done with only where they are asked for.
        if alert.state == ARCHIVED && self.filter.state.as_deref() != Some(ARCHIVED) {
            return Ok(());
        }
        let alert = Alert::new(&self.store.reached.owner.pipeline, alert);
        match self.filter.takes(&alert) {
            true => self.printer.print(&alert),
            false => Ok(()),
        }
    }
}

fn note(text: &str) -> Result<()> {
    Ok(writeln!(io::stderr(), "warning: {}", plain(text))?)
}

/// One line an alert; YAML has one document.
#[derive(Clone, Copy, Debug)]
struct Printer(Format);

#[derive(Serialize)]
#[serde(transparent)]
struct Row<'a>(&'a Alert);

impl Answer for Row<'_> {
    fn table(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        let cells = self.0.row(&self.0.id, Timestamp::now());
        write_cells(&cells, &WIDTHS, out, style)
    }
}

impl Printer {
    /// The heading, at once: whoever sees it knows that alerts are listened for.
    fn begin(self) -> Result<()> {
        if self.0 != Format::Table {
            return Ok(());
        }
        let heading = view::HEADER.map(|text| Cell::painted(text, Paint::Strong));
        let mut out = io::stdout().lock();
        write_cells(&heading, &WIDTHS, &mut out, Style::of_stdout())?;
        Ok(out.flush()?)
    }

    fn print(self, alert: &Alert) -> Result<()> {
        let mut out = io::stdout().lock();
        let style = Style::of_stdout();
        match self.0 {
            Format::Json => {
                serde_json::to_writer(&mut out, alert)?;
                writeln!(out)?;
            }
            Format::Yaml => {
                writeln!(out, "---")?;
                output::write(&Row(alert), self.0, &mut out, style)?;
            }
            Format::Table => output::write(&Row(alert), self.0, &mut out, style)?,
        }
        Ok(out.flush()?)
    }
}
