//! Deliveries that go wrong on the way, and stores that do not take what a worker gives them.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lookback::worker::metrics::{Cause, CauseLabels};
use lookback_dev::support::{TcpProxy, eventually};
use lookback_protocol::checkpoint::{HoldReason, Phase};
use serde_json::{Value, json};

use crate::nats_fixture::{CONSUMER, SOON, STREAM, key};
use crate::worker_fixture::{DEADLINE, Launch, Rig, Running, Setup};

const ALARM: &str = r#"{"kind":"alarm"}"#;
const ROOM: u64 = 1 << 30;

fn repositionings(worker: &Running, causes: &[Cause]) -> u64 {
    let count = |&cause| {
        let labels = CauseLabels { cause };
        worker.metrics.repositionings.get_or_create(&labels).get()
    };
    causes.iter().map(count).sum()
}

/// Waits until the worker that runs says in its checkpoint that it holds for `reason`.
async fn holds(rig: &Rig, worker: &Running, reason: HoldReason) -> Result<()> {
    eventually(DEADLINE, "the worker holds", async || {
        let checkpoint = rig.checkpoint().await?;
        let held = checkpoint.held.context("it is not held")?;
        ensure!(held.reason == reason, "{held:?}");
        ensure!(worker.metrics.held.get() == 1);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn connections_cut_at_random_bytes_lose_and_repeat_nothing() -> Result<()> {
    const EVENTS: u64 = 6_000;
    let mut rig = Rig::with(Setup::story()?).await?;
    let proxy = TcpProxy::start(rig.server.address()).await?;
    let worker = rig.start_via(&proxy);
    worker
        .until("it is ready", || {
            ensure!(worker.readiness.waiting().is_empty());
            Ok(())
        })
        .await?;
    let lost = [Cause::Hole, Cause::HoleAtTail, Cause::PullDead];
    let chance = RandomState::new();
    let mut cuts = Vec::new();
    while cuts.len() < 10 && worker.position() < EVENTS {
        let bytes = usize::try_from(chance.hash_one(cuts.len()) % 200_000)?;
        let before = repositionings(&worker, &lost);
        proxy.cut_after(bytes);
        if cuts.is_empty() {
            // Not earlier, or all of it might be applied before the first cut.
            rig.publish_story(usize::try_from(EVENTS)?).await?;
        }
        cuts.push(bytes);
        worker
            .until("the connection is cut, or all is applied", || {
                let after = repositionings(&worker, &lost);
                ensure!(after > before || worker.position() == EVENTS);
                Ok(())
            })
            .await?;
    }
    proxy.spare();
    assert!(repositionings(&worker, &lost) > 0);
    rig.finish(worker)
        .await
        .with_context(|| format!("cut after {cuts:?} bytes"))?;
    Ok(())
}

#[tokio::test]
async fn what_a_half_open_client_swallows_is_read_again() -> Result<()> {
    let mut rig = Rig::with(Setup::story()?).await?;
    rig.publish_story(300).await?;
    let proxy = TcpProxy::start(rig.server.address()).await?;
    let first = rig.start_via(&proxy);
    first.applied(300).await?;
    proxy.freeze();
    rig.publish_story(200).await?;
    eventually(SOON, "the frozen pull is given events", async || {
        ensure!(rig.cursor().await?.0 > 300);
        Ok(())
    })
    .await?;
    first.crash().await?;
    let second = rig.start();
    rig.finish(second).await?;
    Ok(())
}

#[tokio::test]
async fn a_subscription_that_holds_one_message_loses_nothing() -> Result<()> {
    let rig = Rig::with_story(40).await?;
    let worker = rig.start_with(Launch {
        subscription_capacity: 1,
        ..rig.launch()
    });
    rig.finish(worker).await?;
    Ok(())
}

#[tokio::test]
async fn a_full_alerts_stream_holds_the_pipeline_and_heals_when_it_may_grow() -> Result<()> {
    let rig = Rig::with(Setup {
        alerts_max_bytes: 64 * 1024,
        ..Setup::default()
    })
    .await?;
    rig.publish_all(ALARM, 400).await?;
    let worker = rig.start();
    holds(&rig, &worker, HoldReason::AlertsFull).await?;
    let checkpoint = rig.checkpoint().await?;
    assert_eq!(checkpoint.phase, Phase::Held);
    let message = checkpoint.held.unwrap().message;
    assert!(message.contains("alerts.maxBytes"), "{message}");
    assert!(message.contains(&key().alerts_stream()), "{message}");
    assert!(rig.cursor().await?.1 <= checkpoint.position.sequence.0);
    assert!(!worker.readiness.waiting().is_empty());
    rig.create_stores(ROOM, ROOM).await?;
    rig.finish(worker).await?;
    assert_eq!(rig.alerts().await?, 400);
    Ok(())
}

#[tokio::test]
async fn ack_wait_that_passes_while_held_repeats_nothing() -> Result<()> {
    const ACK_WAIT: Duration = Duration::from_secs(1);
    let rig = Rig::with(Setup {
        alerts_max_bytes: 64 * 1024,
        ..Setup::default()
    })
    .await?;
    let mut config = rig.desired_consumer().config();
    config.retain(|_, value| !value.is_null());
    config.insert("ack_wait".to_owned(), json!(ACK_WAIT.as_nanos()));
    let request = json!({ "stream_name": STREAM, "config": config, "action": "update" });
    let subject = format!("CONSUMER.CREATE.{STREAM}.{CONSUMER}");
    let answer: Value = rig.js.request(subject, &request).await?;
    assert_eq!(
        answer["config"]["ack_wait"],
        json!(ACK_WAIT.as_nanos()),
        "{answer}"
    );
    rig.publish_all(ALARM, 400).await?;
    let worker = rig.start();
    holds(&rig, &worker, HoldReason::AlertsFull).await?;
    let held = Instant::now();
    eventually(SOON, "ack_wait passes twice", async || {
        ensure!(held.elapsed() > 2 * ACK_WAIT);
        Ok(())
    })
    .await?;
    rig.create_stores(ROOM, ROOM).await?;
    rig.finish(worker).await?;
    assert_eq!(rig.alerts().await?, 400);
    Ok(())
}

#[tokio::test]
async fn h16_a_dead_letter_survives_a_crash_and_a_stream_that_refuses_it() -> Result<()> {
    let rig = Rig::with(Setup {
        dead_letters_max_bytes: 32 * 1024,
        ..Setup::default()
    })
    .await?;
    let poison = "p".repeat(64 * 1024);
    rig.publish(ALARM).await?;
    let sequence = rig.publish(poison.clone()).await?;
    rig.publish(ALARM).await?;
    for _ in 0..2 {
        let worker = rig.start();
        holds(&rig, &worker, HoldReason::DeadLettersFull).await?;
        worker.crash().await?;
        assert!(rig.cursor().await?.1 < sequence);
    }
    let worker = rig.start();
    holds(&rig, &worker, HoldReason::DeadLettersFull).await?;
    rig.create_stores(ROOM, ROOM).await?;
    rig.finish(worker).await?;
    assert_eq!(rig.dead_letters().await?, 1);
    assert_eq!(rig.dead_letter(sequence).await?.event.payload, poison);
    Ok(())
}

#[tokio::test]
async fn t08_a_kill_between_commit_and_ack_loses_nothing_and_counts_nothing_twice() -> Result<()> {
    let mut rig = Rig::with(Setup::story()?).await?;
    let proxy = TcpProxy::start(rig.server.address()).await?;
    let worker = rig.start_via(&proxy);
    worker
        .until("it is ready", || {
            ensure!(worker.readiness.waiting().is_empty());
            Ok(())
        })
        .await?;
    proxy.freeze_at("PUB $KV.");
    rig.publish_story(1_000).await?;
    eventually(SOON, "a checkpoint is on its way", async || {
        ensure!(proxy.is_frozen());
        Ok(())
    })
    .await?;
    worker.crash().await?;
    let held = lookback::state::digest(&rig.state_file())?.position;
    let (_, floor) = rig.cursor().await?;
    assert!(floor < held.sequence.0);
    let worker = rig.start();
    rig.finish(worker).await?;
    Ok(())
}
