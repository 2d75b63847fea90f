//! What the nearest programs get wrong when a cursor is to move.

use anyhow::{Result, ensure};
use lookback_protocol::checkpoint::Phase;
use lookback_protocol::config::Cursor;
use lookback_protocol::replay::record::Windows;
use lookback_protocol::replay::request::StatePolicy::{Auto, Clear};

use super::*;
use crate::nats_fixture::STREAM;

const STEP: &str = r#"{"kind":"step","user":"eve"}"#;

async fn worked(events: usize) -> Result<Rig> {
    let rig = Rig::with_story(events).await?;
    rig.read_all().await?;
    Ok(rig)
}

fn applied(rig: &Rig) -> Result<u64> {
    let file = lookback::state::StateFile::open(&rig.state_file())?;
    Ok(file.counters()?.events)
}

/// The consumer of the epoch before is durable, has delivered everything, and stays as it is.
#[tokio::test]
async fn t07_a_replay_reads_again_although_a_durable_consumer_exists() -> Result<()> {
    let mut rig = worked(600).await?;
    let stream = rig.js.get_stream_no_info(STREAM).await?;
    let old = rig.config.source.consumer.clone();
    let cursor = async || -> Result<_> {
        let info = stream.consumer_info(&old).await?;
        Ok((
            info.delivered.stream_sequence,
            info.delivered.consumer_sequence,
            info.ack_floor.stream_sequence,
        ))
    };
    rig.acknowledged(600).await?;
    let before = cursor().await?;
    rig.ask(request(&rig, "r", Clear, 1)).await?;
    rig.read_all().await?;
    assert_eq!(applied(&rig)?, 600 + 600);
    rig.acknowledged(600).await?;
    assert_eq!(cursor().await?, before);
    rig.equals_oracle().await?;
    Ok(())
}

/// Elsewhere a second run with a start reads nothing, because the durable consumer is there.
#[tokio::test]
async fn h04_a_second_replay_is_not_ignored_because_a_cursor_exists() -> Result<()> {
    let mut rig = worked(600).await?;
    for (id, read) in [("first", 600 + 300), ("second", 600 + 300 + 300)] {
        rig.ask(request(&rig, id, Auto, 301)).await?;
        rig.read_all().await?;
        assert_eq!(applied(&rig)?, read);
    }
    let ledger = rig.ledger()?;
    assert!(ledger.iter().all(|row| row.windows == Windows::Dropped));
    rig.equals_oracle().await?;
    Ok(())
}

/// Elsewhere the windows are dropped although nothing is read again. A request that is taken back
/// before it is applied leaves windows and position as they were.
#[tokio::test]
async fn h05_a_replay_that_does_not_happen_leaves_the_windows_alone() -> Result<()> {
    let mut rig = worked(600).await?;
    let before = lookback::state::digest(&rig.state_file())?;
    let of = Some(rig.config.epoch);
    rig.ask(request(&rig, "r", Auto, 301)).await?;
    let late = rig.config.clone();
    let said = rig.checkpoint().await?;
    let taken_back = lookback_protocol::checkpoint::Checkpoint {
        incarnation: "operator".to_owned(),
        epoch: Epoch(3),
        phase: Phase::TakenBack,
        resumes: of,
        ..said
    };
    let body = serde_json::to_vec(&taken_back)?;
    let subject = key().checkpoint_subject(0);
    rig.js.publish(subject, body.into()).await?.await?;
    rig.roll_out(Cursor::Resume { of }).await?;
    let resumed = std::mem::replace(&mut rig.config, late);
    rig.refused(ExitReason::Fenced).await?;
    let after = lookback::state::digest(&rig.state_file())?;
    assert_eq!(after, before);

    rig.config = resumed;
    let worker = rig.start();
    rig.publish_story(200).await?;
    rig.finish(worker).await?;
    rig.equals(&[rig.segment(1, None)]).await?;
    Ok(())
}

/// Elsewhere a start that stays in the arguments drops the windows at every restart.
#[tokio::test]
async fn h06_a_replay_that_stays_in_the_configuration_is_applied_at_one_start_only() -> Result<()> {
    let mut rig = Rig::new().await?;
    rig.publish(STEP).await?;
    rig.read_all().await?;
    rig.ask(request(&rig, "r", Auto, 1)).await?;
    for _ in 0..2 {
        rig.read_all().await?;
        rig.publish(STEP).await?;
    }
    rig.read_all().await?;
    assert_eq!(rig.ledger()?.len(), 1);
    assert_eq!(applied(&rig)?, 1 + 3);
    assert_eq!(rig.alerts().await?, 1, "the third step, over two restarts");
    rig.equals_oracle().await?;
    Ok(())
}

/// Elsewhere the events that a start leaves out are nowhere to be seen. Here the lineage says which
/// were read, so the windows are those of one pass that leaves out the same.
#[tokio::test]
async fn h13_a_start_beyond_the_position_says_what_it_leaves_out() -> Result<()> {
    let mut rig = worked(600).await?;
    rig.publish_story(400).await?;
    rig.ask(request(&rig, "r", Auto, 801)).await?;
    rig.read_all().await?;
    let state = rig.equals_oracle().await?;
    let read: Vec<_> = state
        .lineage
        .iter()
        .map(|segment| (segment.start.0, segment.last.map(|last| last.0)))
        .collect();
    assert_eq!(read, [(1, Some(600)), (801, None)]);
    assert_eq!(applied(&rig)?, 600 + 200);
    let whole = rig.oracle(&[rig.segment(1, None)]).await?;
    ensure!(
        whole.alerts != rig.ids().await?,
        "nothing that matters was left out, so nothing is shown"
    );
    Ok(())
}
