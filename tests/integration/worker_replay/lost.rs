//! Volumes that come back empty or from an older copy after a request was applied.

use std::path::PathBuf;

use anyhow::Result;
use lookback_protocol::replay::record::Windows;
use lookback_protocol::replay::request::StatePolicy::{self, Clear, Keep, Rebuild};

use super::*;

const START: u64 = 301;
const POLICIES: [StatePolicy; 4] = [StatePolicy::Auto, Keep, Clear, Rebuild];

/// A pipeline that applied a request, and a copy of its file from before.
async fn applied(policy: StatePolicy) -> Result<(Rig, PathBuf)> {
    let mut rig = Rig::with_story(600).await?;
    rig.read_all().await?;
    let copy = rig.volume().join("older.db");
    std::fs::copy(rig.state_file(), &copy)?;
    rig.ask(request(&rig, "r", policy, START)).await?;
    rig.read_all().await?;
    Ok((rig, copy))
}

#[tokio::test]
async fn r07_an_empty_volume_after_a_request_is_lost_state() -> Result<()> {
    for policy in POLICIES {
        let (mut rig, _) = applied(policy).await?;
        let empty = tempfile::tempdir()?;
        rig.move_state_to(empty.path());
        let message = rig.refused(ExitReason::StateLost).await?;
        assert_eq!(message.facts["position"], "600");
        assert!(message.message.contains("Rebuild"), "{message:?}");
        assert!(lookback::state::digest(&rig.state_file()).is_err());
    }
    Ok(())
}

/// Without the checkpoint the consumer remembers.
#[tokio::test]
async fn r07_an_empty_volume_without_a_checkpoint_is_lost_state() -> Result<()> {
    let (mut rig, _) = applied(Clear).await?;
    let mut desired = rig.desired_consumer();
    let applied = "lookback.dev/applied".to_owned();
    desired.metadata.insert(applied, "true".to_owned());
    lookback::nats::consumers::ensure(&rig.nats, &desired).await?;
    lookback::nats::checkpoint::delete(&rig.nats, &rig.config.owner, 0).await?;
    let empty = tempfile::tempdir()?;
    rig.move_state_to(empty.path());
    rig.refused(ExitReason::StateLost).await?;
    Ok(())
}

#[tokio::test]
async fn r22_an_older_copy_after_a_request_is_lost_state_and_nothing_is_applied_again() -> Result<()>
{
    for policy in POLICIES {
        let (rig, copy) = applied(policy).await?;
        let before = rig.ids().await?;
        restore(&copy, &rig.state_file())?;
        for _ in 0..2 {
            let message = rig.refused(ExitReason::StateLost).await?;
            assert!(message.message.contains("epoch 1"), "{message:?}");
        }
        assert!(rig.ledger()?.is_empty());
        assert_eq!(rig.ids().await?, before);
    }
    Ok(())
}

/// A copy that knows the request is exact: what came after it is read again.
#[tokio::test]
async fn r22_a_copy_from_after_the_request_goes_on() -> Result<()> {
    let (mut rig, _) = applied(Clear).await?;
    let copy = rig.volume().join("newer.db");
    std::fs::copy(rig.state_file(), &copy)?;
    rig.publish_story(200).await?;
    rig.read_all().await?;
    restore(&copy, &rig.state_file())?;
    let worker = rig.start();
    rig.finish(worker).await?;
    Ok(())
}

#[tokio::test]
async fn keep_is_refused_over_lost_state_and_clear_and_rebuild_end_it() -> Result<()> {
    for (policy, windows) in [(Clear, Windows::Dropped), (Rebuild, Windows::Rebuilt)] {
        let (mut rig, copy) = applied(Keep).await?;
        restore(&copy, &rig.state_file())?;
        let lost = Some(rig.config.epoch);
        rig.ask(request(&rig, "keep", Keep, START)).await?;
        rig.refused(ExitReason::StateLost).await?;
        let mut rewind = request(&rig, "again", policy, START);
        rewind.of = lost;
        rig.ask(rewind).await?;
        rig.read_all().await?;
        let ledger = rig.ledger()?;
        assert_eq!(ledger.len(), 1);
        assert_eq!(ledger[0].windows, windows);
        let anew = Segment {
            dropped: true,
            ..rig.segment(START, None)
        };
        let found = rig.oracle(&[anew]).await?;
        let state = lookback::state::digest(&rig.state_file())?;
        assert_eq!(state.state_digest, found.state_digest);
    }
    Ok(())
}

/// What the operator asks for by itself: read on behind the checkpoint.
#[tokio::test]
async fn a_lost_volume_reads_on_behind_its_checkpoint_with_the_windows_of_one_pass() -> Result<()> {
    let mut rig = Rig::with_story(600).await?;
    rig.read_all().await?;
    rig.publish_story(400).await?;
    let empty = tempfile::tempdir()?;
    rig.move_state_to(empty.path());
    rig.refused(ExitReason::StateLost).await?;
    let position = rig.checkpoint().await?.position.sequence.0;
    let mut rewind = request(&rig, "loss-1", Rebuild, position + 1);
    rewind.read_from = Some(StreamSeq(1));
    rig.ask(rewind).await?;
    rig.read_all().await?;
    rig.equals(&[rig.segment(1, None)]).await?;
    Ok(())
}
