//! The project's own rules and events belong together: what the demo shows must happen.
#![allow(clippy::unwrap_used, reason = "a failed setup fails the test")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use lookback_dev::bench::engine_options;
use lookback_dev::events::{Plan, generate};
use lookback_engine::{At, Correlator, Decoder, Detector, RuleFile, RuleSet, Scratch};
use lookback_protocol::position::StreamSeq;

fn rules() -> Arc<RuleSet> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples/rules");
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| RuleFile {
            name: format!("rules/{}", path.file_name().unwrap().to_str().unwrap()),
            bytes: std::fs::read(&path).unwrap(),
        })
        .collect();
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let (rules, problems) = RuleSet::compile(&files, &engine_options());
    assert_eq!(problems, []);
    Arc::new(rules)
}

/// Titles of the rules that give an alert within `count` events.
fn fired(count: u64) -> BTreeSet<String> {
    let published: Timestamp = "2026-06-01T00:00:00Z".parse().unwrap();
    let plan = Plan {
        count,
        seed: 1,
        start: "2026-01-05T08:00:00Z".parse().unwrap(),
        step: SignedDuration::from_millis(200),
        poison: 10,
    };
    let rules = rules();
    let detector = Detector::new(Arc::clone(&rules));
    let mut correlator = Correlator::new(rules);
    let mut scratch = Scratch::default();
    let mut titles = BTreeSet::new();
    for (sequence, event) in (1..).zip(generate(&plan)) {
        let Ok(event) = Decoder::default().decode(&event.payload) else {
            continue;
        };
        let at = At {
            sequence: StreamSeq(sequence),
            published,
            received: published,
        };
        let matches = detector.detect(&event, &mut scratch);
        let alerts = correlator.apply(at, &event, &matches);
        titles.extend(alerts.into_iter().map(|alert| alert.rule.title));
    }
    titles
}

#[test]
fn every_rule_that_alerts_does_so_within_ten_thousand_events() {
    let expected: BTreeSet<_> = [
        "Connection to a Rare Port",
        "DNS Tunnel by Median",
        "DNS Tunnel by Percentile",
        "Discovery Burst",
        "Document to Credentials",
        "Encoded PowerShell Command",
        "Guessed Password Used",
        "Large Transfer by One User",
        "Password Guessing Against One Account",
        "Password Spraying From One Address",
        "Run Key Points to a Script",
        "Shadow Copies Deleted",
        "Transfers Unusually Large on Average",
    ]
    .map(str::to_owned)
    .into();
    assert_eq!(fired(10_000), expected);
}
