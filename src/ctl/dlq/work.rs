//! `kubectl lookback dlq redrive` and `discard`: one dead letter after the other, at a rate, each with
//! an operation of its own, so that what was done is done whatever ends this program.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use jiff::Timestamp;
use lookback_protocol::deadletter::{PARKED, REDRIVING};
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use super::selector::Picks;
use super::store;
use crate::ctl::context::Context;
use crate::ctl::output::{Answer, Format, Style, Table, plain, print, progress};
use crate::ctl::{Usage, ask};
use crate::nats::deadletters::{DeadLetterStore, Histogram, LetterAsk, LetterError, LetterHead};
use crate::runtime::telemetry::chain;

#[derive(Debug, clap::Args)]
pub(in super::super) struct RedriveArgs {
    #[command(flatten)]
    which: Which,
    /// Dead letters a second, so that the pipeline is not drowned
    #[arg(long, default_value_t = 50.0, value_parser = rate, value_name = "N")]
    rate: f64,
    /// Refuse an event that was redriven this often already
    #[arg(long, default_value_t = 3, value_name = "N")]
    max_redrives: u32,
    /// Why, for the audit
    #[arg(long, default_value = "", hide_default_value = true)]
    note: String,
}

#[derive(Debug, clap::Args)]
pub(in super::super) struct DiscardArgs {
    #[command(flatten)]
    which: Which,
    /// Why, for the audit: a discarded event is not applied ever
    #[arg(long)]
    note: String,
}

#[derive(Debug, clap::Args)]
struct Which {
    /// The ids, or their first 6 characters or more
    #[arg(value_name = "ID", value_parser = super::given_id, conflicts_with_all = ["all", "reason", "rule", "since", "until"])]
    ids: Vec<String>,
    /// Every parked dead letter
    #[arg(long, conflicts_with_all = ["reason", "rule", "since", "until"])]
    all: bool,
    #[command(flatten)]
    picks: Picks,
    /// Only count what would be done, by reason and by hour
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// What is done to a dead letter.
#[derive(Clone, Copy)]
enum Verb {
    Redrive { max_redrives: u32 },
    Discard,
}

/// What would be done.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DryRun {
    letters: u64,
    reasons: BTreeMap<String, u64>,
    /// By the hour in which the event was stored.
    hours: BTreeMap<String, u64>,
}

/// What was done.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Done {
    /// Dead letters that were redriven or discarded.
    done: Vec<One>,
    /// Those that were left as they are, and why.
    refused: Vec<Failure>,
    /// Those of which it is not known, or that stopped half way; they can be tried again.
    failed: Vec<Failure>,
    #[serde(skip)]
    verb: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct One {
    id: String,
    /// Where the event stands in the source stream now.
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Failure {
    id: String,
    why: String,
}

pub(super) async fn redrive(args: RedriveArgs, context: &Context, format: Format) -> Result<()> {
    let RedriveArgs {
        which,
        rate,
        max_redrives,
        note,
    } = args;
    let pace = Some(Duration::from_secs_f64(1.0 / rate));
    let verb = Verb::Redrive { max_redrives };
    work(verb, which, note, pace, context, format).await
}

pub(super) async fn discard(args: DiscardArgs, context: &Context, format: Format) -> Result<()> {
    let DiscardArgs { which, note } = args;
    if note.trim().is_empty() {
        return Err(
            Usage("give a --note: a discarded event is not applied ever".to_owned()).into(),
        );
    }
    work(Verb::Discard, which, note, None, context, format).await
}

async fn work(
    verb: Verb,
    which: Which,
    note: String,
    pace: Option<Duration>,
    context: &Context,
    format: Format,
) -> Result<()> {
    if which.ids.is_empty() && !which.all && which.picks.is_all() {
        return Err(Usage("give ids, flags that pick some, or --all".to_owned()).into());
    }
    let store = store(context).await?;
    let ids = if which.ids.is_empty() || which.dry_run {
        let letters = which.letters(&store).await?;
        if which.dry_run {
            return print(&DryRun::over(&letters), format);
        }
        if letters.is_empty() {
            bail!("there is no dead letter to {} like this", verb.name());
        }
        if !which.yes {
            confirm(verb, &letters)?;
        }
        letters.into_iter().map(|letter| letter.id).collect()
    } else {
        which.ids
    };
    let ask = LetterAsk {
        by: context.user().await?,
        reason: note,
        op_id: String::new(),
        time: Timestamp::now(),
        max_redrives: match verb {
            Verb::Redrive { max_redrives } => max_redrives,
            Verb::Discard => 0,
        },
    };
    let done = each(verb, &ids, &ask, pace, &store).await;
    print(&done, format)?;
    match done.refused.len() + done.failed.len() {
        0 => Ok(()),
        failed => bail!(
            "{failed} of {} dead letters were not {}",
            ids.len(),
            verb.past()
        ),
    }
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Redrive { .. } => "redrive",
            Self::Discard => "discard",
        }
    }

    fn past(self) -> &'static str {
        match self {
            Self::Redrive { .. } => "redriven",
            Self::Discard => "discarded",
        }
    }
}

impl Which {
    /// What is meant, in the order of the events: what was parked together is stored in any. Flags pick
    /// what is parked; what somebody began to redrive is gone on with only by its id, because it may still
    /// be at work.
    async fn letters(&self, store: &DeadLetterStore) -> Result<Vec<LetterHead>> {
        let states: &[&str] = match self.ids.is_empty() {
            true => &[PARKED],
            false => &[PARKED, REDRIVING],
        };
        let mut out = Vec::new();
        for state in states {
            let (letters, _) = self.picks.read(store, Some(state), usize::MAX).await?;
            out.extend(letters);
        }
        for id in &self.ids {
            let is_there = out.iter().any(|letter| letter.id.starts_with(id.as_str()));
            ensure!(is_there, "no dead letter {id} is parked or being redriven");
        }
        let is_given = |letter: &LetterHead| {
            let mut ids = self.ids.iter();
            self.ids.is_empty() || ids.any(|id| letter.id.starts_with(id.as_str()))
        };
        out.retain(is_given);
        out.sort_by(|one, other| (&one.stream, one.event).cmp(&(&other.stream, other.event)));
        Ok(out)
    }
}

/// One after the other: events are sent in this order.
async fn each(
    verb: Verb,
    ids: &[String],
    ask: &LetterAsk,
    pace: Option<Duration>,
    store: &DeadLetterStore,
) -> Done {
    let mut done = Done {
        verb: verb.past(),
        ..Done::default()
    };
    let mut ticks = pace.map(interval);
    if let Some(ticks) = &mut ticks {
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    }
    let bar = progress(verb.past(), Some(ids.len() as u64));
    for id in ids {
        if let Some(ticks) = &mut ticks {
            ticks.tick().await;
        }
        let ask = LetterAsk {
            op_id: Uuid::now_v7().to_string(),
            time: Timestamp::now(),
            ..ask.clone()
        };
        let result = match verb {
            Verb::Redrive { .. } => store.redrive(id, &ask).await.map(|redriven| One {
                id: redriven.id,
                sequence: Some(redriven.sequence),
            }),
            Verb::Discard => store.discard(id, &ask).await.map(|()| One {
                id: id.clone(),
                sequence: None,
            }),
        };
        done.take(id, result);
        bar.inc(1);
    }
    bar.finish_and_clear();
    done
}

impl Done {
    fn take(&mut self, id: &str, result: Result<One, LetterError>) {
        let error = match result {
            Ok(one) => return self.done.push(one),
            Err(error) => error,
        };
        let failure = Failure {
            id: id.to_owned(),
            why: chain(&error),
        };
        if is_refusal(&error) {
            self.refused.push(failure);
        } else {
            self.failed.push(failure);
        }
    }
}

/// Whether it is certain that nothing was done.
fn is_refusal(error: &LetterError) -> bool {
    use crate::nats::entries::ReadError;

    matches!(
        error,
        LetterError::WrongState { .. }
            | LetterError::Conflict { .. }
            | LetterError::Busy { .. }
            | LetterError::Loop { .. }
            | LetterError::NotResendable { .. }
            | LetterError::Sent { .. }
            | LetterError::Full { .. }
            | LetterError::NoReason
            | LetterError::Read(ReadError::NotFound { .. } | ReadError::Ambiguous { .. })
    )
}

fn confirm(verb: Verb, letters: &[LetterHead]) -> Result<()> {
    let (name, count) = (verb.name(), letters.len());
    let question = format!("{name} them?");
    let instead = format!("this would {name} {count} dead letters: give --yes");
    let dry_run = DryRun::over(letters);
    let agreed = ask::confirm(&question, &instead, |out| {
        dry_run.table(out, Style::default())
    })?;
    ensure!(agreed, "nothing was done");
    Ok(())
}

impl DryRun {
    fn over(letters: &[LetterHead]) -> Self {
        let mut histogram = Histogram::default();
        for letter in letters {
            histogram.add(letter);
        }
        let Histogram { reasons, hours } = histogram;
        let reasons = reasons
            .into_iter()
            .map(|(reason, count)| (reason.to_string(), count));
        let hours = hours
            .into_iter()
            .map(|(hour, count)| (hour.to_string(), count));
        Self {
            letters: letters.len() as u64,
            reasons: reasons.collect(),
            hours: hours.collect(),
        }
    }
}

impl Answer for DryRun {
    fn table(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        let mut table = Table::new(["REASON", "DEAD LETTERS"]);
        for (reason, count) in &self.reasons {
            table.row([reason.clone(), count.to_string()]);
        }
        table.write(out, style)?;
        writeln!(out)?;
        let mut table = Table::new(["HOUR OF THE EVENT", "DEAD LETTERS"]);
        for (hour, count) in &self.hours {
            table.row([hour.clone(), count.to_string()]);
        }
        table.write(out, style)?;
        writeln!(out, "\n{} dead letters", self.letters)
    }
}

impl Answer for Done {
    fn table(&self, out: &mut dyn Write, _style: Style) -> io::Result<()> {
        for Failure { id, why } in &self.refused {
            writeln!(out, "refused  {}: {}", plain(id), plain(why))?;
        }
        for Failure { id, why } in &self.failed {
            writeln!(out, "failed   {}: {}", plain(id), plain(why))?;
        }
        writeln!(
            out,
            "{} {}, {} refused, {} failed",
            self.done.len(),
            self.verb,
            self.refused.len(),
            self.failed.len()
        )
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text).parse::<f64>();
    match number {
        Ok(rate) if (0.001..=100_000.0).contains(&rate) => Ok(rate),
        _ => Err("give a number a second between 0.001 and 100000".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_number_a_second() {
        assert_eq!(rate("10/s"), Ok(10.0));
        assert_eq!(rate("0.5"), Ok(0.5));
        for wrong in ["0", "-1", "fast", "1/m", "NaN"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_was_refused_is_told_from_what_may_have_happened() {
        let mut done = Done::default();
        let id = "AAAA".to_owned();
        done.take("AAAA", Err(LetterError::NoReason));
        let wrong = LetterError::WrongState {
            id: id.clone(),
            state: "discarded".to_owned(),
            verb: "redriven",
        };
        done.take("AAAA", Err(wrong));
        let read = crate::nats::entries::ReadError::Unreadable {
            object: id.clone(),
            source: "no header".into(),
        };
        done.take("AAAA", Err(LetterError::Read(read)));
        done.take(
            "AAAA",
            Ok(One {
                id,
                sequence: Some(7),
            }),
        );
        assert_eq!(
            (done.done.len(), done.refused.len(), done.failed.len()),
            (1, 2, 1)
        );
    }
}
