//! `kubectl lookback rules`: the real binary over files, without a cluster or NATS.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use jiff::{SignedDuration, Timestamp};
use lookback::api::pipeline::{CorrelationSpec, LogSourceSpec};
use lookback::operator::pipeline::validate::engine_options;
use lookback_dev::events::{Plan, generate};
use lookback_engine::{
    At, Correlator, Decoder, Detector, EngineOptions, RuleFile, RuleSet, Scratch, event_time,
};
use lookback_protocol::position::StreamSeq;
use serde_json::{Value, json};
use tempfile::TempDir;

const RULES: &str = "\
title: Failed Logon
id: 6b0f1c1e-0c57-4d0e-9a55-2f3d1f0e7a01
logsource: {product: windows, service: security}
detection:
  selection:
    EventID: 4625
    Account|startswith: [adm, root]
  condition: selection
level: low
---
title: Guessing
id: 6b0f1c1e-0c57-4d0e-9a55-2f3d1f0e7b01
correlation:
  type: event_count
  rules: [6b0f1c1e-0c57-4d0e-9a55-2f3d1f0e7a01]
  group-by: [Account]
  timespan: 1m
  condition: {gte: 3}
level: high
---
title: Never
id: 6b0f1c1e-0c57-4d0e-9a55-2f3d1f0e7a02
logsource: {product: windows}
detection: {selection: {EventID: 1}, condition: selection}
level: low
";

const MANIFEST: &str = "\
apiVersion: lookback.dev/v1alpha1
kind: DetectionPipeline
metadata: {name: edr}
spec:
  nats: {urls: ['nats://nowhere:4222']}
  source: {stream: EVENTS, logsource: {product: windows, service: security}}
  rules: {configMaps: [{name: rules}]}
  correlation: {timestampFields: [At]}
";

/// Three failed logons of one account, one of which is late, and one event from the future.
const EVENTS: &str = "\
{\"EventID\":4625,\"Account\":\"admin\",\"At\":\"2026-01-05T08:00:00Z\"}

{\"EventID\":4625,\"Account\":\"admin\",\"At\":\"2026-01-05T08:00:10Z\"}
no json
{\"EventID\":4625,\"Account\":\"admin\",\"At\":\"2026-01-05T07:50:00Z\"}
{\"EventID\":4625,\"Account\":\"admin\",\"At\":\"2026-01-05T08:00:20Z\"}
{\"EventID\":4625,\"Account\":\"guest\",\"At\":\"2026-01-05T08:00:21Z\"}
[]
";

struct Folder(TempDir);

impl Folder {
    fn new() -> Result<Self> {
        let folder = Self(tempfile::tempdir()?);
        folder.write("rules.yml", RULES)?;
        folder.write("pipeline.yaml", MANIFEST)?;
        folder.write("events.ndjson", EVENTS)?;
        Ok(folder)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(fs::write(self.0.path().join(name), text)?)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-lookback"));
        command
            .args(["rules"])
            .args(arguments)
            .current_dir(self.0.path())
            // There is no cluster for it to find.
            .env("KUBECONFIG", "/nonexistent")
            .env("HOME", "/nonexistent");
        command
    }

    fn run(&self, arguments: &[&str]) -> Result<Output> {
        Ok(self.command(arguments).output()?)
    }

    /// What it prints as JSON, and its exit code.
    fn json(&self, arguments: &[&str]) -> Result<(Value, Option<i32>)> {
        let output = self.run(&[arguments, &["-o", "json"]].concat())?;
        let value = serde_json::from_slice(&output.stdout);
        let value = value.with_context(|| format!("{output:?}"))?;
        Ok((value, output.status.code()))
    }

    fn says(&self, arguments: &[&str]) -> Result<String> {
        let output = self.run(arguments)?;
        ensure!(output.status.success(), "{output:?}");
        Ok(String::from_utf8(output.stdout)?)
    }
}

#[test]
fn bash_completes_verbs_options_and_files() -> Result<()> {
    const SCRIPT: &str = r#"
        compopt() { printf 'files '; }
        complete() { function=$2; }
        source <(kubectl-lookback completions bash)
        COMP_WORDS=(kubectl-lookback "$@") COMP_CWORD=$#
        $function
        echo "${COMPREPLY[*]}"
    "#;
    let folder = Path::new(env!("CARGO_BIN_EXE_kubectl-lookback")).parent();
    let path = format!(
        "{}:{}",
        folder.context("a folder")?.display(),
        std::env::var("PATH")?
    );
    let completed = |words: &[&str]| -> Result<String> {
        let mut bash = Command::new("bash");
        bash.args(["-c", SCRIPT, "bash"]).args(words);
        let output = bash.env("PATH", &path).output()?;
        ensure!(output.stderr.is_empty(), "{output:?}");
        Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
    };
    assert_eq!(completed(&["al"])?, "alerts");
    assert_eq!(completed(&["alerts", "list", "--st"])?, "--state");
    assert_eq!(
        completed(&["-n", "prod", "status", "-o", ""])?,
        "table json yaml"
    );
    assert_eq!(completed(&["rules", "lint", ""])?, "files");
    Ok(())
}

/// What `--product windows` stands for.
fn options() -> EngineOptions {
    let logsource = LogSourceSpec {
        product: "windows".to_owned(),
        service: None,
        category: None,
    };
    engine_options(&[], &logsource, &CorrelationSpec::default())
}

const TEST: [&str; 6] = [
    "test",
    "rules.yml",
    "--events",
    "events.ndjson",
    "-f",
    "pipeline.yaml",
];

#[test]
fn rules_that_can_be_used_pass_and_one_that_cannot_fails_by_name() -> Result<()> {
    let folder = Folder::new()?;
    let (found, code) = folder.json(&["lint", "rules.yml", "--product", "windows"])?;
    assert_eq!(code, Some(0));
    assert_eq!(found["detections"], 2);
    assert_eq!(found["correlations"], 1);
    assert_eq!(found["problems"], json!([]));
    assert_eq!(found["engineDigest"].as_str().map(str::len), Some(64));
    folder.write(
        "more.yml",
        "title: Broken\nid: b\nlogsource: {product: windows}\ndetection: {condition: x}\n",
    )?;
    let (found, code) = folder.json(&["lint", "."])?;
    assert_eq!(code, Some(1));
    let problems = found["problems"].as_array().context("problems")?;
    assert!(
        problems
            .iter()
            .any(|it| it["rule"] == "b" && it["document"] == 1),
        "{found}"
    );
    assert_eq!(
        found["engineDigest"],
        Value::Null,
        "without a log source there is none"
    );
    Ok(())
}

#[test]
fn the_digest_is_that_of_the_cluster_when_files_are_named_as_its_keys() -> Result<()> {
    let folder = Folder::new()?;
    let arguments = [
        "lint",
        "rules.yml",
        "--product",
        "windows",
        "--config-map",
        "rules",
    ];
    let (found, _) = folder.json(&arguments)?;
    let options = options();
    let file = RuleFile {
        name: "rules/rules.yml".to_owned(),
        bytes: RULES.as_bytes().to_vec(),
    };
    let (set, _) = RuleSet::compile(&[file], &options);
    assert_eq!(found["engineDigest"], set.digest());
    Ok(())
}

#[test]
fn a_misspelt_level_is_a_warning_with_its_line_and_no_failure() -> Result<()> {
    let folder = Folder::new()?;
    folder.write("rules.yml", &RULES.replacen("level: low", "level: lwo", 1))?;
    let text = folder.says(&["lint", "rules.yml"])?;
    assert!(
        text.contains("rules.yml:9") && text.contains("[invalid_level]"),
        "{text}"
    );
    Ok(())
}

#[test]
fn a_rule_is_explained_in_words() -> Result<()> {
    let folder = Folder::new()?;
    let text = folder.says(&[
        "explain",
        "rules.yml",
        "--rule",
        "failed logon",
        "--product",
        "windows",
    ])?;
    for words in [
        "runs on: events of product windows, service security",
        "Account begins with any of 'adm', 'root'",
        "is counted by: Guessing",
        "no alerts of its own",
    ] {
        assert!(text.contains(words), "{words} is not in {text}");
    }
    let text = folder.says(&["explain", "rules.yml", "--rule", "Guessing"])?;
    for words in [
        "counts: Failed Logon",
        "groups by: Account",
        "window: sliding of 60 s",
        "the number of events is at least 3",
        "more than 300 s older",
    ] {
        assert!(text.contains(words), "{words} is not in {text}");
    }
    let unknown = folder.run(&["explain", "rules.yml", "--rule", "nobody"])?;
    assert_eq!(unknown.status.code(), Some(1));
    Ok(())
}

#[test]
fn rules_are_tried_out_as_a_worker_runs_them() -> Result<()> {
    let folder = Folder::new()?;
    let (found, code) = folder.json(&TEST)?;
    assert_eq!(code, Some(0));
    assert_eq!(found["events"], 7, "an empty line is no event");
    assert_eq!(found["late"], 1);
    assert_eq!(
        found["deadLetters"]["reasons"],
        json!({"NotJson": 1, "NotObject": 1})
    );
    assert_eq!(found["deadLetters"]["first"][0]["line"], 4);
    let fired = found["fired"].as_array().context("fired")?;
    let counts: Vec<_> = fired
        .iter()
        .map(|it| {
            (
                it["rule"]["title"].as_str(),
                it["alerts"].as_u64(),
                it["matches"].as_u64(),
            )
        })
        .collect();
    let expected = [
        (Some("Failed Logon"), Some(0), Some(4)),
        (Some("Guessing"), Some(1), Some(0)),
    ];
    assert_eq!(counts, expected);
    let alert = &fired[1]["first"][0];
    assert_eq!(alert["lines"], json!([1, 3, 6]));
    assert_eq!(
        alert["groupKey"],
        json!([{"field": "Account", "value": "admin"}])
    );
    assert_eq!(alert["window"]["from"], "2026-01-05T08:00:00Z");
    assert_eq!(found["silent"][0]["title"], "Never");
    Ok(())
}

#[test]
fn an_event_that_claims_a_later_time_than_its_published_one_is_from_the_future() -> Result<()> {
    let folder = Folder::new()?;
    let event = json!({
        "EventID": 4625, "Account": "admin", "At": "2026-01-05T09:00:00Z", "Stored": "2026-01-05T08:00:00Z",
    });
    folder.write("events.ndjson", &event.to_string())?;
    let (found, _) = folder.json(&[&TEST[..], &["--published-field", "Stored"]].concat())?;
    assert_eq!(found["future"], 1);
    let (found, _) = folder.json(&TEST)?;
    assert_eq!(found["future"], 0);
    Ok(())
}

#[test]
fn events_come_from_standard_input_too() -> Result<()> {
    let folder = Folder::new()?;
    let arguments = [
        "test",
        "rules.yml",
        "--events",
        "-",
        "-f",
        "pipeline.yaml",
        "-o",
        "json",
    ];
    let mut child = folder
        .command(&arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    child
        .stdin
        .take()
        .context("a pipe")?
        .write_all(EVENTS.as_bytes())?;
    let output = child.wait_with_output()?;
    let found: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(found["events"], 7);
    Ok(())
}

#[test]
fn a_run_over_nothing_that_can_be_applied_fails_and_says_what_to_give() -> Result<()> {
    let folder = Folder::new()?;
    folder.write("empty.ndjson", "\n")?;
    folder.write("pretty.json", "[\n{\n\"a\": 1\n}\n]\n")?;
    for (events, said) in [
        ("empty.ndjson", "there is no event in empty.ndjson"),
        (
            "pretty.json",
            "no event in pretty.json can be applied: give one JSON object a line",
        ),
        (".", ". is a folder: give a file of events"),
        ("missing", "cannot read events of missing"),
    ] {
        let output = folder.run(&[
            "test",
            "rules.yml",
            "-f",
            "pipeline.yaml",
            "--events",
            events,
        ])?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.starts_with(&format!("error: {said}")), "{stderr}");
    }
    Ok(())
}

#[test]
fn expected_counts_make_it_a_test_that_can_fail() -> Result<()> {
    let folder = Folder::new()?;
    let expect = [&TEST[..], &["--expect", "expect.yaml"]].concat();
    folder.write("expect.yaml", "Guessing: 1\nNever: 0\n")?;
    let (found, code) = folder.json(&expect)?;
    assert_eq!((&found["differences"], code), (&json!([]), Some(0)));

    folder.write("expect.yaml", "Never: 2\n")?;
    let output = folder.run(&expect)?;
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout)?;
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert!(
        rows.iter().any(|row| row.starts_with(&["2", "0", "Never"])),
        "{text}"
    );
    assert!(
        rows.iter()
            .any(|row| row.starts_with(&["0", "1", "Guessing"])),
        "{text}"
    );

    folder.write("expect.yaml", "Nobody: 1\n")?;
    assert_eq!(folder.run(&expect)?.status.code(), Some(1));
    Ok(())
}

#[test]
fn a_run_without_a_log_source_is_wrong_usage() -> Result<()> {
    let folder = Folder::new()?;
    let output = folder.run(&["test", "rules.yml", "--events", "events.ndjson"])?;
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr)?.contains("--product"));
    Ok(())
}

/// Every alert that the oracle's one pass finds is one that the trial finds, and no other.
#[test]
fn the_trial_gives_what_one_uninterrupted_pass_gives() -> Result<()> {
    let folder = Folder::new()?;
    let plan = Plan {
        count: 6_000,
        seed: 1,
        start: "2026-01-05T08:00:00Z".parse()?,
        step: SignedDuration::from_millis(200),
        poison: 20,
    };
    let events: Vec<Vec<u8>> = generate(&plan).map(|event| event.payload).collect();
    let mut text = Vec::new();
    for event in &events {
        text.extend_from_slice(event);
        text.push(b'\n');
    }
    fs::write(folder.0.path().join("story.ndjson"), text)?;
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples/rules");
    let rules = rules.to_str().context("UTF-8")?;
    let arguments = [
        "test",
        rules,
        "--events",
        "story.ndjson",
        "--product",
        "windows",
    ];
    let (found, _) = folder.json(&arguments)?;

    let options = options();
    let mut paths: Vec<PathBuf> = fs::read_dir(rules)?
        .map(|it| it.map(|it| it.path()))
        .collect::<Result<_, _>>()?;
    paths.sort();
    let read = |path: &PathBuf| -> Result<RuleFile> {
        Ok(RuleFile {
            name: path.display().to_string(),
            bytes: fs::read(path)?,
        })
    };
    let files = paths.iter().map(read).collect::<Result<Vec<_>>>()?;
    let (set, _) = RuleSet::compile(&files, &options);
    let set = Arc::new(set);
    let detector = Detector::new(Arc::clone(&set));
    let mut correlator = Correlator::new(Arc::clone(&set));
    let (decoder, mut scratch) = (Decoder::default(), Scratch::default());
    let (mut alerts, mut published) = (0_u64, Timestamp::UNIX_EPOCH);
    for (payload, line) in events.iter().zip(1..) {
        let Ok(event) = decoder.decode(payload) else {
            continue;
        };
        let time = event_time(&event, &options.correlation.timestamp_fields);
        published = published.max(time.unwrap_or(published));
        let at = At {
            sequence: StreamSeq(line),
            published,
            received: published,
        };
        let matches = detector.detect(&event, &mut scratch);
        alerts += correlator.apply(at, &event, &matches).len() as u64;
    }
    let fired = found["fired"].as_array().context("fired")?;
    let sum: u64 = fired.iter().filter_map(|it| it["alerts"].as_u64()).sum();
    assert!(
        alerts > 20,
        "the story is too quiet to prove anything: {alerts}"
    );
    assert_eq!(sum, alerts);
    assert_eq!(found["groups"].as_u64(), Some(correlator.groups()));
    Ok(())
}
