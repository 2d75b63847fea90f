//! The plugin outside a cluster whose NATS is inside.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use kube::config::{KubeConfigOptions, Kubeconfig};
use lookback::ctl::context::tunnel::{self, Tunnel};
use lookback_dev::publish::ensure_source_stream;
use lookback_dev::support::{Node, binary, eventually, patient};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::stage::{DEADLINE, NAME, NAMESPACE, STREAM, Stage};

const NATS_IMAGE: &str = "lookback.dev/nats:test";
/// A NATS that only the cluster can reach.
const NATS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: nats-0, namespace: detections, labels: {app: nats}}
spec:
  containers:
    - name: nats
      image: lookback.dev/nats:test
      imagePullPolicy: Never
      args: [-js, -sd, /data]
      volumeMounts: [{name: data, mountPath: /data}]
      readinessProbe: {tcpSocket: {port: 4222}, periodSeconds: 1}
  securityContext: {fsGroup: 65532}
  volumes: [{name: data, emptyDir: {}}]
---
apiVersion: v1
kind: Service
metadata: {name: nats, namespace: detections}
spec:
  selector: {app: nats}
  ports: [{name: client, port: 4222}]
";

/// What the plugin prints as JSON, with the given arguments.
fn lookback(node: &Node, arguments: &[&str]) -> Result<Value> {
    let output = Command::new(env!("CARGO_BIN_EXE_kubectl-lookback"))
        .arg("--kubeconfig")
        .arg(&node.facts().kubeconfig)
        .args(["-n", NAMESPACE, "-o", "json"])
        .args(arguments)
        .output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{arguments:?}: {errors}");
    serde_json::from_slice(&output.stdout).context("read JSON")
}

async fn client(kubeconfig: &Path) -> Result<kube::Client> {
    let options = KubeConfigOptions::default();
    let file = Kubeconfig::read_from(kubeconfig)?;
    let config = kube::Config::from_custom_kubeconfig(file, &options).await?;
    Ok(kube::Client::try_from(config)?)
}

async fn open(stage: &Stage, url: &str) -> Result<Tunnel> {
    let service = tunnel::service(url, NAMESPACE).context("a Service")?;
    Tunnel::open(client(&stage.node.facts().kubeconfig).await?, service).await
}

/// Starts NATS in the cluster, and gives the URL that its pods may use.
async fn start_nats(stage: &Stage) -> Result<String> {
    let directory = tempfile::tempdir()?;
    let archive = directory.path().join("nats.tar");
    let server = binary("nats-server")?.canonicalize()?;
    let made = Command::new(binary("localcluster")?)
        .args([
            "make-image",
            "--ref",
            NATS_IMAGE,
            "--entrypoint",
            "/nats-server",
        ])
        .arg("--out")
        .arg(&archive)
        .arg(format!("{}:/nats-server", server.display()))
        .status()?;
    ensure!(made.success(), "no image of NATS");
    stage.node.load_image(&archive)?;
    stage.node.apply(NATS)?;
    let ready = [
        "-n",
        NAMESPACE,
        "wait",
        "pod/nats-0",
        "--for=condition=Ready",
        "--timeout=300s",
    ];
    stage.node.kubectl(&ready)?;
    let service = stage.node.get(NAMESPACE, "service", "nats")?;
    let address = service["spec"]["clusterIP"]
        .as_str()
        .context("an address")?;
    Ok(format!("nats://{address}:4222"))
}

async fn get(address: std::net::SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn s28_the_plugin_reaches_nats_in_the_cluster_by_port_forward() -> Result<()> {
    let mut stage = Stage::open("ctl").await?;
    let url = start_nats(&stage).await?;
    let way = eventually(DEADLINE, "a ready pod behind the Service", async || {
        open(&stage, "nats://nats").await
    })
    .await?;
    stage.jetstream = patient(async_nats::connect(way.url()).await?);
    ensure_source_stream(&stage.jetstream, STREAM, "events.>").await?;
    stage.publish(2_000, None).await?;
    stage.apply_pipeline_at(&url, "")?;
    stage.applied(stage.published()).await?;

    let by_name = [
        "--nats-url",
        "nats://nats.detections.svc.cluster.local:4222",
    ];
    let status = eventually(DEADLINE, "the pipeline is ready", async || {
        let status = lookback(&stage.node, &[&by_name[..], &["status"]].concat())?;
        ensure!(status["ready"]["status"] == "True", "{status}");
        Ok(status)
    })
    .await?;
    assert_eq!(status["missing"], serde_json::json!([]), "{status}");
    assert_eq!(status["position"]["sequence"], 2_000);
    let listed = lookback(
        &stage.node,
        &[&by_name[..], &["alerts", "list", "--all"]].concat(),
    )?;
    let alerts = listed["items"].as_array().context("items")?;
    assert_eq!(status["alerts"]["byState"]["new"], alerts.len());
    let id = alerts.first().and_then(|alert| alert["id"].as_str());
    let id = id.context("there are alerts")?;
    let to = ["alerts", "move", id, "--to", "triage"];
    let moved = lookback(&stage.node, &[&by_name[..], &to].concat())?;
    assert_eq!(moved["items"][0]["step"]["to"], "triage");

    // The same tunnel leads to the server that comes after this one.
    stage.node.kill(NAMESPACE, "nats-0")?;
    eventually(DEADLINE, "NATS answers through the tunnel", async || {
        let mut stream = stage.jetstream.get_stream(STREAM).await?;
        let last = stream.info().await?.state.last_sequence;
        ensure!(last == 2_000, "its last sequence is {last}");
        Ok(())
    })
    .await?;

    let admin = open(&stage, &format!("nats://{NAME}-worker:8080")).await?;
    eventually(DEADLINE, "the worker is ready", async || {
        let answer = get(admin.near(), "/ready").await?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        Ok(())
    })
    .await
}
