use std::collections::BTreeMap;
use std::time::Duration;

use lookback_protocol::consumer::OWNER_KEY;
use lookback_protocol::names::PipelineKey;
use serde_json::{Value, json};

use super::*;

fn stream() -> DesiredStream {
    DesiredStream::alerts(
        &PipelineKey::new("prod", "edr").unwrap(),
        Some(1 << 20),
        Some(Duration::from_secs(86_400)),
        1,
        "cluster/prod/edr".to_owned(),
    )
}

fn consumer(filter: &[&str]) -> DesiredConsumer {
    DesiredConsumer {
        stream: "EVENTS".to_owned(),
        name: "lb_prod_edr_p0_e1".to_owned(),
        filter_subjects: filter.iter().map(|&subject| subject.to_owned()).collect(),
        metadata: BTreeMap::from([(OWNER_KEY.to_owned(), "cluster/prod/edr".to_owned())]),
        adopt: None,
    }
}

fn created(desired: &Config) -> Config {
    merged(desired, &Config::new())
}

fn with(mut config: Config, field: &str, value: Value) -> Config {
    config.insert(field.to_owned(), value);
    config
}

#[test]
fn what_was_created_as_desired_has_no_drift() {
    let desired = stream();
    assert_eq!(desired.drift(&created(&desired.config())), Drift::None);
}

#[test]
fn metadata_of_others_is_no_drift_and_survives_an_update() {
    let desired = stream();
    let mut observed = created(&desired.config());
    observed["metadata"]["team"] = json!("blue");
    assert_eq!(desired.drift(&observed), Drift::None);
    assert_eq!(
        merged(&desired.config(), &observed)["metadata"]["team"],
        "blue"
    );
}

#[test]
fn a_field_of_a_newer_server_is_left_alone() {
    let desired = stream();
    let observed = with(created(&desired.config()), "from_the_future", json!(7));
    assert_eq!(desired.drift(&observed), Drift::None);
    assert_eq!(merged(&desired.config(), &observed)["from_the_future"], 7);
}

#[test]
fn a_changed_limit_is_updated() {
    let desired = stream();
    let observed = with(created(&desired.config()), "max_bytes", json!(5));
    let fields = vec!["max_bytes".to_owned()];
    assert_eq!(desired.drift(&observed), Drift::Update { fields });
}

#[test]
fn a_flag_that_a_server_dropped_in_silence_is_drift() {
    let desired = stream();
    let mut observed = created(&desired.config());
    observed.remove("allow_atomic");
    let fields = vec!["allow_atomic".to_owned()];
    assert_eq!(desired.drift(&observed), Drift::Update { fields });
}

#[test]
fn alerts_that_are_not_published_again_or_only_in_part_are_drift() {
    let desired = stream();
    let fields = vec!["republish".to_owned()];
    let drifted = Drift::Update { fields };
    let mut observed = created(&desired.config());
    observed["republish"]["headers_only"] = json!(true);
    assert_eq!(desired.drift(&observed), drifted);
    observed.remove("republish");
    assert_eq!(desired.drift(&observed), drifted);
    let echoed = json!({
        "src": "lookback.v1.prod.edr.alert.*.*",
        "dest": "lookback.v1ev.prod.edr.alert.{{wildcard(1)}}.{{wildcard(2)}}",
    });
    let observed = with(observed, "republish", echoed);
    assert_eq!(desired.drift(&observed), Drift::None);
}

#[test]
fn the_duplicate_window_is_never_longer_than_the_age_of_messages() {
    let minute = Duration::from_secs(60);
    let short = DesiredStream {
        max_age: Some(minute),
        ..stream()
    };
    assert_eq!(
        short.config()["duplicate_window"],
        json!(60_000_000_000_u64)
    );
    let unlimited = DesiredStream {
        max_age: None,
        ..stream()
    };
    assert_eq!(
        unlimited.config()["duplicate_window"],
        json!(120_000_000_000_u64)
    );
}

#[test]
fn another_storage_is_immutable() {
    let desired = stream();
    let observed = with(created(&desired.config()), "storage", json!("memory"));
    assert_eq!(
        desired.drift(&observed),
        Drift::Immutable {
            field: "storage".to_owned(),
            desired: "\"file\"".to_owned(),
            found: "\"memory\"".to_owned(),
        }
    );
}

#[test]
fn acknowledging_before_the_write_is_immutable_drift() {
    let desired = stream();
    let observed = with(created(&desired.config()), "persist_mode", json!("async"));
    assert!(matches!(desired.drift(&observed), Drift::Immutable { .. }));
}

#[test]
fn an_age_limit_on_the_state_bucket_is_drift() {
    let desired = DesiredStream::state_bucket(1);
    let observed = with(
        created(&desired.config()),
        "max_age",
        json!(60_000_000_000_i64),
    );
    let fields = vec!["max_age".to_owned()];
    assert_eq!(desired.drift(&observed), Drift::Update { fields });
}

#[test]
fn an_audit_that_can_be_overwritten_is_drift() {
    let desired = DesiredStream::audit(1);
    let observed = with(
        created(&desired.config()),
        "discard_new_per_subject",
        json!(false),
    );
    let fields = vec!["discard_new_per_subject".to_owned()];
    assert_eq!(desired.drift(&observed), Drift::Update { fields });
}

#[test]
fn a_purge_can_be_denied_later_but_not_allowed_again() {
    let desired = DesiredStream::audit(1);
    let mut purgeable = created(&desired.config());
    purgeable.remove("deny_purge");
    let fields = vec!["deny_purge".to_owned()];
    assert_eq!(desired.drift(&purgeable), Drift::Update { fields });
    let observed = with(created(&stream().config()), "deny_purge", json!(true));
    assert!(matches!(
        stream().drift(&observed),
        Drift::Immutable { field, .. } if field == "deny_purge"
    ));
}

#[test]
fn a_single_filter_is_the_same_under_either_name() {
    let desired = consumer(&["ev.>"]);
    let mut observed = created(&desired.config());
    observed.remove("filter_subjects");
    let observed = with(observed, "filter_subject", json!("ev.>"));
    assert_eq!(desired.drift(&observed), Drift::None);
    assert!(!merged(&desired.config(), &observed).contains_key("filter_subject"));
}

#[test]
fn a_changed_filter_is_updated_in_place() {
    let observed = created(&consumer(&["ev.a", "ev.b"]).config());
    let fields = vec!["filter_subjects".to_owned()];
    assert_eq!(consumer(&[]).drift(&observed), Drift::Update { fields });
}

#[test]
fn a_consumer_that_starts_elsewhere_is_immutable_drift() {
    let desired = consumer(&[]);
    let observed = with(created(&desired.config()), "deliver_policy", json!("new"));
    assert!(matches!(
        desired.drift(&observed),
        Drift::Immutable { field, .. } if field == "deliver_policy"
    ));
}

#[test]
fn a_consumer_that_drops_payloads_is_repaired() {
    let desired = consumer(&[]);
    let observed = with(created(&desired.config()), "headers_only", json!(true));
    let fields = vec!["headers_only".to_owned()];
    assert_eq!(desired.drift(&observed), Drift::Update { fields });
}
