//! `kubectl lookback status`: one pipeline on one screen. What the API server has is shown in any
//! case; numbers come from NATS, and where that cannot be asked those that the operator wrote last
//! stand in their place, with the time they are from.

mod cluster;
mod fresh;
mod screen;
mod view;

use anyhow::Result;

use self::view::Status;
use super::context::{self, Context};
use super::output::{self, Format, Interval, Watch};
use crate::runtime::telemetry::chain;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Do not ask NATS: show what the operator wrote last
    #[arg(long)]
    offline: bool,
    /// Look again and again, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    interval: Interval,
}

pub(super) async fn run(args: Args, context: &Context, format: Format) -> Result<()> {
    if args.watch {
        let look = async || look(&args, context).await;
        return Watch::new(format).run(args.interval, look).await;
    }
    output::print(&look(&args, context).await?, format)
}

async fn look(args: &Args, context: &Context) -> Result<Status> {
    let pipeline = context.pipeline().await?;
    let key = context::key(&pipeline)?;
    let mut status = Status::of(&pipeline, &key);
    let client = context.kube().await?;
    let (pod, events) = tokio::join!(
        cluster::worker(&client, &key),
        cluster::events(&client, &key)
    );
    let fresh = match args.offline {
        true => Err("--offline is given".to_owned()),
        false => match context.reach(pipeline).await {
            Ok(reached) => Ok(fresh::read(&reached).await),
            Err(error) => Err(chain(error.as_ref())),
        },
    };
    for problem in [
        pod.map(|pod| status.worker = pod).err(),
        events.map(|events| status.events = events).err(),
    ]
    .into_iter()
    .flatten()
    {
        status.missing.push(chain(problem.as_ref()));
    }
    match fresh {
        Ok(fresh) => fresh.into_status(&mut status),
        Err(why) => status.missing.push(format!(
            "numbers are those that the operator wrote last, for NATS was not asked: {why}"
        )),
    }
    Ok(status)
}
