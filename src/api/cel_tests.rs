//! What the API server refuses, found by the same CEL rules without one.

use serde_json::{Value, json};

use super::DetectionPipeline;

fn pipeline(change: impl FnOnce(&mut Value)) -> DetectionPipeline {
    let mut value = json!({
        "apiVersion": "lookback.dev/v1alpha1",
        "kind": "DetectionPipeline",
        "metadata": {"name": "edr", "namespace": "detections"},
        "spec": {
            "nats": {"urls": ["nats://nats:4222"]},
            "source": {"stream": "EVENTS", "logsource": {"product": "windows"}},
            "rules": {"configMaps": [{"name": "rules"}]},
        },
    });
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

fn refusal(change: impl FnOnce(&mut Value)) -> String {
    let refused = pipeline(change).validate_cel().unwrap_err();
    format!("{refused:?}")
}

fn refusal_of_update(old: impl FnOnce(&mut Value), new: impl FnOnce(&mut Value)) -> String {
    let refused = pipeline(new)
        .validate_cel_update(&pipeline(old))
        .unwrap_err();
    format!("{refused:?}")
}

fn storage(value: Value) -> impl FnOnce(&mut Value) {
    move |pipeline| pipeline["spec"]["state"] = json!({"storage": value})
}

#[test]
fn the_smallest_pipeline_is_accepted() {
    assert!(pipeline(|_| {}).validate_cel().is_ok());
}

#[test]
fn an_unchanged_pipeline_is_accepted() {
    assert!(
        pipeline(|_| {})
            .validate_cel_update(&pipeline(|_| {}))
            .is_ok()
    );
}

#[test]
fn a_name_of_41_characters_is_refused() {
    let message = refusal(|it| it["metadata"]["name"] = json!("a".repeat(41)));
    assert!(message.contains("at most 40 characters"), "{message}");
}

#[test]
fn a_name_with_a_dot_is_refused() {
    let message = refusal(|it| it["metadata"]["name"] = json!("a.b"));
    assert!(message.contains("the name must match"), "{message}");
}

#[test]
fn two_ways_to_authenticate_are_refused() {
    let message = refusal(|it| {
        it["spec"]["nats"]["credentialsSecretRef"] = json!({"name": "a", "key": "b"});
        it["spec"]["nats"]["userPasswordSecretRef"] = json!({"name": "a"});
    });
    assert!(message.contains("at most one of"), "{message}");
}

#[test]
fn two_replicas_are_refused() {
    let message = refusal(|it| it["spec"]["alerts"] = json!({"replicas": 2}));
    assert!(message.contains("use 1, 3 or 5"), "{message}");
}

#[test]
fn another_source_stream_is_refused() {
    let message = refusal_of_update(|_| {}, |it| it["spec"]["source"]["stream"] = json!("OTHER"));
    assert!(
        message.contains("source.stream cannot be changed"),
        "{message}"
    );
}

#[test]
fn a_smaller_volume_is_refused() {
    let message = refusal_of_update(
        storage(json!({"size": "10Gi"})),
        storage(json!({"size": "9.5Gi"})),
    );
    assert!(message.contains("can only grow"), "{message}");
}

#[test]
fn a_larger_volume_is_accepted() {
    let old = pipeline(storage(json!({"size": "900Mi"})));
    assert!(
        pipeline(storage(json!({"size": "1Gi"})))
            .validate_cel_update(&old)
            .is_ok()
    );
}

#[test]
fn a_storage_class_is_neither_changed_nor_added_nor_removed() {
    let with = |class: &str| storage(json!({"storageClassName": class}));
    for message in [
        refusal_of_update(with("fast"), with("slow")),
        refusal_of_update(with("fast"), storage(json!({}))),
        refusal_of_update(storage(json!({})), with("fast")),
    ] {
        assert!(
            message.contains("storageClassName cannot be changed"),
            "{message}"
        );
    }
}

#[test]
fn another_access_mode_is_refused() {
    let message = refusal_of_update(
        storage(json!({})),
        storage(json!({"accessMode": "ReadWriteOncePod"})),
    );
    assert!(
        message.contains("accessMode cannot be changed"),
        "{message}"
    );
}

fn replay(value: Value) -> impl FnOnce(&mut Value) {
    move |pipeline| pipeline["spec"]["replay"] = value
}

#[test]
fn a_replay_from_a_sequence_a_time_or_the_next_message_is_accepted() {
    for start in [
        json!({"fromSequence": 4711}),
        json!({"fromTime": "2026-11-20T06:00:00.123456789+01:00"}),
        json!({"latest": true}),
    ] {
        assert!(pipeline(replay(start)).validate_cel().is_ok());
    }
}

#[test]
fn a_replay_without_a_start_or_with_two_is_refused() {
    for start in [
        json!({}),
        json!({"statePolicy": "Clear"}),
        json!({"fromSequence": 1, "latest": true}),
        json!({"fromSequence": 1, "fromTime": "2026-11-20T06:00:00Z"}),
        json!({"fromSequence": 1, "fromTime": "2026-11-20T06:00:00Z", "latest": true}),
    ] {
        let message = refusal(replay(start));
        assert!(message.contains("exactly one of"), "{message}");
    }
}

#[test]
fn a_replay_id_that_looks_derived_is_refused() {
    for id in ["h-0123456789ab", "loss-3"] {
        let message = refusal(replay(json!({"id": id, "latest": true})));
        assert!(message.contains("given by the operator"), "{message}");
    }
}

#[test]
fn an_empty_replay_id_is_accepted() {
    let empty = pipeline(replay(json!({"id": "", "latest": true})));
    assert!(empty.validate_cel().is_ok());
}

fn workflow(value: Value) -> impl FnOnce(&mut Value) {
    move |pipeline| pipeline["spec"]["alerts"] = json!({"workflow": value})
}

#[test]
fn s03_what_is_built_into_every_workflow_is_refused_in_one() {
    for state in ["new", "archived", "left"] {
        let step = json!({"id": "go", "from": ["new"], "to": state});
        let message = refusal(workflow(json!({"states": [state], "transitions": [step]})));
        assert!(message.contains("leave them out"), "{message}");
    }
    for id in ["create", "update", "archive"] {
        let step = json!({"id": id, "from": ["new"], "to": "done"});
        let message = refusal(workflow(json!({"states": ["done"], "transitions": [step]})));
        assert!(message.contains("another id"), "{message}");
    }
}

#[test]
fn s04_a_workflow_with_a_way_back_is_accepted() {
    let steps = json!([
        {"id": "close", "from": ["new"], "to": "closed"},
        {"id": "reopen", "from": ["closed"], "to": "new", "guard": "reason != ''"},
    ]);
    let accepted = pipeline(workflow(
        json!({"states": ["closed"], "transitions": steps}),
    ));
    assert!(accepted.validate_cel().is_ok());
}
