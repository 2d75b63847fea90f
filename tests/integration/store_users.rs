//! The users of `docs/nats-users.md`, on a server that has exactly the permissions of that page.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::{self, stream};
use async_nats::{Client, ConnectOptions};
use jiff::Timestamp;
use lookback::nats::alerts::{AlertStore, Begin, Heard, Live, Subscription, anywhere};
use lookback::nats::audit;
use lookback::nats::checkpoint::{self, CheckpointWatch, JetStreamCheckpoints};
use lookback::nats::connect::{Auth, Material, Nats, Options, Target, Timeouts};
use lookback::nats::consumers;
use lookback::nats::deadletters::{DeadLetterStore, LetterAsk, Selector};
use lookback::nats::definition;
use lookback::nats::desired::{DesiredConsumer, DesiredStream};
use lookback::nats::ensure::{Deleted, Ensured};
use lookback::nats::entries::Cursor;
use lookback::nats::log::JetStreamLog;
use lookback::nats::outbox::JetStreamOutbox;
use lookback::nats::streams;
use lookback::worker::ports::{AckToken, Checkpoints, DeadLetter, Delivery, Log, Lookup, Outbox};
use lookback_dev::support::{NatsServer, Settings, eventually, patient};
use lookback_protocol::alert::NEW;
use lookback_protocol::deadletter::{PARKED, Reason, STATES};
use lookback_protocol::names::{AUDIT_STREAM, STATE_STREAM};
use lookback_protocol::position::{Epoch, StreamSeq};
use lookback_protocol::workflow::{Definition, To, Workflow};
use serde_json::Value;
use uuid::Uuid;

use crate::nats_checkpoint;
use crate::nats_fixture::{
    CONSUMER, OWNER, SOON, STREAM, delivery, desired_consumer, key, patience, position,
};
use crate::store_fixture::{Copies, ask, create_streams, mark, owner, record, to};

const DOCUMENT: &str = include_str!("../../docs/nats-users.md");
const USERS: [&str; 6] = ["reader", "ann", "soar", "worker", "operator", "admin"];
/// How often each read is repeated.
const ROUNDS: usize = 100;

/// Every block of configuration in the document, with passwords beside it.
fn configuration() -> String {
    let mut text = String::new();
    for user in USERS {
        text.push_str(&format!(
            "{}_PASSWORD: \"{}\"\n",
            user.to_uppercase(),
            password(user)
        ));
    }
    for block in DOCUMENT.split("```conf\n").skip(1) {
        text.push_str(block.split("```").next().unwrap_or_default());
    }
    text
}

fn password(user: &str) -> String {
    format!("of-{user}")
}

async fn connect_as(server: &NatsServer, user: &str) -> Result<Nats> {
    connect_with(server, user, patience()).await
}

async fn connect_with(server: &NatsServer, user: &str, timeouts: Timeouts) -> Result<Nats> {
    let material = |text: &str| Material::Bytes(text.as_bytes().to_vec());
    let target = Target {
        urls: vec![server.url()],
        auth: Some(Auth::UserPassword {
            username: material(user),
            password: material(&password(user)),
        }),
        timeouts,
        ..Target::default()
    };
    let nats = Nats::connect(&target, &Options::named(user)).await;
    nats.with_context(|| format!("connect as {user}"))
}

/// A pipeline in which everyone has done their work, each as their own user.
struct Account {
    server: NatsServer,
    admin: jetstream::Context,
    ids: Vec<String>,
    letters: Vec<String>,
    /// A delivery that the worker has not acknowledged.
    ack: AckToken,
}

impl Account {
    async fn at_work() -> Result<Self> {
        let settings = Settings {
            extra: configuration(),
            ..Settings::default()
        };
        let server = NatsServer::start_with(settings).await?;
        let admin = connect_as(&server, "admin").await?;
        let admin = patient(admin.client().clone());
        let config = stream::Config {
            name: STREAM.to_owned(),
            subjects: vec!["events.>".to_owned()],
            ..Default::default()
        };
        admin.create_stream(config).await?;
        for n in 0..20 {
            admin
                .publish("events.a", format!("{{\"n\":{n}}}").into())
                .await?
                .await?;
        }
        operate(&connect_as(&server, "operator").await?).await?;
        let (ids, letters, ack) = work(&connect_as(&server, "worker").await?).await?;
        let account = Self {
            admin,
            ids,
            letters,
            ack,
            server,
        };
        account.look_into_it(&account.nats("ann").await?).await?;
        Ok(account)
    }

    async fn nats(&self, user: &str) -> Result<Nats> {
        connect_as(&self.server, user).await
    }

    /// For what is refused: the server does not answer that.
    async fn refused(&self, user: &str) -> Result<Nats> {
        connect_with(&self.server, user, Timeouts::default()).await
    }

    /// What people do.
    async fn look_into_it(&self, nats: &Nats) -> Result<()> {
        let alerts = AlertStore::new(nats.clone(), owner());
        for id in &self.ids[..10] {
            alerts.step(id, None, &to("triage")).await?;
        }
        alerts.step(&self.ids[0], None, &ask(To::Archive)).await?;
        let letters = DeadLetterStore::new(nats.clone(), owner());
        letters.redrive(&self.letters[0], &letter_ask()).await?;
        letters.discard(&self.letters[1], &letter_ask()).await?;
        Ok(())
    }

    /// Every stream and its consumers, as the server describes them, but for the time of the answer.
    async fn snapshot(&self) -> Result<String> {
        let mut text = String::new();
        let (alerts, letters) = (key().alerts_stream(), key().dead_letters_stream());
        for name in [STREAM, &alerts, &letters, STATE_STREAM, AUDIT_STREAM] {
            for request in ["STREAM.INFO", "CONSUMER.LIST"] {
                let subject = format!("{request}.{name}");
                let mut answer: Value = self.admin.request(subject, &()).await?;
                ensure!(answer.get("error").is_none(), "{answer}");
                forget_time(&mut answer);
                text.push_str(&format!("{request}.{name} {answer}\n"));
            }
        }
        Ok(text)
    }
}

fn forget_time(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.remove("ts");
            fields.values_mut().for_each(forget_time);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_time),
        _ => {}
    }
}

fn source_consumer() -> DesiredConsumer {
    DesiredConsumer {
        filter_subjects: vec!["events.>".to_owned()],
        ..desired_consumer()
    }
}

fn letter_ask() -> LetterAsk {
    LetterAsk {
        by: "user/ann".to_owned(),
        reason: "mended".to_owned(),
        op_id: Uuid::now_v7().to_string(),
        time: Timestamp::now(),
        max_redrives: 3,
    }
}

/// What the operator does for a pipeline.
async fn operate(nats: &Nats) -> Result<()> {
    create_streams(nats, &key(), Copies::One).await?;
    let larger = DesiredStream::alerts(&key(), Some(1 << 31), None, 1, OWNER.to_owned());
    let ensured = streams::ensure(nats, &larger).await?;
    ensure!(matches!(ensured, Ensured::Updated { .. }), "{ensured:?}");
    consumers::ensure(nats, &source_consumer()).await?;
    ensure!(consumers::list(nats, STREAM, &key(), 0).await?.len() == 1);
    let workflow = Workflow::default();
    definition::ensure(nats, &Definition::new(owner(), &workflow), None).await?;
    let source = streams::read(nats, STREAM).await?.context("no source")?;
    ensure!(source.state.messages == 20);
    Ok(())
}

/// What a worker does.
async fn work(nats: &Nats) -> Result<(Vec<String>, Vec<String>, AckToken)> {
    let outbox = JetStreamOutbox::new(nats.clone(), key());
    outbox.rooms().await?;
    let mut ids = Vec::new();
    for n in 0..30 {
        outbox.create_alert(&record(n), Lookup::First).await?;
        ids.push(record(n).id);
    }
    let mut log = JetStreamLog::new(nats.clone(), STREAM, CONSUMER);
    position(&mut log, 1).await?;
    let first = delivery(&mut log).await?;
    log.ack(&first.ack).await?;
    let second = delivery(&mut log).await?;
    log.close().await?;
    let mut letters = Vec::new();
    for n in 1..4 {
        let letter = letter(n, &first);
        outbox.park(&letter).await?;
        letters.push(letter.id);
    }
    let mut checkpoints = JetStreamCheckpoints::new(nats.clone(), &key(), 0);
    checkpoints
        .store(&nats_checkpoint::checkpoint("a"), None)
        .await?;
    ensure!(checkpoints.load().await?.is_some());
    Ok((ids, letters, second.ack))
}

fn letter(n: u64, delivery: &Delivery) -> DeadLetter {
    DeadLetter {
        id: format!("0-{n}-e590fdd{n}"),
        reason: Reason::NotJson,
        error: "expected value at line 1 column 1".to_owned(),
        stream: STREAM.to_owned(),
        delivery: delivery.clone(),
        attempts: 1,
        epoch: Epoch(1),
    }
}

#[tokio::test]
async fn s30_s32_s50_t6_a_hundred_of_every_read_change_nothing_in_any_stream_or_consumer()
-> Result<()> {
    let account = Account::at_work().await?;
    let nats = account.nats("reader").await?;
    let alerts = AlertStore::new(nats.clone(), owner());
    let letters = DeadLetterStore::new(nats.clone(), owner());
    let mut checkpoints = JetStreamCheckpoints::new(nats.clone(), &key(), 0);
    let mut live = Live::open(&nats, &key(), None).await?;
    let before = account.snapshot().await?;
    let mut seen = Vec::new();
    for round in 0..ROUNDS {
        let id = &account.ids[1];
        let mut all = Vec::new();
        all.push(format!("{:?}", alerts.get(id).await?));
        all.push(format!("{:?}", alerts.find(&id[..8]).await?));
        all.push(format!("{:?}", alerts.archived(&account.ids[0]).await?));
        all.push(format!("{:?}", alerts.counts().await?));
        all.push(format!("{:?}", alerts.workflow().await?.spec()));
        for state in [None, Some(NEW), Some("triage"), Some("archived")] {
            all.push(format!(
                "{:?}",
                alerts.list(state, Cursor::default(), 100).await?
            ));
        }
        all.push(format!("{:?}", anywhere(&nats, id).await?));
        all.push(format!("{:?}", letters.get(&account.letters[2]).await?));
        all.push(format!("{:?}", letters.counts().await?));
        let any = Selector::default();
        for state in STATES.map(Some).into_iter().chain([None]) {
            let page = letters.list(state, &any, Cursor::default(), 100).await?;
            all.push(format!("{page:?}"));
        }
        let page = audit::page(&nats, &key(), None, Cursor::default(), 100).await?;
        ensure!(page.items.len() > 10, "{page:?}");
        all.push(format!("{page:?}"));
        all.push(format!(
            "{:?}",
            audit::read(&nats, &page.items[0].subject).await?
        ));
        all.push(format!("{:?}", definition::read(&nats, &key()).await?));
        all.push(format!("{:?}", checkpoints.load().await?));
        let stream = key().alerts_stream();
        all.push(format!(
            "{:?}",
            streams::read(&nats, &stream).await?.map(|it| it.state)
        ));
        all.push(format!(
            "{:?}",
            consumers::read(&nats, STREAM, CONSUMER).await?
        ));
        if round == 0 {
            seen = all;
        } else {
            ensure!(
                all.iter()
                    .zip(&seen)
                    .all(|(a, b)| without_ts(a) == without_ts(b))
            );
        }
    }
    assert_eq!(account.snapshot().await?, before);
    // The listener was there all the time: it hears what comes now.
    let ann = AlertStore::new(account.nats("ann").await?, owner());
    ann.step(&account.ids[5], None, &to("closed")).await?;
    let heard = tokio::time::timeout(SOON, live.next())
        .await?
        .context("closed")??;
    let Heard::Alert(alert) = heard else {
        panic!("{heard:?}");
    };
    assert_eq!(
        (&alert.id, alert.state.as_str()),
        (&account.ids[5], "closed")
    );
    Ok(())
}

/// The time of an answer stands in the description of a consumer.
fn without_ts(text: &str) -> String {
    let kept = text.split(", ").filter(|part| !part.contains("\"ts\""));
    kept.collect::<Vec<_>>().join(", ")
}

/// A client that keeps what the server complains of.
async fn complaining(account: &Account, user: &str) -> Result<(Client, Arc<Mutex<Vec<String>>>)> {
    let complaints = Arc::new(Mutex::new(Vec::new()));
    let kept = complaints.clone();
    let client = ConnectOptions::with_user_and_password(user.to_owned(), password(user))
        .event_callback(move |event| {
            kept.lock()
                .expect("nobody panics with it")
                .push(event.to_string());
            std::future::ready(())
        })
        .connect(account.server.url())
        .await?;
    Ok((client, complaints))
}

#[tokio::test]
async fn s30_s31_a_reader_can_neither_write_nor_consume_nor_take_anything_away() -> Result<()> {
    let account = Account::at_work().await?;
    let before = account.snapshot().await?;
    let (client, complaints) = complaining(&account, "reader").await?;
    let alerts = key().alerts_stream();
    let id = &account.ids[15];
    let mut forbidden = vec![
        account.ack.0.clone(),
        key().alert_subject(NEW, id),
        key().alert_subject("triage", id),
        mark(NEW, id),
        key().alert_event_subject(NEW, id),
        key().dead_letter_subject(PARKED, &account.letters[2]),
        key().checkpoint_subject(0),
        key().definition_subject(),
        "lookback.audit.prod.edr.alert.x".to_owned(),
        "events.a".to_owned(),
        format!("$JS.API.STREAM.CREATE.{alerts}2"),
        format!("$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{CONSUMER}"),
        format!("$JS.API.CONSUMER.RESET.{STREAM}.{CONSUMER}"),
        format!("$JS.API.CONSUMER.PAUSE.{STREAM}.{CONSUMER}"),
        format!("$JS.API.CONSUMER.DELETE.{STREAM}.{CONSUMER}"),
    ];
    for stream in [
        STREAM,
        &alerts,
        &key().dead_letters_stream(),
        STATE_STREAM,
        AUDIT_STREAM,
    ] {
        for request in [
            "UPDATE",
            "PURGE",
            "DELETE",
            "MSG.DELETE",
            "SNAPSHOT",
            "LEADER.STEPDOWN",
        ] {
            forbidden.push(format!("$JS.API.STREAM.{request}.{stream}"));
        }
        forbidden.push(format!("$JS.API.CONSUMER.CREATE.{stream}"));
        forbidden.push(format!("$JS.API.CONSUMER.CREATE.{stream}.mine"));
        forbidden.push(format!("$JS.API.CONSUMER.CREATE.{stream}.mine.x"));
        forbidden.push(format!("$JS.API.CONSUMER.DURABLE.CREATE.{stream}.mine"));
    }
    for subject in &forbidden {
        client.publish(subject.clone(), "{}".into()).await?;
    }
    eventually(SOON, "the server complains of each", async || {
        let complaints = complaints.lock().unwrap();
        let complaint = |subject: &&String| {
            let quoted = format!("Publish to \"{subject}\"").to_lowercase();
            complaints
                .iter()
                .any(|it| it.to_lowercase().contains(&quoted))
        };
        let missing: Vec<_> = forbidden.iter().filter(|it| !complaint(it)).collect();
        ensure!(missing.is_empty(), "{missing:?} in {complaints:?}");
        Ok(())
    })
    .await?;
    let store = AlertStore::new(account.refused("reader").await?, owner());
    let moved = store.step(id, None, &to("triage")).await;
    assert!(moved.is_err(), "{moved:?}");
    assert_eq!(account.snapshot().await?, before);
    Ok(())
}

#[tokio::test]
async fn s30_people_who_move_alerts_cannot_purge_delete_or_rewrite_what_was_done() -> Result<()> {
    let account = Account::at_work().await?;
    let before = account.snapshot().await?;
    let (client, complaints) = complaining(&account, "ann").await?;
    let mut forbidden = vec![
        "lookback.audit.prod.edr.replay.x".to_owned(),
        "lookback.audit.test.web.alert.x".to_owned(),
        "lookback.v1.test.web.alert.new.x".to_owned(),
        key().checkpoint_subject(0),
        key().definition_subject(),
    ];
    for stream in [
        key().alerts_stream(),
        AUDIT_STREAM.to_owned(),
        STREAM.to_owned(),
    ] {
        for request in ["UPDATE", "PURGE", "DELETE", "MSG.DELETE"] {
            forbidden.push(format!("$JS.API.STREAM.{request}.{stream}"));
        }
        forbidden.push(format!("$JS.API.CONSUMER.CREATE.{stream}"));
    }
    for subject in &forbidden {
        client.publish(subject.clone(), "{}".into()).await?;
    }
    eventually(SOON, "the server complains of each", async || {
        let heard = complaints.lock().unwrap().len();
        ensure!(heard >= forbidden.len(), "{heard} complaints");
        Ok(())
    })
    .await?;
    // Allowed, but the audit takes a subject once.
    let page = audit::page(
        &account.nats("ann").await?,
        &key(),
        None,
        Cursor::default(),
        1,
    )
    .await?;
    let again = account.nats("ann").await?;
    let again = patient(again.client().clone());
    let rewritten = again
        .publish(page.items[0].subject.clone(), "{}".into())
        .await?
        .await;
    assert!(rewritten.is_err(), "{rewritten:?}");
    assert_eq!(account.snapshot().await?, before);
    Ok(())
}

#[tokio::test]
async fn s30_a_subscriber_has_a_consumer_of_its_own_and_no_other() -> Result<()> {
    let account = Account::at_work().await?;
    let nats = account.nats("soar").await?;
    let mut own = Subscription::open(&nats, &key(), "soar", &["triage"], Begin::All).await?;
    let alert = own.next().await?;
    assert_eq!(alert.state, "triage");
    own.done(&alert).await?;
    let nats = account.refused("soar").await?;
    let other = Subscription::open(&nats, &key(), "siem", &["triage"], Begin::All).await;
    assert!(other.is_err(), "{other:?}");
    Ok(())
}

#[tokio::test]
async fn s30_the_operator_watches_checkpoints_and_clears_up_behind_a_pipeline() -> Result<()> {
    let account = Account::at_work().await?;
    let nats = account.nats("operator").await?;
    let mut watch = CheckpointWatch::open(&nats).await?;
    let seen = tokio::time::timeout(SOON, watch.next()).await?;
    assert_eq!(seen, Some((key(), 0)));
    drop(watch);
    let deleted = [
        checkpoint::delete(&nats, &owner(), 0).await?,
        definition::delete(&nats, &owner()).await?,
        consumers::delete(&nats, STREAM, CONSUMER, OWNER).await?,
        streams::delete(&nats, &key().alerts_stream(), OWNER).await?,
        streams::delete(&nats, &key().dead_letters_stream(), OWNER).await?,
    ];
    assert_eq!(deleted, [Deleted::Now; 5]);
    let left: BTreeMap<_, _> = consumers::list(&nats, STREAM, &key(), 0).await?;
    assert!(left.is_empty(), "{left:?}");
    let source = streams::read(&nats, STREAM).await?.context("no source")?;
    assert_eq!(source.facts(STREAM).last, StreamSeq(21));
    Ok(())
}
