//! `alerts stats`. Counts by state are asked of the server and cost the same however many alerts there
//! are; by rule or level every alert that is not archived is read.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anyhow::Result;
use clap::ValueEnum;
use lookback_protocol::alert::ARCHIVED;
use serde::Serialize;

use super::find::Store;
use super::view::{self, Alert};
use crate::ctl::context::Context;
use crate::ctl::output::{self, Answer, Cell, Format, Items, Style, Table};
use crate::nats::entries::{Cursor, MAX_PAGE};

#[derive(Debug, clap::Args)]
pub(in super::super) struct Args {
    /// Count by rule or level instead; archived alerts are left out
    #[arg(
        long,
        value_enum,
        value_name = "rule|level",
        hide_possible_values = true
    )]
    by: Option<By>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    /// By rule
    Rule,
    /// By level
    Level,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
struct InState {
    state: String,
    count: u64,
}

impl Answer for Items<InState> {
    fn table(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        let mut table = Table::new(["STATE", "ALERTS"]);
        for InState { state, count } in &self.items {
            table.row([view::state(state), Cell::from(count.to_string())]);
        }
        table.write(out, style)
    }
}

/// Alerts of one rule or level.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    #[serde(skip_serializing_if = "Option::is_none")]
    rule_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<String>,
    count: u64,
    by_state: BTreeMap<String, u64>,
}

impl Answer for Items<Group> {
    fn table(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        let by_rule = self.items.iter().any(|group| group.rule_id.is_some());
        let states = |group: &Group| {
            let states = group.by_state.iter();
            let texts: Vec<String> = states
                .map(|(state, count)| format!("{state} {count}"))
                .collect();
            Cell::from(texts.join(", "))
        };
        let count = |group: &Group| Cell::from(group.count.to_string());
        let level = |group: &Group| view::level(group.level.as_deref());
        if !by_rule {
            let mut table = Table::new(["SEV", "ALERTS", "STATES"]);
            for group in &self.items {
                table.row([level(group), count(group), states(group)]);
            }
            return table.write(out, style);
        }
        let mut table = Table::new(["RULE", "SEV", "ALERTS", "STATES"]);
        for group in &self.items {
            let title = group.rule.as_deref().unwrap_or_default();
            let rule = Cell::from(output::shorten(title, 60));
            table.row([rule, level(group), count(group), states(group)]);
        }
        table.write(out, style)
    }
}

pub(super) async fn run(args: Args, context: &Context, format: Format) -> Result<()> {
    let store = Store::open(context).await?;
    let counts = store.alerts.counts().await?;
    let Some(by) = args.by else {
        let workflow = store.alerts.workflow().await?;
        let order: Vec<&str> = workflow.states().collect();
        return output::print(&in_states(&order, &counts), format);
    };
    let left = counts.iter().filter(|(state, _)| *state != ARCHIVED);
    let bar = output::progress("Counting alerts", Some(left.map(|(_, count)| count).sum()));
    let mut groups = BTreeMap::new();
    let mut from = Some(Cursor::default());
    while let Some(cursor) = from {
        let page = store.alerts.list(None, cursor, MAX_PAGE).await?;
        from = page.next;
        for stored in page.items {
            bar.inc(1);
            count(
                &mut groups,
                by,
                &Alert::new(&store.reached.owner.pipeline, stored),
            );
        }
    }
    bar.finish_and_clear();
    output::print(
        &Items {
            items: sorted(groups),
        },
        format,
    )
}

/// In the order of the workflow; then states that it does not have any more and alerts still are in.
fn in_states(order: &[&str], counts: &BTreeMap<String, u64>) -> Items<InState> {
    let known = order
        .iter()
        .map(|&state| (state, counts.get(state).copied().unwrap_or(0)));
    let others = counts.iter().map(|(state, count)| (state.as_str(), *count));
    let others = others.filter(|(state, _)| !order.contains(state));
    let items = known.chain(others).map(|(state, count)| InState {
        state: state.to_owned(),
        count,
    });
    Items {
        items: items.collect(),
    }
}

fn count(groups: &mut BTreeMap<String, Group>, by: By, alert: &Alert) {
    let Some(rule) = alert.rule() else {
        return;
    };
    let key = match by {
        By::Rule => rule.id.clone(),
        By::Level => rule.level.clone().unwrap_or_default(),
    };
    let group = groups.entry(key).or_insert_with(|| Group {
        rule_id: (by == By::Rule).then(|| rule.id.clone()),
        rule: (by == By::Rule).then(|| rule.title.clone()),
        level: rule.level.clone(),
        ..Group::default()
    });
    group.count += 1;
    *group.by_state.entry(alert.state.clone()).or_default() += 1;
}

/// The most first.
fn sorted(groups: BTreeMap<String, Group>) -> Vec<Group> {
    let mut groups: Vec<Group> = groups.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.count));
    groups
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::alert;
    use super::*;

    #[test]
    fn states_come_in_the_order_of_the_workflow_and_none_is_left_out() {
        let counts = BTreeMap::from([("gone".to_owned(), 2), ("triage".to_owned(), 3)]);
        let found = in_states(&["new", "triage", "archived"], &counts);
        let found: Vec<(&str, u64)> = found
            .items
            .iter()
            .map(|it| (it.state.as_str(), it.count))
            .collect();
        assert_eq!(
            found,
            [("new", 0), ("triage", 3), ("archived", 0), ("gone", 2)]
        );
    }

    #[test]
    fn a_rule_is_counted_over_all_states() {
        let mut groups = BTreeMap::new();
        for state in ["new", "new", "closed"] {
            count(&mut groups, By::Rule, &alert("7QK2M4ZT", state));
        }
        let groups = sorted(groups);
        assert_eq!(groups.len(), 1);
        assert_eq!(groups[0].count, 3);
        assert_eq!(groups[0].by_state["new"], 2);
        let mut out = Vec::new();
        Items { items: groups }
            .table(&mut out, Style::default())
            .unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("closed 1, new 2"), "{text}");
    }
}
