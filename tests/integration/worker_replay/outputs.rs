//! What becomes of alerts up to the target, also when the worker is killed on the way.

use anyhow::{Result, ensure};
use lookback_protocol::alert::ReplayMark;
use lookback_protocol::replay::request::StatePolicy::Auto;

use super::*;
use crate::worker_fixture::Setup;

const TARGET: u64 = 2_000;
/// As far as a worker comes before it is killed.
const HALF: u64 = 1_000;
const END: u64 = 2_300;

/// A pipeline at 300 that reads on from 301 with `outputs` up to 2,000, is killed on the way, and goes
/// on to 2,300.
async fn moved(outputs: Outputs) -> Result<Rig> {
    let mut rig = Rig::with(Setup {
        commit_events: 20,
        ..Setup::story()?
    })
    .await?;
    rig.publish_story(300).await?;
    rig.read_all().await?;
    rig.publish_story(usize::try_from(HALF - 300)?).await?;
    let mut rewind = request(&rig, "r", Auto, 301);
    rewind.outputs = outputs;
    rewind.target = StreamSeq(TARGET);
    rig.ask(rewind).await?;
    let worker = rig.start();
    worker.applied(600).await?;
    worker.crash().await?;
    rig.publish_story(usize::try_from(END - HALF)?).await?;
    let worker = rig.start();
    rig.finish(worker).await?;
    Ok(rig)
}

/// The sequences of alerts after the request, up to the target and beyond it.
fn split(stored: &BTreeMap<String, AlertRecord>) -> (Vec<&AlertRecord>, Vec<&AlertRecord>) {
    let after = stored.values().filter(|alert| trigger(alert) > 300);
    after.partition(|alert| trigger(alert) <= TARGET)
}

#[tokio::test]
async fn tag_marks_alerts_up_to_the_target_and_none_beyond_it() -> Result<()> {
    let rig = moved(Outputs::Tag).await?;
    rig.equals(&[rig.segment(1, None)]).await?;
    let stored = rig.stored().await?;
    let mark = ReplayMark {
        id: RequestId::new("r")?,
        epoch: Epoch(2),
    };
    let (within, beyond) = split(&stored);
    ensure!(
        !within.is_empty() && !beyond.is_empty(),
        "alerts on both sides"
    );
    assert!(
        within
            .iter()
            .all(|alert| alert.replay.as_ref() == Some(&mark))
    );
    assert!(beyond.iter().all(|alert| alert.replay.is_none()));
    let before = stored.values().filter(|alert| trigger(alert) <= 300);
    assert!(before.into_iter().all(|alert| alert.replay.is_none()));
    Ok(())
}

#[tokio::test]
async fn suppress_stores_dead_letters_but_no_alert_up_to_the_target() -> Result<()> {
    let rig = moved(Outputs::Suppress).await?;
    let stored = rig.stored().await?;
    let (within, beyond) = split(&stored);
    assert_eq!(within, Vec::<&AlertRecord>::new());
    ensure!(!beyond.is_empty(), "alerts beyond the target");
    let whole = rig.oracle(&[rig.segment(1, None)]).await?;
    let state = lookback::state::digest(&rig.state_file())?;
    assert_eq!(state.state_digest, whole.state_digest);
    assert_eq!(rig.dead_letters().await?, whole.dead_letters.len());
    Ok(())
}
