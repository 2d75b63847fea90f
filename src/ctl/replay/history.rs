//! `kubectl lookback replay history`: what the status remembers, and the claims in the audit, which
//! remembers all.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anyhow::Result;
use jiff::Timestamp;
use lookback_protocol::audit::{Act, AuditKind};
use lookback_protocol::replay::record::{Finished, Record};
use serde::Serialize;

use crate::ctl::context::{Context, Reached};
use crate::ctl::output::{Answer, Format, Items, Style, Table, moment, plain, print};
use crate::nats::audit::page;
use crate::nats::entries::{Cursor, MAX_PAGE};
use crate::runtime::telemetry::chain;

/// One replay.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Replay {
    id: String,
    epoch: Option<u64>,
    /// Absent when only the audit remembers it.
    phase: Option<String>,
    /// The first sequence that was read with alerts.
    start: Option<u64>,
    windows: Option<String>,
    requested: Option<Timestamp>,
    finished: Option<Timestamp>,
    /// When and by whom its id was claimed; absent when it never began.
    claimed: Option<Timestamp>,
    claimed_by: Option<String>,
    message: String,
}

pub(super) async fn run(context: &Context, format: Format) -> Result<()> {
    let pipeline = context.pipeline().await?;
    let mut found = BTreeMap::new();
    if let Some(status) = &pipeline.status {
        let history = status.replay_history.iter().map(finished);
        for replay in history.chain(status.replay.as_ref().map(current)) {
            found.insert((replay.id.clone(), replay.epoch), replay);
        }
    }
    // The status alone is an answer, too.
    match context.reach(pipeline).await {
        Ok(reached) => claims(&reached, &mut found).await?,
        Err(error) => eprintln!(
            "the claims in the audit are left out: {}",
            plain(&chain(error.as_ref()))
        ),
    }
    let mut items: Vec<Replay> = found.into_values().collect();
    items.sort_by_key(|replay| (replay.requested.or(replay.claimed), replay.epoch));
    print(&Items { items }, format)
}

async fn claims(
    reached: &Reached,
    found: &mut BTreeMap<(String, Option<u64>), Replay>,
) -> Result<()> {
    let mut from = Cursor::default();
    loop {
        let key = &reached.owner.pipeline;
        let page = page(&reached.nats, key, Some(AuditKind::Replay), from, MAX_PAGE).await?;
        for stored in page.items {
            let Ok(record) = stored.record else {
                continue;
            };
            let Act::Replay(claim) = record.act else {
                continue;
            };
            let id = claim.request_id.to_string();
            let epoch = Some(claim.epoch.0);
            let replay = found.entry((id.clone(), epoch)).or_insert_with(|| Replay {
                id,
                epoch,
                ..Replay::default()
            });
            replay.claimed = Some(record.time);
            replay.claimed_by = Some(record.by);
        }
        match page.next {
            Some(next) => from = next,
            None => return Ok(()),
        }
    }
}

fn finished(finished: &Finished) -> Replay {
    Replay {
        id: finished.id.to_string(),
        epoch: finished.epoch.map(|epoch| epoch.0),
        phase: Some(format!("{:?}", finished.phase)),
        start: finished.start.map(|start| start.0),
        windows: finished.windows.map(|windows| format!("{windows:?}")),
        requested: Some(finished.requested_at),
        finished: Some(finished.finished_at),
        message: finished.message.clone(),
        ..Replay::default()
    }
}

fn current(record: &Record) -> Replay {
    let ended = record.phase.is_final();
    Replay {
        finished: ended.then_some(record.since),
        ..finished(&record.finished())
    }
}

impl Answer for Items<Replay> {
    fn table(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        if self.items.is_empty() {
            return writeln!(out, "there was no replay");
        }
        let mut table = Table::new([
            "ID",
            "EPOCH",
            "PHASE",
            "START",
            "WINDOWS",
            "REQUESTED",
            "ENDED",
            "CLAIMED BY",
            "MESSAGE",
        ]);
        let number =
            |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |it| it.to_string());
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let time = |time: Option<Timestamp>| time.map_or_else(|| "-".to_owned(), moment);
        for replay in &self.items {
            table.row([
                replay.id.clone(),
                number(replay.epoch),
                text(&replay.phase),
                number(replay.start),
                text(&replay.windows),
                time(replay.requested),
                time(replay.finished),
                text(&replay.claimed_by),
                replay.message.clone(),
            ]);
        }
        table.write(out, style)
    }
}
