//! The verbs about dead letters, replays, state, audit and reports: the real plugin beside a pipeline
//! that runs.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use k8s_openapi::api::core::v1::Pod;
use lookback::api::DetectionPipeline;
use lookback_protocol::replay::record::ReplayPhase;
use serde_json::{Value, json};

use crate::ctl_fixture::Plugin;
use crate::operator_fixture::NAME;
use crate::replay_fixture::{ALARM, POD, applied, ask, begun, completed};
use crate::stand::Stand;

const POISON: &str = "this is no json";

async fn with_poison(letters: usize) -> Result<(Stand, Plugin)> {
    let mut events = vec![ALARM; 2];
    events.extend(vec![POISON; letters]);
    let stand = applied(&events).await?;
    let plugin = Plugin::of(&stand.world).await?;
    Ok((stand, plugin))
}

fn ids(list: &Value) -> Result<Vec<String>> {
    let items = list["items"].as_array().context("items")?;
    let id = |item: &Value| item["id"].as_str().map(str::to_owned).context("an id");
    items.iter().map(id).collect()
}

#[tokio::test]
async fn dead_letters_are_listed_and_shown_whole() -> Result<()> {
    let (_stand, plugin) = with_poison(2).await?;
    let list = plugin.json(["dlq", "list"]).await?;
    let items = list["items"].as_array().context("items")?;
    // A batch's letters are sent at once, and stand in the order in which they arrived.
    let sequences: BTreeSet<_> = items.iter().map(|it| it["sequence"].as_u64()).collect();
    assert_eq!(sequences, BTreeSet::from([Some(3), Some(4)]));
    for item in items {
        assert_eq!(
            (&item["reason"], &item["state"]),
            (&json!("NotJson"), &json!("parked"))
        );
    }
    assert_eq!(list["more"], false);
    let first = plugin.json(["dlq", "list", "--limit", "1"]).await?;
    assert_eq!((ids(&first)?.len(), &first["more"]), (1, &json!(true)));
    let none = plugin.json(["dlq", "list", "--reason", "TooDeep"]).await?;
    assert_eq!(none["items"], json!([]));
    let id = &ids(&list)?[0];
    let shown = plugin.json(["dlq", "show", &id[..8]]).await?;
    assert_eq!(shown["text"], POISON);
    assert_eq!(shown["id"], id.as_str());
    assert_eq!(plugin.says(["dlq", "show", id, "--raw"]).await?, POISON);
    let table = plugin.says(["dlq", "list"]).await?;
    assert!(
        table.starts_with("ID ") && table.contains("EVENTS#3"),
        "{table}"
    );
    Ok(())
}

#[tokio::test]
async fn a_dry_run_counts_and_a_redrive_sends_each_event_once() -> Result<()> {
    let (stand, plugin) = with_poison(8).await?;
    let last = stand.last().await?;
    let dry = plugin
        .json(["dlq", "redrive", "--all", "--dry-run"])
        .await?;
    assert_eq!(dry["letters"], 8);
    assert_eq!(dry["reasons"], json!({"NotJson": 8}));
    assert_eq!(stand.last().await?, last, "a dry run sends nothing");

    let unasked = plugin.run(["dlq", "redrive", "--all"]).await?;
    assert_eq!(unasked.code, Some(2), "{unasked:?}");
    assert!(unasked.stderr.contains("give --yes"), "{unasked:?}");
    let nothing = plugin.run(["dlq", "redrive"]).await?;
    assert_eq!(nothing.code, Some(2), "{nothing:?}");
    assert_eq!(stand.last().await?, last);

    let done = plugin
        .json([
            "dlq", "redrive", "--reason", "NotJson", "--yes", "--rate", "100/s",
        ])
        .await?;
    let sent = done["done"].as_array().context("done")?;
    let sequences: Vec<_> = sent.iter().map(|it| it["sequence"].as_u64()).collect();
    let expected: Vec<_> = (1..=8).map(|number| Some(last + number)).collect();
    assert_eq!(sequences, expected);
    stand.caught_up().await?;
    let redriven = plugin.json(["dlq", "list", "--state", "redriven"]).await?;
    let items = redriven["items"].as_array().context("items")?;
    let events: Vec<_> = items.iter().map(|it| it["sequence"].as_u64()).collect();
    let in_order: Vec<_> = (3..=10).map(Some).collect();
    assert_eq!(events, in_order, "sent in the order of the events");
    // They are still no JSON, so they are parked again, and know that they were sent before.
    let again = plugin.json(["dlq", "list", "--state", "parked"]).await?;
    assert_eq!(ids(&again)?.len(), 8);
    assert_eq!(again["items"][0]["redrives"], 1);
    Ok(())
}

#[tokio::test]
async fn one_that_goes_in_circles_is_refused_and_the_others_are_redriven() -> Result<()> {
    let (stand, plugin) = with_poison(1).await?;
    plugin.says(["dlq", "redrive", "--all", "--yes"]).await?;
    stand.caught_up().await?;
    stand.publish(POISON).await?;
    stand.caught_up().await?;
    let arguments = [
        "dlq",
        "redrive",
        "--all",
        "--yes",
        "--max-redrives",
        "1",
        "-o",
        "json",
    ];
    let ran = plugin.run(arguments).await?;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let done: Value = serde_json::from_str(&ran.stdout)?;
    assert_eq!(done["done"].as_array().map(Vec::len), Some(1), "{done}");
    let why = done["refused"][0]["why"].as_str().context("why")?;
    assert!(why.contains("--max-redrives"), "{why}");
    assert_eq!(done["failed"], json!([]));
    assert!(
        ran.stderr.contains("1 of 2 dead letters were not redriven"),
        "{ran:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_discard_needs_a_note_and_the_audit_has_it() -> Result<()> {
    let (_stand, plugin) = with_poison(2).await?;
    let id = ids(&plugin.json(["dlq", "list"]).await?)?.remove(0);
    let unexplained = plugin.run(["dlq", "discard", &id]).await?;
    assert_eq!(unexplained.code, Some(2), "{unexplained:?}");
    plugin
        .says(["dlq", "discard", &id, "--note", "a test event"])
        .await?;
    let discarded = plugin.json(["dlq", "list", "--state", "discarded"]).await?;
    assert_eq!(ids(&discarded)?, std::slice::from_ref(&id));
    assert_eq!(discarded["items"][0]["note"], "a test event");

    let audit = plugin.json(["audit", "--kind", "deadLetter"]).await?;
    let record = &audit["items"][0]["record"];
    assert_eq!(record["letter"], id.as_str(), "{audit}");
    assert_eq!(record["reason"], "a test event");
    let by = record["by"].as_str().context("by")?;
    assert!(by.starts_with("user/"), "{by}");
    let table = plugin.says(["audit", "--since", "1h"]).await?;
    assert!(table.contains("discarded: a test event"), "{table}");
    let none = plugin.json(["audit", "--kind", "replay"]).await?;
    assert_eq!(none["items"], json!([]));
    Ok(())
}

#[tokio::test]
async fn what_a_replay_would_do_is_said_and_nothing_is_changed() -> Result<()> {
    let stand = applied(&[ALARM; 5]).await?;
    let plugin = Plugin::of(&stand.world).await?;
    let before = stand.pipeline().await?;
    let planned = plugin
        .json([
            "replay",
            "plan",
            "--from-sequence",
            "2",
            "--state-policy",
            "Clear",
        ])
        .await?;
    assert_eq!(planned["whatIf"], true);
    assert_eq!(planned["plan"]["start"], 2);
    assert_eq!(planned["plan"]["messages"], 4);
    assert_eq!(planned["plan"]["windows"], "Dropped");
    let words = plugin.says(["replay", "plan", "--latest"]).await?;
    assert!(
        words.contains("message 6") && words.contains("nothing is changed"),
        "{words}"
    );
    let beyond = plugin
        .fails(["replay", "plan", "--from-sequence", "99"])
        .await?;
    assert!(beyond.contains("would be rejected"), "{beyond}");
    let none = plugin.fails(["replay", "plan"]).await?;
    assert!(none.contains("has no replay"), "{none}");
    let after = stand.pipeline().await?;
    assert_eq!(after.spec, before.spec);
    assert!(after.status.and_then(|status| status.replay).is_none());
    Ok(())
}

#[tokio::test]
async fn the_plan_that_was_foreseen_is_approved_and_remembered() -> Result<()> {
    let stand = applied(&[ALARM; 5]).await?;
    let plugin = Plugin::of(&stand.world).await?;
    let foreseen = plugin
        .json(["replay", "plan", "--from-sequence", "2"])
        .await?;
    ask(
        &stand,
        json!({"id": "again", "fromSequence": 2, "approval": "Manual"}),
    )
    .await?;
    begun(&stand, "again", ReplayPhase::AwaitingApproval).await?;
    let planned = plugin.json(["replay", "plan"]).await?;
    assert_eq!(planned["replay"]["phase"], "AwaitingApproval");
    for field in ["start", "target", "messages", "windows", "position"] {
        assert_eq!(planned["plan"][field], foreseen["plan"][field], "{field}");
    }
    let hash = planned["plan"]["hash"]
        .as_str()
        .context("a hash")?
        .to_owned();
    let unseen = plugin.run(["replay", "approve"]).await?;
    assert_eq!(unseen.code, Some(2), "{unseen:?}");
    let other = plugin
        .fails(["replay", "approve", "--plan", "p-000000000000"])
        .await?;
    assert!(other.contains(&hash), "{other}");
    plugin
        .says(["replay", "approve", "-p", NAME, "--plan", &hash])
        .await?;
    completed(&stand, "again").await?;
    let history = plugin.json(["replay", "history"]).await?;
    let replay = &history["items"][0];
    assert_eq!(replay["id"], "again");
    assert_eq!(replay["phase"], "Completed");
    assert!(replay["claimedBy"].is_string(), "{history}");
    let late = plugin.fails(["replay", "approve", "--plan", &hash]).await?;
    assert!(late.contains("does not wait for an approval"), "{late}");
    Ok(())
}

#[tokio::test]
async fn state_is_compared_by_checkpoint_consumer_and_file() -> Result<()> {
    let (stand, plugin) = with_poison(1).await?;
    let inspected = plugin.json(["state", "inspect"]).await?;
    assert_eq!(inspected["findings"], json!([]), "{inspected}");
    assert_eq!(inspected["checkpoint"]["position"]["sequence"], 3);
    assert_eq!(inspected["checkpoint"]["counters"]["deadLetters"], 1);
    assert_eq!(inspected["consumer"]["delivered"], 3);
    assert_eq!(inspected["last"], 3);

    let copy = tempfile::tempdir()?;
    let file = copy_of_the_state(&stand, copy.path()).await?;
    stand.publish(ALARM).await?;
    stand.caught_up().await?;
    let older = plugin.says(["state", "inspect", "--file", &file]).await?;
    assert!(
        older.contains("the file holds 3, the checkpoint says 4"),
        "{older}"
    );
    Ok(())
}

/// File and WAL, while the worker is stopped between two system calls.
async fn copy_of_the_state(stand: &Stand, folder: &Path) -> Result<String> {
    let volume = stand.kubelet.volume().await?;
    stand.kubelet.freeze().await?;
    for name in ["state.db", "state.db-wal"] {
        let from = volume.join(name);
        if from.exists() {
            std::fs::copy(from, folder.join(name))?;
        }
    }
    stand.kubelet.thaw().await?;
    let file = folder.join("state.db");
    Ok(file.to_str().context("UTF-8")?.to_owned())
}

#[tokio::test]
async fn a_report_holds_what_helps_and_no_secret() -> Result<()> {
    const SECRET: &str = "hunter2hunter2";
    let (stand, plugin) = with_poison(1).await?;
    let annotation = json!({"metadata": {"annotations": {
        "example.com/url": format!("https://bob:{SECRET}@example.com/"),
        "example.com/note": format!("password={SECRET}"),
    }}});
    stand
        .merge::<DetectionPipeline>(NAME, annotation.clone())
        .await?;
    stand.merge::<Pod>(POD, annotation).await?;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("report.tar.gz");
    let file = path.to_str().context("UTF-8")?;
    let manifest = plugin.says(["report", "--file", file, "--logs"]).await?;
    for name in [
        "pipeline.yaml",
        "statefulsets.yaml",
        "pods.yaml",
        "events/edr.yaml",
        "nats/state.yaml",
        "nats/stream-EVENTS.yaml",
        "nats/consumer-of-epoch-1.yaml",
        "versions.yaml",
    ] {
        assert!(
            manifest.contains(&format!("  {name} (")),
            "{name}: {manifest}"
        );
    }
    // No kubelet serves logs here, which is said and ends nothing.
    assert!(manifest.contains("edr-0.log: "), "{manifest}");
    let text = unpacked(&path)?;
    assert!(!text.contains(SECRET), "the secret is in {text}");
    assert!(text.contains("REDACTED@example.com"), "{text}");
    assert!(text.contains("publishedThrough"), "{text}");
    let again = plugin.fails(["report", "--file", file]).await?;
    assert!(again.contains("cannot write the report"), "{again}");
    Ok(())
}

fn unpacked(path: &Path) -> Result<String> {
    let mut archive = tar::Archive::new(GzDecoder::new(std::fs::File::open(path)?));
    let mut out = String::new();
    let mut files = 0;
    for entry in archive.entries()? {
        entry?.read_to_string(&mut out)?;
        files += 1;
    }
    ensure!(files > 8, "only {files} files");
    Ok(out)
}
