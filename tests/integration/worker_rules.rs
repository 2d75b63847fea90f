//! Rules that change between two runs of a worker.

use anyhow::Result;

use crate::worker_fixture::{RULES, Rig, rule_file};

const STEP: &str = r#"{"kind":"step","user":"eve","host":"h1"}"#;

fn by_host(timespan: &str) -> String {
    format!(
        "{RULES}---
title: Three steps on one host
id: 11111111-0000-4000-8000-000000000004
correlation:
  type: event_count
  rules: [11111111-0000-4000-8000-000000000002]
  group-by: [host]
  timespan: {timespan}
  condition: {{gte: 3}}
"
    )
}

#[tokio::test]
async fn an_edited_correlation_begins_anew_and_the_others_keep_their_windows() -> Result<()> {
    let mut rig = Rig::new().await?;
    rig.load(vec![rule_file("test.yml", &by_host("1h"))]);
    rig.publish_all(STEP, 2).await?;
    let worker = rig.start();
    let before = rig.finish(worker).await?;
    assert_eq!((before.lineage.len(), before.groups), (1, 2));

    rig.load(vec![rule_file("test.yml", &by_host("2h"))]);
    rig.publish_all(STEP, 1).await?;
    let worker = rig.start();
    let after = rig.finish(worker).await?;
    assert_eq!(after.lineage.len(), 2);
    assert_ne!(
        after.lineage[0].engine_digest,
        after.lineage[1].engine_digest
    );
    assert_eq!(rig.alerts().await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_rollout_in_mid_story_gives_what_the_oracle_finds_with_both_sets() -> Result<()> {
    let mut rig = Rig::with_story(1_500).await?;
    let worker = rig.start();
    rig.finish(worker).await?;
    let mut rules = crate::worker_fixture::Setup::story()?.rules;
    rules.push(rule_file("test.yml", RULES));
    rig.load(rules);
    rig.publish_story(1_500).await?;
    let worker = rig.start();
    let state = rig.finish(worker).await?;
    assert_eq!(state.lineage.len(), 2);
    Ok(())
}
