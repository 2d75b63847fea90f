//! `alerts move` and `alerts annotate`: what people do with alerts, one after the other, each told of.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anyhow::{Result, bail};
use jiff::Timestamp;
use lookback_protocol::workflow::{Ask, To};
use serde::Serialize;
use uuid::Uuid;

use super::find::{Store, find};
use super::view;
use crate::ctl::Usage;
use crate::ctl::context::Context;
use crate::ctl::output::{self, Answer, Cell, Format, Paint, Style, Table};
use crate::nats::alerts::Stepped;
use crate::runtime::telemetry::chain;

/// As many alerts are changed without a progress bar.
const FEW: usize = 10;

#[derive(Debug, clap::Args)]
#[group(id = "where_to", required = true, multiple = false, args = ["to", "transition"])]
pub(in super::super) struct MoveArgs {
    /// The ids, or their first 6 characters or more
    #[arg(value_name = "ID", required = true, value_parser = view::given_id)]
    ids: Vec<String>,
    /// The state to move to, by the one transition that leads there; archived keeps the record in the
    /// audit only
    #[arg(long, value_name = "STATE")]
    to: Option<String>,
    /// The transition to take, where several lead to one state
    #[arg(long, value_name = "TRANSITION")]
    transition: Option<String>,
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, clap::Args)]
pub(in super::super) struct AnnotateArgs {
    /// The id, or its first 6 characters or more
    #[arg(value_parser = view::given_id)]
    id: String,
    /// key=value sets a value, key- takes it away
    #[arg(value_name = "KEY=VALUE", required = true, value_parser = metadata)]
    metadata: Vec<(String, Option<String>)>,
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, clap::Args)]
struct Change {
    /// Why, for the history and the audit
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// Do it only if the alert still is the version of this sequence (SEQ of alerts list)
    #[arg(long, value_name = "SEQ")]
    expect: Option<u64>,
}

fn metadata(text: &str) -> Result<(String, Option<String>), String> {
    if let Some((key, value)) = text.split_once('=').filter(|(key, _)| !key.is_empty()) {
        return Ok((key.to_owned(), Some(value.to_owned())));
    }
    match text.strip_suffix('-').filter(|key| !key.is_empty()) {
        Some(key) => Ok((key.to_owned(), None)),
        None => Err("give key=value, or key- to take it away".to_owned()),
    }
}

/// What became of one alert.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Changed {
    /// The whole id, or what was given when no alert was found.
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<Taken>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Taken {
    transition: String,
    from: String,
    to: String,
    /// Of the new version.
    sequence: u64,
}

impl From<Stepped> for Taken {
    fn from(stepped: Stepped) -> Self {
        Self {
            transition: stepped.transition,
            from: stepped.from,
            to: stepped.alert.state,
            sequence: stepped.alert.sequence,
        }
    }
}

/// `{"items": [...]}`, in the order in which they were given.
#[derive(Debug, Serialize)]
struct Changes {
    items: Vec<Changed>,
}

impl Answer for Changes {
    fn table(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        let mut table = Table::new(["ID", "STEP", "FROM", "TO", "SEQ"]);
        for Changed { id, step, error } in &self.items {
            let failed = error.as_deref().unwrap_or_default();
            table.row(match step {
                Some(step) => [
                    Cell::from(id),
                    Cell::from(&step.transition),
                    view::state(&step.from),
                    view::state(&step.to),
                    Cell::from(step.sequence.to_string()),
                ],
                None => [
                    Cell::from(id),
                    Cell::painted(format!("failed: {failed}"), Paint::Bad),
                    Cell::default(),
                    Cell::default(),
                    Cell::default(),
                ],
            });
        }
        table.write(out, style)
    }
}

pub(super) async fn take_steps(args: MoveArgs, context: &Context, format: Format) -> Result<()> {
    let to = match (args.to, args.transition) {
        (Some(state), _) => To::State(state),
        (None, Some(transition)) => To::Transition(transition),
        (None, None) => return Err(Usage("give --to or --transition".to_owned()).into()),
    };
    if args.change.expect.is_some() && args.ids.len() > 1 {
        return Err(Usage("--expect is about one alert: give one id".to_owned()).into());
    }
    change(
        &args.ids,
        &to,
        &BTreeMap::new(),
        args.change,
        context,
        format,
    )
    .await
}

pub(super) async fn annotate(args: AnnotateArgs, context: &Context, format: Format) -> Result<()> {
    let metadata: BTreeMap<_, _> = args.metadata.into_iter().collect();
    let ids = [args.id];
    change(&ids, &To::Stay, &metadata, args.change, context, format).await
}

async fn change(
    ids: &[String],
    to: &To,
    metadata: &BTreeMap<String, Option<String>>,
    change: Change,
    context: &Context,
    format: Format,
) -> Result<()> {
    let by = context.user().await?;
    let stores = Store::open_all(context).await?;
    let bar = (ids.len() > FEW).then(|| {
        let length = u64::try_from(ids.len()).unwrap_or(u64::MAX);
        output::progress("Changing alerts", Some(length))
    });
    let mut items = Vec::new();
    for id in ids {
        let ask = Ask {
            to: to.clone(),
            by: by.clone(),
            reason: change.reason.clone(),
            metadata: metadata.clone(),
            op_id: Uuid::now_v7().to_string(),
            time: Timestamp::now(),
        };
        items.push(change_one(&stores, id, change.expect, &ask).await);
        if let Some(bar) = &bar {
            bar.inc(1);
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    finish(Changes { items }, format)
}

async fn change_one(stores: &[Store], id: &str, expect: Option<u64>, ask: &Ask) -> Changed {
    let failed = |id: &str, error: &dyn std::error::Error| Changed {
        id: id.to_owned(),
        step: None,
        error: Some(chain(error)),
    };
    let (store, alert) = match find(stores, id).await {
        Ok(found) => found,
        Err(error) => return failed(id, error.as_ref()),
    };
    match store.alerts.step(&alert.id, expect, ask).await {
        Ok(stepped) => Changed {
            id: alert.id,
            step: Some(stepped.into()),
            error: None,
        },
        Err(error) => failed(&alert.id, &error),
    }
}

/// One alert that failed is an error of its own; of several each stands in the answer.
fn finish(changes: Changes, format: Format) -> Result<()> {
    let all = changes.items.len();
    let mut errors = changes.items.iter().filter_map(|item| item.error.clone());
    let first = errors.next();
    let failed = usize::from(first.is_some()) + errors.count();
    match first {
        Some(error) if all == 1 && format == Format::Table => bail!(error),
        Some(_) => {
            output::print(&changes, format)?;
            bail!("{failed} of {all} alerts failed")
        }
        None => output::print(&changes, format),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_is_set_or_taken_away() {
        let set = Ok(("owner".to_owned(), Some("a=b".to_owned())));
        assert_eq!(metadata("owner=a=b"), set);
        assert_eq!(metadata("owner-"), Ok(("owner".to_owned(), None)));
        assert_eq!(metadata("a-="), Ok(("a-".to_owned(), Some(String::new()))));
        for text in ["owner", "=x", "-", ""] {
            assert!(metadata(text).is_err(), "{text}");
        }
    }

    #[test]
    fn of_several_alerts_each_is_told_of_and_one_failure_is_one() {
        let done = Changed {
            id: "A".to_owned(),
            step: Some(Taken {
                transition: "triage".to_owned(),
                from: "new".to_owned(),
                to: "triage".to_owned(),
                sequence: 2,
            }),
            error: None,
        };
        let failed = Changed {
            id: "B".to_owned(),
            step: None,
            error: Some("it is gone".to_owned()),
        };
        let changes = Changes {
            items: vec![done, failed],
        };
        let mut out = Vec::new();
        changes.table(&mut out, Style::default()).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("failed: it is gone"), "{text}");
        let json = serde_json::to_value(&changes).unwrap();
        assert_eq!(json["items"][0]["step"]["sequence"], 2);
        assert_eq!(json["items"][1]["error"], "it is gone");
        let error = finish(changes, Format::Json).unwrap_err().to_string();
        assert_eq!(error, "1 of 2 alerts failed");
    }
}
