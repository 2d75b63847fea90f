//! The operator writes the workflow of a pipeline's alerts, says what is wrong with one, and takes it
//! away again.

use anyhow::{Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::api::DeleteParams;
use lookback::api::DetectionPipeline;
use lookback::nats::definition;
use lookback_dev::support::eventually;
use lookback_protocol::names::Owner;
use lookback_protocol::workflow::{Definition, Workflow, WorkflowSpec};
use serde_json::{Value, json};

use crate::operator_fixture::{CLUSTER, NAME, SOON, World};

fn definition_of(world: &World, workflow: &Value) -> Result<Definition> {
    let spec: WorkflowSpec = serde_json::from_value(workflow.clone())?;
    let workflow = Workflow::new(spec).map_err(|faults| anyhow::anyhow!("{faults:?}"))?;
    let owner = Owner {
        cluster: CLUSTER.to_owned(),
        pipeline: world.key(),
    };
    Ok(Definition::new(owner, &workflow))
}

/// Waits until this is what stands in NATS.
async fn stands(world: &World, expected: Option<&Definition>) -> Result<()> {
    let nats = world.connect().await?;
    eventually(SOON, "the definition", async || {
        let found = definition::read(&nats, &world.key()).await?;
        ensure!(found.as_ref() == expected, "{found:?}");
        Ok(())
    })
    .await
}

async fn set_workflow(world: &World, workflow: &Value) -> Result<()> {
    let patch = json!({"spec": {"alerts": {"workflow": workflow}}});
    world.merge::<DetectionPipeline>(NAME, patch).await
}

fn closing() -> Value {
    json!({
        "states": ["closed"],
        "transitions": [
            {"id": "close", "from": ["new"], "to": "closed", "guard": "reason != ''"},
            {"id": "reopen", "from": ["closed"], "to": "new"},
        ],
    })
}

#[tokio::test]
async fn s01_a_pipeline_has_the_default_workflow_until_it_is_given_another() -> Result<()> {
    let world = World::new().await?;
    let operator = world.operator().await?;
    world.create(world.spec()).await?;
    let default = definition_of(&world, &serde_json::to_value(WorkflowSpec::default())?)?;
    stands(&world, Some(&default)).await?;
    set_workflow(&world, &closing()).await?;
    let closing = definition_of(&world, &closing())?.after(default);
    stands(&world, Some(&closing)).await?;
    let note = world.event("WorkflowChanged").await?;
    let told = "is changed in former, states, transitions";
    assert!(note.contains(told), "{note}");
    operator.end().await
}

#[tokio::test]
async fn s02_what_is_no_name_of_a_state_is_refused_at_once() -> Result<()> {
    let world = World::new().await?;
    for (state, message) in [
        ("a.b", "spec.alerts.workflow.states[0]"),
        ("archived", "leave them out of alerts.workflow.states"),
    ] {
        let mut spec = world.spec();
        let step = json!({"id": "go", "from": ["new"], "to": state});
        spec["alerts"] = json!({"workflow": {"states": [state], "transitions": [step]}});
        let refused = world.try_create(NAME, spec).await.unwrap_err().to_string();
        assert!(refused.contains(message), "{refused}");
    }
    Ok(())
}

#[tokio::test]
async fn s03_a_workflow_that_cannot_be_followed_is_told_and_stops_nothing() -> Result<()> {
    let world = World::new().await?;
    let operator = world.operator().await?;
    let mut spec = world.spec();
    spec["alerts"] = json!({"workflow": closing()});
    world.create(spec).await?;
    world.worker_becomes_ready().await?;
    world.condition("Ready", "True", "Running").await?;
    let good = definition_of(&world, &closing())?;
    stands(&world, Some(&good)).await?;
    let before: StatefulSet = world.api().get(NAME).await?;

    let mut bad = closing();
    bad["states"] = json!(["closed", "lost"]);
    bad["transitions"][0]["guard"] = json!("reason !=");
    set_workflow(&world, &bad).await?;
    let condition = world.condition("Ready", "False", "InvalidWorkflow").await?;
    assert!(
        condition.message.contains("no way leads from new to lost")
            && condition.message.contains("the guard of transition close"),
        "{}",
        condition.message
    );
    world
        .condition("Stalled", "True", "InvalidWorkflow")
        .await?;
    world.condition("StateReady", "True", "StateOpen").await?;
    operator.reconciles(2).await?;
    stands(&world, Some(&good)).await?;
    let after: StatefulSet = world.api().get(NAME).await?;
    assert_eq!(after.metadata.generation, before.metadata.generation);

    set_workflow(&world, &Value::Null).await?;
    world.condition("Ready", "True", "Running").await?;
    operator.end().await
}

#[tokio::test]
async fn s03_with_a_workflow_that_cannot_be_followed_a_worker_is_started_all_the_same() -> Result<()>
{
    let world = World::new().await?;
    let operator = world.operator().await?;
    let mut spec = world.spec();
    let step = json!({"id": "go", "from": ["new"], "to": "nowhere"});
    spec["alerts"] = json!({"workflow": {"states": [], "transitions": [step]}});
    world.create(spec).await?;
    world.worker_becomes_ready().await?;
    world.condition("Ready", "False", "InvalidWorkflow").await?;
    world.condition("StateReady", "True", "StateOpen").await?;
    stands(&world, None).await?;
    operator.end().await
}

#[tokio::test]
async fn s14_a_definition_of_another_cluster_is_left_alone_and_the_worker_runs() -> Result<()> {
    let world = World::new().await?;
    let operator = world.operator().await?;
    world.create(world.spec()).await?;
    world.worker_becomes_ready().await?;
    world.condition("Ready", "True", "Running").await?;
    let ours = definition_of(&world, &serde_json::to_value(WorkflowSpec::default())?)?;
    let mut theirs = ours.clone();
    theirs.owner.cluster = "another-cluster".to_owned();
    definition::ensure(
        &world.connect().await?,
        &theirs,
        Some(&ours.owner.to_string()),
    )
    .await?;
    let condition = world
        .condition("StateReady", "False", "OwnedByOther")
        .await?;
    assert!(
        condition.message.contains("belongs to another-cluster/"),
        "{}",
        condition.message
    );
    operator.reconciles(2).await?;
    stands(&world, Some(&theirs)).await?;
    operator.end().await
}

#[tokio::test]
async fn a_pipeline_that_is_deleted_with_everything_takes_its_workflow_along() -> Result<()> {
    let world = World::new().await?;
    let operator = world.operator().await?;
    let mut spec = world.spec();
    spec["deletionPolicy"] = json!("Delete");
    world.create(spec).await?;
    let default = definition_of(&world, &serde_json::to_value(WorkflowSpec::default())?)?;
    stands(&world, Some(&default)).await?;
    world
        .api::<DetectionPipeline>()
        .delete(NAME, &DeleteParams::default())
        .await?;
    world.disappears::<DetectionPipeline>(NAME).await?;
    stands(&world, None).await?;
    operator.end().await
}
