//! `kubectl lookback state`: how far a worker is, by its checkpoint, by its consumer, and by its state
//! file when there is a copy of it.

use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use lookback_protocol::checkpoint::Checkpoint;
use lookback_protocol::position::Epoch;
use serde::Serialize;

use super::context::{Context, Reached};
use super::output::{Answer, Cell, Fields, Format, Paint, Style, age, moment, plain, print};
use crate::nats::checkpoint::JetStreamCheckpoints;
use crate::nats::consumers::{self, ObservedConsumer};
use crate::nats::streams;
use crate::operator::pipeline::build::PARTITION;
use crate::state::{self as file, FileDigest};
use crate::worker::ports::Checkpoints;

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Compare checkpoint and consumer, and a copy of the state file if you have one
    #[command(after_help = "Examples:
  kubectl lookback state inspect -n detections -p edr
  kubectl lookback state inspect --file state.db")]
    Inspect(Args),
}

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A copy of the state file, taken together with its -wal file
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// How far a worker is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Inspected {
    pipeline: String,
    /// The epoch of the status.
    epoch: Option<i64>,
    /// What the worker wrote last; absent when none ever did.
    checkpoint: Option<Checkpoint>,
    /// The consumer of the epoch; absent when there is none.
    consumer: Option<Consumer>,
    /// The last sequence of the source stream.
    last: Option<u64>,
    /// The state file that was given.
    file: Option<FileDigest>,
    /// What does not fit together, in words.
    findings: Vec<String>,
    #[serde(skip)]
    now: Timestamp,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Consumer {
    name: String,
    /// The last sequence of the source stream that was delivered.
    delivered: u64,
    ack_pending: u64,
    pending: u64,
    filters: Vec<String>,
}

pub(super) async fn run(command: Command, context: &Context, format: Format) -> Result<()> {
    let Command::Inspect(args) = command;
    let pipeline = context.pipeline().await?;
    let reached = context.reach(pipeline).await?;
    let mut inspected = inspect(&reached).await?;
    if let Some(path) = &args.file {
        inspected.file = Some(file::digest(path)?);
    }
    inspected.findings = inspected.compare();
    print(&inspected, format)
}

/// Reads only: a message get and two infos.
pub(super) async fn inspect(reached: &Reached) -> Result<Inspected> {
    let Reached {
        pipeline,
        owner,
        nats,
    } = reached;
    let key = &owner.pipeline;
    let mut checkpoints = JetStreamCheckpoints::new(nats.clone(), key, PARTITION);
    let checkpoint = checkpoints
        .load()
        .await
        .context("cannot read the checkpoint")?;
    let checkpoint = checkpoint.map(|(checkpoint, _)| checkpoint);
    let source = pipeline.spec.source.stream.as_str();
    let epoch = pipeline.status.as_ref().and_then(|status| status.epoch);
    let of_status = epoch.and_then(|epoch| u64::try_from(epoch).ok()).map(Epoch);
    let worked = of_status.or_else(|| Some(checkpoint.as_ref()?.epoch));
    let consumer = match worked {
        Some(epoch) => {
            let name = key.consumer(PARTITION, epoch);
            let found = consumers::read(nats, source, &name).await?;
            found.map(|found| Consumer::of(name, &found))
        }
        None => None,
    };
    let stream = streams::read(nats, source).await?;
    Ok(Inspected {
        pipeline: key.to_string(),
        epoch,
        checkpoint,
        consumer,
        last: stream.map(|stream| stream.state.last_seq),
        file: None,
        findings: Vec::new(),
        now: Timestamp::now(),
    })
}

impl Consumer {
    fn of(name: String, found: &ObservedConsumer) -> Self {
        let facts = found.facts();
        Self {
            name,
            delivered: facts.delivered.0,
            ack_pending: found.ack_pending(),
            pending: facts.pending,
            filters: found.filters().map(str::to_owned).collect(),
        }
    }
}

impl Inspected {
    /// What does not fit together. A consumer that is ahead of the checkpoint is no finding: events are
    /// delivered before they are committed.
    pub(super) fn compare(&self) -> Vec<String> {
        let mut out = Vec::new();
        let Some(checkpoint) = &self.checkpoint else {
            out.push("no worker of this pipeline has ever written a checkpoint".to_owned());
            return out;
        };
        let position = checkpoint.position.sequence.0;
        let epoch = checkpoint.epoch.0;
        if let Some(of_status) = self.epoch
            && u64::try_from(of_status) != Ok(epoch)
        {
            out.push(format!(
                "the checkpoint is of epoch {epoch}, the status of epoch {of_status}: the worker of the later one has not begun"
            ));
        }
        match &self.consumer {
            None => out.push("the epoch has no consumer: nothing is read".to_owned()),
            Some(consumer) if consumer.delivered < position => out.push(format!(
                "the consumer has delivered up to {}, before the position {position}: it was made again, and the worker positions it when it starts",
                consumer.delivered
            )),
            Some(_) => {}
        }
        if let Some(last) = self.last
            && last < position
        {
            out.push(format!(
                "the source stream ends at {last}, before the position {position}: it lost messages or was made again"
            ));
        }
        if let Some(file) = &self.file {
            let held = file.position.sequence.0;
            if file.stream != checkpoint.stream {
                out.push(
                    "the file was made from another stream, or another incarnation of it"
                        .to_owned(),
                );
            } else if held < position {
                out.push(format!(
                    "the file holds {held}, the checkpoint says {position}: the file is an older copy"
                ));
            } else if held > position {
                out.push(format!(
                    "the file holds {held}, the checkpoint says {position}: the file is newer, as after a crash between commit and checkpoint"
                ));
            }
        }
        out
    }
}

impl Answer for Inspected {
    fn table(&self, out: &mut dyn Write, style: Style) -> io::Result<()> {
        let mut fields = Fields::default();
        fields.field("Pipeline", &self.pipeline);
        let epoch = self
            .epoch
            .map_or_else(|| "-".to_owned(), |epoch| epoch.to_string());
        fields.field("Epoch", epoch);
        if let Some(checkpoint) = &self.checkpoint {
            self.checkpoint_fields(checkpoint, &mut fields);
        }
        if let Some(consumer) = &self.consumer {
            fields.field("Consumer", &consumer.name);
            fields.more(format!("delivered up to {}", consumer.delivered));
            fields.more(format!(
                "{} not yet acknowledged, {} not yet delivered",
                consumer.ack_pending, consumer.pending
            ));
            fields.more(format!("filter {}", consumer.filters.join(", ")));
        }
        if let Some(last) = self.last {
            fields.field("Stream ends at", last.to_string());
        }
        if let Some(file) = &self.file {
            fields.field("File", format!("position {}", file.position.sequence));
            fields.more(format!(
                "{} groups, digest {}",
                file.groups, file.state_digest
            ));
            fields.more(format!(
                "{} stretches of the stream, {} requests",
                file.lineage.len(),
                file.ledger.len()
            ));
        }
        fields.write(out, style)?;
        if self.findings.is_empty() {
            return writeln!(out, "\neverything fits together");
        }
        writeln!(out)?;
        for finding in &self.findings {
            writeln!(out, "{}", plain(finding))?;
        }
        Ok(())
    }
}

impl Inspected {
    fn checkpoint_fields(&self, checkpoint: &Checkpoint, fields: &mut Fields) {
        fields.field(
            "Checkpoint",
            format!(
                "position {} of {}, {} ago",
                checkpoint.position.sequence,
                checkpoint.stream.name,
                age(checkpoint.time, self.now)
            ),
        );
        if let Some(published) = checkpoint.position.published {
            fields.more(format!("that event was stored at {}", moment(published)));
        }
        fields.more(format!(
            "epoch {}, {:?}, by {}",
            checkpoint.epoch, checkpoint.phase, checkpoint.incarnation
        ));
        fields.more(format!("engine digest {}", checkpoint.engine_digest));
        fields.more(format!("{} groups", checkpoint.groups));
        if let Some(held) = &checkpoint.held {
            let held = format!("held, {:?}: {}", held.reason, held.message);
            fields.more(Cell::painted(held, Paint::Warn));
        }
        if let Some(request) = &checkpoint.request {
            fields.more(format!("request {}: {:?}", request.id, request.outcome));
        }
        for gap in &checkpoint.gaps {
            let certainly = if gap.possible { "perhaps " } else { "" };
            let gap = format!("{certainly}unread: {} through {}", gap.from, gap.to);
            fields.more(Cell::painted(gap, Paint::Warn));
        }
        let counters = &checkpoint.counters;
        fields.more(format!(
            "{} events, {} new alerts, {} known, {} dead letters, {} late, {} from the future",
            counters.events,
            counters.alerts_new,
            counters.alerts_known,
            counters.dead_letters,
            counters.late,
            counters.skewed
        ));
    }
}
