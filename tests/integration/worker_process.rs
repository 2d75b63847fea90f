//! The worker as the process it is in a pod: exit codes, termination messages, signals, `kill -9`, and
//! what it says over HTTP.

use std::fs;

use anyhow::{Result, ensure};
use lookback_dev::support::{TcpProxy, eventually};
use lookback_protocol::checkpoint::Phase;
use lookback_protocol::deadletter::Reason;
use lookback_protocol::termination::ExitReason;

use crate::nats_fixture::{CONSUMER, STREAM};
use crate::process_fixture::Process;
use crate::worker_fixture::{DEADLINE, Rig, Setup};

const ALARM: &str = r#"{"kind":"alarm"}"#;
const QUIET: &str = r#"{"kind":"quiet"}"#;

/// A process with what the operator makes for the rig's worker, over `url`.
fn start(rig: &Rig, url: &str) -> Result<Process> {
    let mounts = tempfile::tempdir()?;
    let mut config = rig.config.clone();
    config.nats.urls = vec![url.to_owned()];
    for (index, file) in rig.rule_files().iter().enumerate() {
        let path = mounts.path().join(index.to_string());
        fs::write(&path, &file.bytes)?;
        config.rules.files[index].path = path.display().to_string();
    }
    let config_file = mounts.path().join("config.json");
    fs::write(&config_file, serde_json::to_vec(&config)?)?;
    let config_file = config_file.display().to_string();
    let arguments = ["worker".to_owned(), "--config".to_owned(), config_file];
    Process::start(mounts, &arguments, rig.volume())
}

#[tokio::test]
async fn a_second_process_on_one_state_file_exits_and_says_so() -> Result<()> {
    let rig = Rig::new().await?;
    rig.publish_all(ALARM, 5).await?;
    let first = start(&rig, &rig.server.url())?;
    first.applied(5).await?;
    let (status, message) = start(&rig, &rig.server.url())?.ended().await?;
    assert_eq!(message.reason, ExitReason::StateLocked);
    assert!(message.message.contains("two workers"), "{message:?}");
    assert_eq!(status.code(), Some(3));
    rig.publish_all(ALARM, 5).await?;
    first.applied(10).await
}

#[tokio::test]
async fn sigterm_drains_and_is_success() -> Result<()> {
    let rig = Rig::with_story(1_000).await?;
    let worker = start(&rig, &rig.server.url())?;
    worker.applied(1_000).await?;
    worker.terminate()?;
    let (status, message) = worker.ended().await?;
    assert_eq!(message.reason, ExitReason::Drained);
    assert_eq!(status.code(), Some(0));
    assert_eq!(rig.checkpoint().await?.phase, Phase::Drained);
    rig.acknowledged(1_000).await?;
    rig.equals_oracle().await?;
    Ok(())
}

#[tokio::test]
async fn kills_again_and_again_lose_nothing_repeat_nothing_and_park_nobody() -> Result<()> {
    let mut rig = Rig::with_story(500).await?;
    for round in 1..=6 {
        let worker = start(&rig, &rig.server.url())?;
        worker.applied(500 * (round - 1) + 1).await?;
        rig.publish_story(500).await?;
        worker.kill()?;
    }
    let worker = rig.start();
    rig.finish(worker).await?;
    Ok(())
}

#[tokio::test]
async fn h18_an_event_that_kills_every_process_is_parked_once_and_the_pipeline_advances()
-> Result<()> {
    let rig = Rig::with(Setup {
        max_attempts: 2,
        ..Setup::default()
    })
    .await?;
    rig.publish_all(QUIET, 3).await?;
    let poison = rig.publish(ALARM).await?;
    rig.publish_all(QUIET, 3).await?;
    // Each process dies while its alert is on the way: with exactly this event in flight, once it is
    // applied alone.
    let mut deaths = 0;
    loop {
        let proxy = TcpProxy::start(rig.server.address()).await?;
        proxy.freeze_at(".alert.new.");
        let worker = start(&rig, &format!("nats://{}", proxy.address()))?;
        let parked = eventually(DEADLINE, "it dies or goes on", async || {
            if proxy.is_frozen() {
                return Ok(false);
            }
            let position = worker.metric("lookback_worker_position").await?;
            ensure!(position > poison, "it stands at {position}");
            Ok(true)
        })
        .await?;
        if parked {
            worker.applied(rig.last().await?).await?;
            break;
        }
        worker.kill()?;
        deaths += 1;
        ensure!(deaths < 20, "never parked");
    }
    let letter = rig.dead_letter(poison).await?;
    assert_eq!((letter.reason, letter.attempts), (Reason::CrashLoop, 2));
    assert_eq!(letter.event.payload, ALARM);
    assert_eq!((rig.dead_letters().await?, rig.alerts().await?), (1, 0));
    Ok(())
}

#[tokio::test]
async fn h20_a_consumer_deleted_under_a_process_is_no_success() -> Result<()> {
    let rig = Rig::new().await?;
    rig.publish_all(ALARM, 5).await?;
    let worker = start(&rig, &rig.server.url())?;
    worker.applied(5).await?;
    let stream = rig.js.get_stream_no_info(STREAM).await?;
    stream.delete_consumer(CONSUMER).await?;
    let (status, message) = worker.ended().await?;
    assert_eq!(message.reason, ExitReason::ConsumerMissing);
    assert_eq!(status.code(), Some(75));
    Ok(())
}

#[tokio::test]
async fn h29_a_process_without_nats_is_alive_and_says_what_it_waits_for() -> Result<()> {
    let mut rig = Rig::new().await?;
    rig.publish_all(ALARM, 5).await?;
    let url = rig.server.url();
    rig.server.kill();
    let worker = start(&rig, &url)?;
    worker.answers("/ready", "503", "NATS").await?;
    worker.answers("/live", "200", "alive").await?;
    rig.server.restart().await?;
    worker.answers("/ready", "200", "ready").await?;
    rig.server.kill();
    worker.answers("/ready", "503", "NATS").await?;
    rig.server.restart().await?;
    worker.answers("/ready", "200", "ready").await
}

#[tokio::test]
async fn h29_the_metrics_show_position_and_lag() -> Result<()> {
    let rig = Rig::with(Setup {
        alerts_max_bytes: 64 * 1024,
        ..Setup::default()
    })
    .await?;
    rig.publish_all(ALARM, 400).await?;
    let worker = start(&rig, &rig.server.url())?;
    eventually(DEADLINE, "it holds", async || {
        ensure!(worker.metric("lookback_worker_held").await? == 1);
        Ok(())
    })
    .await?;
    assert!(worker.metric("lookback_worker_lag_events").await? > 0);
    rig.create_stores(1 << 30, 1 << 30).await?;
    worker.applied(400).await?;
    eventually(DEADLINE, "nothing is left to read", async || {
        ensure!(worker.metric("lookback_worker_lag_events").await? == 0);
        Ok(())
    })
    .await
}
