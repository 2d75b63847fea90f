//! The streams of alerts and dead letters, on a real server: what they are, how drift is repaired, and
//! whose they are.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::stream;
use async_nats::{HeaderMap, Request};
use bytes::Bytes;
use futures::StreamExt;
use lookback::nats::desired::DesiredStream;
use lookback::nats::ensure::{Ensured, ObjectError};
use lookback::nats::streams;
use lookback_dev::support::eventually;
use serde_json::{Value, json};

use lookback_dev::compare::stored_alerts;
use lookback_protocol::workflow::To;

use crate::nats_fixture::{Fixture, OWNER, SOON, key};
use crate::store_fixture::{StoreFixture, ask, mark, to};

const DAY: Duration = Duration::from_secs(86_400);

fn alerts() -> DesiredStream {
    DesiredStream::alerts(&key(), Some(1 << 16), Some(DAY), 1, OWNER.to_owned())
}

fn dead_letters() -> DesiredStream {
    let (name, subjects) = (key().dead_letters_stream(), key().dead_letter_subjects());
    DesiredStream::store(
        name,
        subjects,
        Some(1 << 16),
        Some(DAY),
        1,
        OWNER.to_owned(),
    )
}

async fn stage() -> Result<Fixture> {
    let fixture = Fixture::bare().await?;
    for stream in [alerts(), dead_letters()] {
        streams::ensure(&fixture.nats, &stream).await?;
    }
    Ok(fixture)
}

/// One subject of each stream, with the stream's name.
fn subjects() -> [(String, String); 2] {
    [
        (key().alerts_stream(), key().alert_subject("new", "A")),
        (
            key().dead_letters_stream(),
            key().dead_letter_subject("parked", "0-1-aaaaaaaa"),
        ),
    ]
}

/// What a server answers to a publish: a PubAck, an error, or nothing to a part of a batch.
async fn publish(
    fixture: &Fixture,
    subject: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Result<Value> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(*name, *value);
    }
    let request = Request::new().headers(map).payload(body.into());
    let client = fixture.nats.client();
    let answer = client.send_request(subject.to_owned(), request).await?;
    if answer.payload.is_empty() {
        return Ok(Value::Null);
    }
    Ok(serde_json::from_slice(&answer.payload)?)
}

async fn held(fixture: &Fixture, stream: &str) -> Result<u64> {
    let observed = streams::read(&fixture.nats, stream).await?;
    Ok(observed.context("no stream")?.state.messages)
}

fn code(answer: &Value) -> Option<u64> {
    answer["error"]["err_code"].as_u64()
}

#[tokio::test]
async fn s12_reading_takes_nothing_out_of_a_stream() -> Result<()> {
    let fixture = stage().await?;
    for (stream, subject) in subjects() {
        publish(&fixture, &subject, &[], "{}").await?;
        let config = async_nats::jetstream::consumer::pull::Config {
            durable_name: Some("reader".to_owned()),
            ..Default::default()
        };
        let consumer = fixture
            .js
            .create_consumer_on_stream(config, stream.clone())
            .await?;
        let mut messages = consumer.fetch().max_messages(1).messages().await?;
        let message = messages.next().await.context("no message")?;
        let message = message.map_err(anyhow::Error::msg)?;
        message.double_ack().await.map_err(anyhow::Error::msg)?;
        assert_eq!(held(&fixture, &stream).await?, 1, "{stream}");
    }
    Ok(())
}

#[tokio::test]
async fn s12_a_full_stream_refuses_what_is_new_and_drops_nothing() -> Result<()> {
    let fixture = stage().await?;
    for (stream, subject) in subjects() {
        let mut stored = 0;
        let refused = loop {
            let subject = format!("{subject}{stored}");
            let answer = publish(&fixture, &subject, &[], vec![b'x'; 4096]).await?;
            ensure!(stored < 100, "{stream} takes more than it has room for");
            if answer.get("error").is_some() {
                break answer;
            }
            stored += 1;
        };
        assert_eq!(code(&refused), Some(10077), "{refused}");
        assert!(stored > 1, "{stream} is full at once");
        assert_eq!(held(&fixture, &stream).await?, stored);
    }
    Ok(())
}

#[tokio::test]
async fn s12_a_subject_holds_one_message() -> Result<()> {
    let fixture = stage().await?;
    for (stream, subject) in subjects() {
        for body in ["1", "2"] {
            publish(&fixture, &subject, &[], body).await?;
        }
        assert_eq!(held(&fixture, &stream).await?, 1, "{stream}");
    }
    Ok(())
}

#[tokio::test]
async fn s12_any_copy_may_answer_a_read() -> Result<()> {
    let fixture = stage().await?;
    for (stream, subject) in subjects() {
        publish(&fixture, &subject, &[], "body").await?;
        let get = format!("$JS.API.DIRECT.GET.{stream}.{subject}");
        let answer = fixture.nats.client().request(get, "".into()).await?;
        assert_eq!(answer.payload, "body", "{stream}");
    }
    Ok(())
}

#[tokio::test]
async fn s12_several_messages_are_stored_as_one_or_none_is() -> Result<()> {
    let fixture = stage().await?;
    for (stream, subject) in subjects() {
        let other = format!("{subject}B");
        let batch = |id: &'static str| [("Nats-Batch-Id", id), ("Nats-Batch-Sequence", "1")];
        let commit = |id: &'static str, expected: &'static str| {
            [
                ("Nats-Batch-Id", id),
                ("Nats-Batch-Sequence", "2"),
                ("Nats-Batch-Commit", "1"),
                ("Nats-Expected-Last-Subject-Sequence", expected),
            ]
        };
        publish(&fixture, &subject, &batch("lost"), "1").await?;
        let lost = publish(&fixture, &other, &commit("lost", "7"), "2").await?;
        assert_eq!(code(&lost), Some(10071), "{lost}");
        assert_eq!(held(&fixture, &stream).await?, 0, "{stream}");
        publish(&fixture, &subject, &batch("won"), "1").await?;
        let won = publish(&fixture, &other, &commit("won", "0"), "2").await?;
        assert_eq!((&won["count"], &won["seq"]), (&json!(2), &json!(2)));
        assert_eq!(held(&fixture, &stream).await?, 2, "{stream}");
    }
    Ok(())
}

#[tokio::test]
async fn s12_a_message_may_carry_the_time_it_has_to_live() -> Result<()> {
    let fixture = stage().await?;
    for (stream, subject) in subjects() {
        publish(&fixture, &subject, &[("Nats-TTL", "1s")], "").await?;
        publish(&fixture, &format!("{subject}B"), &[], "").await?;
        eventually(SOON, "the first goes, the second stays", async || {
            let held = held(&fixture, &stream).await?;
            ensure!(held == 1, "{held} messages");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn s12_no_message_can_be_deleted() -> Result<()> {
    let fixture = stage().await?;
    for (stream, subject) in subjects() {
        publish(&fixture, &subject, &[], "").await?;
        let delete = format!("STREAM.MSG.DELETE.{stream}");
        let answer: Value = fixture.js.request(delete, &json!({"seq": 1})).await?;
        assert_eq!(code(&answer), Some(10057), "{answer}");
        assert_eq!(held(&fixture, &stream).await?, 1, "{stream}");
    }
    Ok(())
}

#[tokio::test]
async fn s12_what_a_stream_is_stands_in_its_configuration() -> Result<()> {
    let fixture = stage().await?;
    for (stream, _) in subjects() {
        let observed = streams::read(&fixture.nats, &stream).await?;
        let config = observed.context("no stream")?.config;
        for (field, expected) in [
            ("storage", json!("file")),
            ("retention", json!("limits")),
            ("discard", json!("new")),
            ("max_msgs_per_subject", json!(1)),
            ("max_bytes", json!(1 << 16)),
            ("max_age", json!(DAY.as_nanos() as u64)),
            ("duplicate_window", json!(120_000_000_000_u64)),
            ("allow_direct", json!(true)),
            ("allow_atomic", json!(true)),
            ("allow_msg_ttl", json!(true)),
            ("deny_delete", json!(true)),
        ] {
            assert_eq!(config.get(field), Some(&expected), "{stream}: {field}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn s12_what_is_sent_twice_within_the_duplicate_window_is_stored_once() -> Result<()> {
    let fixture = stage().await?;
    for (stream, subject) in subjects() {
        let id = [("Nats-Msg-Id", "one")];
        publish(&fixture, &subject, &id, "").await?;
        let again = publish(&fixture, &format!("{subject}B"), &id, "").await?;
        assert_eq!(again["duplicate"], true, "{again}");
        assert_eq!(held(&fixture, &stream).await?, 1, "{stream}");
    }
    Ok(())
}

#[tokio::test]
async fn s11_an_alert_is_published_again_and_the_mark_that_it_left_a_state_is_not() -> Result<()> {
    let fixture = stage().await?;
    let client = fixture.server.client().await?;
    let mut heard = client.subscribe("lookback.v1ev.>").await?;
    client.flush().await?;
    let mark = mark("new", "A");
    publish(&fixture, &mark, &[], "").await?;
    let subject = key().alert_subject("triage", "A");
    publish(&fixture, &subject, &[], "record").await?;
    let first = tokio::time::timeout(SOON, heard.next()).await?;
    let first = first.context("nothing was heard")?;
    let expected = key().alert_event_subject("triage", "A");
    assert_eq!(first.subject.as_str(), expected);
    assert_eq!(first.payload, "record");
    let headers = first.headers.context("no headers")?;
    let said = |name| headers.get(name).map(async_nats::HeaderValue::as_str);
    assert_eq!(said("Nats-Subject"), Some(subject.as_str()));
    assert_eq!(said("Nats-Sequence"), Some("2"));
    Ok(())
}

#[tokio::test]
async fn s13_a_stream_from_before_alerts_were_published_again_is_updated_in_place() -> Result<()> {
    let fixture = Fixture::bare().await?;
    let earlier = DesiredStream {
        republish: None,
        ..alerts()
    };
    streams::ensure(&fixture.nats, &earlier).await?;
    let subject = key().alert_subject("new", "A");
    publish(&fixture, &subject, &[], "kept").await?;
    let fields = vec!["republish".to_owned()];
    let ensured = streams::ensure(&fixture.nats, &alerts()).await?;
    assert_eq!(ensured, Ensured::Updated { fields });
    let ensured = streams::ensure(&fixture.nats, &alerts()).await?;
    assert_eq!(ensured, Ensured::Unchanged);
    assert_eq!(held(&fixture, &key().alerts_stream()).await?, 1);
    Ok(())
}

#[tokio::test]
async fn s13_drift_is_repaired_in_place_and_what_is_stored_stays() -> Result<()> {
    let fixture = stage().await?;
    for (desired, (stream, subject)) in [alerts(), dead_letters()].into_iter().zip(subjects()) {
        publish(&fixture, &subject, &[], "kept").await?;
        let created = streams::read(&fixture.nats, &stream).await?;
        let mut config = fixture
            .js
            .get_stream(&stream)
            .await?
            .cached_info()
            .config
            .clone();
        config.max_age = DAY * 2;
        config.max_bytes = 1 << 20;
        config.discard = stream::DiscardPolicy::Old;
        config.max_messages_per_subject = 5;
        config.allow_direct = false;
        fixture.js.update_stream(config).await?;
        let Ensured::Updated { fields } = streams::ensure(&fixture.nats, &desired).await? else {
            anyhow::bail!("{stream} was not updated");
        };
        let drifted = [
            "allow_direct",
            "discard",
            "max_age",
            "max_bytes",
            "max_msgs_per_subject",
        ];
        assert_eq!(fields, drifted, "{stream}");
        let repaired = streams::read(&fixture.nats, &stream).await?;
        let (before, after) = (
            created.context("no stream")?,
            repaired.context("no stream")?,
        );
        assert_eq!(after.created, before.created, "{stream}");
        assert_eq!(after.config, before.config, "{stream}");
        assert_eq!(held(&fixture, &stream).await?, 1, "{stream}");
    }
    Ok(())
}

#[tokio::test]
async fn s13_what_cannot_be_repaired_in_place_is_said_and_never_deleted() -> Result<()> {
    let fixture = Fixture::bare().await?;
    for (desired, (stream, subject)) in [alerts(), dead_letters()].into_iter().zip(subjects()) {
        let config = stream::Config {
            name: stream.clone(),
            subjects: desired.subjects.clone(),
            storage: stream::StorageType::Memory,
            metadata: desired.metadata.clone().into_iter().collect(),
            ..Default::default()
        };
        fixture.js.create_stream(config).await?;
        publish(&fixture, &subject, &[], "kept").await?;
        let refused = streams::ensure(&fixture.nats, &desired).await;
        assert!(
            matches!(&refused, Err(ObjectError::Immutable { field, .. }) if field == "storage"),
            "{refused:?}"
        );
        assert_eq!(held(&fixture, &stream).await?, 1, "{stream}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_compared_with_the_oracle_is_each_alert_once_in_whatever_state_it_is() -> Result<()>
{
    let fixture = StoreFixture::r1().await?;
    let ids = fixture.create(1..7).await?;
    fixture.alerts.step(&ids[0], None, &to("triage")).await?;
    fixture.alerts.step(&ids[1], None, &to("triage")).await?;
    fixture.alerts.step(&ids[1], None, &to("closed")).await?;
    fixture
        .alerts
        .step(&ids[2], None, &ask(To::Archive))
        .await?;
    let stored = stored_alerts(&fixture.js, &key()).await?;
    let once = ids.into_iter().map(|id| (id, 1)).collect();
    assert_eq!(stored, once);
    Ok(())
}
