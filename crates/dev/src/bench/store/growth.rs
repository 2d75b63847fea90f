//! Pipelines of different sizes on one server, asked the same in turn.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Result, ensure};
use lookback::nats::entries::{Cursor, MAX_PAGE};
use lookback_protocol::alert::NEW;

use super::operations::ask;
use super::samples::Samples;
use super::stage::{Servers, Stage};

/// Alerts of each pipeline that are in another state, evenly spread among the rest.
pub(super) const RARE: u64 = 100;
/// Alerts of each pipeline that were moved, and left tombstones.
pub(super) const MOVED: u64 = 100;
const RARE_STATE: &str = "escalated";
const MOVED_STATE: &str = "triage";
/// A page of a thousand takes as long as many gets.
const TURNS_PER_PAGE: usize = 5;
/// Alerts of a page that begins half the way through.
const LATER_PAGE: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Question {
    Get,
    FirstPage,
    LaterPage,
    RareState,
    Counts,
}

impl Question {
    pub(super) const ALL: [Self; 5] = [
        Self::Get,
        Self::FirstPage,
        Self::LaterPage,
        Self::RareState,
        Self::Counts,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Get => "get by id",
            Self::FirstPage => "first page of 1,000 of a state",
            Self::LaterPage => "page of 100 in the midst of a state",
            Self::RareState => "list of a state with 100 alerts",
            Self::Counts => "counts by state",
        }
    }
}

/// A pipeline of one size and how long it took to answer.
pub(super) struct Grown {
    pub(super) alerts: u64,
    pub(super) answers: BTreeMap<Question, Samples>,
}

/// Fills a pipeline of each of `sizes` and asks each question so many `times`.
pub(super) async fn measure(
    sizes: &[u64],
    times: usize,
    progress: &mut impl FnMut(&str),
) -> Result<Vec<Grown>> {
    let servers = Servers::start(1).await?;
    let mut pipelines = Vec::new();
    for &alerts in sizes {
        let least = RARE + MOVED + u64::try_from(MAX_PAGE)? / 2;
        ensure!(alerts >= least, "at least {least} alerts are needed");
        progress(&format!("{servers}: storing {alerts} alerts"));
        let grown = Grown {
            alerts,
            answers: BTreeMap::new(),
        };
        pipelines.push((pipeline(&servers, alerts).await?, grown));
    }
    progress("asking in turn");
    for turn in 0..times {
        for (stage, grown) in &mut pipelines {
            ask_all(stage, grown, turn).await?;
        }
    }
    Ok(pipelines.into_iter().map(|(_, grown)| grown).collect())
}

async fn pipeline(servers: &Servers, alerts: u64) -> Result<Stage> {
    let stage = Stage::new(servers, &format!("alerts-{alerts}")).await?;
    let every = alerts / RARE;
    let state = |n: u64| {
        if n.is_multiple_of(every) && n / every < RARE {
            RARE_STATE
        } else {
            NEW
        }
    };
    stage.fill(0..alerts, state).await?;
    for n in 0..MOVED {
        let id = stage.alert(n * every + 1, NEW).id;
        let ask = ask(MOVED_STATE, format!("{alerts}-{n}"));
        stage.alerts.step(&id, None, &ask).await?;
    }
    Ok(stage)
}

async fn ask_all(stage: &Stage, grown: &mut Grown, turn: usize) -> Result<()> {
    let alerts = grown.alerts;
    let mut took = |question: Question, begun: Instant| {
        let samples = grown.answers.entry(question).or_default();
        samples.add(begun.elapsed());
    };
    // Far apart, and each size the same share of the way through.
    let n = u64::try_from(turn)? * 7919 % alerts;
    let id = stage.alert(n, NEW).id;
    let begun = Instant::now();
    let found = stage.alerts.get(&id).await?;
    took(Question::Get, begun);
    ensure!(found.id == id, "{} instead of {id}", found.id);

    let begun = Instant::now();
    let counts = stage.alerts.counts().await?;
    took(Question::Counts, begun);
    let counted = [NEW, MOVED_STATE, RARE_STATE].map(|state| counts.get(state).copied());
    let expected = [alerts - RARE - MOVED, MOVED, RARE].map(Some);
    ensure!(counted == expected, "counts are {counts:?}");

    let begun = Instant::now();
    let rare = stage
        .alerts
        .list(Some(RARE_STATE), Cursor::default(), MAX_PAGE);
    let listed = u64::try_from(rare.await?.items.len())?;
    took(Question::RareState, begun);
    ensure!(listed == RARE, "{listed} of {RARE}");

    if turn.is_multiple_of(TURNS_PER_PAGE) {
        let begun = Instant::now();
        let page = stage.alerts.list(Some(NEW), Cursor::default(), MAX_PAGE);
        let listed = u64::try_from(page.await?.items.len())?;
        took(Question::FirstPage, begun);
        let expected = u64::try_from(MAX_PAGE)?.min(alerts - RARE - MOVED);
        ensure!(listed == expected, "a page of {listed}, not {expected}");

        let begun = Instant::now();
        let page = stage.alerts.list(Some(NEW), Cursor(alerts / 2), LATER_PAGE);
        let listed = page.await?.items.len();
        took(Question::LaterPage, begun);
        ensure!(listed == LATER_PAGE, "a later page of {listed}");
    }
    Ok(())
}
