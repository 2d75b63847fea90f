//! What is wrong with events, and what becomes of them: nothing is lost, and nothing stops the rest.

use anyhow::{Result, ensure};
use async_nats::HeaderMap;
use lookback_protocol::deadletter::Reason;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::worker_fixture::{Rig, SUBJECT};

const FINE: &str = r#"{"kind":"alarm"}"#;

/// Publishes `payload` between two events that give an alert, runs a worker over all of it, and gives
/// the sequence of `payload`.
async fn run_with(rig: &Rig, payload: impl Into<bytes::Bytes>) -> Result<u64> {
    run_with_headers(rig, HeaderMap::new(), payload).await
}

async fn run_with_headers(
    rig: &Rig,
    headers: HeaderMap,
    payload: impl Into<bytes::Bytes>,
) -> Result<u64> {
    rig.publish(FINE).await?;
    let ack = rig
        .js
        .publish_with_headers(SUBJECT, headers, payload.into())
        .await?
        .await?;
    rig.publish(FINE).await?;
    let worker = rig.start();
    rig.finish(worker).await?;
    Ok(ack.sequence)
}

async fn parked_as(payload: &[u8], reason: Reason) -> Result<()> {
    let rig = Rig::new().await?;
    let sequence = run_with(&rig, payload.to_vec()).await?;
    let letter = rig.dead_letter(sequence).await?;
    assert_eq!(letter.reason, reason);
    assert_eq!(letter.event.payload, payload);
    assert_eq!(rig.alerts().await?, 2);
    Ok(())
}

#[tokio::test]
async fn h15_an_empty_payload_is_a_dead_letter_and_the_pipeline_advances() -> Result<()> {
    parked_as(b"", Reason::Empty).await
}

#[tokio::test]
async fn h17_malformed_json_is_a_dead_letter() -> Result<()> {
    parked_as(br#"{"kind":"alarm""#, Reason::NotJson).await
}

#[tokio::test]
async fn h19_bytes_that_are_no_utf8_are_parked_unchanged() -> Result<()> {
    parked_as(b"{\"kind\":\"\xff\xfe\x00\r\n\"}", Reason::NotJson).await
}

#[tokio::test]
async fn an_undecodable_payload_as_large_as_a_message_may_be_is_parked_in_parts() -> Result<()> {
    let rig = Rig::new().await?;
    let payload: Vec<u8> = (0..rig.nats.max_payload())
        .map(|index| b'a' + u8::try_from(index % 23).unwrap())
        .collect();
    let sequence = run_with(&rig, payload.clone()).await?;
    let letter = rig.dead_letter(sequence).await?;
    assert_eq!(letter.reason, Reason::NotJson);
    assert!(letter.event.payload == payload);
    Ok(())
}

#[tokio::test]
async fn a_dead_letter_keeps_60_kib_of_headers() -> Result<()> {
    let rig = Rig::new().await?;
    let value = "h".repeat(60 * 1024);
    let mut headers = HeaderMap::new();
    headers.insert("Large", value.as_str());
    let sequence = run_with_headers(&rig, headers, "no json").await?;
    let letter = rig.dead_letter(sequence).await?;
    assert_eq!(letter.event.payload, "no json");
    assert_eq!(
        letter.event.headers,
        format!("NATS/1.0\r\nLarge: {value}\r\n\r\n")
    );
    Ok(())
}

#[tokio::test]
async fn an_event_with_60_kib_of_headers_is_applied() -> Result<()> {
    let rig = Rig::new().await?;
    let mut headers = HeaderMap::new();
    headers.insert("Large", "h".repeat(60 * 1024).as_str());
    run_with_headers(&rig, headers, FINE).await?;
    assert_eq!((rig.alerts().await?, rig.dead_letters().await?), (3, 0));
    Ok(())
}

/// The server obeys these headers on whatever message carries them.
#[tokio::test]
async fn headers_that_command_the_server_end_in_the_dead_letter_as_data() -> Result<()> {
    let rig = Rig::new().await?;
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", "once");
    headers.insert("Nats-Expected-Stream", "EVENTS");
    let sequence = run_with_headers(&rig, headers, "no json").await?;
    let letter = rig.dead_letter(sequence).await?;
    assert_eq!(
        letter.event.headers,
        "NATS/1.0\r\nNats-Expected-Stream: EVENTS\r\nNats-Msg-Id: once\r\n\r\n"
    );
    Ok(())
}

#[tokio::test]
async fn an_event_with_an_unknown_time_format_counts_at_its_published_time() -> Result<()> {
    let rig = Rig::new().await?;
    for _ in 0..3 {
        rig.publish(r#"{"kind":"step","user":"eve","UtcTime":"half past nine"}"#)
            .await?;
    }
    let worker = rig.start();
    rig.finish(worker).await?;
    let stream = rig.js.get_stream("LB_prod_edr_ALERTS").await?;
    let alert = stream
        .get_last_raw_message_by_subject("lookback.v1.>")
        .await?;
    let alert: Value = serde_json::from_slice(&alert.payload)?;
    let event = rig
        .js
        .get_stream("EVENTS")
        .await?
        .get_raw_message(3)
        .await?;
    let published = event.time.unix_timestamp();
    let to: jiff::Timestamp = serde_json::from_value(alert["window"]["to"].clone())?;
    assert_eq!(to.as_second(), published);
    assert_eq!(rig.dead_letters().await?, 0);
    Ok(())
}

#[tokio::test]
async fn an_alert_of_a_large_event_says_how_much_of_it_was_left_out() -> Result<()> {
    let rig = Rig::new().await?;
    let event = json!({ "kind": "alarm", "blob": "x".repeat(500_000) }).to_string();
    run_with(&rig, event).await?;
    let stream = rig.js.get_stream("LB_prod_edr_ALERTS").await?;
    let mut cut = 0;
    for sequence in 1..=3 {
        let alert = stream.get_raw_message(sequence).await?;
        let alert: Value = serde_json::from_slice(&alert.payload)?;
        cut += usize::from(!alert["metadata"]["lookback.dev/data-truncated"].is_null());
    }
    assert_eq!(cut, 1);
    Ok(())
}

#[tokio::test]
async fn a_story_with_poison_in_it_gives_what_the_oracle_finds() -> Result<()> {
    let rig = Rig::with_story(3_000).await?;
    let worker = rig.start();
    rig.finish(worker).await?;
    assert!(rig.alerts().await? > 10);
    assert!(rig.dead_letters().await? > 0);
    Ok(())
}

/// Publishes past the client, which would not send such headers, nor read them.
async fn publish_raw(rig: &Rig, headers: &[u8], payload: &[u8]) -> Result<()> {
    let mut stream = BufReader::new(TcpStream::connect(rig.server.address()).await?);
    let command = format!(
        "CONNECT {{\"headers\":true,\"verbose\":false}}\r\nHPUB {SUBJECT} {} {}\r\n",
        headers.len(),
        headers.len() + payload.len()
    );
    for part in [command.as_bytes(), headers, payload, b"\r\nPING\r\n"] {
        stream.write_all(part).await?;
    }
    let mut line = String::new();
    while !line.starts_with("PONG") {
        line.clear();
        ensure!(stream.read_line(&mut line).await? > 0, "no PONG");
    }
    Ok(())
}

#[tokio::test]
async fn h19_headers_that_are_no_utf8_end_in_the_dead_letter_unchanged() -> Result<()> {
    const HEADERS: &[u8] = b"NATS/1.0\r\nLatin: caf\xe9\r\n\r\n";
    let rig = Rig::new().await?;
    rig.publish(FINE).await?;
    publish_raw(&rig, HEADERS, b"no json").await?;
    publish_raw(&rig, HEADERS, FINE.as_bytes()).await?;
    rig.publish(FINE).await?;
    let worker = rig.start();
    worker.applied(4).await?;
    worker.drain().await?;
    assert_eq!(rig.dead_letter(2).await?.event.headers, HEADERS);
    assert_eq!((rig.alerts().await?, rig.dead_letters().await?), (3, 1));
    Ok(())
}
