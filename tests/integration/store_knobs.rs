//! Every knob of a pipeline, by what it does.

use std::time::Duration;

use anyhow::{Result, ensure};
use lookback::nats::connect::{ConnectError, Nats, Options, Target};
use lookback::nats::outbox::JetStreamOutbox;
use lookback::worker::ports::{Lookup, Outbox, StoreError};
use lookback_dev::support::TcpProxy;
use lookback_protocol::config::NatsConfig;
use tokio::time::Instant;

use crate::nats_fixture::{Fixture, key};
use crate::nats_outbox::alert;

/// Far below the usual 5 s, and far above what a server on the same machine needs.
const SHORT: Duration = Duration::from_secs(1);
/// What no knob of these tests waits for, unless it is not obeyed.
const USUAL: Duration = Duration::from_secs(5);

/// What a worker is told, with time-outs of its own.
fn told(proxy: &TcpProxy, connect: Option<Duration>, request: Option<Duration>) -> Target {
    let milliseconds = |it: Duration| u64::try_from(it.as_millis()).expect("a test's time-out");
    Target::from(&NatsConfig {
        urls: vec![format!("nats://{}", proxy.address())],
        connect_timeout_ms: connect.map(milliseconds),
        request_timeout_ms: request.map(milliseconds),
        ..NatsConfig::default()
    })
}

fn took_the_short_one(begun: Instant) -> Result<()> {
    let took = begun.elapsed();
    ensure!((SHORT..USUAL).contains(&took), "it took {took:?}");
    Ok(())
}

#[tokio::test]
async fn s39_a_server_that_accepts_and_says_nothing_is_given_up_after_the_connect_time_out()
-> Result<()> {
    let fixture = Fixture::bare().await?;
    let proxy = TcpProxy::start(fixture.server.address()).await?;
    proxy.freeze();
    let begun = Instant::now();
    let error = Nats::connect(&told(&proxy, Some(SHORT), None), &Options::named("test"))
        .await
        .unwrap_err();
    assert!(
        matches!(error, ConnectError::Unreachable { .. }),
        "{error:?}"
    );
    took_the_short_one(begun)
}

#[tokio::test]
async fn s39_an_answer_that_does_not_come_is_an_error_after_the_request_time_out() -> Result<()> {
    let fixture = Fixture::bare().await?;
    let proxy = TcpProxy::start(fixture.server.address()).await?;
    let target = told(&proxy, None, Some(SHORT));
    let nats = Nats::connect(&target, &Options::named("test")).await?;
    let outbox = JetStreamOutbox::new(nats.clone(), key());
    proxy.freeze();
    let begun = Instant::now();
    let error = nats.server().await.unwrap_err();
    assert_eq!(error.to_string(), "no answer");
    took_the_short_one(begun)?;
    let begun = Instant::now();
    let error = outbox
        .create_alert(&alert("A"), Lookup::No)
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    took_the_short_one(begun)
}
