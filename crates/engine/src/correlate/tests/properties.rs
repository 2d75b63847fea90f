//! Any batches, any restarts: the same alerts and the same windows. In order, with `EveryEvent`: the
//! same alerts as the evaluator's own engine.

use std::collections::BTreeMap;
use std::sync::Arc;

use lookback_protocol::config::Refire;
use proptest::prelude::*;
use rsigma_eval::{CorrelationConfig, CorrelationEngine, GroupKey, JsonEvent};
use serde_json::{Value, json};

use super::super::key;
use crate::fixture::{Run, START, correlation, detection, options, rules};
use crate::{Alert, Changes, Correlator, EngineOptions, GroupRow, RuleSet, state_digest};

const WINDOWS: [&str; 3] = ["sliding", "tumbling", "session, gap: 4s"];

/// Every type over `windows`, and every alias and condition that changes what is counted.
fn yaml(windows: &[&str]) -> String {
    let mut yaml = detection("a") + &detection("b");
    // Matches together with either of the two.
    yaml += &detection("both").replace("kind: both", "n|gte: 7");
    let mut number = 0;
    let mut add = |body: String| {
        number += 1;
        yaml += &correlation(&format!("c{number}"), &body);
    };
    for window in windows {
        let common = format!("group-by: [user], timespan: 10s, window: {window}");
        for (kind, condition) in [
            ("event_count", "gte: 3"),
            ("event_count", "gt: 1, lte: 3"),
            ("value_count", "gte: 3, field: n"),
            ("value_count", "lt: 3, field: [n, kind]"),
            ("value_sum", "gte: 9, field: n"),
            ("value_avg", "gt: 4, field: n"),
            ("value_percentile", "gte: 6, field: n, percentile: 75"),
            ("value_median", "lte: 3, field: n"),
        ] {
            let rules = "rules: [a, b, both]";
            add(format!(
                "type: {kind}, {rules}, {common}, condition: {{{condition}}}"
            ));
        }
        add(format!("type: temporal, rules: [a, b], {common}"));
        add(format!(
            "type: temporal, rules: [a, b, both], {common}, condition: a and not both"
        ));
        add(format!(
            "type: temporal_ordered, rules: [a, both, b], {common}"
        ));
        add(format!(
            "type: temporal, rules: [a, b], {}, aliases: {{user: {{a: user, b: kind}}}}",
            common.clone()
        ));
    }
    yaml
}

fn set(refire: Refire, change: impl Fn(&mut EngineOptions)) -> Arc<RuleSet> {
    let mut options = options();
    options.correlation.refire = refire;
    change(&mut options);
    rules(&yaml(&WINDOWS), &options)
}

/// Seconds since the event before, how far its own time is off, and its fields.
type Step = (i64, i64, Value);

fn fields() -> impl Strategy<Value = Value> {
    let number = prop_oneof![
        (0..10_i64).prop_map(Value::from),
        (0..10_i64).prop_map(|n| Value::from(n.to_string())),
        Just(json!(2.5)),
        Just(Value::Null),
        Just(json!("text")),
    ];
    ("[abc]", "[xy]", number)
        .prop_map(|(kind, user, n)| json!({"kind": kind, "user": user, "n": n}))
}

/// Early by 2 seconds at most, which is the skew that is allowed, and late by 4: so none is more than
/// 6 seconds older than its group's newest, which is the lateness that is allowed.
fn punctual() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((0..9_i64, -4..=2_i64, fields()), 20..40)
}

/// Published time, own time and fields of each event.
type Log = Vec<(i64, i64, Value)>;

fn log(steps: Vec<Step>) -> Log {
    let mut now = 0;
    let place = |(wait, off, fields)| {
        now += wait;
        (now, now + off, fields)
    };
    steps.into_iter().map(place).collect()
}

/// Alerts and windows at each event from `start` on, of a pass over the whole log, and of one that
/// begins as far before `start` as a Rebuild reads back.
fn whole_and_rebuilt(log: &Log, start: usize, refire: Refire) -> [Vec<(Vec<Alert>, String)>; 2] {
    let mut options = options();
    options.correlation.refire = refire;
    options.correlation.allowed_lateness_seconds = 6;
    options.correlation.max_future_skew_seconds = 2;
    let set = rules(&yaml(&["sliding"]), &options);
    let timespan = i64::try_from(set.longest_chain()).unwrap();
    let since = log[start].0 - (2 * (timespan + 6) + 2);
    let from = log.iter().position(|event| event.0 >= since).unwrap();
    [0, from].map(|first| {
        let mut run = Run::new(&set);
        run.sequence = first as u64;
        let pass = log[first..].iter().map(|(published, second, fields)| {
            let alerts = run.event_published(*second, *published, fields.clone());
            (alerts, state_digest(run.correlator.rows()))
        });
        pass.collect::<Vec<_>>().split_off(start - first)
    })
}

/// The group of the first two is still there at the third, and nothing that it can still give depends
/// on the first; yet its window holds it.
#[test]
fn a_group_that_is_only_kept_for_its_late_events_is_made_again_whole() {
    let event = |user: &str| json!({"kind": "a", "user": user, "n": 1});
    let log = vec![
        (66, 68, event("x")),
        (82, 78, event("x")),
        (98, 98, event("y")),
    ];
    let [whole, rebuilt] = whole_and_rebuilt(&log, 2, Refire::OncePerWindow);
    assert_eq!(whole, rebuilt);
}

fn in_order() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((0..5_i64, Just(0), fields()), 1..60)
}

fn any_order() -> impl Strategy<Value = Vec<Step>> {
    prop::collection::vec((0..30_i64, -20..20_i64, fields()), 1..60)
}

/// A store that takes changes as they are given.
#[derive(Default)]
struct Store(BTreeMap<(String, Vec<u8>), Vec<u8>>);

impl Store {
    fn write(&mut self, changes: Changes) {
        for row in changes.upserts {
            self.0.insert((row.correlation, row.key), row.state);
        }
        for key in changes.deletes {
            self.0.remove(&key);
        }
    }

    fn rows(&self) -> impl Iterator<Item = GroupRow> + '_ {
        self.0.iter().map(|((correlation, key), state)| GroupRow {
            correlation: correlation.clone(),
            key: key.clone(),
            state: state.clone(),
        })
    }
}

fn small(options: &mut EngineOptions) {
    options.correlation.allowed_lateness_seconds = 6;
    options.correlation.max_future_skew_seconds = 15;
    options.correlation.limits.groups = 40;
    options.correlation.limits.events_per_group = 4;
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_split_into_batches_with_restarts_is_one_pass(
        steps in any_order(),
        cuts in prop::collection::vec(0..3_u8, 60),
        refire in prop_oneof![Just(Refire::OncePerWindow), Just(Refire::EveryEvent)],
    ) {
        let set = set(refire, small);
        let mut once = Run::new(&set);
        let mut often = Run::new(&set);
        let mut store = Store::default();
        let (mut now, mut counted) = (0, [0; 2]);
        for ((wait, off, fields), cut) in steps.into_iter().zip(cuts) {
            now += wait;
            let expected = once.event_published(now + off, now, fields.clone());
            prop_assert_eq!(often.event_published(now + off, now, fields), expected);
            if cut > 0 {
                let changes = often.correlator.take_changes();
                counted[0] += changes.late;
                counted[1] += changes.skewed;
                store.write(changes);
                prop_assert_eq!(state_digest(store.rows()), state_digest(once.correlator.rows()));
            }
            if cut > 1 {
                often.correlator = Correlator::restore(set.clone(), store.rows()).unwrap();
                prop_assert_eq!(often.correlator.groups(), once.correlator.groups());
            }
        }
        store.write(often.correlator.take_changes());
        prop_assert_eq!(state_digest(store.rows()), state_digest(once.correlator.rows()));
    }

    /// What a plan promises of a Rebuild that it calls exact.
    #[test]
    fn windows_made_again_from_far_enough_before_are_those_of_one_pass(
        steps in punctual(),
        start in 0..20_usize,
        refire in prop_oneof![Just(Refire::OncePerWindow), Just(Refire::EveryEvent)],
    ) {
        let log = log(steps);
        let start = log.len() - 1 - start % log.len();
        let [whole, rebuilt] = whole_and_rebuilt(&log, start, refire);
        prop_assert_eq!(whole, rebuilt);
    }

    #[test]
    fn in_order_the_alerts_are_those_of_the_evaluators_own_engine(steps in in_order()) {
        let mut run = Run::new(&set(Refire::EveryEvent, |_| {}));
        let mut oracle = CorrelationEngine::new(CorrelationConfig::default());
        oracle.add_collection(&rsigma_parser::parse_sigma_yaml(&yaml(&WINDOWS)).unwrap()).unwrap();
        let mut now = 0;
        for (wait, _, fields) in steps {
            now += wait;
            let mut expected = BTreeMap::new();
            for result in oracle.process_event_at(&JsonEvent::borrow(&fields), START + now) {
                if let Some(body) = result.as_correlation() {
                    let key = (result.header.rule_id.clone(), body.group_key.clone());
                    expected.insert(key, body.aggregated_value);
                }
            }
            let actual: BTreeMap<_, _> = run
                .event(now, fields)
                .into_iter()
                .map(|alert| {
                    let key = alert.group_key.into_iter().map(|part| (part.field, part.value));
                    let value = alert.data["value"].as_f64().unwrap();
                    ((Some(alert.rule.id), key.collect::<Vec<_>>()), value)
                })
                .collect();
            prop_assert_eq!(actual, expected);
        }
    }

    #[test]
    fn a_group_key_is_the_evaluators(
        values in prop::collection::vec(prop_oneof![
            Just(Value::Null), Just(json!([1])), Just(json!({"a": 1})), any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from), any::<f64>().prop_map(Value::from), ".*".prop_map(Value::from),
        ], 0..4),
    ) {
        let names: Vec<String> = (0..values.len()).map(|n| format!("f{n}")).collect();
        let event: Value = names.iter().cloned().zip(values).collect();
        let event = JsonEvent::borrow(&event);
        let group_by: Vec<_> = names.iter().cloned().map(rsigma_eval::GroupByField::Direct).collect();
        let expected = GroupKey::extract(&event, &group_by, &[]);
        let expected = expected.map(|key| key.0.into_iter().flatten().collect::<Vec<_>>());
        let actual = key::of(&event, &names).map(|key| key::values(&key).unwrap());
        prop_assert_eq!(actual, expected);
    }
}
