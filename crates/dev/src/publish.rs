//! Publishing generated events to a stream, as fast as the server takes them or at a rate.

use std::future::IntoFuture;
use std::time::Duration;

use anyhow::{Context, Result};
use async_nats::jetstream;
use async_nats::jetstream::stream::{Config, RetentionPolicy, StorageType};

use futures::TryStreamExt;
use futures::stream::FuturesUnordered;
use tokio::time::MissedTickBehavior;

use crate::events::Generated;

/// Unacknowledged publishes at a time.
const IN_FLIGHT: usize = 512;

/// Creates the source stream unless it is there: file storage, Limits.
///
/// # Errors
/// When the server refuses it, for example because another stream has the subjects.
pub async fn ensure_source_stream(
    jetstream: &jetstream::Context,
    name: &str,
    subjects: &str,
) -> Result<()> {
    let config = Config {
        name: name.to_owned(),
        subjects: vec![subjects.to_owned()],
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        ..Config::default()
    };
    jetstream
        .get_or_create_stream(config)
        .await
        .with_context(|| format!("create stream {name}"))?;
    Ok(())
}

/// Publishes `events` in order and waits for every acknowledgement; gives how many there were.
///
/// # Errors
/// When the server does not acknowledge one.
pub async fn publish(
    jetstream: &jetstream::Context,
    events: impl Iterator<Item = Generated>,
    per_second: Option<u32>,
) -> Result<u64> {
    let mut ticks = per_second.map(|rate| {
        let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate.max(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        ticks
    });
    let mut acks = FuturesUnordered::new();
    let mut count = 0;
    for event in events {
        if let Some(ticks) = &mut ticks {
            ticks.tick().await;
        }
        if acks.len() == IN_FLIGHT {
            acks.try_next()
                .await
                .context("an event was not acknowledged")?;
        }
        let ack = jetstream.publish(event.subject, event.payload.into()).await;
        acks.push(ack.context("publish an event")?.into_future());
        count += 1;
    }
    while acks
        .try_next()
        .await
        .context("an event was not acknowledged")?
        .is_some()
    {}
    Ok(count)
}
