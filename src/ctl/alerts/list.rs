//! `alerts list`.

use std::collections::HashMap;
use std::io::{self, Write};

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use lookback_protocol::alert::ARCHIVED;
use serde::Serialize;

use super::find::Store;
use super::view::{self, Alert};
use crate::ctl::context::Context;
use crate::ctl::given::when;
use crate::ctl::output::{self, Answer, Format, Interval, Style, Watch};
use crate::nats::alerts::StoredAlert;
use crate::nats::entries::{Cursor, MAX_PAGE};

/// Records of archived alerts that are read from the audit at once.
const AT_ONCE: usize = 16;

#[derive(Debug, clap::Args)]
pub(in super::super) struct Args {
    #[command(flatten)]
    filter: Filter,
    /// Alerts at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Every alert, however many there are
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// Show whole ids
    #[arg(long)]
    full_ids: bool,
    /// Look again and again, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    interval: Interval,
}

/// Which alerts. All that is given must fit.
#[derive(Clone, Debug, Default, clap::Args)]
pub(super) struct Filter {
    /// Only those in this state; without it, all but archived ones
    #[arg(short, long)]
    pub(super) state: Option<String>,
    /// Only those of rules of one of these levels, such as high,critical
    #[arg(short, long, value_name = "LEVEL", value_delimiter = ',')]
    pub(super) level: Vec<String>,
    /// Only those of rules whose title holds this, or whose id it is
    #[arg(short, long, value_name = "TEXT")]
    pub(super) rule: Option<String>,
    /// Only those that came up since then: a time as 2026-01-05T08:00:00Z, or how long ago, as 90m or 7d
    #[arg(long, value_name = "TIME", value_parser = when)]
    pub(super) since: Option<Timestamp>,
}

impl Filter {
    /// Whether an alert fits, its state apart: that one is asked of the store.
    pub(super) fn takes(&self, alert: &Alert) -> bool {
        let Self {
            state: _,
            level,
            rule,
            since,
        } = self;
        let of_level = |wanted: &String| {
            let found = alert.rule().and_then(|rule| rule.level.as_deref());
            found.is_some_and(|found| found.eq_ignore_ascii_case(wanted.trim()))
        };
        let of_rule = |text: &String| {
            let text = text.to_lowercase();
            alert.rule().is_some_and(|rule| {
                rule.id.to_lowercase() == text || rule.title.to_lowercase().contains(&text)
            })
        };
        (level.is_empty() || level.iter().any(of_level))
            && rule.as_ref().is_none_or(of_rule)
            && since.is_none_or(|since| since <= alert.raised())
    }
}

/// `{"items": [...]}`.
#[derive(Debug, Serialize)]
struct Listed {
    items: Vec<Alert>,
    /// Whether there may be more than these.
    more: bool,
    #[serde(skip)]
    full_ids: bool,
}

impl Answer for Listed {
    fn table(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        if self.items.is_empty() {
            return writeln!(out, "No alerts.");
        }
        view::table(&self.items, self.full_ids, Timestamp::now()).write(out, style)?;
        if self.more {
            writeln!(
                out,
                "There are more: see --limit, --all, --state and --since."
            )?;
        }
        Ok(())
    }
}

pub(super) async fn run(args: Args, context: &Context, format: Format) -> Result<()> {
    let store = Store::open(context).await?;
    if args.watch {
        let look = async || list(&store, &args).await;
        return Watch::new(format).run(args.interval, look).await;
    }
    output::print(&list(&store, &args).await?, format)
}

async fn list(store: &Store, args: &Args) -> Result<Listed> {
    let limit = match args.all {
        true => usize::MAX,
        false => usize::try_from(args.limit).unwrap_or(usize::MAX),
    };
    let mut items = Vec::new();
    let mut nothing = true;
    let mut from = Some(Cursor::default());
    while let Some(cursor) = from.filter(|_| items.len() < limit) {
        // Where all that is read is shown, no more is read than is shown.
        let asked = match args.filter.is_of_state_only() {
            true => MAX_PAGE.min(limit - items.len()),
            false => MAX_PAGE,
        };
        let page = store
            .alerts
            .list(args.filter.state.as_deref(), cursor, asked)
            .await?;
        from = page.next;
        nothing &= page.items.is_empty();
        let page = with_records(store, page.items).await?;
        let fitting = page.into_iter().filter(|alert| args.filter.takes(alert));
        items.extend(fitting);
    }
    if let (Some(state), true) = (&args.filter.state, nothing) {
        store.has_state(state).await?;
    }
    let mut items = newest(items);
    let more = from.is_some() || items.len() > limit;
    items.truncate(limit);
    Ok(Listed {
        items,
        more,
        full_ids: args.full_ids,
    })
}

impl Filter {
    fn is_of_state_only(&self) -> bool {
        self.level.is_empty() && self.rule.is_none() && self.since.is_none()
    }
}

/// An alert that was moved while the list was read is in it twice; only its newest version is kept.
fn newest(items: Vec<Alert>) -> Vec<Alert> {
    let versions = items.iter().map(|alert| (alert.id.clone(), alert.sequence));
    let last: HashMap<String, u64> = versions.collect();
    let is_last = |alert: &Alert| last.get(&alert.id) == Some(&alert.sequence);
    items.into_iter().filter(is_last).collect()
}

/// Archived alerts have their records in the audit.
async fn with_records(store: &Store, alerts: Vec<StoredAlert>) -> Result<Vec<Alert>> {
    let whole = async |mut alert: StoredAlert| -> Result<Alert> {
        if alert.record.is_none() && alert.state == ARCHIVED {
            alert.record = Some(store.alerts.archived(&alert.id).await?);
        }
        Ok(Alert::new(&store.reached.owner.pipeline, alert))
    };
    stream::iter(alerts)
        .map(whole)
        .buffered(AT_ONCE)
        .try_collect()
        .await
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::alert;
    use super::*;

    fn takes(change: impl FnOnce(&mut Filter)) -> bool {
        let mut filter = Filter::default();
        change(&mut filter);
        filter.takes(&alert("7QK2M4ZT", "new"))
    }

    #[test]
    fn an_alert_must_fit_all_that_is_given() {
        assert!(takes(|_| {}));
        assert!(takes(
            |filter| filter.level = vec!["low".into(), "HIGH".into()]
        ));
        assert!(!takes(|filter| filter.level = vec!["low".into()]));
        assert!(takes(|filter| filter.rule = Some("Brute".into())));
        assert!(takes(|filter| filter.rule = Some("r".into())));
        assert!(!takes(|filter| filter.rule = Some("login".into())));
        let at = |text: &str| Some(text.parse().unwrap());
        assert!(takes(|filter| filter.since = at("2026-01-05T08:00:00Z")));
        assert!(!takes(|filter| filter.since = at("2026-01-05T08:00:01Z")));
    }

    #[test]
    fn of_an_alert_that_moved_meanwhile_the_newest_version_is_listed() {
        let version = |id: &str, sequence: u64| Alert {
            sequence,
            ..alert(id, "new")
        };
        let listed = newest(vec![version("A", 1), version("B", 2), version("A", 3)]);
        let found: Vec<_> = listed
            .iter()
            .map(|it| (it.id.as_str(), it.sequence))
            .collect();
        assert_eq!(found, [("B", 2), ("A", 3)]);
    }
}
