use std::collections::BTreeMap;

use lookback_protocol::workflow::Workflow;
use serde_json::{Value, json};

use super::names::RESTART_ANNOTATION;
use super::*;
use crate::api::pipeline::ADOPT;
use crate::operator::pipeline::test_support::{
    FULL, MINIMAL, RULE, config_map, desired, facts, owner, pipeline, running_facts, validated,
};

/// Everything built, as it would be sent. The engine digest changes with every version of the engine,
/// and stands for it.
fn shown(yaml: &str) -> Value {
    let pipeline = pipeline(yaml);
    let mut validated = validated(&pipeline, &facts(&pipeline));
    validated.rules.engine_digest = "digest-of-the-engine".to_owned();
    let Desired {
        streams,
        workflow,
        consumer,
        service_account,
        network_policy,
        service,
        config_maps,
        volumes,
        stateful_set,
        hold_template: _,
    } = build(&validated);
    json!({
        "streams": [
            streams.state_bucket.config(),
            streams.audit.config(),
            streams.alerts.config(),
            streams.dead_letters.config(),
        ],
        "workflow": workflow.map(|it| it.definition),
        "consumer": consumer.config(),
        "serviceAccount": service_account,
        "networkPolicy": network_policy,
        "service": service,
        "configMaps": config_maps,
        "volumes": volumes.iter().map(|it| format!("{} {}", it.name, it.size)).collect::<Vec<_>>(),
        "statefulSet": stateful_set,
    })
}

#[test]
fn the_smallest_pipeline_is_built_as_committed() {
    insta::assert_yaml_snapshot!("minimal", shown(MINIMAL));
}

#[test]
fn a_pipeline_with_every_field_set_is_built_as_committed() {
    insta::assert_yaml_snapshot!("full", shown(FULL));
}

#[test]
fn the_same_pipeline_gives_the_same_objects() {
    assert_eq!(shown(FULL), shown(FULL));
}

#[test]
fn s01_without_a_block_the_default_workflow_is_built() {
    let built = desired(MINIMAL).workflow.unwrap();
    let default = Definition::new(owner(), &Workflow::default());
    assert_eq!((built.definition, built.adopt), (default, None));
}

#[test]
fn what_was_built_is_read_back_as_what_runs() {
    let pipeline = pipeline(FULL);
    let mut facts = facts(&pipeline);
    let archive = vec![0x1f, 0x8b, 0xff];
    facts.rules[0]
        .files
        .as_mut()
        .unwrap()
        .insert("more.tar.gz".to_owned(), archive);
    let validated = validated(&pipeline, &facts);
    let desired = build(&validated);
    let running = running(&desired.config_maps).unwrap();
    assert_eq!(running.config, worker_config(&validated));
    assert_eq!(running.files, Some(validated.rules.files));
}

#[test]
fn the_config_maps_in_use_are_those_the_pod_mounts() {
    let desired = desired(FULL);
    let mut built: Vec<String> = desired
        .config_maps
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    let mut in_use = mounted(&desired.stateful_set);
    built.sort();
    in_use.sort();
    assert_eq!(in_use, built);
}

#[test]
fn rules_of_2_mb_are_spread_over_config_maps_that_kubernetes_takes() {
    let pipeline = pipeline(MINIMAL);
    let mut facts = facts(&pipeline);
    let padding = format!("{RULE}\n# {}\n", "x".repeat(90 * 1024));
    let files: Vec<(String, String)> = (0..24)
        .map(|at| {
            let id = format!("6a7a2b7e-6f0f-4c06-9f4c-6a1f6b1c{at:04}");
            let rule = padding.replace("6a7a2b7e-6f0f-4c06-9f4c-6a1f6b1c0f01", &id);
            (format!("rule-{at:02}.yml"), rule)
        })
        .collect();
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(k, v)| (k.as_str(), v.as_str()))
        .collect();
    facts.rules = vec![config_map("rules", &files)];
    let validated = validated(&pipeline, &facts);
    let desired = build(&validated);
    let sizes: Vec<usize> = desired
        .config_maps
        .iter()
        .map(|it| it.data.iter().flatten().map(|(_, text)| text.len()).sum())
        .collect();
    assert!(sizes.iter().sum::<usize>() > 2 * 1024 * 1024, "{sizes:?}");
    assert!(sizes.iter().all(|size| *size <= 1024 * 1024), "{sizes:?}");
    assert_eq!(
        running(&desired.config_maps).unwrap().files,
        Some(validated.rules.files)
    );
}

#[test]
fn a_changed_rule_changes_the_pod_template_and_no_claim() {
    let pipeline = pipeline(MINIMAL);
    let before = build(&validated(&pipeline, &facts(&pipeline)))
        .stateful_set
        .spec
        .unwrap();
    let mut changed = running_facts(&pipeline);
    changed.rules = vec![config_map(
        "rules",
        &[("shell.yml", &RULE.replace("cmd", "sh"))],
    )];
    let after = build(&validated(&pipeline, &changed))
        .stateful_set
        .spec
        .unwrap();
    assert_ne!(before.template, after.template);
    assert_eq!(before.volume_claim_templates, after.volume_claim_templates);
}

#[test]
fn another_restart_nonce_is_another_pod_with_the_same_config() {
    let mut pipeline = pipeline(MINIMAL);
    let before = build(&validated(&pipeline, &facts(&pipeline)));
    pipeline.spec.restart_nonce = "monday".to_owned();
    let after = build(&validated(&pipeline, &facts(&pipeline)));
    let annotations = |desired: &Desired| {
        let template = desired.stateful_set.spec.clone().unwrap().template;
        template.metadata.unwrap().annotations.unwrap()
    };
    assert_eq!(annotations(&before).get(RESTART_ANNOTATION), None);
    let mut annotations = annotations(&after);
    let nonce = annotations.remove(RESTART_ANNOTATION);
    assert_eq!(nonce.as_deref(), Some("monday"));
    assert_eq!(before.config_maps, after.config_maps);
}

#[test]
fn who_is_adopted_is_told_to_everything_that_has_an_owner() {
    let mut pipeline = pipeline(MINIMAL);
    let adopt = (ADOPT.to_owned(), "c2/detections/edr".to_owned());
    pipeline.metadata.annotations = Some([adopt].into());
    let validated = validated(&pipeline, &facts(&pipeline));
    let Desired {
        streams, consumer, ..
    } = build(&validated);
    let told = [
        streams.alerts.adopt,
        streams.dead_letters.adopt,
        consumer.adopt,
        worker_config(&validated).adopt.map(|it| it.to_string()),
    ];
    for adopt in told {
        assert_eq!(adopt.as_deref(), Some("c2/detections/edr"));
    }
}

#[test]
fn names_of_the_longest_pipeline_fit_kubernetes() {
    let yaml = MINIMAL.replace("name: edr", &format!("name: {}", "a".repeat(40)));
    let desired = desired(&yaml);
    let names = desired
        .config_maps
        .iter()
        .map(ResourceExt::name_any)
        .chain([
            desired.service.name_any(),
            desired.stateful_set.name_any(),
            desired.volumes[0].name.clone(),
        ]);
    for name in names {
        assert!(name.len() <= 63, "{name}");
    }
}

#[test]
fn a_claim_is_named_as_the_stateful_set_names_it() {
    let desired = desired(MINIMAL);
    let spec = desired.stateful_set.spec.unwrap();
    let template = spec.volume_claim_templates.unwrap()[0]
        .metadata
        .name
        .clone()
        .unwrap();
    assert_eq!(desired.volumes[0].name, format!("{template}-edr-0"));
}

#[test]
fn selectors_match_the_pods() {
    let desired = desired(FULL);
    let spec = desired.stateful_set.spec.unwrap();
    let labels = spec.template.metadata.unwrap().labels.unwrap();
    let policy = desired.network_policy.spec.unwrap().pod_selector.unwrap();
    let selectors: [BTreeMap<String, String>; 3] = [
        spec.selector.match_labels.unwrap(),
        desired.service.spec.unwrap().selector.unwrap(),
        policy.match_labels.unwrap(),
    ];
    for selector in selectors {
        assert!(
            selector
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value)),
            "{selector:?}"
        );
    }
}

#[test]
fn nothing_a_secret_could_hold_stands_in_the_pod_template() {
    let with_user = FULL.replace(
        "credentialsSecretRef: {name: nats, key: user.creds}",
        "userPasswordSecretRef: {name: nats}",
    );
    for yaml in [FULL, &with_user] {
        let spec = desired(yaml)
            .stateful_set
            .spec
            .unwrap()
            .template
            .spec
            .unwrap();
        let container = &spec.containers[0];
        assert!(container.env_from.is_none());
        let env = container.env.iter().flatten();
        let mut sources = env.filter_map(|it| it.value_from.as_ref());
        assert!(sources.all(|source| source.secret_key_ref.is_none()));
    }
}
