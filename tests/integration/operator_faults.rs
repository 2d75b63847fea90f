//! What is missing, wrong or foreign is named in a condition, and heals by itself when it is gone.

use anyhow::{Result, ensure};
use async_nats::jetstream::stream::{Config, RetentionPolicy};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use kube::api::PostParams;
use lookback::api::status::Phase;
use lookback::operator::pipeline::build::mounted;
use lookback_dev::support::{ApiServer, NatsServer, Settings, eventually};
use serde_json::json;

use crate::operator_fixture::{NAME, RULE, SOON, STREAM, World};

#[tokio::test]
async fn a_nats_that_comes_late_is_waited_for() -> Result<()> {
    let mut world = World::new().await?;
    world.nats.kill();
    let operator = world.operator().await?;
    world.create(world.spec()).await?;
    let condition = world
        .condition("NatsReady", "False", "NatsUnavailable")
        .await?;
    assert!(
        condition.message.contains(&world.nats.url()),
        "{}",
        condition.message
    );
    world
        .condition("Reconciling", "True", "NatsUnavailable")
        .await?;
    assert!(operator.get("/ready").await?.contains("200"));
    world.nats.restart().await?;
    world.appears::<StatefulSet>(NAME).await?;
    world.condition("NatsReady", "True", "Connected").await?;
    operator.end().await
}

#[tokio::test]
async fn a_nats_that_is_restarted_is_found_again() -> Result<()> {
    let mut world = World::new().await?;
    let operator = world.operator().await?;
    world.create(world.spec()).await?;
    world.condition("NatsReady", "True", "Connected").await?;
    world.nats.kill();
    world
        .condition("NatsReady", "False", "NatsUnavailable")
        .await?;
    world.api::<StatefulSet>().get(NAME).await?;
    world.nats.restart().await?;
    world.condition("NatsReady", "True", "Connected").await?;
    operator.end().await
}

#[tokio::test]
async fn a_source_stream_that_is_created_later_is_waited_for() -> Result<()> {
    let world = World::bare(ApiServer::shared().await?).await?;
    world.create_rules("rules", RULE).await?;
    let operator = world.operator().await?;
    world.create(world.spec()).await?;
    let condition = world
        .condition("ConsumerReady", "False", "SourceMissing")
        .await?;
    assert!(condition.message.contains(STREAM), "{}", condition.message);
    world.phase(Phase::Stalled).await?;
    world.create_source().await?;
    world.appears::<StatefulSet>(NAME).await?;
    world
        .condition("ConsumerReady", "True", "Positioned")
        .await?;
    operator.end().await
}

#[tokio::test]
async fn a_stream_without_limits_retention_is_refused() -> Result<()> {
    let world = World::bare(ApiServer::shared().await?).await?;
    world.create_rules("rules", RULE).await?;
    let config = Config {
        name: STREAM.to_owned(),
        subjects: vec!["events.>".to_owned()],
        retention: RetentionPolicy::WorkQueue,
        ..Config::default()
    };
    world.js().await?.create_stream(config).await?;
    let operator = world.operator().await?;
    world.create(world.spec()).await?;
    world
        .condition("ConsumerReady", "False", "SourceUnsupported")
        .await?;
    assert!(world.api::<StatefulSet>().get_opt(NAME).await?.is_none());
    operator.end().await
}

#[tokio::test]
async fn a_recreated_source_stream_is_named_and_what_runs_is_left_as_it_is() -> Result<()> {
    let world = World::new().await?;
    let operator = world.operator().await?;
    world.create(world.spec()).await?;
    let before = world.appears::<StatefulSet>(NAME).await?;
    world.js().await?.delete_stream(STREAM).await?;
    world.create_source().await?;
    world
        .condition("ConsumerReady", "False", "StreamChanged")
        .await?;
    let after: StatefulSet = world.api().get(NAME).await?;
    assert_eq!(after.metadata.generation, before.metadata.generation);
    operator.end().await
}

#[tokio::test]
async fn a_foreign_stream_of_our_name_is_left_alone_and_named() -> Result<()> {
    let world = World::new().await?;
    let name = world.key().alerts_stream();
    let foreign = Config {
        name: name.clone(),
        subjects: vec!["foreign".to_owned()],
        ..Config::default()
    };
    let js = world.js().await?;
    js.create_stream(foreign).await?;
    let operator = world.operator().await?;
    world.create(world.spec()).await?;
    let condition = world
        .condition("NatsReady", "False", "ForeignStream")
        .await?;
    assert!(condition.message.contains(&name), "{}", condition.message);
    let subjects = js
        .get_stream(&name)
        .await?
        .cached_info()
        .config
        .subjects
        .clone();
    assert_eq!(subjects, ["foreign"]);
    assert!(world.api::<StatefulSet>().get_opt(NAME).await?.is_none());
    js.delete_stream(&name).await?;
    world.appears::<StatefulSet>(NAME).await?;
    operator.end().await
}

#[tokio::test]
async fn a_foreign_service_of_our_name_is_left_alone_and_named() -> Result<()> {
    let world = World::new().await?;
    let foreign = serde_json::from_value(json!({
        "metadata": {"name": "edr-worker"}, "spec": {"ports": [{"port": 1}]},
    }))?;
    let services = world.api::<Service>();
    services.create(&PostParams::default(), &foreign).await?;
    let operator = world.operator().await?;
    world.create(world.spec()).await?;
    let condition = world.condition("Stalled", "True", "ForeignObject").await?;
    assert!(
        condition.message.contains("edr-worker"),
        "{}",
        condition.message
    );
    let ports = services
        .get("edr-worker")
        .await?
        .spec
        .and_then(|spec| spec.ports);
    assert_eq!(ports.map(|ports| ports[0].port), Some(1));
    operator.end().await
}

#[tokio::test]
async fn a_secret_and_its_keys_are_waited_for_and_a_wrong_password_is_named() -> Result<()> {
    let mut world = World::new().await?;
    world.nats.configure(Settings {
        user: Some(("alice".to_owned(), "right".to_owned())),
        ..Settings::default()
    });
    world.nats.restart().await?;
    let operator = world.operator().await?;
    let mut spec = world.spec();
    spec["nats"]["userPasswordSecretRef"] = json!({"name": "nats"});
    world.create(spec).await?;
    world
        .condition("NatsReady", "False", "SecretMissing")
        .await?;
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"name": "nats"}, "stringData": {"username": "alice"},
    }))?;
    world.api().create(&PostParams::default(), &secret).await?;
    let condition = world
        .condition("NatsReady", "False", "SecretKeyMissing")
        .await?;
    assert!(
        condition.message.contains("password"),
        "{}",
        condition.message
    );
    let password = |password: &str| json!({"stringData": {"password": password}});
    world.merge::<Secret>("nats", password("hunter2")).await?;
    let condition = world.condition("NatsReady", "False", "NatsRefused").await?;
    assert!(
        !condition.message.contains("hunter2"),
        "{}",
        condition.message
    );
    world.merge::<Secret>("nats", password("right")).await?;
    world.appears::<StatefulSet>(NAME).await?;
    operator.end().await
}

#[tokio::test]
async fn a_config_map_that_is_created_later_is_waited_for() -> Result<()> {
    let world = World::bare(ApiServer::shared().await?).await?;
    world.create_source().await?;
    let operator = world.operator().await?;
    world.create(world.spec()).await?;
    let condition = world
        .condition("RulesLoaded", "False", "ConfigMapMissing")
        .await?;
    assert!(condition.message.contains("rules"), "{}", condition.message);
    world.create_rules("rules", RULE).await?;
    world.appears::<StatefulSet>(NAME).await?;
    world.condition("RulesLoaded", "True", "Loaded").await?;
    operator.end().await
}

#[tokio::test]
async fn an_empty_set_of_rules_stalls_and_heals() -> Result<()> {
    let world = World::new().await?;
    world.change_rules("rules", "").await?;
    let operator = world.operator().await?;
    world.create(world.spec()).await?;
    world.condition("Stalled", "True", "NoRules").await?;
    assert!(world.api::<StatefulSet>().get_opt(NAME).await?.is_none());
    world.change_rules("rules", RULE).await?;
    world.appears::<StatefulSet>(NAME).await?;
    operator.end().await
}

#[tokio::test]
async fn a_bad_document_is_named_and_at_the_first_load_left_out() -> Result<()> {
    let world = World::new().await?;
    let bad = "title: Broken\nlogsource: {product: windows}\ndetection: {condition: nowhere}\n";
    world
        .change_rules("rules", &format!("{RULE}---\n{bad}"))
        .await?;
    let operator = world.operator().await?;
    world.create(world.spec()).await?;
    let condition = world
        .condition("RulesLoaded", "False", "DocumentsLeftOut")
        .await?;
    assert!(
        condition.message.contains("rules/rules.yml"),
        "{}",
        condition.message
    );
    let status = world.status().await?;
    let rules = status.rules.unwrap_or_default();
    assert_eq!((rules.problem_count, rules.detections), (1, 1));
    world.appears::<StatefulSet>(NAME).await?;
    operator.end().await
}

#[tokio::test]
async fn a_bad_document_in_a_new_set_keeps_the_set_before_it_running() -> Result<()> {
    let world = World::new().await?;
    let operator = world.operator().await?;
    world.create(world.spec()).await?;
    let before = world.appears::<StatefulSet>(NAME).await?;
    let bad = "title: Broken\nlogsource: {product: windows}\ndetection: {condition: nowhere}\n";
    world
        .change_rules("rules", &format!("{RULE}---\n{bad}"))
        .await?;
    world
        .condition("RulesLoaded", "False", "RulesRejected")
        .await?;
    let after: StatefulSet = world.api().get(NAME).await?;
    assert_eq!(after.metadata.generation, before.metadata.generation);
    operator.end().await
}

#[tokio::test]
async fn duplicate_ids_are_named() -> Result<()> {
    let world = World::new().await?;
    world.create_rules("more", RULE).await?;
    let operator = world.operator().await?;
    let mut spec = world.spec();
    spec["rules"]["configMaps"] = json!([{"name": "rules"}, {"name": "more"}]);
    world.create(spec).await?;
    let condition = world
        .condition("RulesLoaded", "False", "DocumentsLeftOut")
        .await?;
    assert!(
        condition.message.contains("more/rules.yml"),
        "{}",
        condition.message
    );
    operator.end().await
}

#[tokio::test]
async fn two_megabytes_of_rules_are_spread_over_config_maps() -> Result<()> {
    let world = World::new().await?;
    let mut refs = Vec::new();
    for at in 0..4 {
        let name = format!("large-{at}");
        let comment = "# padding that a rule set of some size has\n".repeat(14_000);
        let rule = RULE.replace("000000000001", &format!("00000000010{at}"));
        world
            .create_rules(&name, &format!("{comment}{rule}"))
            .await?;
        refs.push(json!({"name": name}));
    }
    let operator = world.operator().await?;
    let mut spec = world.spec();
    spec["rules"]["configMaps"] = json!(refs);
    world.create(spec).await?;
    let set = world.appears::<StatefulSet>(NAME).await?;
    let mounted = mounted(&set);
    assert!(4 <= mounted.len(), "{mounted:?}");
    for name in mounted {
        world.api::<ConfigMap>().get(&name).await?;
    }
    operator.end().await
}

#[tokio::test]
async fn an_api_server_that_is_killed_and_restarted_is_found_again() -> Result<()> {
    let api = ApiServer::start().await?;
    let world = World::bare(&api).await?;
    world.create_source().await?;
    let operator = world.operator().await?;
    world.create(world.spec()).await?;
    world
        .condition("RulesLoaded", "False", "ConfigMapMissing")
        .await?;
    api.kill().await?;
    api.restart().await?;
    eventually(SOON, "the rules are taken", async || {
        // A try without an answer may have been one that the server carried out.
        match world.api::<ConfigMap>().get_opt("rules").await? {
            Some(_) => Ok(()),
            None => world.create_rules("rules", RULE).await,
        }
    })
    .await?;
    world.appears::<StatefulSet>(NAME).await?;
    operator.end().await
}

#[tokio::test]
async fn one_pipeline_of_a_dead_nats_does_not_hold_up_another() -> Result<()> {
    let world = World::new().await?;
    let mut dead = NatsServer::start().await?;
    dead.kill();
    let operator = world.operator().await?;
    let mut spec = world.spec();
    spec["nats"]["urls"] = json!([dead.url()]);
    world.try_create("dead", spec).await?;
    world.create(world.spec()).await?;
    world.appears::<StatefulSet>(NAME).await?;
    ensure!(world.api::<StatefulSet>().get_opt("dead").await?.is_none());
    operator.end().await
}
