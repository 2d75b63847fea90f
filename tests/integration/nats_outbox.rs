//! The contract of the worker's outbox, on a real server.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use async_nats::HeaderMap;
use bytes::Bytes;
use futures::future::try_join_all;
use jiff::Timestamp;
use lookback::nats::connect::Nats;
use lookback::nats::deadletters::{self, StoredDeadLetter};
use lookback::nats::desired::DesiredStream;
use lookback::nats::outbox::JetStreamOutbox;
use lookback::nats::streams;
use lookback::worker::ports::{AckToken, DeadLetter, Delivery, Lookup, Outbox, StoreError, Stored};
use lookback_dev::support::{NatsCluster, Settings, TcpProxy};
use lookback_protocol::alert::{AlertRecord, NEW, RuleKind, RuleRef, VERSION};
use lookback_protocol::deadletter::Reason;
use lookback_protocol::position::{Epoch, StreamSeq};
use serde_json::Value;

use crate::nats_fixture::{
    Fixture, OWNER, STREAM, connect, connect_as_usual, delivery, key, position,
};

const ID: &str = "NALWT6VCLWV6SU6LYVNMPAL6JE";
const LETTER: &str = "0-7-e590fdd3";

async fn create_stores(nats: &Nats, max_bytes: Option<u64>, replicas: u8) -> Result<()> {
    let (letters, subjects) = (key().dead_letters_stream(), key().dead_letter_subjects());
    let owner = OWNER.to_owned();
    for desired in [
        DesiredStream::alerts(&key(), max_bytes, None, replicas, owner.clone()),
        DesiredStream::store(letters, subjects, max_bytes, None, replicas, owner),
    ] {
        streams::ensure(nats, &desired).await?;
    }
    Ok(())
}

async fn stores(settings: Settings) -> Result<(Fixture, JetStreamOutbox)> {
    let fixture = Fixture::bare_with(settings).await?;
    create_stores(&fixture.nats, Some(1 << 24), 1).await?;
    let outbox = JetStreamOutbox::new(fixture.nats.clone(), key());
    Ok((fixture, outbox))
}

pub(crate) fn alert(id: &str) -> AlertRecord {
    AlertRecord {
        v: VERSION,
        id: id.to_owned(),
        state: NEW.to_owned(),
        rule: RuleRef {
            id: "r1".to_owned(),
            title: "A rule".to_owned(),
            level: None,
            tags: Vec::new(),
            kind: RuleKind::Detection,
        },
        group_key: Vec::new(),
        window: None,
        events: Vec::new(),
        data: Value::Null,
        metadata: BTreeMap::new(),
        history: Vec::new(),
        earlier: 0,
        op_id: "1".to_owned(),
        prev_seq: 0,
        pipeline: key(),
        epoch: Epoch(1),
        replay: None,
        engine_digest: "d".to_owned(),
        by: "worker/edr-0".to_owned(),
    }
}

pub(crate) fn letter(headers: impl Into<Bytes>, payload: impl Into<Bytes>) -> DeadLetter {
    DeadLetter {
        id: LETTER.to_owned(),
        reason: Reason::NotJson,
        error: "expected value at line 1 column 1".to_owned(),
        stream: STREAM.to_owned(),
        delivery: Delivery {
            consumer_sequence: 1,
            sequence: StreamSeq(7),
            published: Timestamp::from_nanosecond(1_700_000_000_000_000_001)
                .expect("it is after 1970"),
            subject: "ev.a".to_owned(),
            headers: headers.into(),
            payload: payload.into(),
            pending: 0,
            ack: AckToken(String::new()),
        },
        attempts: 2,
        epoch: Epoch(3),
    }
}

/// Moves an alert as a person's tool does: the record to another state, a tombstone where it was.
async fn move_alert(fixture: &Fixture, id: &str, to: &str) -> Result<()> {
    let client = fixture.nats.client();
    let batch = |sequence: &str| {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Batch-Id", "move");
        headers.insert("Nats-Batch-Sequence", sequence);
        headers
    };
    let mut tombstone = batch("1");
    tombstone.insert("Nats-TTL", "24h");
    client
        .request_with_headers(key().alert_subject(NEW, id), tombstone, Bytes::new())
        .await?;
    let mut record = batch("2");
    record.insert("Nats-Batch-Commit", "1");
    let ack = client
        .request_with_headers(key().alert_subject(to, id), record, "{}".into())
        .await?;
    let ack: Value = serde_json::from_slice(&ack.payload)?;
    anyhow::ensure!(ack.get("error").is_none(), "{ack}");
    Ok(())
}

async fn read(fixture: &Fixture) -> Result<StoredDeadLetter> {
    deadletters::read(&fixture.nats, &key(), LETTER)
        .await?
        .context("no dead letter")
}

async fn messages(fixture: &Fixture, stream: String) -> Result<u64> {
    let observed = streams::read(&fixture.nats, &stream).await?;
    Ok(observed.context("no stream")?.state.messages)
}

#[tokio::test]
async fn an_alert_is_stored_once_and_known_from_then_on() -> Result<()> {
    let (fixture, outbox) = stores(Settings::default()).await?;
    assert_eq!(
        outbox.create_alert(&alert(ID), Lookup::No).await?,
        Stored::New(1)
    );
    assert_eq!(
        outbox.create_alert(&alert(ID), Lookup::No).await?,
        Stored::Known
    );
    assert_eq!(
        outbox.create_alert(&alert(ID), Lookup::First).await?,
        Stored::Known
    );
    assert_eq!(messages(&fixture, key().alerts_stream()).await?, 1);
    Ok(())
}

#[tokio::test]
async fn an_alert_is_stored_as_its_record() -> Result<()> {
    let (fixture, outbox) = stores(Settings::default()).await?;
    outbox.create_alert(&alert(ID), Lookup::First).await?;
    let stream = fixture.js.get_stream(key().alerts_stream()).await?;
    let stored = stream
        .get_last_raw_message_by_subject(&key().alert_subject(NEW, ID))
        .await?;
    let record: AlertRecord = serde_json::from_slice(&stored.payload)?;
    assert_eq!(record, alert(ID));
    Ok(())
}

#[tokio::test]
async fn a_moved_alert_is_known_although_its_own_subject_is_free() -> Result<()> {
    let (fixture, outbox) = stores(Settings::default()).await?;
    outbox.create_alert(&alert(ID), Lookup::No).await?;
    move_alert(&fixture, ID, "triage").await?;
    assert_eq!(
        outbox.create_alert(&alert(ID), Lookup::First).await?,
        Stored::Known
    );
    let tombstone = key().alert_subject(NEW, ID);
    let stream = fixture.js.get_stream(key().alerts_stream()).await?;
    stream.purge().filter(tombstone).await?;
    assert_eq!(
        outbox.create_alert(&alert(ID), Lookup::First).await?,
        Stored::Known
    );
    Ok(())
}

#[tokio::test]
async fn a_full_alerts_stream_refuses_and_takes_the_alert_once_there_is_room() -> Result<()> {
    let fixture = Fixture::bare().await?;
    create_stores(&fixture.nats, Some(4096), 1).await?;
    let outbox = JetStreamOutbox::new(fixture.nats.clone(), key());
    let mut stored = 0;
    let refused = loop {
        let record = alert(&format!("ID{stored}"));
        match outbox.create_alert(&record, Lookup::No).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(&refused, StoreError::Full { stream } if *stream == key().alerts_stream()));
    assert!(stored > 0);
    assert_eq!(messages(&fixture, key().alerts_stream()).await?, stored);
    assert!(outbox.rooms().await?.alerts.max_bytes == Some(4096));
    create_stores(&fixture.nats, Some(1 << 20), 1).await?;
    let record = alert(&format!("ID{stored}"));
    assert_eq!(
        outbox.create_alert(&record, Lookup::No).await?,
        Stored::New(stored + 1)
    );
    Ok(())
}

#[tokio::test]
async fn a_create_without_an_answer_is_unavailable_and_known_when_asked_again() -> Result<()> {
    let (fixture, outbox) = stores(Settings::default()).await?;
    let proxy = TcpProxy::start(fixture.server.address()).await?;
    let nats = connect_as_usual(format!("nats://{}", proxy.address())).await?;
    let far = JetStreamOutbox::new(nats, key());
    // The create arrives, its PubAck does not.
    proxy.cut_at("{\"stream\":");
    let error = far.create_alert(&alert(ID), Lookup::No).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    assert_eq!(
        outbox.create_alert(&alert(ID), Lookup::No).await?,
        Stored::Known
    );
    Ok(())
}

#[tokio::test]
async fn rooms_show_what_the_streams_hold() -> Result<()> {
    let (_fixture, outbox) = stores(Settings::default()).await?;
    outbox.create_alert(&alert(ID), Lookup::No).await?;
    let rooms = outbox.rooms().await?;
    assert_eq!((rooms.alerts.last, rooms.dead_letters.last), (1, 0));
    assert!(rooms.alerts.bytes > 0);
    assert_eq!(rooms.alerts.max_bytes, Some(1 << 24));
    Ok(())
}

#[tokio::test]
async fn a_dead_letter_reads_back_as_it_was_parked() -> Result<()> {
    let (fixture, outbox) = stores(Settings::default()).await?;
    let payload = b"\xff\x00 no json \r\n".to_vec();
    let letter = letter("NATS/1.0\r\nA: 1\r\n\r\n", payload);
    assert_eq!(outbox.park(&letter).await?, Stored::New(1));
    let stored = read(&fixture).await?;
    assert_eq!(stored.subject, key().dead_letter_subject("parked", LETTER));
    assert_eq!(
        (stored.reason, stored.error.as_str()),
        (letter.reason, letter.error.as_str())
    );
    assert_eq!((stored.attempts, stored.epoch), (2, Epoch(3)));
    let event = stored.event;
    assert_eq!(
        (event.stream.as_str(), event.sequence),
        (STREAM, StreamSeq(7))
    );
    assert_eq!(event.published, letter.delivery.published);
    assert_eq!(event.subject, "ev.a");
    assert_eq!(event.headers, letter.delivery.headers);
    assert_eq!(event.payload, letter.delivery.payload);
    Ok(())
}

#[tokio::test]
async fn t09_a_dead_letter_is_parked_once() -> Result<()> {
    let (fixture, outbox) = stores(Settings::default()).await?;
    let letter = letter("", "x");
    assert_eq!(outbox.park(&letter).await?, Stored::New(1));
    assert_eq!(outbox.park(&letter).await?, Stored::Known);
    assert_eq!(messages(&fixture, key().dead_letters_stream()).await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_dead_letter_at_max_payload_with_60_kib_of_headers_reads_back_whole() -> Result<()> {
    let (fixture, outbox) = stores(Settings::default()).await?;
    let headers: Vec<u8> = (0..60 * 1024).map(|n: u32| n.to_le_bytes()[0]).collect();
    let size = fixture.nats.max_payload();
    let payload: Vec<u8> = (0..size).map(|n| (n % 251).to_le_bytes()[0]).collect();
    let letter = letter(headers, payload);
    assert_eq!(outbox.park(&letter).await?, Stored::New(3));
    assert_eq!(outbox.park(&letter).await?, Stored::Known);
    let stored = read(&fixture).await?;
    assert_eq!(stored.event.headers, letter.delivery.headers);
    assert_eq!(stored.event.payload, letter.delivery.payload);
    assert_eq!(messages(&fixture, key().dead_letters_stream()).await?, 3);
    Ok(())
}

/// A server takes only so many batches at once.
#[tokio::test]
async fn many_dead_letters_in_parts_are_parked_at_once() -> Result<()> {
    let (fixture, outbox) = stores(Settings::default()).await?;
    let in_parts = |number: u64| DeadLetter {
        id: format!("0-{number}-e590fdd3"),
        ..letter(vec![b'h'; 41 * 1024], "x")
    };
    let letters: Vec<_> = (0..200).map(in_parts).collect();
    try_join_all(letters.iter().map(|letter| outbox.park(letter))).await?;
    assert_eq!(messages(&fixture, key().dead_letters_stream()).await?, 400);
    Ok(())
}

#[tokio::test]
async fn a_dead_letter_in_parts_on_three_replicas_reads_back_whole() -> Result<()> {
    let cluster = NatsCluster::start().await?;
    let nats = connect(cluster.urls().remove(0)).await?;
    create_stores(&nats, None, 3).await?;
    let outbox = JetStreamOutbox::new(nats.clone(), key());
    let letter = letter(vec![b'h'; 60 * 1024], vec![b'p'; nats.max_payload()]);
    assert_eq!(outbox.park(&letter).await?, Stored::New(3));
    assert_eq!(outbox.park(&letter).await?, Stored::Known);
    let stored = deadletters::read(&nats, &key(), LETTER).await?.unwrap();
    assert_eq!(stored.event.headers, letter.delivery.headers);
    assert_eq!(stored.event.payload, letter.delivery.payload);
    Ok(())
}

#[tokio::test]
async fn a_dead_letter_fits_a_server_with_small_messages() -> Result<()> {
    let settings = Settings {
        max_payload: Some(16 * 1024),
        ..Settings::default()
    };
    let (fixture, outbox) = stores(settings).await?;
    let letter = letter(vec![b'h'; 12 * 1024], vec![b'p'; 16 * 1024]);
    outbox.park(&letter).await?;
    let stored = read(&fixture).await?;
    assert_eq!(stored.event.headers, letter.delivery.headers);
    assert_eq!(stored.event.payload, letter.delivery.payload);
    Ok(())
}

#[tokio::test]
async fn an_event_whose_headers_the_server_would_obey_is_parked() -> Result<()> {
    let (fixture, outbox) = stores(Settings::default()).await?;
    fixture.create_events_stream().await?;
    lookback::nats::consumers::ensure(&fixture.nats, &crate::nats_fixture::desired_consumer())
        .await?;
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", "twice");
    headers.insert("Nats-Expected-Stream", STREAM);
    headers.insert("Nats-Expected-Last-Sequence", "0");
    fixture
        .js
        .publish_with_headers("ev.a", headers, "x".into())
        .await?
        .await?;
    let mut log = fixture.log();
    position(&mut log, 1).await?;
    let delivery = delivery(&mut log).await?;
    let mut letter = letter("", "");
    letter.delivery = delivery;
    assert_eq!(outbox.park(&letter).await?, Stored::New(1));
    letter.id = "0-8-00000000".to_owned();
    assert_eq!(outbox.park(&letter).await?, Stored::New(2));
    let stored = read(&fixture).await?;
    assert_eq!(
        stored.event.headers,
        "NATS/1.0\r\nNats-Expected-Last-Sequence: 0\r\nNats-Expected-Stream: EVENTS\r\nNats-Msg-Id: twice\r\n\r\n"
    );
    Ok(())
}

#[tokio::test]
async fn a_missing_dead_letters_stream_is_named() -> Result<()> {
    let fixture = Fixture::bare().await?;
    let alerts = DesiredStream::alerts(&key(), None, None, 1, OWNER.to_owned());
    streams::ensure(&fixture.nats, &alerts).await?;
    let outbox = JetStreamOutbox::new(fixture.nats.clone(), key());
    let error = outbox.rooms().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "STREAM.INFO of {} got no usable answer",
            key().dead_letters_stream()
        )
    );
    let error = outbox.park(&letter("", "x")).await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    Ok(())
}
