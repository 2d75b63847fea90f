//! The role in `deploy/` allows everything the operator does, from a pipeline's first apply to the end
//! of its cleanup.

use std::fmt::Debug;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use lookback::api::DetectionPipeline;
use lookback::api::status::Phase;
use lookback::operator::lease::Timing;
use lookback::operator::pipeline::build::mounted;
use lookback_dev::support::{ApiServer, eventually};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::operator_fixture::{NAME, RULE, SOON, World};

const SYSTEM: &str = "lookback-system";
const ACCOUNT: &str = "lookback-operator";
const NAMESPACE: &str = include_str!("../../deploy/base/namespace.yaml");
const SERVICE_ACCOUNT: &str = include_str!("../../deploy/base/service-account.yaml");
const CLUSTER_ROLE: &str = include_str!("../../deploy/base/cluster-role.yaml");
const ROLE: &str = include_str!("../../deploy/base/role.yaml");

async fn install<K>(api: Api<K>, yaml: &str) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
{
    let object: K = serde_saphyr::from_str(yaml)?;
    let parameters = PatchParams::apply("lookback-test").force();
    api.patch(&object.name_any(), &parameters, &Patch::Apply(&object))
        .await?;
    Ok(())
}

#[tokio::test]
async fn the_role_of_the_operator_allows_all_it_does() -> Result<()> {
    let world = World::new().await?;
    let client = world.client.clone();
    let (role, binding) = ROLE.split_once("\n---\n").context("one document")?;
    let (cluster_role, cluster_binding) =
        CLUSTER_ROLE.split_once("\n---\n").context("one document")?;
    install::<Namespace>(Api::all(client.clone()), NAMESPACE).await?;
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), SYSTEM);
    install(accounts.clone(), SERVICE_ACCOUNT).await?;
    install::<ClusterRole>(Api::all(client.clone()), cluster_role).await?;
    install::<ClusterRoleBinding>(Api::all(client.clone()), cluster_binding).await?;
    install::<Role>(Api::namespaced(client.clone(), SYSTEM), role).await?;
    install::<RoleBinding>(Api::namespaced(client, SYSTEM), binding).await?;
    let request = TokenRequest::default();
    let token = accounts
        .create_token_request(ACCOUNT, &PostParams::default(), &request)
        .await?;
    let token = token.status.context("no token")?.token;
    let client = ApiServer::shared().await?.client_with(token).await?;

    let mut settings = world.settings();
    settings.cluster = None;
    settings.namespace = SYSTEM.to_owned();
    settings.election = Some(Timing::default());
    let operator = world.operator_as(client, settings).await?;
    let mut spec = world.spec();
    spec["deletionPolicy"] = Value::from("Delete");
    world.create(spec).await?;
    world.worker_becomes_ready().await?;
    world.phase(Phase::Running).await?;
    world.event("Running").await?;
    let set: StatefulSet = world.api().get(NAME).await?;
    let old = mounted(&set);
    world
        .change_rules("rules", &RULE.replace("whoami", "hostname"))
        .await?;
    eventually(
        SOON,
        "the rollout is over and the old ConfigMaps are gone",
        async || {
            world.worker_becomes_ready().await?;
            for name in &old {
                let found = world.api::<ConfigMap>().get_opt(name).await?;
                ensure!(found.is_none(), "{name} is still there");
            }
            Ok(())
        },
    )
    .await?;
    let grown = json!({"spec": {"state": {"storage": {"size": "2Gi"}}}});
    world.merge::<DetectionPipeline>(NAME, grown).await?;
    // No storage class of this cluster can grow a volume: what refuses must be that, not the role.
    let refused = world.condition("Stalled", "True", "ObjectRefused").await?;
    assert!(
        refused.message.contains("only dynamically provisioned"),
        "{}",
        refused.message
    );
    world
        .api::<DetectionPipeline>()
        .delete(NAME, &DeleteParams::default())
        .await?;
    world.disappears::<DetectionPipeline>(NAME).await?;
    assert!(!world.has_stream(&world.key().alerts_stream()).await?);
    operator.end().await
}
