//! `kubectl lookback report`: what a bug report needs, in one archive, without secrets. Whatever goes
//! into it passes [`redact`], because [`bundle`] has no other way in. A right that is missing is a line
//! of its manifest and never the end.

mod bundle;
mod cluster;
mod redact;
mod streams;

use std::fs::OpenOptions;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde_json::json;

use self::bundle::Bundle;
use super::context::{Context, key};
use crate::runtime::telemetry::chain;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to write it, as .tar.gz; a file that is there stays as it is
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The last lines of the logs of worker and operator as well
    #[arg(long)]
    logs: bool,
    /// How many lines of each log
    #[arg(long, default_value_t = 2000, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    tail: i64,
}

pub(super) async fn run(args: Args, context: &Context) -> Result<()> {
    let pipeline = context.pipeline().await?;
    let key = key(&pipeline)?;
    let now = Timestamp::now();
    let path = args.file.unwrap_or_else(|| {
        let time = now.strftime("%Y%m%dT%H%M%SZ");
        let name = format!(
            "lookback-report-{}-{}-{time}.tar.gz",
            key.namespace(),
            key.name()
        );
        PathBuf::from(name)
    });
    let cannot = || format!("cannot write the report {}", path.display());
    let mut options = OpenOptions::new();
    let file = options
        .write(true)
        .create_new(true)
        .open(&path)
        .with_context(cannot)?;

    let mut bundle = Bundle::default();
    bundle.object("pipeline.yaml", &pipeline);
    let client = context.kube().await?;
    let logs = args.logs.then_some(args.tail);
    cluster::collect(&client, &key, logs, &mut bundle).await;
    let server = match context.reach(pipeline).await {
        Ok(reached) => streams::collect(&reached, &mut bundle).await,
        Err(error) => {
            bundle.left_out("nats/", chain(error.as_ref()));
            None
        }
    };
    let kubernetes = client.apiserver_version().await;
    bundle.object(
        "versions.yaml",
        &json!({
            "plugin": env!("CARGO_PKG_VERSION"),
            "kubernetes": kubernetes.ok().map(|info| info.git_version),
            "nats": server,
        }),
    );
    bundle.left_out("rules", "they are yours: add those that matter by hand");
    bundle.left_out("events, alerts and dead letters", "they are yours, too");
    bundle.left_out("Secrets", "never read for a report, but to connect to NATS");
    let manifest = bundle.manifest(&key.to_string(), now);
    bundle.write(&manifest, file).with_context(cannot)?;
    print!("{manifest}");
    println!(
        "\nwrote {}: look through it before you hand it on",
        path.display()
    );
    Ok(())
}
