//! Windows made again from events before the start.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use lookback_protocol::replay::request::StatePolicy::Rebuild;
use uuid::Uuid;

use super::*;
use crate::worker_fixture::{RULES, Setup, rule_file};

const START: u64 = 2_001;

/// A pipeline that has read 3,000 events, asked to make its windows again and to read from 2,001 on.
async fn asked() -> Result<Rig> {
    let mut rig = Rig::with(Setup {
        commit_events: 20,
        ..Setup::story()?
    })
    .await?;
    rig.publish_story(3_000).await?;
    rig.read_all().await?;
    let mut rewind = request(&rig, "r", Rebuild, START);
    rewind.read_from = Some(StreamSeq(1));
    rig.ask(rewind).await?;
    Ok(rig)
}

#[tokio::test]
async fn a_rebuild_gives_the_ids_of_the_uninterrupted_run_and_nothing_new() -> Result<()> {
    let mut rig = asked().await?;
    let before = rig.stored().await?;
    let worker = rig.start();
    rig.publish_story(500).await?;
    rig.finish(worker).await?;
    let after = rig.stored().await?;
    let found_first: Vec<_> = after
        .iter()
        .filter(|(id, _)| !before.contains_key(*id))
        .collect();
    ensure!(
        found_first.iter().all(|(_, alert)| trigger(alert) > 3_000),
        "alerts on events that were read before are new"
    );
    ensure!(
        before
            .iter()
            .all(|(id, alert)| after.get(id) == Some(alert)),
        "an alert that was stored has changed"
    );
    rig.equals(&[rig.segment(1, None)]).await?;
    Ok(())
}

/// Alerts that are gone are found again from the start on, and not before it.
#[tokio::test]
async fn a_rebuild_stores_nothing_below_its_start() -> Result<()> {
    let rig = asked().await?;
    let alerts = rig.js.get_stream(key().alerts_stream()).await?;
    alerts.purge().await?;
    let dead_letters = rig.js.get_stream(key().dead_letters_stream()).await?;
    dead_letters.purge().await?;
    rig.read_all().await?;
    let whole = rig.oracle(&[rig.segment(1, None)]).await?;
    let stored = rig.stored().await?;
    ensure!(!stored.is_empty(), "there is no alert from the start on");
    assert!(stored.values().all(|alert| trigger(alert) >= START));
    let ids: BTreeSet<_> = stored.into_keys().collect();
    assert!(ids.is_subset(&whole.alerts));
    let state = lookback::state::digest(&rig.state_file())?;
    assert_eq!(state.state_digest, whole.state_digest);
    Ok(())
}

/// A fixed rule and the request to apply it to what was read come in one rollout.
#[tokio::test]
async fn a_rebuild_under_other_rules_gives_what_those_give_alone() -> Result<()> {
    let rules = |count: u32| {
        vec![rule_file(
            "test.yml",
            &RULES.replace("gte: 3", &format!("gte: {count}")),
        )]
    };
    let mut rig = Rig::new().await?;
    rig.load(rules(5));
    rig.publish_all(r#"{"kind":"step","user":"eve"}"#, 4)
        .await?;
    rig.read_all().await?;
    assert_eq!(rig.alerts().await?, 0);
    rig.load(rules(3));
    let mut rewind = request(&rig, "r", Rebuild, 3);
    rewind.read_from = Some(StreamSeq(1));
    rig.ask(rewind).await?;
    rig.read_all().await?;
    assert_eq!(rig.alerts().await?, 1);
    rig.equals(&[rig.segment(1, None)]).await?;
    rig.equals_oracle().await?;
    Ok(())
}

#[tokio::test]
async fn r23_a_crash_inside_the_read_back_resumes_it_and_the_windows_are_exact() -> Result<()> {
    let rig = asked().await?;
    let before = rig.ids().await?;
    let mut random = Uuid::now_v7().as_u128() >> 8;
    let (mut crashes, mut from) = (0, 0);
    while crashes < 4 && from < START {
        crashes += 1;
        let worker = rig.start();
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let further = 50 + u64::try_from((random >> 33) % 350)?;
        worker
            .until("the read-back has come further", || {
                let position = worker.position();
                ensure!(position >= from + further, "it stands at {position}");
                Ok(())
            })
            .await?;
        worker.crash().await?;
        let position = lookback::state::digest(&rig.state_file());
        let position = position?.position.sequence.0;
        ensure!(position > from, "it went back from {from} to {position}");
        from = position;
    }
    ensure!(
        crashes > 1 || from < START,
        "no crash came inside the read-back"
    );
    assert_eq!(rig.ledger()?.len(), 1);
    let worker = rig.start();
    rig.finish(worker).await?;
    assert_eq!(rig.ids().await?, before);
    rig.equals(&[rig.segment(1, None)]).await?;
    Ok(())
}
