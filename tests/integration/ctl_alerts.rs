//! `kubectl lookback alerts` against a real API server, NATS, operator and worker.

use std::time::Duration;

use anyhow::{Context, Result};
use lookback_dev::support::{TcpProxy, eventually};
use serde_json::Value;

use crate::ctl_fixture::{ALARM, Plugin, Running, with_alerts};
use crate::operator_fixture::SOON;
use crate::stand::Stand;

/// The whole ids of a list.
async fn ids(plugin: &Plugin, state: &str) -> Result<Vec<String>> {
    let listed = plugin.json(["alerts", "list", "--state", state]).await?;
    let items = listed["items"].as_array().context("items")?;
    let id = |item: &Value| item["id"].as_str().map(str::to_owned).context("an id");
    items.iter().map(id).collect()
}

#[tokio::test]
async fn s28_alerts_are_listed_shown_and_moved_by_the_plugin() -> Result<()> {
    let (_stand, plugin) = with_alerts(3).await?;
    let ids = ids(&plugin, "new").await?;
    assert_eq!(ids.len(), 3);
    let table = plugin.says(["alerts", "list", "-p", "edr"]).await?;
    let lines: Vec<&str> = table.lines().collect();
    let header = ["ID", "STATE", "SEV", "RULE", "KEY", "AGE", "SEQ", "BY"];
    assert_eq!(lines[0].split_whitespace().collect::<Vec<_>>(), header);
    assert_eq!(lines.len(), 4, "{table}");
    assert!(lines[1].starts_with(&ids[0][..8]) && lines[1].contains("worker/edr-0"));

    let short = ids[0][..6].to_ascii_lowercase();
    let moved = plugin
        .json([
            "alerts", "move", &short, "--to", "triage", "--reason", "checking",
        ])
        .await?;
    assert_eq!(moved["items"][0]["step"]["from"], "new");
    let sequence = moved["items"][0]["step"]["sequence"].as_u64();
    let shown = plugin.json(["alerts", "show", &short]).await?;
    assert_eq!(shown["state"], "triage");
    assert_eq!(shown["sequence"].as_u64(), sequence);
    let history = shown["history"].as_array().context("a history")?;
    assert_eq!(history.len(), 2);
    assert_eq!(history[0]["transition"], "create");
    assert!(history[0]["sequence"].as_u64() < sequence, "{history:?}");
    assert_eq!(history[1]["sequence"].as_u64(), sequence);
    assert_eq!(history[1]["reason"], "checking");
    let by = history[1]["by"].as_str().context("an actor")?;
    assert!(by.starts_with("user/") && by.len() > 5, "{by}");
    assert_eq!(self::ids(&plugin, "triage").await?, [ids[0].clone()]);
    assert_eq!(self::ids(&plugin, "new").await?, ids[1..]);
    let page = plugin.says(["alerts", "show", &ids[0]]).await?;
    assert!(
        page.contains("checking") && page.contains("Next:"),
        "{page}"
    );
    Ok(())
}

#[tokio::test]
async fn s28_what_the_workflow_does_not_allow_is_refused_with_what_it_does() -> Result<()> {
    let (_stand, plugin) = with_alerts(1).await?;
    let id = &ids(&plugin, "new").await?[0];
    let error = plugin
        .fails(["alerts", "move", id, "--to", "closed"])
        .await?;
    assert!(error.contains("triage -> triage"), "{error}");
    let error = plugin
        .fails([
            "alerts", "move", id, "--to", "triage", "--expect", "1000000",
        ])
        .await?;
    assert!(error.contains("left as it is"), "{error}");
    let error = plugin
        .fails(["alerts", "move", id, "--to", "archived"])
        .await?;
    assert!(error.contains("give a reason"), "{error}");
    for verb in ["list", "watch"] {
        let error = plugin.fails(["alerts", verb, "--state", "nwe"]).await?;
        assert!(
            error.contains("has no state nwe, but new, triage"),
            "{error}"
        );
    }
    plugin
        .says(["alerts", "list", "--state", "escalated"])
        .await?;
    let error = plugin.fails(["alerts", "show", "ZZZZZZ"]).await?;
    assert!(error.contains("there is no alert ZZZZZZ"), "{error}");
    assert_eq!(&ids(&plugin, "new").await?[0], id);
    Ok(())
}

#[tokio::test]
async fn s28_of_several_alerts_each_is_reported_and_one_failure_fails_the_verb() -> Result<()> {
    let (_stand, plugin) = with_alerts(2).await?;
    let ids = ids(&plugin, "new").await?;
    let ran = plugin
        .run([
            "alerts", "move", &ids[0], "ZZZZZZZZ", &ids[1], "--to", "triage", "-o", "json",
        ])
        .await?;
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert_eq!(ran.stderr, "error: 1 of 3 alerts failed\n");
    let answer: Value = serde_json::from_str(&ran.stdout)?;
    assert_eq!(answer["items"][0]["step"]["to"], "triage");
    assert!(answer["items"][1]["error"].is_string());
    assert_eq!(answer["items"][2]["step"]["to"], "triage");
    Ok(())
}

#[tokio::test]
async fn s28_an_archived_alert_is_shown_from_the_audit() -> Result<()> {
    let (_stand, plugin) = with_alerts(1).await?;
    let id = &ids(&plugin, "new").await?[0];
    plugin
        .json(["alerts", "annotate", id, "ticket=SEC-7", "owner=ann"])
        .await?;
    plugin.json(["alerts", "annotate", id, "owner-"]).await?;
    plugin
        .json([
            "alerts", "move", id, "--to", "archived", "--reason", "a drill",
        ])
        .await?;
    let shown = plugin.json(["alerts", "show", id]).await?;
    assert_eq!(shown["state"], "archived");
    assert_eq!(shown["record"]["metadata"]["ticket"], "SEC-7");
    assert!(shown["record"]["metadata"]["owner"].is_null());
    let last = shown["history"].as_array().and_then(|it| it.last());
    assert_eq!(last.context("a history")?["reason"], "a drill");
    let listed = plugin.json(["alerts", "list"]).await?;
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(0));
    let listed = plugin.json(["alerts", "list", "-s", "archived"]).await?;
    assert_eq!(listed["items"][0]["record"]["rule"]["title"], "Alarm");
    Ok(())
}

/// A watch of the NATS at `url` that was seen to listen: only what comes after that is heard.
async fn watching(stand: &Stand, plugin: &Plugin, url: &str) -> Result<Running> {
    let watch = [
        "alerts",
        "watch",
        "--nats-url",
        url,
        "--interval",
        "0.5",
        "-o",
        "json",
    ];
    let mut watch = plugin.start(watch)?;
    eventually(SOON, "a line", async || {
        stand.publish(ALARM).await?;
        tokio::time::timeout(Duration::from_secs(2), watch.next()).await?
    })
    .await?;
    Ok(watch)
}

/// The next alert that is not new.
async fn moved(watch: &mut Running) -> Result<Value> {
    loop {
        let heard = watch.next().await?;
        if heard["state"] != "new" {
            return Ok(heard);
        }
    }
}

#[tokio::test]
async fn s28_alerts_are_watched_live_until_ctrl_c() -> Result<()> {
    let (stand, plugin) = with_alerts(1).await?;
    let id = &ids(&plugin, "new").await?[0];
    let mut watch = watching(&stand, &plugin, &stand.nats.url()).await?;
    plugin
        .json(["alerts", "move", id, "--to", "triage"])
        .await?;
    let moved = moved(&mut watch).await?;
    assert_eq!(moved["id"], id.as_str());
    assert_eq!(moved["state"], "triage");
    assert_eq!(watch.interrupt().await?, Some(0));
    Ok(())
}

#[tokio::test]
async fn a_watch_since_a_time_begins_with_what_is_there() -> Result<()> {
    let (stand, plugin) = with_alerts(2).await?;
    let ids = ids(&plugin, "new").await?;
    let since = ["alerts", "watch", "--since", "1h", "-o", "json"];
    let mut watch = plugin.start(since)?;
    for id in &ids {
        assert_eq!(watch.next().await?["id"], id.as_str());
    }
    stand.publish(ALARM).await?;
    let next = watch.next().await?;
    assert!(next["state"] == "new" && !ids.iter().any(|id| next["id"] == id.as_str()));
    assert_eq!(watch.interrupt().await?, Some(0));
    let mut watch = plugin.start(["alerts", "watch", "--since", "2999-01-01T00:00:00Z"])?;
    assert!(
        watch.line().await?.starts_with("ID "),
        "the heading comes at once"
    );
    assert_eq!(watch.interrupt().await?, Some(0));
    Ok(())
}

#[tokio::test]
async fn s28_what_came_while_the_connection_was_cut_is_watched_all_the_same() -> Result<()> {
    let (stand, plugin) = with_alerts(1).await?;
    let proxy = TcpProxy::start(stand.nats.address()).await?;
    let id = &ids(&plugin, "new").await?[0];
    let url = format!("nats://{}", proxy.address());
    let mut watch = watching(&stand, &plugin, &url).await?;
    proxy.freeze();
    proxy.cut();
    plugin
        .json(["alerts", "move", id, "--to", "triage"])
        .await?;
    proxy.thaw();
    let moved = moved(&mut watch).await?;
    assert_eq!(moved["id"], id.as_str());
    assert_eq!(watch.interrupt().await?, Some(0));
    Ok(())
}

#[tokio::test]
async fn s29_alerts_are_counted_by_state_rule_and_level() -> Result<()> {
    let (_stand, plugin) = with_alerts(3).await?;
    let id = &ids(&plugin, "new").await?[0];
    plugin
        .json(["alerts", "move", id, "--to", "triage"])
        .await?;
    let stats = plugin.json(["alerts", "stats"]).await?;
    let count = |state: &str| {
        let mut items = stats["items"].as_array().into_iter().flatten();
        items
            .find(|item| item["state"] == state)
            .map(|item| item["count"].clone())
    };
    assert_eq!(count("new"), Some(Value::from(2)));
    assert_eq!(count("triage"), Some(Value::from(1)));
    assert_eq!(count("archived"), Some(Value::from(0)));
    let stats = plugin.json(["alerts", "stats", "--by", "rule"]).await?;
    assert_eq!(stats["items"][0]["rule"], "Alarm");
    assert_eq!(stats["items"][0]["count"], 3);
    assert_eq!(stats["items"][0]["byState"]["new"], 2);
    let table = plugin.says(["alerts", "stats", "--by", "level"]).await?;
    assert!(table.contains("new 2, triage 1"), "{table}");
    Ok(())
}

#[tokio::test]
async fn s29_a_list_is_narrowed_by_rule_level_time_and_number() -> Result<()> {
    let (stand, plugin) = with_alerts(2).await?;
    let step = r#"{"kind":"step","user":"eve"}"#;
    stand.publish_all(step, 3).await?;
    stand.caught_up().await?;
    let number = async |arguments: [&str; 2]| -> Result<usize> {
        let [name, value] = arguments;
        let listed = plugin.json(["alerts", "list", name, value]).await?;
        listed["items"].as_array().map(Vec::len).context("items")
    };
    assert_eq!(number(["--rule", "three"]).await?, 1);
    assert_eq!(number(["--rule", "alarm"]).await?, 2);
    assert_eq!(number(["--level", "critical"]).await?, 0);
    assert_eq!(number(["--since", "1d"]).await?, 3);
    assert_eq!(number(["--since", "2999-01-01T00:00:00Z"]).await?, 0);
    assert_eq!(number(["--limit", "2"]).await?, 2);
    let listed = plugin.json(["alerts", "list", "--limit", "2"]).await?;
    assert_eq!(listed["more"], true);
    let table = plugin.says(["alerts", "list", "--rule", "three"]).await?;
    assert!(table.contains("user=eve"), "{table}");
    let whole = plugin
        .says(["alerts", "list", "-o", "yaml", "--all"])
        .await?;
    assert!(whole.starts_with("items:\n"), "{whole}");
    Ok(())
}
