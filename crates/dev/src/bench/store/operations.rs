//! Each operation once a turn, raw and ours, over one connection and one stream: on three servers two
//! streams have two leaders, and one of them may be nearer.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use async_nats::HeaderMap;
use async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE;
use async_nats::jetstream;
use jiff::Timestamp;
use lookback::nats::definition;
use lookback::nats::entries::{Cursor, MAX_PAGE};
use lookback::worker::ports::{Lookup, Outbox};
use lookback_protocol::alert::NEW;
use lookback_protocol::workflow::{Ask, To};

use super::samples::Samples;
use super::stage::{Servers, Stage};

/// A state of no workflow, for what is written past the store.
const RAW: &str = "raw";
/// A state that nothing is moved to or from here.
const LISTED: &str = "escalated";
/// Where the alerts of this bench are moved to.
const MOVED: &str = "triage";
/// A list takes as long as many of the others.
const TURNS_PER_LIST: usize = 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    RawPublish,
    Create,
    CreateLookedUp,
    Move,
    RawGet,
    Get,
    Definition,
    List,
}

impl Operation {
    pub(super) const ALL: [Self; 8] = [
        Self::RawPublish,
        Self::Create,
        Self::CreateLookedUp,
        Self::Move,
        Self::RawGet,
        Self::Get,
        Self::Definition,
        Self::List,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RawPublish => "raw publish",
            Self::Create => "create",
            Self::CreateLookedUp => "create, looked up first",
            Self::Move => "move",
            Self::RawGet => "raw get from the leader",
            Self::Get => "get by id",
            Self::Definition => "get the workflow",
            Self::List => "list 1,000 of a state",
        }
    }

    /// What it is compared with.
    pub(super) fn raw(self) -> Self {
        match self {
            Self::RawPublish | Self::Create | Self::CreateLookedUp | Self::Move => Self::RawPublish,
            Self::RawGet | Self::Get | Self::Definition | Self::List => Self::RawGet,
        }
    }

    /// How many times as long as the raw one it may take.
    pub(super) fn target(self) -> Option<f64> {
        match self {
            Self::Create | Self::CreateLookedUp => Some(3.0),
            Self::Move => Some(4.0),
            Self::Get | Self::Definition => Some(2.0),
            Self::RawPublish | Self::RawGet | Self::List => None,
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

    /// How many times as long as the raw one it took, in each round.
    pub(super) fn ratios(&self, operation: Operation) -> Vec<f64> {
        let of = |round: &Round, operation| round.get(&operation).map(Samples::median);
        let ratio = |round| Some(of(round, operation)? / of(round, operation.raw())?);
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
        raw: Raw::new(&stage),
        next: page,
        stage,
    };
    // The first of each pays for what is set up once.
    turns.take(&mut Round::default(), true).await?;
    let mut measured = Measured {
        servers: servers.to_string(),
        bytes: serde_json::to_vec(&turns.stage.alert(0, NEW))?.len(),
        rounds: Vec::new(),
    };
    for _ in 0..rounds {
        let mut round = Round::default();
        for turn in 0..times {
            turns.take(&mut round, turn % TURNS_PER_LIST == 0).await?;
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
    async fn take(&mut self, round: &mut Round, list: bool) -> Result<()> {
        let stage = &self.stage;
        let mut next = || {
            self.next += 1;
            stage.alert(self.next, NEW)
        };
        let (past, alert, known) = (next(), next(), next());
        let mut took = |operation: Operation, begun: Instant| {
            round.entry(operation).or_default().add(begun.elapsed());
        };

        let begun = Instant::now();
        let body = serde_json::to_vec(&past)?;
        self.raw.publish(&past.id, body).await?;
        took(Operation::RawPublish, begun);

        let begun = Instant::now();
        stage.outbox.create_alert(&alert, Lookup::No).await?;
        took(Operation::Create, begun);

        let begun = Instant::now();
        stage.outbox.create_alert(&known, Lookup::First).await?;
        took(Operation::CreateLookedUp, begun);

        let begun = Instant::now();
        let message = self.raw.get(&past.id).await?;
        took(Operation::RawGet, begun);
        ensure!(!message.payload.is_empty(), "an empty message");

        let begun = Instant::now();
        let found = stage.alerts.get(&alert.id).await?;
        took(Operation::Get, begun);
        ensure!(found.state == NEW, "{} is {}", found.id, found.state);

        let begun = Instant::now();
        let definition = definition::read(&stage.nats, &stage.key).await?;
        took(Operation::Definition, begun);
        ensure!(definition.is_some(), "no workflow");

        let ask = ask(MOVED, format!("move-{}", self.next));
        let begun = Instant::now();
        let moved = stage.alerts.step(&alert.id, None, &ask).await?;
        took(Operation::Move, begun);
        ensure!(moved.alert.state == MOVED, "{moved:?}");

        if list {
            let begun = Instant::now();
            let page = stage.alerts.list(Some(LISTED), Cursor::default(), MAX_PAGE);
            let listed = page.await?.items.len();
            took(Operation::List, begun);
            ensure!(listed == MAX_PAGE, "a list of {listed}");
        }
        Ok(())
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

/// The client's own calls, over the same connection.
struct Raw {
    jetstream: jetstream::Context,
    stream: String,
    prefix: String,
}

impl Raw {
    fn new(stage: &Stage) -> Self {
        Self {
            jetstream: jetstream::new(stage.nats.client().clone()),
            stream: stage.key.alerts_stream(),
            prefix: stage.key.alert_subject(RAW, ""),
        }
    }

    fn subject(&self, id: &str) -> String {
        format!("{}{id}", self.prefix)
    }

    async fn publish(&self, id: &str, body: Vec<u8>) -> Result<()> {
        let mut headers = HeaderMap::new();
        headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
        let subject = self.subject(id);
        let sent = self
            .jetstream
            .publish_with_headers(subject, headers, body.into());
        sent.await?.await.context("a raw publish")?;
        Ok(())
    }

    async fn get(&self, id: &str) -> Result<jetstream::message::StreamMessage> {
        let stream = self.jetstream.get_stream_no_info(&self.stream).await?;
        let subject = self.subject(id);
        let message = stream.get_last_raw_message_by_subject(&subject).await;
        message.context("a raw get")
    }
}
