//! `kubectl lookback status`, and how the plugin finds its way: pipelines, rights, NATS.

use std::path::Path;

use anyhow::{Context, Result};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::PostParams;
use kube::config::{Cluster, Kubeconfig};
use lookback_dev::support::ApiServer;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::ctl_fixture::{ALARM, Plugin, with_alerts};
use crate::operator_fixture::{CLUSTER, World};

#[tokio::test]
async fn s29_status_is_one_screen_with_fresh_numbers_from_nats() -> Result<()> {
    let (stand, plugin) = with_alerts(2).await?;
    let last = stand.last().await?;
    let status = plugin.json(["status"]).await?;
    assert_eq!(status["phase"], "Running");
    assert_eq!(status["ready"]["status"], "True");
    assert_eq!(status["position"]["sequence"].as_u64(), Some(last));
    assert_eq!(status["lag"], 0);
    assert_eq!(status["source"]["last"].as_u64(), Some(last));
    assert_eq!(status["alerts"]["byState"]["new"], 2);
    assert_eq!(status["rules"]["detections"], 2);
    assert_eq!(status["worker"]["pod"], "edr-0");
    assert_eq!(status["worker"]["ready"], true);
    assert_eq!(status["missing"], json!([]));
    assert!(!status["events"].as_array().context("events")?.is_empty());
    let screen = plugin.says(["status", "-p", "edr"]).await?;
    assert!(screen.contains("Alerts:        new 2"), "{screen}");
    assert!(!screen.contains('\x1b'), "{screen}");
    Ok(())
}

#[tokio::test]
async fn s29_status_shows_what_the_operator_wrote_when_nats_does_not_answer() -> Result<()> {
    let (_stand, plugin) = with_alerts(1).await?;
    let status = plugin
        .json(["status", "--nats-url", "nats://127.0.0.1:1"])
        .await?;
    assert_eq!(status["phase"], "Running");
    let missing = status["missing"][0].as_str().context("a note")?;
    assert!(missing.contains("cannot connect to NATS"), "{missing}");
    let offline = plugin.json(["status", "--offline"]).await?;
    assert_eq!(offline["source"]["stream"], "EVENTS");
    Ok(())
}

#[tokio::test]
async fn s29_status_is_watched_one_document_a_change() -> Result<()> {
    let (stand, plugin) = with_alerts(1).await?;
    let arguments = ["status", "--watch", "--interval", "0.2", "-o", "json"];
    let mut watch = plugin.start(arguments)?;
    assert_eq!(watch.next().await?["alerts"]["byState"]["new"], 1);
    stand.publish(ALARM).await?;
    while watch.next().await?["alerts"]["byState"]["new"] != 2 {}
    assert_eq!(watch.interrupt().await?, Some(0));
    Ok(())
}

#[tokio::test]
async fn the_plugin_names_the_pipelines_when_one_must_be_chosen() -> Result<()> {
    let world = World::new().await?;
    let plugin = Plugin::of(&world).await?;
    let error = plugin.fails(["status"]).await?;
    assert!(
        error.contains("there is no pipeline in namespace"),
        "{error}"
    );
    world.try_create("edr", world.spec()).await?;
    world.try_create("web", world.spec()).await?;
    let error = plugin.fails(["status"]).await?;
    assert!(error.trim_end().ends_with("edr, web"), "{error}");
    let error = plugin.fails(["status", "-p", "nope"]).await?;
    assert!(error.contains("no pipeline nope"), "{error}");
    Ok(())
}

#[tokio::test]
async fn what_kubectl_runs_for_completions_offers_the_pipelines_of_the_namespace() -> Result<()> {
    let world = World::new().await?;
    let plugin = Plugin::of(&world).await?;
    world.try_create("edr", world.spec()).await?;
    world.try_create("web", world.spec()).await?;
    let folder = Path::new(env!("CARGO_BIN_EXE_kubectl-lookback")).parent();
    let path = std::env::var("PATH")?;
    let script = "deploy/krew/kubectl_complete-lookback";
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(script))
        .env(
            "PATH",
            format!("{}:{path}", folder.context("a folder")?.display()),
        )
        .env("KUBECONFIG", &plugin.kubeconfig)
        .args(["-n", &plugin.namespace, "status", "-p", ""])
        .output()
        .await?;
    assert_eq!(String::from_utf8(output.stdout)?, "edr\nweb\n:4\n");
    Ok(())
}

#[tokio::test]
async fn wrong_usage_ends_with_2_and_says_what_is_meant() -> Result<()> {
    let plugin = Plugin::of(&World::new().await?).await?;
    for arguments in [
        ["alerts", "move", "ABCDEF"].as_slice(),
        &[
            "alerts", "move", "ABCDEF", "GHIJKL", "--to", "a", "--expect", "1",
        ],
        &["alerts", "show", "ABC"],
        &["status", "--watch", "--interval", "0"],
        &["status", "edr"],
    ] {
        let ran = plugin.run(arguments).await?;
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.stdout.is_empty() && !ran.stderr.is_empty(), "{ran:?}");
    }
    Ok(())
}

/// Somebody who may read pipelines and nothing else.
async fn reader(world: &World, directory: &Path) -> Result<Plugin> {
    let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "reader"}}))?;
    let create = PostParams::default();
    world.api().create(&create, &account).await?;
    let rule = json!({"apiGroups": ["lookback.dev"], "resources": ["detectionpipelines"], "verbs": ["get", "list"]});
    let role: Role =
        serde_json::from_value(json!({"metadata": {"name": "reader"}, "rules": [rule]}))?;
    world.api().create(&create, &role).await?;
    let subject = json!({"kind": "ServiceAccount", "name": "reader", "namespace": world.namespace});
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"});
    let binding: RoleBinding = serde_json::from_value(
        json!({"metadata": {"name": "reader"}, "roleRef": role, "subjects": [subject]}),
    )?;
    world.api().create(&create, &binding).await?;
    let token = world
        .api::<ServiceAccount>()
        .create_token_request("reader", &create, &TokenRequest::default())
        .await?;
    let token = token.status.context("no token")?.token;
    let kubeconfig = directory.join("kubeconfig");
    std::fs::write(
        &kubeconfig,
        ApiServer::shared().await?.kubeconfig_with(token)?,
    )?;
    Ok(Plugin {
        kubeconfig,
        namespace: world.namespace.clone(),
    })
}

#[tokio::test]
async fn who_may_not_list_pipelines_is_told_to_name_one_or_to_ask() -> Result<()> {
    let world = World::new().await?;
    let directory = tempfile::tempdir()?;
    let plugin = reader(&world, directory.path()).await?;
    let elsewhere = Plugin {
        namespace: "default".to_owned(),
        ..plugin
    };
    let error = elsewhere.fails(["status"]).await?;
    assert!(
        error.contains("name one with -p, or ask for the right to list"),
        "{error}"
    );
    let error = elsewhere.fails(["status", "-p", "edr"]).await?;
    assert!(error.contains("ask for the right to get"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_context_that_is_not_there_and_a_server_that_is_silent_are_named() -> Result<()> {
    let world = World::new().await?;
    let plugin = Plugin::of(&world).await?;
    let error = plugin.fails(["status", "--context", "nope"]).await?;
    assert!(error.contains("has no context nope"), "{error}");
    let directory = tempfile::tempdir()?;
    let away = changed_kubeconfig(&plugin, directory.path(), |cluster| {
        cluster.server = Some("https://127.0.0.1:1".to_owned());
    })?;
    let error = away.fails(["status"]).await?;
    assert!(
        error.contains("at https://127.0.0.1:1/: the API server does not answer"),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn the_proxy_of_the_kubeconfig_is_the_way_to_the_api_server() -> Result<()> {
    let world = World::new().await?;
    world.create(world.spec()).await?;
    let proxy = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", proxy.local_addr()?);
    let directory = tempfile::tempdir()?;
    let plugin = changed_kubeconfig(&Plugin::of(&world).await?, directory.path(), |cluster| {
        cluster.proxy_url = Some(url.clone());
    })?;
    let served = tokio::spawn(serve_one_tunnel(proxy));
    let status = plugin.json(["status", "--offline"]).await?;
    assert_eq!(status["source"]["stream"], "EVENTS");
    assert!(served.await??.starts_with("CONNECT 127.0.0.1:"));
    Ok(())
}

/// Does what a proxy does, and gives the first request.
async fn serve_one_tunnel(proxy: TcpListener) -> Result<String> {
    let (mut near, _) = proxy.accept().await?;
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(near.read_u8().await?);
    }
    let request = String::from_utf8(request)?;
    let target = request.split_whitespace().nth(1).context("a target")?;
    let mut far = TcpStream::connect(target).await?;
    near.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    // How the plugin ends the connection is its own affair.
    copy_bidirectional(&mut near, &mut far).await.ok();
    Ok(request)
}

/// The plugin with another kubeconfig, in `directory`.
fn changed_kubeconfig(
    plugin: &Plugin,
    directory: &Path,
    change: impl FnOnce(&mut Cluster),
) -> Result<Plugin> {
    let mut file = Kubeconfig::read_from(&plugin.kubeconfig)?;
    let cluster = file.clusters.first_mut().context("a cluster")?;
    change(cluster.cluster.as_mut().context("a cluster")?);
    let kubeconfig = directory.join("kubeconfig");
    std::fs::write(&kubeconfig, serde_json::to_string(&file)?)?;
    Ok(Plugin {
        kubeconfig,
        ..plugin.clone()
    })
}

#[tokio::test]
async fn who_may_not_read_the_secret_is_told_to_ask_or_to_give_a_file() -> Result<()> {
    let world = World::new().await?;
    let mut spec = world.spec();
    spec["nats"]["credentialsSecretRef"] = json!({"name": "nats-creds", "key": "user.creds"});
    world.create(spec).await?;
    let directory = tempfile::tempdir()?;
    let plugin = reader(&world, directory.path()).await?;
    let error = plugin.fails(["alerts", "list"]).await?;
    assert!(
        error.contains("nats-creds") && error.contains("--nats-creds FILE"),
        "{error}"
    );
    let error = plugin
        .fails(["alerts", "list", "--nats-creds", "/nowhere/user.creds"])
        .await?;
    assert!(error.contains("/nowhere/user.creds"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_reader_needs_no_more_of_the_cluster_than_the_pipeline() -> Result<()> {
    let (stand, _) = with_alerts(1).await?;
    let directory = tempfile::tempdir()?;
    let plugin = reader(&stand.world, directory.path()).await?;
    let listed = plugin.json(["alerts", "list"]).await?;
    let id = listed["items"][0]["id"].as_str().context("an id")?;
    plugin
        .json(["alerts", "move", id, "--to", "triage"])
        .await?;
    let shown = plugin.json(["alerts", "show", id]).await?;
    let by = shown["history"][1]["by"].as_str().unwrap_or_default();
    let account = format!("user/system:serviceaccount:{}:reader", stand.namespace);
    assert_eq!(by, account);
    let audit = format!("lookback.audit.{}.edr.alert.*", stand.namespace);
    let stream = stand.js.get_stream("LOOKBACK_AUDIT").await?;
    let act = stream.get_last_raw_message_by_subject(&audit).await?;
    let act: Value = serde_json::from_slice(&act.payload)?;
    assert_eq!(act["cluster"], CLUSTER, "{act}");
    assert_eq!(act["by"], account.as_str());
    let status = plugin.json(["status"]).await?;
    assert_eq!(status["lag"], 0);
    assert_eq!(
        status["missing"].as_array().map(Vec::len),
        Some(2),
        "{status}"
    );
    Ok(())
}

#[tokio::test]
async fn a_service_of_the_cluster_without_a_pod_is_named() -> Result<()> {
    let world = World::new().await?;
    let mut spec = world.spec();
    spec["nats"]["urls"] = json!(["nats://no-such-nats.infra.svc:4222"]);
    world.create(spec).await?;
    let plugin = Plugin::of(&world).await?;
    let error = plugin.fails(["alerts", "list"]).await?;
    assert!(
        error.contains("infra/no-such-nats") && error.contains("--nats-url"),
        "{error}"
    );
    let error = plugin
        .fails(["alerts", "list", "--no-port-forward"])
        .await?;
    assert!(error.contains("--no-port-forward is given"), "{error}");
    Ok(())
}
