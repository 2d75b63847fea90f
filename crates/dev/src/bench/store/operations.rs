//! Each operation once a turn, raw and ours, over one connection and one stream: on three servers two
//! streams have two leaders, and one of them may be nearer.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use lookback::nats::definition;
use lookback::nats::entries::{Cursor, MAX_PAGE};
use lookback::worker::ports::{Lookup, Outbox};
use lookback_protocol::alert::{AlertRecord, NEW};
use lookback_protocol::workflow::{Ask, To};

use super::raw::Raw;
use super::samples::Samples;
use super::stage::{Servers, Stage};

/// A state that nothing is moved to or from here.
const LISTED: &str = "escalated";
/// Where the alerts of this bench are moved to.
const MOVED: &str = "triage";
/// A list takes as long as many of the others.
const TURNS_PER_LIST: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    RawPublish,
    RawBatch,
    RawGet,
    RawList,
    Create,
    CreateLookedUp,
    Move,
    Get,
    Definition,
    List,
}

impl Operation {
    pub(super) const ALL: [Self; 10] = [
        Self::RawPublish,
        Self::RawBatch,
        Self::RawGet,
        Self::RawList,
        Self::Create,
        Self::CreateLookedUp,
        Self::Move,
        Self::Get,
        Self::Definition,
        Self::List,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RawPublish => "raw publish",
            Self::RawBatch => "raw atomic batch of three",
            Self::RawGet => "raw get from the leader",
            Self::RawList => "raw get of 1,000",
            Self::Create => "create",
            Self::CreateLookedUp => "create, looked up first",
            Self::Move => "move",
            Self::Get => "get by id",
            Self::Definition => "get the workflow",
            Self::List => "list 1,000 of a state",
        }
    }

    /// What the document says of it from which the operations are taken.
    pub(super) fn in_the_document(self) -> &'static str {
        match self {
            Self::Create => "53 ms",
            Self::Get => "3-4 ms",
            Self::Definition => "107 ms",
            _ => "",
        }
    }
}

/// What is compared with what, and how many times as long it may take.
pub(super) const COMPARED: [(Operation, Operation, Option<f64>); 7] = [
    (Operation::Create, Operation::RawPublish, Some(3.0)),
    (Operation::CreateLookedUp, Operation::RawPublish, Some(3.0)),
    (Operation::Move, Operation::RawPublish, Some(4.0)),
    (Operation::Move, Operation::RawBatch, None),
    (Operation::Get, Operation::RawGet, Some(2.0)),
    (Operation::Definition, Operation::RawGet, Some(2.0)),
    (Operation::List, Operation::RawList, None),
];

/// All times of one round.
pub(super) type Round = BTreeMap<Operation, Samples>;

/// What was measured on some servers.
pub(super) struct Measured {
    pub(super) servers: String,
    /// Bytes of an alert.
    pub(super) bytes: usize,
    pub(super) rounds: Vec<Round>,
}

impl Measured {
    pub(super) fn all(&self, operation: Operation) -> Samples {
        let mut all = Samples::default();
        for samples in self.rounds.iter().filter_map(|round| round.get(&operation)) {
            all.extend(samples);
        }
        all
    }

    /// How many times as long as `raw` it took, in each round.
    pub(super) fn ratios(&self, operation: Operation, raw: Operation) -> Vec<f64> {
        let of = |round: &Round, operation| round.get(&operation).map(Samples::median);
        let ratio = |round| Some(of(round, operation)? / of(round, raw)?);
        self.rounds.iter().filter_map(ratio).collect()
    }

    pub(super) fn summary(&self) -> String {
        let median = |operation| self.all(operation).median();
        format!(
            "{}: p50 in ms: raw publish {:.2}, create {:.2}, move {:.2}; raw get {:.2}, get {:.2}",
            self.servers,
            median(Operation::RawPublish),
            median(Operation::Create),
            median(Operation::Move),
            median(Operation::RawGet),
            median(Operation::Get),
        )
    }
}

pub(super) async fn measure(servers: &Servers, rounds: usize, times: usize) -> Result<Measured> {
    let stage = Stage::new(servers, "operations").await?;
    let page = u64::try_from(MAX_PAGE)?;
    stage.fill(0..page, |_| LISTED).await?;
    let mut turns = Turns {
        raw: Raw::new(&stage, LISTED),
        next: page,
        stage,
    };
    // The first of each pays for what is set up once.
    turns.take(&mut Round::default(), 0).await?;
    let mut measured = Measured {
        servers: servers.to_string(),
        bytes: serde_json::to_vec(&turns.stage.alert(0, NEW))?.len(),
        rounds: Vec::new(),
    };
    for _ in 0..rounds {
        let mut round = Round::default();
        for turn in 0..times {
            turns.take(&mut round, turn).await?;
        }
        measured.rounds.push(round);
    }
    Ok(measured)
}

struct Turns {
    stage: Stage,
    raw: Raw,
    /// The next event.
    next: u64,
}

impl Turns {
    /// Everything once. What can change places does so from turn to turn, since the first one after a
    /// move meets a server that still tidies up.
    async fn take(&mut self, round: &mut Round, turn: usize) -> Result<()> {
        let mut took = |operation: Operation, begun: Instant| {
            round.entry(operation).or_default().add(begun.elapsed());
        };
        let [past, batched, alert, known] = self.new_alerts();
        let (stage, raw) = (&self.stage, &self.raw);
        for at in 0..4 {
            let begun = Instant::now();
            match (turn + at) % 4 {
                0 => {
                    raw.publish(&past.id, serde_json::to_vec(&past)?).await?;
                    took(Operation::RawPublish, begun);
                }
                1 => {
                    raw.batch(&batched.id, serde_json::to_vec(&batched)?)
                        .await?;
                    took(Operation::RawBatch, begun);
                }
                2 => {
                    stage.outbox.create_alert(&alert, Lookup::No).await?;
                    took(Operation::Create, begun);
                }
                _ => {
                    stage.outbox.create_alert(&known, Lookup::First).await?;
                    took(Operation::CreateLookedUp, begun);
                }
            }
        }
        for at in 0..3 {
            let begun = Instant::now();
            match (turn + at) % 3 {
                0 => {
                    let message = raw.get(&past.id).await?;
                    took(Operation::RawGet, begun);
                    ensure!(!message.payload.is_empty(), "an empty message");
                }
                1 => {
                    let found = stage.alerts.get(&alert.id).await?;
                    took(Operation::Get, begun);
                    ensure!(found.state == NEW, "{} is {}", found.id, found.state);
                }
                _ => {
                    let definition = definition::read(&stage.nats, &stage.key).await?;
                    took(Operation::Definition, begun);
                    ensure!(definition.is_some(), "no workflow");
                }
            }
        }
        let ask = ask(MOVED, format!("move-{}", self.next));
        let begun = Instant::now();
        let moved = stage.alerts.step(&alert.id, None, &ask).await?;
        took(Operation::Move, begun);
        ensure!(moved.alert.state == MOVED, "{moved:?}");
        if turn.is_multiple_of(TURNS_PER_LIST) {
            let begun = Instant::now();
            let page = stage.alerts.list(Some(LISTED), Cursor::default(), MAX_PAGE);
            let listed = page.await?.items.len();
            took(Operation::List, begun);
            ensure!(listed == MAX_PAGE, "a list of {listed}");
            let begun = Instant::now();
            raw.list().await?;
            took(Operation::RawList, begun);
        }
        Ok(())
    }

    fn new_alerts(&mut self) -> [AlertRecord; 4] {
        [(); 4].map(|()| {
            self.next += 1;
            self.stage.alert(self.next, NEW)
        })
    }
}

/// Somebody's wish.
pub(super) fn ask(state: &str, op_id: String) -> Ask {
    Ask {
        to: To::State(state.to_owned()),
        by: "user/bench".to_owned(),
        reason: "measured".to_owned(),
        metadata: BTreeMap::new(),
        op_id,
        time: Timestamp::UNIX_EPOCH,
    }
}
