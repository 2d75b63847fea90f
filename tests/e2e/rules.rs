//! A change of rules is a rollout that keeps the windows.

use anyhow::{Result, ensure};
use lookback_dev::support::eventually;

use crate::stage::{DEADLINE, Stage};

const ADDED: &str = r#"{"data":{"added.yml":"title: Remote Desktop Logon\nid: 8c1d1f7c-7f57-4d4e-8a55-0f3d1f0e7c01\nlogsource: {product: windows, service: security}\ndetection:\n  selection: {EventID: 4624, LogonType: 10}\n  condition: selection\n"}}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_added_in_mid_stream_takes_effect_and_the_windows_stay() -> Result<()> {
    let mut stage = Stage::open("rules").await?;
    stage.publish(6_000, None).await?;
    stage.apply_pipeline("")?;
    let before = stage.applied(stage.published()).await?;
    stage.remember_rules()?;
    let patch = [
        "patch",
        "configmap",
        "sigma-rules",
        "--type=merge",
        "-p",
        ADDED,
    ];
    stage
        .node
        .kubectl(&[["-n", "detections"].as_slice(), patch.as_slice()].concat())?;
    eventually(DEADLINE, "a worker runs the new rules", async || {
        let now = stage.applied(stage.published()).await?;
        ensure!(
            now.engine_digest != before.engine_digest,
            "it runs {}",
            now.engine_digest
        );
        ensure!(now.groups > 0, "the windows are gone");
        Ok(())
    })
    .await?;
    stage.remember_rules()?;
    stage.publish(6_000, None).await?;
    stage.equals_one_uninterrupted_pass().await
}
