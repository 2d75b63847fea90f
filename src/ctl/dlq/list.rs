//! `kubectl lookback dlq list`.

use std::io::{self, Write};

use anyhow::Result;
use clap::builder::PossibleValuesParser;
use jiff::Timestamp;
use lookback_protocol::deadletter::STATES;
use serde::Serialize;

use super::selector::Picks;
use super::store;
use crate::ctl::context::Context;
use crate::ctl::output::{Answer, Format, Style, Table, age, print, shorten};
use crate::nats::deadletters::LetterHead;

/// Columns of an error in the table.
const ERROR: usize = 60;

#[derive(Debug, clap::Args)]
pub(in super::super) struct Args {
    /// Only those in this state
    #[arg(short, long, value_parser = PossibleValuesParser::new(STATES))]
    state: Option<String>,
    #[command(flatten)]
    picks: Picks,
    /// Dead letters at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Every dead letter, however many there are
    #[arg(long, conflicts_with = "limit")]
    all: bool,
}

/// Dead letters.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Letters {
    items: Vec<Letter>,
    /// Whether there are more than were asked for.
    more: bool,
    #[serde(skip)]
    now: Timestamp,
}

/// A dead letter without its event.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Letter {
    pub(super) id: String,
    pub(super) state: String,
    pub(super) reason: String,
    pub(super) error: String,
    /// The source stream.
    stream: String,
    /// The event's sequence in it.
    sequence: u64,
    /// The event's subject.
    subject: String,
    /// When the event was stored.
    published: Timestamp,
    /// When this state began.
    stored: Timestamp,
    redrives: u32,
    by: Option<String>,
    note: Option<String>,
}

impl From<LetterHead> for Letter {
    fn from(head: LetterHead) -> Self {
        let LetterHead {
            id,
            state,
            sequence: _,
            stored,
            reason,
            error,
            stream,
            event,
            published,
            subject,
            redrives,
            by,
            note,
        } = head;
        Self {
            id,
            state,
            reason: reason.to_string(),
            error,
            stream,
            sequence: event,
            subject,
            published,
            stored,
            redrives,
            by,
            note,
        }
    }
}

pub(super) async fn run(args: Args, context: &Context, format: Format) -> Result<()> {
    let store = store(context).await?;
    let limit = if args.all {
        usize::MAX
    } else {
        args.limit as usize
    };
    let (found, all) = args
        .picks
        .read(&store, args.state.as_deref(), limit)
        .await?;
    let letters = Letters {
        items: found.into_iter().map(Letter::from).collect(),
        more: !all,
        now: Timestamp::now(),
    };
    print(&letters, format)
}

impl Answer for Letters {
    fn table(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        if self.items.is_empty() {
            return writeln!(out, "there are no such dead letters");
        }
        let mut table = Table::new(["ID", "STATE", "REASON", "EVENT", "AGE", "REDRIVES", "ERROR"]);
        for letter in &self.items {
            table.row([
                letter.id.clone(),
                letter.state.clone(),
                letter.reason.clone(),
                format!("{}#{}", letter.stream, letter.sequence),
                age(letter.published, self.now),
                letter.redrives.to_string(),
                shorten(&letter.error, ERROR),
            ]);
        }
        table.write(out, style)?;
        if self.more {
            writeln!(out, "and more: --limit N or --all shows them")?;
        }
        Ok(())
    }
}
