//! Streams that changed under the state, and the requests that end it.

use anyhow::Result;
use lookback_dev::publish::ensure_source_stream;
use lookback_protocol::position::StreamIdentity;
use lookback_protocol::replay::request::StatePolicy::{Auto, Clear, Keep, Rebuild};

use super::*;
use crate::nats_fixture::{SOON, STREAM};
use lookback_dev::support::eventually;

const ALARM: &str = r#"{"kind":"alarm"}"#;

async fn make_the_stream_again(rig: &mut Rig) -> Result<()> {
    rig.js.delete_stream(STREAM).await?;
    ensure_source_stream(&rig.js, STREAM, "events.>").await?;
    rig.create_consumer().await
}

/// The stream as it is, which the operator tells the worker when it is asked to move the cursor.
async fn bind(rig: &mut Rig) -> Result<()> {
    let observed = lookback::nats::streams::read(&rig.nats, STREAM).await?;
    rig.config.source.stream = StreamIdentity {
        name: STREAM.to_owned(),
        created: observed.context("no source stream")?.created,
    };
    Ok(())
}

#[tokio::test]
async fn clear_and_rebuild_end_a_stream_that_was_made_again() -> Result<()> {
    for policy in [Clear, Rebuild] {
        let mut rig = Rig::new().await?;
        rig.publish_all(ALARM, 30).await?;
        rig.read_all().await?;
        make_the_stream_again(&mut rig).await?;
        rig.publish_all(ALARM, 5).await?;
        rig.refused(ExitReason::StreamChanged).await?;
        let begun = Some(rig.config.epoch);
        bind(&mut rig).await?;
        for (id, refused) in [("keep", Keep), ("auto", Auto)] {
            let mut rewind = request(&rig, id, refused, 3);
            rewind.of = begun;
            rig.ask(rewind).await?;
            let message = rig.refused(ExitReason::StreamChanged).await?;
            assert!(message.message.contains("Clear or Rebuild"), "{message:?}");
        }
        let mut rewind = request(&rig, "r", policy, 3);
        rewind.of = begun;
        rig.ask(rewind).await?;
        rig.read_all().await?;
        assert_eq!(rig.alerts().await?, 30 + 3);
        let state = lookback::state::digest(&rig.state_file())?;
        assert_eq!(state.stream, rig.config.source.stream);
        assert_eq!(state.position.sequence, StreamSeq(5));
        rig.publish_all(ALARM, 2).await?;
        rig.read_all().await?;
        assert_eq!(rig.alerts().await?, 30 + 5);
    }
    Ok(())
}

/// A rig whose server lost the last 20 of 40 applied alarms everywhere.
async fn restored_from_an_older_copy() -> Result<Rig> {
    let mut rig = Rig::new().await?;
    rig.publish_all(ALARM, 20).await?;
    rig.read_all().await?;
    let copy = rig.volume().join("older");
    rig.server.kill();
    rig.server.copy_store(&copy)?;
    restart(&mut rig).await?;
    rig.publish_all(ALARM, 20).await?;
    rig.read_all().await?;
    rig.server.kill();
    rig.server.restore_copy(&copy)?;
    restart(&mut rig).await?;
    Ok(rig)
}

async fn restart(rig: &mut Rig) -> Result<()> {
    rig.server.restart().await?;
    eventually(SOON, "the server is back", async || {
        rig.js.query_account().await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn r26_lost_sequences_used_again_are_refused_and_clear_reads_the_new_events() -> Result<()> {
    for more in [10, 30] {
        for policy in [Clear, Rebuild] {
            let mut rig = restored_from_an_older_copy().await?;
            let known = rig.ids().await?;
            assert_eq!(known.len(), 20);
            rig.publish_all(ALARM, more).await?;
            rig.refused(ExitReason::StreamRegressed).await?;
            let begun = Some(rig.config.epoch);
            let mut rewind = request(&rig, "keep", Keep, 21);
            rewind.of = begun;
            rig.ask(rewind).await?;
            rig.refused(ExitReason::StreamRegressed).await?;
            assert_eq!(rig.ids().await?, known, "nothing is read meanwhile");

            let mut rewind = request(&rig, "r", policy, 21);
            rewind.of = begun;
            rig.ask(rewind).await?;
            rig.read_all().await?;
            let stored = rig.stored().await?;
            let new: Vec<_> = stored
                .iter()
                .filter(|(id, _)| !known.contains(*id))
                .map(|(_, alert)| trigger(alert))
                .collect();
            assert_eq!(
                new.len(),
                more,
                "each new event is read, none is taken for known"
            );
            assert!(new.iter().all(|sequence| *sequence > 20));
            assert_eq!(stored.len(), 20 + more);
        }
    }
    Ok(())
}

#[tokio::test]
async fn clear_ends_a_store_that_lost_alerts_and_finds_them_again() -> Result<()> {
    let mut rig = Rig::new().await?;
    rig.publish_all(ALARM, 20).await?;
    rig.read_all().await?;
    let before = rig.ids().await?;
    rig.js.delete_stream(key().alerts_stream()).await?;
    rig.create_stores(1 << 30, 1 << 30).await?;
    rig.refused(ExitReason::StoreRegressed).await?;
    rig.ask(request(&rig, "r", Clear, 1)).await?;
    rig.read_all().await?;
    assert_eq!(rig.ids().await?, before);
    Ok(())
}
