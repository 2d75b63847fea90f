//! `kubectl lookback replay plan`.

use std::io::{self, Write};

use anyhow::{Context as _, Result, anyhow, bail};
use jiff::Timestamp;
use lookback_engine::RuleSet;
use lookback_protocol::position::StreamSeq;
use lookback_protocol::replay::record::{Plan, Record, ReplayPhase};
use lookback_protocol::replay::request::{
    OnTruncated, ReplayRequest, ReplayStart, StatePolicy, Yes,
};
use serde::Serialize;

use super::words;
use crate::api::DetectionPipeline;
use crate::ctl::Usage;
use crate::ctl::context::{Context, key};
use crate::ctl::given::named;
use crate::ctl::output::{Answer, Fields, Format, Style, moment, plain, print};
use crate::operator::pipeline::dereference;
use crate::operator::pipeline::replay::foresee::{Foreseen, foresee};
use crate::operator::pipeline::validate::{engine_options, rule_files};

#[derive(Debug, clap::Args)]
pub(in super::super) struct Args {
    /// What if: read from this sequence on
    #[arg(long, value_name = "N", group = "start", value_parser = clap::value_parser!(u64).range(1..))]
    from_sequence: Option<u64>,
    /// What if: read from the first message stored at or after this time on
    #[arg(long, value_name = "TIME", group = "start")]
    from_time: Option<Timestamp>,
    /// What if: read from the next message on
    #[arg(long, group = "start")]
    latest: bool,
    /// What becomes of the windows: Auto, Keep, Clear or Rebuild
    #[arg(long, value_name = "POLICY", requires = "start", value_parser = named::<StatePolicy>)]
    state_policy: Option<StatePolicy>,
    /// What to do when the start has left the stream: Fail or Clamp
    #[arg(long, value_name = "POLICY", requires = "start", value_parser = named::<OnTruncated>)]
    on_truncated: Option<OnTruncated>,
}

/// What a replay does.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Planned {
    /// Whether this is only what would be.
    what_if: bool,
    /// The request in the status; absent for what would be.
    replay: Option<Record>,
    plan: Option<Plan>,
    /// What to do next.
    next: String,
}

pub(super) async fn run(args: Args, context: &Context, format: Format) -> Result<()> {
    let pipeline = context.pipeline().await?;
    let planned = match args.request()? {
        Some(request) => what_if(&request, pipeline, context).await?,
        None => of_status(pipeline)?,
    };
    print(&planned, format)
}

impl Args {
    fn request(&self) -> Result<Option<ReplayRequest>> {
        let start = match (self.from_sequence, self.from_time, self.latest) {
            (Some(sequence), _, _) => ReplayStart::FromSequence(StreamSeq(sequence)),
            (None, Some(time), _) => ReplayStart::FromTime(time),
            (None, None, true) => ReplayStart::Latest(Yes),
            (None, None, false) => return Ok(None),
        };
        let policy = self.state_policy.unwrap_or_default();
        let request =
            ReplayRequest::new(None, start, policy).map_err(|error| Usage(error.to_string()))?;
        Ok(Some(ReplayRequest {
            on_truncated: self.on_truncated.unwrap_or_default(),
            ..request
        }))
    }
}

async fn what_if(
    request: &ReplayRequest,
    pipeline: DetectionPipeline,
    context: &Context,
) -> Result<Planned> {
    let rules = rules(&pipeline, context).await?;
    let reached = context.reach(pipeline).await?;
    let key = &reached.owner.pipeline;
    match foresee(request, &reached.pipeline, &rules, &reached.nats, key).await {
        Foreseen::Plan(plan) => Ok(Planned {
            what_if: true,
            replay: None,
            plan: Some(*plan),
            next: "nothing is changed; to ask for it, set spec.replay, with approval: Manual to see the plan once more before it runs".to_owned(),
        }),
        Foreseen::Rejected(why) => bail!("such a replay would be rejected: {why}"),
        Foreseen::Unavailable(why) => bail!("cannot plan now: {why}"),
    }
}

/// The rules that the spec names: how far back windows reach is theirs to say.
async fn rules(pipeline: &DetectionPipeline, context: &Context) -> Result<RuleSet> {
    let spec = &pipeline.spec;
    let key = key(pipeline)?;
    let client = context.kube().await?;
    let found = dereference::rules(&client, key.namespace(), &spec.rules)
        .await
        .context("a plan needs the rules of the pipeline")?;
    if let Some(missing) = found.iter().find(|it| it.files.is_none()) {
        bail!(
            "a plan needs the rules of the pipeline: there is no ConfigMap {}",
            missing.name
        );
    }
    let options = engine_options(
        &spec.rules.processing,
        &spec.source.logsource,
        &spec.correlation,
    );
    Ok(RuleSet::compile(&rule_files(&found), &options).0)
}

fn of_status(pipeline: DetectionPipeline) -> Result<Planned> {
    let name = pipeline.metadata.name.clone().unwrap_or_default();
    let record = pipeline.status.and_then(|status| status.replay);
    let record = record.ok_or_else(|| {
        anyhow!(
            "pipeline {name} has no replay: set spec.replay to ask for one, or give --from-sequence, --from-time or --latest to see what one would do"
        )
    })?;
    Ok(Planned {
        what_if: false,
        plan: record.plan.clone(),
        next: next(&record, &name),
        replay: Some(record),
    })
}

fn next(record: &Record, name: &str) -> String {
    match record.phase {
        ReplayPhase::Requested => "the operator plans it".to_owned(),
        ReplayPhase::Planned => "it begins at once".to_owned(),
        ReplayPhase::AwaitingApproval => {
            format!("to let it run: kubectl lookback replay approve -p {name}")
        }
        phase if phase.is_final() => {
            "it is over; for another one set spec.replay with a new id".to_owned()
        }
        _ => "it is under way".to_owned(),
    }
}

impl Answer for Planned {
    fn table(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        let mut fields = Fields::default();
        if let Some(record) = &self.replay {
            fields.field("Replay", record.request.id.to_string());
            fields.field(
                "Phase",
                format!("{:?} since {}", record.phase, record.since),
            );
            fields.field("Asked for", moment(record.requested_at));
            if !record.message.is_empty() {
                fields.field("Message", &record.message);
            }
        }
        match &self.plan {
            Some(plan) => {
                // That of what would be is no hash that anybody could approve.
                if !self.what_if {
                    fields.field("Plan", &plan.hash);
                }
                words::say(plan, &mut fields);
            }
            None => fields.field("Plan", "none yet"),
        }
        fields.write(out, style)?;
        writeln!(out, "\n{}", plain(&self.next))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn request(args: &[&str]) -> Result<Option<ReplayRequest>, clap::Error> {
        let args = ["test"].iter().chain(args);
        Line::try_parse_from(args).map(|line| line.args.request().unwrap())
    }

    #[test]
    fn a_start_makes_a_request_and_none_asks_for_the_status() {
        assert_eq!(request(&[]).unwrap(), None);
        let asked = request(&["--from-sequence", "7", "--state-policy", "Rebuild"])
            .unwrap()
            .unwrap();
        assert_eq!(asked.start, ReplayStart::FromSequence(StreamSeq(7)));
        assert_eq!(asked.state_policy, StatePolicy::Rebuild);
    }

    #[test]
    fn two_starts_or_a_policy_without_one_are_refused() {
        assert!(request(&["--from-sequence", "7", "--latest"]).is_err());
        assert!(request(&["--state-policy", "Rebuild"]).is_err());
        assert!(request(&["--from-sequence", "0"]).is_err());
    }
}
