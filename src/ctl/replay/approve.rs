//! `kubectl lookback replay approve`.

use std::io::{self, Write};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use kube::Api;
use kube::api::{Patch, PatchParams};
use lookback_protocol::replay::record::{Plan, ReplayPhase};
use serde::Serialize;
use serde_json::json;

use super::words;
use crate::api::DetectionPipeline;
use crate::api::pipeline::APPROVE;
use crate::ctl::ask;
use crate::ctl::context::{Context, key, said};
use crate::ctl::output::{Answer, Fields, Format, Style, print};

#[derive(Debug, clap::Args)]
pub(in super::super) struct Args {
    /// The hash of the plan that you have seen; without it the plan is shown, and you are asked
    #[arg(long, value_name = "HASH")]
    plan: Option<String>,
}

/// What was approved.
#[derive(Debug, Serialize)]
struct Approved {
    pipeline: String,
    replay: String,
    plan: String,
}

pub(super) async fn run(args: Args, context: &Context, format: Format) -> Result<()> {
    let pipeline = context.pipeline().await?;
    let key = key(&pipeline)?;
    let (replay, plan) = waiting(&pipeline)?;
    match &args.plan {
        Some(seen) => ensure!(
            *seen == plan.hash,
            "the plan is {} now, not {seen}: look at it once more with kubectl lookback replay plan -p {}",
            plan.hash,
            key.name()
        ),
        None => confirm(&plan)?,
    }
    let api = Api::<DetectionPipeline>::namespaced(context.kube().await?, key.namespace());
    // The operator compares it with the plan it is about to run, so an old approval approves nothing.
    let patch = json!({"metadata": {"annotations": {APPROVE: plan.hash}}});
    api.patch(key.name(), &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map_err(said)
        .with_context(|| format!("cannot annotate pipeline {key}"))?;
    let approved = Approved {
        pipeline: key.to_string(),
        replay,
        plan: plan.hash,
    };
    print(&approved, format)
}

/// The plan that waits for a person, and the id of its request.
fn waiting(pipeline: &DetectionPipeline) -> Result<(String, Plan)> {
    let record = pipeline
        .status
        .as_ref()
        .and_then(|status| status.replay.as_ref());
    let record = record.ok_or_else(|| anyhow!("there is no replay to approve"))?;
    let id = &record.request.id;
    match (record.phase, &record.plan) {
        (ReplayPhase::AwaitingApproval, Some(plan)) => Ok((id.to_string(), plan.clone())),
        (phase, _) => bail!("replay {id} does not wait for an approval: it is {phase:?}"),
    }
}

fn confirm(plan: &Plan) -> Result<()> {
    let mut fields = Fields::default();
    fields.field("Plan", &plan.hash);
    words::say(plan, &mut fields);
    let instead = format!("give --plan {} to say that you have seen it", plan.hash);
    let agreed = ask::confirm("let it run?", &instead, |out| {
        fields.write(out, Style::default())
    })?;
    ensure!(agreed, "nothing was approved");
    Ok(())
}

impl Answer for Approved {
    fn table(&self, out: &mut dyn Write, _style: Style) -> io::Result<()> {
        writeln!(
            out,
            "approved plan {} of replay {} of pipeline {}",
            self.plan, self.replay, self.pipeline
        )
    }
}
