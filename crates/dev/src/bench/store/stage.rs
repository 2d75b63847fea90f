//! Servers with pipelines as the operator would make them, and alerts as the worker would write them.

use std::fmt;

use anyhow::{Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use lookback::nats::alerts::AlertStore;
use lookback::nats::connect::{Nats, Options, Target};
use lookback::nats::definition;
use lookback::nats::desired::DesiredStream;
use lookback::nats::outbox::JetStreamOutbox;
use lookback::nats::streams;
use lookback::worker::ports::{Lookup, Outbox, Stored};
use lookback_protocol::alert::AlertRecord;
use lookback_protocol::names::{Owner, PipelineKey};
use lookback_protocol::workflow::{Definition, Workflow};
use serde_json::{Value, json};

use crate::events::{Plan, generate};
use crate::sample;
use crate::support::{NatsCluster, NatsServer};

const SOURCE: &str = "EVENTS";
/// Creates under way at once, as in the worker.
const AT_ONCE: usize = 256;

/// A single server, or three of a cluster. They run as long as this lives.
pub(super) enum Servers {
    One(Box<NatsServer>),
    Three(NatsCluster),
}

/// A pipeline's store.
pub(super) struct Stage {
    pub(super) nats: Nats,
    pub(super) key: PipelineKey,
    pub(super) outbox: JetStreamOutbox,
    pub(super) alerts: AlertStore,
    event: Value,
}

impl Servers {
    /// Streams will have so many copies: one, or three.
    pub(super) async fn start(copies: u8) -> Result<Self> {
        Ok(match copies {
            1 => Self::One(Box::new(NatsServer::start().await?)),
            _ => Self::Three(NatsCluster::start().await?),
        })
    }

    fn urls(&self) -> Vec<String> {
        match self {
            Self::One(server) => vec![server.url()],
            Self::Three(cluster) => cluster.urls(),
        }
    }

    fn copies(&self) -> u8 {
        match self {
            Self::One(_) => 1,
            Self::Three(_) => 3,
        }
    }
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(_) => f.write_str("R1, one server"),
            Self::Three(_) => f.write_str("R3, three servers on this machine"),
        }
    }
}

impl Stage {
    /// A new pipeline with its streams and the default workflow.
    pub(super) async fn new(servers: &Servers, name: &str) -> Result<Self> {
        let target = Target {
            urls: servers.urls(),
            ..Target::default()
        };
        let nats = Nats::connect(&target, &Options::named("bench")).await?;
        let owner = Owner {
            cluster: "bench".to_owned(),
            pipeline: PipelineKey::new("bench", name)?,
        };
        let (key, copies) = (owner.pipeline.clone(), servers.copies());
        for shared in [
            DesiredStream::state_bucket(copies),
            DesiredStream::audit(copies),
        ] {
            streams::ensure_shared(&nats, &shared).await?;
        }
        let alerts = DesiredStream::alerts(&key, None, None, copies, owner.to_string());
        streams::ensure(&nats, &alerts).await?;
        let workflow = Definition::new(owner.clone(), &Workflow::default());
        definition::ensure(&nats, &workflow, None).await?;
        Ok(Self {
            outbox: JetStreamOutbox::new(nats.clone(), key.clone()),
            alerts: AlertStore::new(nats.clone(), owner),
            event: event(),
            nats,
            key,
        })
    }

    /// The alert of the event `n`, in `state`.
    pub(super) fn alert(&self, n: u64, state: &str) -> AlertRecord {
        AlertRecord {
            state: state.to_owned(),
            data: json!({ "event": self.event }),
            ..sample::alert(&self.key, SOURCE, n)
        }
    }

    /// Stores the alerts of some events, many at once.
    pub(super) async fn fill(
        &self,
        events: impl Iterator<Item = u64>,
        state: impl Fn(u64) -> &'static str,
    ) -> Result<()> {
        let records = events.map(|n| self.alert(n, state(n)));
        stream::iter(records)
            .map(|record| async move {
                let stored = self.outbox.create_alert(&record, Lookup::No).await?;
                ensure!(matches!(stored, Stored::New(_)), "{stored:?} {}", record.id);
                Ok(())
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }
}

fn event() -> Value {
    let plan = Plan {
        count: 1,
        seed: 1,
        start: Timestamp::UNIX_EPOCH,
        step: jiff::SignedDuration::ZERO,
        poison: 0,
    };
    let mut events = generate(&plan);
    let event = events.next().map(|event| event.payload);
    event
        .and_then(|payload| serde_json::from_slice(&payload).ok())
        .unwrap_or_default()
}
