//! Every row of the state decision in effect: what is in the windows, and so which alerts there are, is
//! what one pass over the same stretches gives, with or without the windows of the first.

use anyhow::{Result, ensure};
use lookback_protocol::replay::record::Windows;
use lookback_protocol::replay::request::StatePolicy::{Auto, Clear, Keep};
use lookback_protocol::replay::restore::Reason;

use super::*;

/// Where the file stands when it is asked.
const POSITION: u64 = 600;
/// What the stream holds then.
const STORED: u64 = 1_000;
const END: u64 = 1_200;

/// A worker at 600 of 1,000 events; from `start` on it reads to 1,200.
async fn moved(
    policy: StatePolicy,
    start: u64,
    latest: bool,
    expected: (Windows, Reason),
) -> Result<()> {
    let mut rig = Rig::with_story(usize::try_from(POSITION)?).await?;
    rig.read_all().await?;
    rig.publish_story(usize::try_from(STORED - POSITION)?)
        .await?;
    let mut rewind = request(&rig, "r", policy, start);
    rewind.latest = latest;
    rig.ask(rewind).await?;
    let worker = rig.start();
    rig.publish_story(usize::try_from(END - STORED)?).await?;
    rig.finish(worker).await?;

    let (windows, reason) = expected;
    let ledger = rig.ledger()?;
    assert_eq!(ledger.len(), 1);
    assert_eq!(ledger[0].windows, windows);
    assert_eq!(ledger[0].reason, reason.as_str());
    let segments = |dropped| {
        let after = Segment {
            dropped,
            ..rig.segment(start, None)
        };
        [rig.segment(1, Some(POSITION)), after]
    };
    let dropped = windows == Windows::Dropped;
    let found = rig.equals(&segments(dropped)).await?;
    let other = rig.oracle(&segments(!dropped)).await?;
    ensure!(
        found.state_digest != other.state_digest,
        "the decision makes no difference here, so nothing is shown"
    );
    Ok(())
}

#[tokio::test]
async fn auto_keeps_the_windows_on_the_way_forward() -> Result<()> {
    moved(
        Auto,
        701,
        false,
        (Windows::Kept, Reason::StartAfterPosition),
    )
    .await
}

#[tokio::test]
async fn auto_keeps_the_windows_when_the_start_is_the_next_message() -> Result<()> {
    moved(
        Auto,
        601,
        false,
        (Windows::Kept, Reason::StartAfterPosition),
    )
    .await
}

#[tokio::test]
async fn auto_drops_the_windows_when_the_start_is_the_position() -> Result<()> {
    let expected = (Windows::Dropped, Reason::StartNotAfterPosition);
    moved(Auto, POSITION, false, expected).await
}

#[tokio::test]
async fn auto_drops_the_windows_on_the_way_back() -> Result<()> {
    let expected = (Windows::Dropped, Reason::StartNotAfterPosition);
    moved(Auto, 301, false, expected).await
}

#[tokio::test]
async fn auto_drops_the_windows_for_the_latest() -> Result<()> {
    moved(Auto, STORED + 1, true, (Windows::Dropped, Reason::Latest)).await
}

#[tokio::test]
async fn clear_drops_the_windows_on_the_way_forward() -> Result<()> {
    moved(Clear, 701, false, (Windows::Dropped, Reason::ForceClear)).await
}

#[tokio::test]
async fn clear_drops_the_windows_on_the_way_back() -> Result<()> {
    moved(Clear, 301, false, (Windows::Dropped, Reason::ForceClear)).await
}

#[tokio::test]
async fn keep_keeps_the_windows_for_the_latest() -> Result<()> {
    moved(Keep, STORED + 1, true, (Windows::Kept, Reason::ForceKeep)).await
}

#[tokio::test]
async fn keep_counts_events_twice_on_the_way_back() -> Result<()> {
    moved(Keep, 301, false, (Windows::Kept, Reason::ForceKeep)).await
}

/// A pipeline that begins with a request.
async fn begun(policy: StatePolicy, expected: (Windows, Reason)) -> Result<()> {
    let mut rig = Rig::with_story(1_000).await?;
    let rewind = request(&rig, "r", policy, 301);
    rig.begin_with(rewind).await?;
    let worker = rig.start();
    rig.finish(worker).await?;
    let row = &rig.ledger()?[0];
    assert_eq!(
        (row.windows, row.reason.as_str()),
        (expected.0, expected.1.as_str())
    );
    rig.equals(&[rig.segment(301, None)]).await?;
    Ok(())
}

#[tokio::test]
async fn auto_has_nothing_to_keep_without_a_position() -> Result<()> {
    begun(Auto, (Windows::Dropped, Reason::NoPosition)).await
}

#[tokio::test]
async fn keep_keeps_nothing_without_a_position() -> Result<()> {
    begun(Keep, (Windows::Kept, Reason::ForceKeep)).await
}
