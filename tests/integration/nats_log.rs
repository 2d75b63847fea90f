//! The contract of the worker's log, on a real server.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::{HeaderMap, jetstream};
use bytes::Bytes;
use futures::StreamExt;
use lookback::nats::connect::{Nats, Options, Timeouts};
use lookback::nats::consumers;
use lookback::nats::log::JetStreamLog;
use lookback::worker::ports::{Log, Pulled};
use lookback_dev::support::{NatsCluster, TcpProxy, eventually, patient};
use lookback_protocol::continuity::{Continuity, Verdict};
use lookback_protocol::position::StreamSeq;
use lookback_protocol::start::MessageAt;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::nats_fixture::{
    CONSUMER, Fixture, SOON, STREAM, connect, connect_as_usual, delivery, desired_consumer,
    end_of_pull, position, target,
};

async fn proxied(fixture: &Fixture) -> Result<(TcpProxy, JetStreamLog)> {
    let proxy = TcpProxy::start(fixture.server.address()).await?;
    let nats = connect_as_usual(format!("nats://{}", proxy.address())).await?;
    Ok((proxy, JetStreamLog::new(nats, STREAM, CONSUMER)))
}

#[tokio::test]
async fn a_reset_to_any_place_delivers_that_sequence_first_as_number_one() -> Result<()> {
    let fixture = Fixture::with_events(50).await?;
    let mut log = fixture.log();
    for next in [1, 31, 50, 7] {
        position(&mut log, next).await?;
        let first = delivery(&mut log).await?;
        assert_eq!(
            (first.consumer_sequence, first.sequence),
            (1, StreamSeq(next))
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_reset_shows_in_the_consumers_facts_before_anything_is_delivered() -> Result<()> {
    let fixture = Fixture::with_events(50).await?;
    let mut log = fixture.log();
    log.reset(StreamSeq(31)).await?;
    let facts = log.consumer().await?.unwrap();
    assert_eq!(
        (facts.delivered_consumer, facts.delivered),
        (0, StreamSeq(30))
    );
    assert_eq!(facts.pending, 20);
    Ok(())
}

#[tokio::test]
async fn every_event_of_many_pulls_comes_once_and_in_order() -> Result<()> {
    let fixture = Fixture::with_events(5_000).await?;
    let mut log = fixture.log();
    position(&mut log, 1).await?;
    for n in 1..=5_000 {
        let delivery = delivery(&mut log).await?;
        assert_eq!(
            (delivery.consumer_sequence, delivery.sequence),
            (n, StreamSeq(n))
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_delivery_carries_the_event_and_when_it_was_stored() -> Result<()> {
    let fixture = Fixture::with_events(0).await?;
    let mut headers = HeaderMap::new();
    headers.append("B", "2");
    headers.append("A", "1");
    headers.append("A", "again");
    fixture
        .js
        .publish_with_headers("ev.b.c", headers, "payload".into())
        .await?
        .await?;
    let mut log = fixture.log();
    position(&mut log, 1).await?;
    let delivery = delivery(&mut log).await?;
    assert_eq!(delivery.subject, "ev.b.c");
    assert_eq!(delivery.payload, "payload");
    assert_eq!(
        delivery.headers,
        "NATS/1.0\r\nA: 1\r\nA: again\r\nB: 2\r\n\r\n"
    );
    let stored = log.message_at(StreamSeq(1)).await?;
    assert_eq!(stored, MessageAt::Published(delivery.published));
    Ok(())
}

#[tokio::test]
async fn an_event_without_headers_has_none() -> Result<()> {
    let fixture = Fixture::with_events(1).await?;
    let mut log = fixture.log();
    position(&mut log, 1).await?;
    assert!(delivery(&mut log).await?.headers.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_pull_outlives_its_requests_and_brings_what_is_published_later() -> Result<()> {
    let fixture = Fixture::with_events(0).await?;
    let mut log = fixture.log();
    position(&mut log, 1).await?;
    // One request is kept for 8 s; heartbeats of more than that mean that it was renewed.
    for _ in 0..10 {
        assert_eq!(log.next().await?, Pulled::Heartbeat { last_consumer: 0 });
    }
    fixture.publish_events(1).await?;
    assert_eq!(delivery(&mut log).await?.sequence, StreamSeq(1));
    Ok(())
}

#[tokio::test]
async fn dropping_the_wait_for_the_next_event_loses_nothing() -> Result<()> {
    let fixture = Fixture::with_events(2_000).await?;
    let mut log = fixture.log();
    position(&mut log, 1).await?;
    let mut expected = 1;
    while expected <= 2_000 {
        let wait = Duration::from_micros(expected % 50);
        let Ok(pulled) = tokio::time::timeout(wait, log.next()).await else {
            continue;
        };
        match pulled? {
            Pulled::Delivery(delivery) => {
                assert_eq!(delivery.consumer_sequence, expected);
                expected += 1;
            }
            Pulled::Heartbeat { .. } => {}
            other => anyhow::bail!("{other:?} at {expected}"),
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_closed_pull_takes_nothing_away_from_the_next() -> Result<()> {
    let fixture = Fixture::with_events(0).await?;
    let mut log = fixture.log();
    for n in 1..=20 {
        position(&mut log, n).await?;
        fixture.publish_events(1).await?;
        let first = delivery(&mut log).await?;
        assert_eq!((first.consumer_sequence, first.sequence), (1, StreamSeq(n)));
        position(&mut log, n).await?;
        assert_eq!(delivery(&mut log).await?.consumer_sequence, 1);
    }
    Ok(())
}

#[tokio::test]
async fn a_connection_cut_in_mid_batch_ends_the_pull_and_the_reset_brings_the_rest() -> Result<()> {
    let fixture = Fixture::with_events(2_000).await?;
    let (proxy, mut log) = proxied(&fixture).await?;
    position(&mut log, 1).await?;
    proxy.cut_after(20_000);
    let mut accepted = 0;
    let mut check = Continuity::after_reset(StreamSeq(0));
    let ended = loop {
        match log.next().await? {
            Pulled::Delivery(delivery) => {
                if check.on_delivery(delivery.consumer_sequence, delivery.sequence)
                    == Verdict::Accept
                {
                    accepted = delivery.sequence.0;
                }
            }
            Pulled::Heartbeat { .. } => {}
            ended => break ended,
        }
    };
    assert_eq!(ended, Pulled::Dead);
    assert!(accepted < 2_000);
    eventually(SOON, "the consumer is positioned again", async || {
        position(&mut log, accepted + 1).await?;
        let first = delivery(&mut log).await?;
        ensure!((first.consumer_sequence, first.sequence.0) == (1, accepted + 1));
        Ok(())
    })
    .await?;
    for n in 2..=(2_000 - accepted) {
        let delivery = delivery(&mut log).await?;
        assert_eq!(
            (delivery.consumer_sequence, delivery.sequence.0),
            (n, accepted + n)
        );
    }
    Ok(())
}

#[tokio::test]
async fn what_a_cut_connection_held_shows_as_a_hole_to_the_next_pull() -> Result<()> {
    let fixture = Fixture::with_events(2_000).await?;
    let (proxy, mut log) = proxied(&fixture).await?;
    position(&mut log, 1).await?;
    delivery(&mut log).await?;
    proxy.cut_after(5_000);
    assert_eq!(end_of_pull(&mut log).await?, Pulled::Dead);
    let mut other = fixture.log();
    other.open().await?;
    let mut check = Continuity::after_reset(StreamSeq(1));
    let verdict = match other.next().await? {
        Pulled::Delivery(it) => check.on_delivery(it.consumer_sequence, it.sequence),
        Pulled::Heartbeat { last_consumer } => check.on_heartbeat(last_consumer),
        other => anyhow::bail!("{other:?}"),
    };
    assert_eq!(verdict, Verdict::Hole);
    Ok(())
}

#[tokio::test]
async fn a_half_open_client_that_takes_the_last_events_shows_in_a_heartbeat() -> Result<()> {
    let fixture = Fixture::with_events(0).await?;
    let (proxy, mut half_open) = proxied(&fixture).await?;
    // Connected before, as the server keeps the request that is frozen for some seconds only.
    let mut log = fixture.log();
    log.consumer().await?;
    position(&mut half_open, 1).await?;
    assert_eq!(
        half_open.next().await?,
        Pulled::Heartbeat { last_consumer: 0 }
    );
    proxy.freeze();
    log.reset(StreamSeq(1)).await?;
    fixture.publish_events(3).await?;
    eventually(
        SOON,
        "the events went to the half-open client",
        async || {
            let facts = log.consumer().await?.unwrap();
            ensure!(facts.delivered_consumer == 3);
            Ok(())
        },
    )
    .await?;
    log.open().await?;
    let shown = log.next().await?;
    assert_eq!(shown, Pulled::Heartbeat { last_consumer: 3 });
    let check = Continuity::after_reset(StreamSeq(0));
    assert_eq!(check.on_heartbeat(3), Verdict::Hole);
    Ok(())
}

#[tokio::test]
async fn a_half_open_client_is_told_that_its_pull_is_dead() -> Result<()> {
    let fixture = Fixture::with_events(1).await?;
    let (proxy, mut log) = proxied(&fixture).await?;
    position(&mut log, 1).await?;
    delivery(&mut log).await?;
    proxy.freeze();
    assert_eq!(end_of_pull(&mut log).await?, Pulled::Dead);
    Ok(())
}

#[tokio::test]
async fn after_a_half_open_first_client_repeated_resets_bring_everything() -> Result<()> {
    let fixture = Fixture::with_events(0).await?;
    let (proxy, mut half_open) = proxied(&fixture).await?;
    position(&mut half_open, 1).await?;
    half_open.next().await?;
    proxy.freeze();
    fixture.publish_events(1_500).await?;
    let mut log = fixture.log();
    eventually(SOON, "the first delivery is number one", async || {
        position(&mut log, 1).await?;
        let first = delivery(&mut log).await?;
        ensure!((first.consumer_sequence, first.sequence) == (1, StreamSeq(1)));
        Ok(())
    })
    .await?;
    for n in 2..=1_500 {
        assert_eq!(delivery(&mut log).await?.sequence, StreamSeq(n));
    }
    Ok(())
}

#[tokio::test]
async fn with_room_for_one_message_what_is_dropped_shows_as_a_hole() -> Result<()> {
    let fixture = Fixture::with_events(500).await?;
    let options = Options {
        subscription_capacity: 1,
        ..Options::named("narrow")
    };
    let nats = Nats::connect(&target(fixture.server.url()), &options).await?;
    let mut log = JetStreamLog::new(nats, STREAM, CONSUMER);
    position(&mut log, 1).await?;
    eventually(SOON, "all 500 were sent", async || {
        let facts = log.consumer().await?.unwrap();
        ensure!(facts.delivered_consumer == 500);
        Ok(())
    })
    .await?;
    let mut check = Continuity::after_reset(StreamSeq(0));
    let verdict = loop {
        let verdict = match log.next().await? {
            Pulled::Delivery(it) => check.on_delivery(it.consumer_sequence, it.sequence),
            Pulled::Heartbeat { last_consumer } => check.on_heartbeat(last_consumer),
            other => anyhow::bail!("{other:?}"),
        };
        if verdict != Verdict::Accept {
            break verdict;
        }
    };
    assert_eq!(verdict, Verdict::Hole);
    assert!(check.accepted() < StreamSeq(500));
    Ok(())
}

#[tokio::test]
async fn a_consumer_deleted_under_a_pull_is_gone() -> Result<()> {
    let fixture = Fixture::with_events(1).await?;
    let mut log = fixture.log();
    position(&mut log, 1).await?;
    delivery(&mut log).await?;
    fixture
        .js
        .delete_consumer_from_stream(CONSUMER, STREAM)
        .await?;
    assert_eq!(end_of_pull(&mut log).await?, Pulled::Gone);
    assert_eq!(log.consumer().await?, None);
    Ok(())
}

#[tokio::test]
async fn a_pull_on_a_missing_consumer_is_gone() -> Result<()> {
    let fixture = Fixture::with_events(0).await?;
    fixture
        .js
        .delete_consumer_from_stream(CONSUMER, STREAM)
        .await?;
    let mut log = fixture.log();
    log.open().await?;
    assert_eq!(log.next().await?, Pulled::Gone);
    Ok(())
}

#[tokio::test]
async fn a_reset_of_a_missing_consumer_fails_within_seconds() -> Result<()> {
    let fixture = Fixture::with_events(0).await?;
    fixture
        .js
        .delete_consumer_from_stream(CONSUMER, STREAM)
        .await?;
    let mut log = fixture.log();
    // Connected before, the reset takes as long as it waits, and no longer than usual requests do.
    assert_eq!(log.consumer().await?, None);
    let usual = Timeouts::default().request;
    let reset = tokio::time::timeout(usual, log.reset(StreamSeq(1))).await?;
    let error = reset.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("CONSUMER.RESET of {CONSUMER} got no usable answer")
    );
    Ok(())
}

#[tokio::test]
async fn a_stream_deleted_under_a_pull_ends_it_and_is_named() -> Result<()> {
    let fixture = Fixture::with_events(1).await?;
    let mut log = fixture.log();
    position(&mut log, 1).await?;
    fixture.js.delete_stream(STREAM).await?;
    // The server ends the stream's sender right after it queued the last word to the pull, which then
    // is sent or not: gone, or dead by silence.
    end_of_pull(&mut log).await?;
    let error = log.stream().await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("stream not found"), "{cause}");
    Ok(())
}

#[tokio::test]
async fn t14_a_stream_made_again_has_another_creation_time() -> Result<()> {
    let fixture = Fixture::with_events(3).await?;
    let mut log = fixture.log();
    let before = log.stream().await?;
    fixture.js.delete_stream(STREAM).await?;
    fixture.create_events_stream().await?;
    let after = log.stream().await?;
    assert_eq!(before.identity.name, after.identity.name);
    assert_ne!(before.identity.created, after.identity.created);
    Ok(())
}

#[tokio::test]
async fn the_bounds_of_an_empty_stream_are_one_past_its_last() -> Result<()> {
    let fixture = Fixture::with_events(0).await?;
    let mut log = fixture.log();
    let new = log.stream().await?;
    assert_eq!((new.first, new.last), (StreamSeq(1), StreamSeq(0)));
    fixture.publish_events(3).await?;
    fixture.js.get_stream(STREAM).await?.purge().await?;
    let purged = log.stream().await?;
    assert_eq!((purged.first, purged.last), (StreamSeq(4), StreamSeq(3)));
    Ok(())
}

#[tokio::test]
async fn a_message_that_is_not_there_is_absent_without_direct_access() -> Result<()> {
    let fixture = Fixture::with_events(3).await?;
    fixture
        .js
        .get_stream(STREAM)
        .await?
        .delete_message(2)
        .await?;
    let mut log = fixture.log();
    assert_eq!(log.message_at(StreamSeq(2)).await?, MessageAt::Absent);
    assert_eq!(log.message_at(StreamSeq(4)).await?, MessageAt::Absent);
    assert!(matches!(
        log.message_at(StreamSeq(3)).await?,
        MessageAt::Published(_)
    ));
    Ok(())
}

#[tokio::test]
async fn an_ack_moves_the_floor_past_everything_before_it() -> Result<()> {
    let fixture = Fixture::with_events(10).await?;
    let mut log = fixture.log();
    position(&mut log, 1).await?;
    let mut last = delivery(&mut log).await?;
    while last.sequence < StreamSeq(7) {
        last = delivery(&mut log).await?;
    }
    log.ack(&last.ack).await?;
    let stream = fixture.js.get_stream(STREAM).await?;
    eventually(SOON, "the floor moves", async || {
        let info = stream.consumer_info(CONSUMER).await?;
        ensure!(info.ack_floor.stream_sequence == 7);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_restored_copy_of_the_store_reuses_sequences_with_other_times() -> Result<()> {
    let mut fixture = Fixture::with_events(5).await?;
    let copies = tempfile::tempdir()?;
    let copy = copies.path().join("older");
    fixture.server.kill();
    fixture.server.copy_store(&copy)?;
    fixture.server.restart().await?;
    let mut log = fixture.log();
    let created = eventually(SOON, "the client is back", async || {
        Ok(log.stream().await?)
    })
    .await?;
    fixture.publish_events(5).await?;
    let before = log.message_at(StreamSeq(8)).await?;
    fixture.server.kill();
    fixture.server.restore_copy(&copy)?;
    fixture.server.restart().await?;
    let lost = eventually(SOON, "the client is back", async || {
        Ok(log.stream().await?)
    })
    .await?;
    assert_eq!(lost.last, StreamSeq(5));
    assert_eq!(lost.identity, created.identity);
    fixture.publish_events(5).await?;
    let after = log.message_at(StreamSeq(8)).await?;
    assert!(matches!(after, MessageAt::Published(_)));
    assert_ne!(before, after);
    Ok(())
}

#[tokio::test]
async fn a_killed_server_ends_the_pull_and_keeps_the_cursor() -> Result<()> {
    let mut fixture = Fixture::with_events(10).await?;
    let mut log = fixture.log();
    position(&mut log, 1).await?;
    delivery(&mut log).await?;
    fixture.server.kill();
    assert_eq!(end_of_pull(&mut log).await?, Pulled::Dead);
    fixture.server.restart().await?;
    eventually(SOON, "the consumer is positioned again", async || {
        position(&mut log, 2).await?;
        let first = delivery(&mut log).await?;
        ensure!((first.consumer_sequence, first.sequence) == (1, StreamSeq(2)));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn events_of_the_largest_size_all_come() -> Result<()> {
    let fixture = Fixture::with_events(0).await?;
    let payload = vec![b'x'; fixture.nats.max_payload()];
    let sizes = futures::stream::iter(0..40)
        .then(async |_| {
            let ack = fixture.js.publish("ev.big", payload.clone().into()).await?;
            anyhow::Ok(ack.await?)
        })
        .collect::<Vec<_>>()
        .await;
    assert_eq!(sizes.into_iter().collect::<Result<Vec<_>>>()?.len(), 40);
    let mut log = fixture.log();
    position(&mut log, 1).await?;
    for n in 1..=40 {
        let delivery = delivery(&mut log).await?;
        assert_eq!(
            (delivery.consumer_sequence, delivery.payload.len()),
            (n, payload.len())
        );
    }
    Ok(())
}

#[tokio::test]
async fn on_three_replicas_a_reset_without_a_leader_is_proven_by_the_facts() -> Result<()> {
    let cluster = NatsCluster::start().await?;
    let nats = connect(cluster.urls().remove(0)).await?;
    let js = patient(nats.client().clone());
    let config = jetstream::stream::Config {
        name: STREAM.to_owned(),
        subjects: vec!["ev.>".to_owned()],
        num_replicas: 3,
        ..Default::default()
    };
    js.create_stream(config).await?;
    consumers::ensure(&nats, &desired_consumer()).await?;
    for _ in 0..50 {
        js.publish("ev.a", "{}".into()).await?.await?;
    }
    let mut log = JetStreamLog::new(nats.clone(), STREAM, CONSUMER);
    for next in [31, 11, 41] {
        let step_down = format!("$JS.API.CONSUMER.LEADER.STEPDOWN.{STREAM}.{CONSUMER}");
        nats.client().request(step_down, Bytes::new()).await?;
        eventually(SOON, "the reset shows in the facts", async || {
            log.close().await?;
            // Without a leader it is not answered, and not done either.
            log.reset(StreamSeq(next)).await.ok();
            let facts = log.consumer().await?.context("no consumer")?;
            ensure!((facts.delivered_consumer, facts.delivered.0) == (0, next - 1));
            log.open().await?;
            let first = delivery(&mut log).await?;
            ensure!((first.consumer_sequence, first.sequence.0) == (1, next));
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Publishes one event with these bytes as headers, as no well-behaved client would.
async fn publish_raw(fixture: &Fixture, headers: &[u8]) -> Result<()> {
    let mut socket = TcpStream::connect(fixture.server.address()).await?;
    socket
        .write_all(b"CONNECT {\"verbose\":false,\"headers\":true}\r\n")
        .await?;
    let line = format!("HPUB ev.a {} {}\r\n", headers.len(), headers.len() + 2);
    socket.write_all(line.as_bytes()).await?;
    socket.write_all(headers).await?;
    socket.write_all(b"{}\r\nPING\r\n").await?;
    let mut answers = BufReader::new(socket).lines();
    while let Some(line) = answers.next_line().await? {
        if line == "PONG" {
            return Ok(());
        }
    }
    anyhow::bail!("the server closed the connection")
}

/// Reads everything up to `last` as the worker does, and gives the sequences and headers.
async fn read_through(log: &mut JetStreamLog, last: u64) -> Result<Vec<(u64, Bytes)>> {
    let mut read: Vec<(u64, Bytes)> = Vec::new();
    eventually(SOON, "everything is read", async || {
        let mut accepted = read.last().map_or(0, |(sequence, _)| *sequence);
        position(log, accepted + 1).await?;
        let mut check = Continuity::after_reset(StreamSeq(accepted));
        while accepted < last {
            let Pulled::Delivery(event) = log.next().await? else {
                anyhow::bail!("the pull ended at {accepted}");
            };
            let verdict = check.on_delivery(event.consumer_sequence, event.sequence);
            ensure!(verdict == Verdict::Accept, "{verdict:?} at {accepted}");
            accepted = event.sequence.0;
            log.ack(&event.ack).await?;
            read.push((accepted, event.headers));
        }
        Ok(())
    })
    .await?;
    Ok(read)
}

#[tokio::test]
async fn an_event_with_headers_that_are_no_utf8_is_read_and_stops_nothing() -> Result<()> {
    let fixture = Fixture::with_events(3).await?;
    let headers = b"NATS/1.0\r\nUser: J\xf6rg\r\n\r\n";
    publish_raw(&fixture, headers).await?;
    publish_raw(&fixture, headers).await?;
    fixture.publish_events(3).await?;
    let read = read_through(&mut fixture.log(), 8).await?;
    let sequences: Vec<_> = read.iter().map(|(sequence, _)| *sequence).collect();
    assert_eq!(sequences, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(read[3].1, Bytes::from_static(headers));
    assert_eq!(read[5].1, Bytes::new());
    Ok(())
}

#[tokio::test]
async fn an_event_with_a_status_of_the_server_is_only_an_event() -> Result<()> {
    let fixture = Fixture::with_events(1).await?;
    publish_raw(&fixture, b"NATS/1.0 409 Consumer Deleted\r\n\r\n").await?;
    fixture.publish_events(1).await?;
    let read = read_through(&mut fixture.log(), 3).await?;
    assert_eq!(read.len(), 3);
    Ok(())
}

#[tokio::test]
async fn an_event_with_a_lone_carriage_return_in_a_header_is_read_and_stops_nothing() -> Result<()>
{
    let fixture = Fixture::with_events(3).await?;
    publish_raw(&fixture, b"NATS/1.0\r\nA: 1\r2\r\n\r\n").await?;
    fixture.publish_events(1).await?;
    let read = read_through(&mut fixture.log(), 5).await?;
    assert_eq!(read.len(), 5);
    Ok(())
}
