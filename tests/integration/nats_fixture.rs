//! A NATS server with an events stream and the consumer of one pipeline.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use async_nats::jetstream;
use lookback::nats::connect::{Nats, Options, Target, Timeouts};
use lookback::nats::consumers;
use lookback::nats::desired::DesiredConsumer;
use lookback::nats::log::JetStreamLog;
use lookback::worker::ports::{Delivery, Log, Pulled};
use lookback_dev::support::{NatsServer, Settings};
use lookback_protocol::consumer::OWNER_KEY;
use lookback_protocol::names::PipelineKey;
use lookback_protocol::position::StreamSeq;

pub(crate) const STREAM: &str = "EVENTS";
pub(crate) const CONSUMER: &str = "lb_prod_edr_p0_e1";
pub(crate) const OWNER: &str = "cluster/prod/edr";
/// For what a server does at once; it only ends a test that hangs, since machines may be slow.
pub(crate) const SOON: Duration = Duration::from_secs(60);
/// For an answer in a test that does not ask how long it takes.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Fixture {
    pub(crate) server: NatsServer,
    pub(crate) nats: Nats,
    pub(crate) js: jetstream::Context,
}

pub(crate) fn key() -> PipelineKey {
    PipelineKey::new("prod", "edr").expect("both are DNS labels")
}

pub(crate) fn target(url: String) -> Target {
    Target {
        urls: vec![url],
        ..Target::default()
    }
}

/// A connection of a test that does not ask how long an answer takes.
pub(crate) async fn connect(url: String) -> Result<Nats> {
    let target = Target {
        timeouts: patience(),
        ..target(url)
    };
    Ok(Nats::connect(&target, &Options::named("test")).await?)
}

/// A connection as programs have it, for a way on which answers are lost.
pub(crate) async fn connect_as_usual(url: String) -> Result<Nats> {
    Ok(Nats::connect(&target(url), &Options::named("test")).await?)
}

pub(crate) fn patience() -> Timeouts {
    Timeouts {
        connect: PATIENCE,
        request: PATIENCE,
    }
}

pub(crate) fn desired_consumer() -> DesiredConsumer {
    DesiredConsumer {
        stream: STREAM.to_owned(),
        name: CONSUMER.to_owned(),
        filter_subjects: vec!["ev.>".to_owned()],
        metadata: BTreeMap::from([(OWNER_KEY.to_owned(), OWNER.to_owned())]),
        adopt: None,
    }
}

impl Fixture {
    /// A server and nothing in it.
    pub(crate) async fn bare() -> Result<Self> {
        Self::bare_with(Settings::default()).await
    }

    pub(crate) async fn bare_with(settings: Settings) -> Result<Self> {
        let server = NatsServer::start_with(settings).await?;
        let nats = connect(server.url()).await?;
        let js = server.jetstream().await?;
        Ok(Self { server, nats, js })
    }

    /// A server with the events stream, its consumer, and `events` events of sequence 1 and up.
    pub(crate) async fn with_events(events: u64) -> Result<Self> {
        let fixture = Self::bare().await?;
        fixture.create_events_stream().await?;
        consumers::ensure(&fixture.nats, &desired_consumer()).await?;
        fixture.publish_events(events).await?;
        Ok(fixture)
    }

    pub(crate) async fn create_events_stream(&self) -> Result<()> {
        let config = jetstream::stream::Config {
            name: STREAM.to_owned(),
            subjects: vec!["ev.>".to_owned()],
            ..Default::default()
        };
        self.js.create_stream(config).await?;
        Ok(())
    }

    pub(crate) async fn publish_events(&self, events: u64) -> Result<()> {
        let mut acks = Vec::new();
        for n in 1..=events {
            acks.push(
                self.js
                    .publish("ev.a", format!("{{\"n\":{n}}}").into())
                    .await?,
            );
        }
        for ack in acks {
            ack.await?;
        }
        Ok(())
    }

    pub(crate) fn log(&self) -> JetStreamLog {
        JetStreamLog::new(self.nats.clone(), STREAM, CONSUMER)
    }
}

/// The next delivery, heartbeats passed over.
pub(crate) async fn delivery(log: &mut JetStreamLog) -> Result<Delivery> {
    let next = async {
        loop {
            match log.next().await? {
                Pulled::Delivery(delivery) => return anyhow::Ok(delivery),
                Pulled::Heartbeat { .. } => {}
                other => anyhow::bail!("{other:?} instead of a delivery"),
            }
        }
    };
    tokio::time::timeout(SOON, next)
        .await
        .context("no delivery")?
}

/// What ends the pull, deliveries and heartbeats passed over.
pub(crate) async fn end_of_pull(log: &mut JetStreamLog) -> Result<Pulled> {
    let end = async {
        loop {
            match log.next().await? {
                Pulled::Delivery(_) | Pulled::Heartbeat { .. } => {}
                other => return anyhow::Ok(other),
            }
        }
    };
    tokio::time::timeout(SOON, end)
        .await
        .context("the pull goes on")?
}

/// Positions a log as the worker does, without its checks.
pub(crate) async fn position(log: &mut JetStreamLog, next: u64) -> Result<()> {
    log.close().await?;
    log.reset(StreamSeq(next)).await?;
    log.open().await?;
    Ok(())
}
