//! What the operator makes in NATS for one pipeline, on one server and on a cluster of three, and
//! alerts in it, created as the worker creates them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use async_nats::jetstream::stream::PeerInfo;
use async_nats::{Client, Subscriber, jetstream};
use data_encoding::BASE64;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use lookback::nats::alerts::{AlertStore, StoredAlert};
use lookback::nats::connect::{Nats, Options, Target, Timeouts};
use lookback::nats::definition;
use lookback::nats::desired::DesiredStream;
use lookback::nats::entries::Cursor;
use lookback::nats::outbox::JetStreamOutbox;
use lookback::nats::streams::{self, ObservedStream};
use lookback::worker::ports::{Lookup, Outbox, Stored};
use lookback_dev::sample;
use lookback_dev::support::{NatsCluster, NatsServer, eventually, patient};
use lookback_protocol::alert::{AlertRecord, MOVED_TO, NEW};
use lookback_protocol::names::{AUDIT_STREAM, Owner, PipelineKey};
use lookback_protocol::workflow::{self, Ask, Definition, To, WorkflowSpec};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::nats_fixture::{OWNER, STREAM, key, patience};

/// Creates that are under way at once.
const IN_FLIGHT: usize = 64;
/// For a server that was killed to be whole again.
const HEALING: Duration = Duration::from_secs(180);
/// As many entries as a page takes.
const PAGE: usize = 1000;

/// How many servers there are, and copies of each stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Copies {
    One,
    Three,
}

/// The servers; they die with this.
pub(crate) enum Servers {
    One(Box<NatsServer>),
    Three(NatsCluster),
}

/// One pipeline's streams, and the stores over them.
pub(crate) struct StoreFixture {
    pub(crate) servers: Servers,
    pub(crate) nats: Nats,
    pub(crate) js: jetstream::Context,
    /// The worker's way in.
    pub(crate) outbox: JetStreamOutbox,
    /// The people's way in.
    pub(crate) alerts: AlertStore,
}

impl StoreFixture {
    pub(crate) async fn r1() -> Result<Self> {
        Self::start(Copies::One).await
    }

    pub(crate) async fn r3() -> Result<Self> {
        Self::start(Copies::Three).await
    }

    pub(crate) async fn start(copies: Copies) -> Result<Self> {
        let servers = match copies {
            Copies::One => Servers::One(Box::new(NatsServer::start().await?)),
            Copies::Three => Servers::Three(NatsCluster::start().await?),
        };
        let nats = connect(servers.urls()).await?;
        create_streams(&nats, &key(), copies).await?;
        Ok(Self {
            js: patient(nats.client().clone()),
            outbox: JetStreamOutbox::new(nats.clone(), key()),
            alerts: AlertStore::new(nats.clone(), owner()),
            nats,
            servers,
        })
    }

    /// The people's way in over a connection of its own.
    pub(crate) async fn another(&self) -> Result<AlertStore> {
        let nats = connect(self.servers.urls()).await?;
        Ok(AlertStore::new(nats, owner()))
    }

    /// Connections to each server, and to no other.
    pub(crate) async fn each(&self) -> Result<Vec<Nats>> {
        let mut all = Vec::new();
        for url in self.servers.urls() {
            all.push(connect(vec![url]).await?);
        }
        Ok(all)
    }

    /// Creates the alerts of these numbers; their ids, in the same order.
    pub(crate) async fn create(&self, numbers: std::ops::Range<u64>) -> Result<Vec<String>> {
        stream::iter(numbers)
            .map(async |n| {
                let record = record(n);
                let stored = self.outbox.create_alert(&record, Lookup::No).await?;
                ensure!(matches!(stored, Stored::New(_)), "alert {n}: {stored:?}");
                anyhow::Ok(record.id)
            })
            .buffered(IN_FLIGHT)
            .try_collect()
            .await
    }

    /// Creates one alert, and reads it.
    pub(crate) async fn one(&self) -> Result<StoredAlert> {
        let id = self.create(1..2).await?.remove(0);
        Ok(self.alerts.get(&id).await?)
    }

    /// Writes the workflow as the operator does.
    pub(crate) async fn define(&self, workflow: WorkflowSpec) -> Result<()> {
        let definition = Definition {
            v: workflow::VERSION,
            owner: owner(),
            initial: NEW.to_owned(),
            workflow,
            former: Vec::new(),
        };
        definition::ensure(&self.nats, &definition, None).await?;
        Ok(())
    }

    /// Waits until each copy of each stream that moves write is there and up to date.
    pub(crate) async fn healed(&self) -> Result<()> {
        let mut asking = self.js.clone();
        // A request that went to a server that is down is never answered.
        asking.set_timeout(Timeouts::default().request);
        for name in [key().alerts_stream(), AUDIT_STREAM.to_owned()] {
            eventually(HEALING, "the copies are up to date", async || {
                let mut stream = asking.get_stream(&name).await?;
                let cluster = stream.info().await?.cluster.clone();
                let cluster = cluster.context("no cluster")?;
                let current = |copy: &&PeerInfo| copy.current && !copy.offline;
                let copies = cluster.replicas.iter().filter(current).count();
                ensure!(cluster.leader.is_some() && copies == 2, "{cluster:?}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// The alerts stream as its leader describes it.
    pub(crate) async fn alerts_stream(&self) -> Result<ObservedStream> {
        observed(&self.nats, &key().alerts_stream()).await
    }

    /// Every alert of a state, or of all, by all pages of `limit`.
    pub(crate) async fn listed(
        &self,
        state: Option<&str>,
        limit: usize,
    ) -> Result<Vec<StoredAlert>> {
        listed(&self.alerts, state, limit).await
    }
}

impl Servers {
    pub(crate) fn urls(&self) -> Vec<String> {
        match self {
            Self::One(server) => vec![server.url()],
            Self::Three(cluster) => cluster.urls(),
        }
    }
}

/// The streams of one pipeline and those that all share, as the operator makes them.
pub(crate) async fn create_streams(nats: &Nats, key: &PipelineKey, copies: Copies) -> Result<()> {
    let copies = match copies {
        Copies::One => 1,
        Copies::Three => 3,
    };
    let owner = Owner {
        pipeline: key.clone(),
        ..owner()
    };
    let (bytes, age) = (Some(1 << 30), Some(Duration::from_secs(30 * 86_400)));
    let alerts = DesiredStream::alerts(key, bytes, age, copies, owner.to_string());
    let (name, subjects) = (key.dead_letters_stream(), key.dead_letter_subjects());
    let dead_letters = DesiredStream::store(name, subjects, bytes, age, copies, owner.to_string());
    for stream in [alerts, dead_letters] {
        streams::ensure(nats, &stream).await?;
    }
    for shared in [
        DesiredStream::state_bucket(copies),
        DesiredStream::audit(copies),
    ] {
        streams::ensure_shared(nats, &shared).await?;
    }
    Ok(())
}

/// A connection of a test that does not ask how long an answer takes.
pub(crate) async fn connect(urls: Vec<String>) -> Result<Nats> {
    connect_with(urls, patience()).await
}

pub(crate) async fn connect_with(urls: Vec<String>, timeouts: Timeouts) -> Result<Nats> {
    let target = Target {
        urls,
        timeouts,
        ..Target::default()
    };
    Ok(Nats::connect(&target, &Options::named("test")).await?)
}

pub(crate) fn owner() -> Owner {
    let owner = Owner {
        cluster: "cluster".to_owned(),
        pipeline: key(),
    };
    assert_eq!(owner.to_string(), OWNER);
    owner
}

/// The alert of the event `n`, as the worker writes it.
pub(crate) fn record(n: u64) -> AlertRecord {
    record_of(&key(), n)
}

/// As [`record`], of another pipeline.
pub(crate) fn record_of(pipeline: &PipelineKey, n: u64) -> AlertRecord {
    sample::alert(pipeline, STREAM, n)
}

/// Where an alert that has left `state` marks it.
pub(crate) fn mark(state: &str, id: &str) -> String {
    format!("lookback.v1.prod.edr.alert.left.{state}.{id}")
}

/// A new operation of `user/ann`.
pub(crate) fn ask(to: To) -> Ask {
    Ask {
        to,
        by: "user/ann".to_owned(),
        reason: "looking into it".to_owned(),
        metadata: BTreeMap::new(),
        op_id: Uuid::now_v7().to_string(),
        time: Timestamp::now(),
    }
}

/// A new operation of `user/ann` that moves an alert to `state`.
pub(crate) fn to(state: &str) -> Ask {
    ask(To::State(state.to_owned()))
}

/// Every alert of a state, or of all, by all pages of `limit`.
pub(crate) async fn listed(
    alerts: &AlertStore,
    state: Option<&str>,
    limit: usize,
) -> Result<Vec<StoredAlert>> {
    ensure!((1..=PAGE).contains(&limit), "a page of {limit}");
    let mut all = Vec::new();
    let mut from = Cursor::default();
    loop {
        let page = alerts.list(state, from, limit).await?;
        ensure!(
            page.items.len() <= limit,
            "a page of {} for {limit}",
            page.items.len()
        );
        all.extend(page.items);
        match page.next {
            Some(next) => from = next,
            None => return Ok(all),
        }
    }
}

/// A stream as its leader describes it.
pub(crate) async fn observed(nats: &Nats, stream: &str) -> Result<ObservedStream> {
    let found = streams::read(nats, stream).await?;
    found.with_context(|| format!("no stream {stream}"))
}

/// A message as the server holds it, read past everything that is tested.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Raw {
    pub(crate) subject: String,
    pub(crate) sequence: u64,
    pub(crate) time: Timestamp,
    pub(crate) headers: String,
    pub(crate) body: Vec<u8>,
}

impl Raw {
    pub(crate) fn is_tombstone(&self) -> bool {
        self.header(MOVED_TO).is_some()
    }

    /// The first value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.headers.lines().filter_map(|line| line.split_once(':'));
        lines
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.trim())
    }
}

/// Every message of a stream, from its leader, without a consumer.
pub(crate) async fn raw(js: &jetstream::Context, stream: &str) -> Result<Vec<Raw>> {
    let mut all = Vec::new();
    let mut next = 1;
    loop {
        let body = json!({ "seq": next, "next_by_subj": ">" });
        let answer: Value = js
            .request(format!("STREAM.MSG.GET.{stream}"), &body)
            .await?;
        if answer["error"]["err_code"] == 10037 {
            return Ok(all);
        }
        let message = &answer["message"];
        let text = |field: &str| message[field].as_str().unwrap_or_default().to_owned();
        let bytes = |field: &str| BASE64.decode(text(field).as_bytes());
        let sequence = message["seq"].as_u64();
        let sequence = sequence.with_context(|| format!("no message: {answer}"))?;
        all.push(Raw {
            subject: text("subject"),
            sequence,
            time: text("time").parse()?,
            headers: String::from_utf8(bytes("hdrs")?)?,
            body: bytes("data")?,
        });
        next = sequence + 1;
    }
}

/// Where each alert stands in an alerts stream, tombstones and marks set aside. None may stand twice,
/// and nothing may be left of one that stands nowhere.
pub(crate) fn standing(messages: &[Raw]) -> Result<BTreeMap<String, &Raw>> {
    let prefix = key().alert_subject("", "");
    let prefix = prefix.trim_end_matches('.');
    let mut standing = BTreeMap::new();
    let mut moved = BTreeSet::new();
    for message in messages {
        let rest = message.subject.strip_prefix(prefix);
        let rest = rest.and_then(|rest| rest.strip_prefix('.'));
        let tokens: Vec<_> = rest
            .with_context(|| format!("a message on {}", message.subject))?
            .split('.')
            .collect();
        match tokens[..] {
            ["left", _, id] => {
                moved.insert(id.to_owned());
            }
            [_, id] if message.is_tombstone() => {
                moved.insert(id.to_owned());
            }
            [_, id] => {
                if let Some(other) = standing.insert(id.to_owned(), message) {
                    bail!("{} and {} are one alert", other.subject, message.subject);
                }
            }
            _ => bail!("a message on {}", message.subject),
        }
    }
    for id in moved {
        ensure!(
            standing.contains_key(&id),
            "nothing but what is left of {id}"
        );
    }
    Ok(standing)
}

/// Hears every request to JetStream's API. Only on a single server, where what was answered was heard.
pub(crate) struct Spy {
    client: Client,
    requests: Subscriber,
}

impl Spy {
    pub(crate) async fn open(fixture: &StoreFixture) -> Result<Self> {
        let Servers::One(server) = &fixture.servers else {
            bail!("a spy on a cluster hears late");
        };
        let client = server.client().await?;
        let requests = client.subscribe("$JS.API.>").await?;
        let mut spy = Self { client, requests };
        // What is heard of oneself, the server has subscribed.
        spy.heard().await?;
        Ok(spy)
    }

    /// What was asked for since the last time, without `$JS.API.`.
    pub(crate) async fn heard(&mut self) -> Result<Vec<String>> {
        const END: &str = "$JS.API.END";
        self.client.publish(END, "".into()).await?;
        let mut heard = Vec::new();
        loop {
            let message = self.requests.next().await.context("the spy is gone")?;
            match message.subject.strip_prefix("$JS.API.") {
                Some("END") => return Ok(heard),
                Some(request) => heard.push(request.to_owned()),
                None => bail!("{} is no request", message.subject),
            }
        }
    }
}
