//! A server that dies, forgets, or has things deleted in it by hand.

use anyhow::{Result, ensure};
use lookback::nats::connect::ConnectError;
use lookback::state::StateFile;
use lookback_dev::publish::ensure_source_stream;
use lookback_dev::support::eventually;
use lookback_protocol::checkpoint::Gap;
use lookback_protocol::position::StreamSeq;
use lookback_protocol::termination::{ExitReason, TerminationMessage};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::nats_fixture::{CONSUMER, SOON, STREAM, connect, key};
use crate::worker_fixture::{DEADLINE, Rig, Running};

const ALARM: &str = r#"{"kind":"alarm"}"#;
const STEP: &str = r#"{"kind":"step","user":"eve"}"#;
const ROOM: u64 = 1 << 30;

async fn kill_and_restart(rig: &mut Rig) -> Result<()> {
    rig.server.kill();
    rig.server.restart().await?;
    is_back(rig).await
}

async fn is_back(rig: &Rig) -> Result<()> {
    eventually(DEADLINE, "the server answers", async || {
        rig.last().await?;
        rig.js.query_account().await?;
        Ok(())
    })
    .await
}

async fn run_to_the_end(rig: &Rig) -> Result<()> {
    let worker = rig.start();
    worker.applied(rig.last().await?).await?;
    worker.drain().await
}

fn refused(message: &TerminationMessage, reason: ExitReason) {
    assert_eq!(message.reason, reason, "{message:?}");
    assert_eq!(reason.exit_code(), 3);
}

#[tokio::test]
async fn a_server_killed_again_and_again_costs_nothing() -> Result<()> {
    let mut rig = Rig::with_story(1_000).await?;
    let worker = rig.start();
    for round in 1..=3 {
        rig.publish_story(1_000).await?;
        worker.applied(round * 1_000).await?;
        kill_and_restart(&mut rig).await?;
    }
    rig.finish(worker).await?;
    Ok(())
}

/// A rig whose server lost the last 20 of 40 applied events.
async fn restored_from_an_older_copy() -> Result<Rig> {
    let mut rig = Rig::new().await?;
    rig.publish_all(STEP, 20).await?;
    run_to_the_end(&rig).await?;
    let copy = rig.volume().join("older");
    rig.server.kill();
    rig.server.copy_store(&copy)?;
    rig.server.restart().await?;
    is_back(&rig).await?;
    rig.publish_all(STEP, 20).await?;
    run_to_the_end(&rig).await?;
    rig.server.kill();
    rig.server.restore_copy(&copy)?;
    rig.server.restart().await?;
    is_back(&rig).await?;
    Ok(rig)
}

#[tokio::test]
async fn a_server_that_lost_applied_events_is_refused() -> Result<()> {
    let rig = restored_from_an_older_copy().await?;
    let message = rig.start().ended().await?;
    refused(&message, ExitReason::StreamRegressed);
    assert_eq!(message.facts["position"], "40");
    assert_eq!(message.facts["lastSequence"], "20");
    Ok(())
}

#[tokio::test]
async fn a_server_that_used_sequences_again_is_refused() -> Result<()> {
    let rig = restored_from_an_older_copy().await?;
    rig.publish_all(STEP, 30).await?;
    let message = rig.start().ended().await?;
    refused(&message, ExitReason::StreamRegressed);
    assert_eq!(message.facts["position"], "40");
    assert_ne!(message.facts["published"], message.facts["found"]);
    Ok(())
}

#[tokio::test]
async fn a_server_that_forgets_under_a_running_worker_is_refused() -> Result<()> {
    let mut rig = Rig::new().await?;
    rig.publish_all(STEP, 20).await?;
    let worker = rig.start();
    worker.applied(20).await?;
    let copy = rig.volume().join("older");
    rig.server.kill();
    rig.server.copy_store(&copy)?;
    rig.server.restart().await?;
    is_back(&rig).await?;
    rig.publish_all(STEP, 20).await?;
    worker.applied(40).await?;
    rig.server.kill();
    rig.server.restore_copy(&copy)?;
    rig.server.restart().await?;
    let message = worker.ended().await?;
    refused(&message, ExitReason::StreamRegressed);
    Ok(())
}

#[tokio::test]
async fn h07_a_consumer_deleted_by_hand_costs_nothing_once_it_is_made_again() -> Result<()> {
    let mut rig = Rig::with_story(1_000).await?;
    let worker = rig.start();
    worker.applied(1_000).await?;
    let stream = rig.js.get_stream_no_info(STREAM).await?;
    stream.delete_consumer(CONSUMER).await?;
    let message = worker.ended().await?;
    assert_eq!(message.reason, ExitReason::ConsumerMissing, "{message:?}");
    assert_eq!(message.facts["consumer"], CONSUMER);
    rig.create_consumer().await?;
    rig.publish_story(500).await?;
    let worker = rig.start();
    rig.finish(worker).await?;
    Ok(())
}

async fn make_the_stream_again(rig: &Rig) -> Result<()> {
    rig.js.delete_stream(STREAM).await?;
    ensure_source_stream(&rig.js, STREAM, "events.>").await?;
    rig.create_consumer().await?;
    rig.publish_all(STEP, 30).await
}

#[tokio::test]
async fn t14_a_source_stream_made_again_is_refused_at_the_start() -> Result<()> {
    let rig = Rig::new().await?;
    rig.publish_all(STEP, 20).await?;
    run_to_the_end(&rig).await?;
    make_the_stream_again(&rig).await?;
    let message = rig.start().ended().await?;
    refused(&message, ExitReason::StreamChanged);
    assert_eq!(
        message.facts["expected"],
        rig.config.source.stream.created.to_string()
    );
    Ok(())
}

#[tokio::test]
async fn t14_a_source_stream_made_again_stops_the_worker_that_runs() -> Result<()> {
    let rig = Rig::new().await?;
    rig.publish_all(STEP, 20).await?;
    let worker = rig.start();
    worker.applied(20).await?;
    make_the_stream_again(&rig).await?;
    refused(&worker.ended().await?, ExitReason::StreamChanged);
    Ok(())
}

#[tokio::test]
async fn a_worker_without_its_source_stream_ends_and_names_it() -> Result<()> {
    let rig = Rig::new().await?;
    rig.publish_all(STEP, 20).await?;
    let worker = rig.start();
    worker.applied(20).await?;
    rig.js.delete_stream(STREAM).await?;
    let message = worker.ended().await?;
    assert_eq!(message.reason.exit_code(), 75, "{message:?}");
    assert!(message.message.contains(STREAM), "{message:?}");
    assert!(message.message.contains("not found"), "{message:?}");
    Ok(())
}

async fn make_the_alerts_stream_again(rig: &Rig) -> Result<()> {
    rig.js.delete_stream(key().alerts_stream()).await?;
    rig.create_stores(ROOM, ROOM).await
}

#[tokio::test]
async fn an_alerts_stream_that_lost_what_was_stored_is_refused_at_the_start() -> Result<()> {
    let rig = Rig::new().await?;
    rig.publish_all(ALARM, 20).await?;
    run_to_the_end(&rig).await?;
    make_the_alerts_stream_again(&rig).await?;
    let message = rig.start().ended().await?;
    refused(&message, ExitReason::StoreRegressed);
    assert_eq!(message.facts["stream"], key().alerts_stream());
    assert_eq!(message.facts["acknowledged"], "20");
    Ok(())
}

#[tokio::test]
async fn an_alerts_stream_deleted_by_hand_holds_the_worker_and_is_missed() -> Result<()> {
    let rig = Rig::new().await?;
    rig.publish_all(ALARM, 20).await?;
    let worker = rig.start();
    worker.applied(20).await?;
    rig.js.delete_stream(key().alerts_stream()).await?;
    rig.publish(ALARM).await?;
    worker
        .until("it holds", || {
            ensure!(worker.metrics.held.get() == 1);
            Ok(())
        })
        .await?;
    rig.create_stores(ROOM, ROOM).await?;
    refused(&worker.ended().await?, ExitReason::StoreRegressed);
    Ok(())
}

#[tokio::test]
async fn an_alerts_stream_made_again_under_a_running_worker_is_missed() -> Result<()> {
    let rig = Rig::new().await?;
    rig.publish_all(ALARM, 20).await?;
    let worker = rig.start();
    worker.applied(20).await?;
    make_the_alerts_stream_again(&rig).await?;
    rig.publish(ALARM).await?;
    refused(&worker.ended().await?, ExitReason::StoreRegressed);
    Ok(())
}

#[tokio::test]
async fn events_that_expire_unread_are_told_in_the_file_the_checkpoint_and_a_metric() -> Result<()>
{
    let rig = Rig::new().await?;
    rig.publish_all(ALARM, 20).await?;
    run_to_the_end(&rig).await?;
    rig.publish_all(ALARM, 20).await?;
    let stream = rig.js.get_stream_no_info(STREAM).await?;
    stream.purge().sequence(31).await?;
    let worker = rig.start();
    worker.applied(40).await?;
    let metric = worker.metrics.expired_unread.get();
    worker.drain().await?;
    let gap = Gap {
        from: StreamSeq(21),
        to: StreamSeq(30),
        possible: false,
    };
    assert_eq!(
        StateFile::open(&rig.state_file())?.gaps()?,
        std::slice::from_ref(&gap)
    );
    assert_eq!(rig.checkpoint().await?.gaps, [gap]);
    assert_eq!(metric, 10);
    assert_eq!(rig.alerts().await?, 30);
    Ok(())
}

#[tokio::test]
async fn a_worker_says_what_it_waits_for_while_the_server_is_down() -> Result<()> {
    let mut rig = Rig::new().await?;
    let worker = rig.start();
    ready(&worker).await?;
    rig.server.kill();
    worker
        .until("it is not ready", || {
            ensure!(!worker.readiness.waiting().is_empty());
            Ok(())
        })
        .await?;
    let waiting = worker.readiness.waiting();
    assert!(waiting[0].starts_with("consumer: "), "{waiting:?}");
    rig.server.restart().await?;
    ready(&worker).await
}

async fn ready(worker: &Running) -> Result<()> {
    worker
        .until("it is ready", || {
            let waiting = worker.readiness.waiting();
            ensure!(waiting.is_empty(), "{waiting:?}");
            Ok(())
        })
        .await
}

/// Answers as a server of version 2.11 does, as far as a client asks before anything else.
async fn old_server(stream: TcpStream) -> Result<()> {
    let mut stream = BufReader::new(stream);
    let info =
        r#"{"server_id":"OLD","version":"2.11.9","proto":1,"headers":true,"max_payload":1048576}"#;
    stream
        .write_all(format!("INFO {info}\r\n").as_bytes())
        .await?;
    let mut subscription = String::new();
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["PING"] => stream.write_all(b"PONG\r\n").await?,
            ["SUB", _, sid] => subscription = (*sid).to_owned(),
            ["PUB", _, reply, length] => {
                let mut payload = vec![0; length.parse::<usize>()? + 2];
                let answer = r#"{"type":"io.nats.jetstream.api.v1.account_info_response","api":{"level":1}}"#;
                let answer = format!(
                    "MSG {reply} {subscription} {}\r\n{answer}\r\n",
                    answer.len()
                );
                stream.read_exact(&mut payload).await?;
                stream.write_all(answer.as_bytes()).await?;
            }
            _ => {}
        }
        line.clear();
    }
    Ok(())
}

#[tokio::test]
async fn t10_a_server_that_is_too_old_is_refused_with_its_level() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("nats://{}", listener.local_addr()?);
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await?;
        old_server(stream).await
    });
    let error = tokio::time::timeout(SOON, connect(url)).await?.unwrap_err();
    let refusal = error.downcast_ref::<ConnectError>();
    assert!(
        matches!(refusal, Some(ConnectError::ServerTooOld { level: 1, .. })),
        "{error:?}"
    );
    assert!(error.to_string().contains("2.14 or newer"), "{error}");
    server.abort();
    Ok(())
}
