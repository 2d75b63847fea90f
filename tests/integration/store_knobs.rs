//! Every knob of a pipeline, by what it does.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use lookback::api::{DetectionPipeline, Profile};
use lookback::nats::connect::{ConnectError, Nats, Options, Target};
use lookback::nats::outbox::JetStreamOutbox;
use lookback::nats::streams::{self, ObservedStream};
use lookback::worker::ports::{Lookup, Outbox, StoreError, Stored};
use lookback_dev::support::{ApiServer, NatsCluster, Settings, TcpProxy, eventually, patient};
use lookback_protocol::config::{CommitConfig, NatsConfig};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::nats_fixture::{Fixture, connect, key};
use crate::nats_outbox::{alert, letter};
use crate::operator_fixture::{self, NAME, RULE, SOON, World};
use crate::worker_fixture::Rig;

/// More than the usual 5 s, so that what takes this long obeys it, however slow the machine is.
const KNOB: Duration = Duration::from_secs(7);

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

fn obeyed_the_knob(begun: Instant) -> Result<()> {
    let took = begun.elapsed();
    ensure!(took >= KNOB, "it took {took:?}");
    Ok(())
}

#[tokio::test]
async fn s39_a_server_that_accepts_and_says_nothing_is_given_up_after_the_connect_time_out()
-> Result<()> {
    let fixture = Fixture::bare().await?;
    let proxy = TcpProxy::start(fixture.server.address()).await?;
    proxy.freeze();
    let begun = Instant::now();
    let error = Nats::connect(&told(&proxy, Some(KNOB), None), &Options::named("test"))
        .await
        .unwrap_err();
    assert!(
        matches!(error, ConnectError::Unreachable { .. }),
        "{error:?}"
    );
    obeyed_the_knob(begun)
}

#[tokio::test]
async fn s39_an_answer_that_does_not_come_is_an_error_after_the_request_time_out() -> Result<()> {
    let fixture = Fixture::bare().await?;
    let proxy = TcpProxy::start(fixture.server.address()).await?;
    let target = told(&proxy, None, Some(KNOB));
    let nats = Nats::connect(&target, &Options::named("test")).await?;
    let outbox = JetStreamOutbox::new(nats.clone(), key());
    proxy.freeze();
    let begun = Instant::now();
    let error = nats.server().await.unwrap_err();
    assert_eq!(error.to_string(), "no answer");
    obeyed_the_knob(begun)?;
    let begun = Instant::now();
    let error = outbox
        .create_alert(&alert("A"), Lookup::No)
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    obeyed_the_knob(begun)
}

/// A pipeline's alerts and dead-letter streams, once they are as `probe` wants them.
async fn streams_are(
    world: &World,
    nats: &Nats,
    what: &str,
    probe: impl Fn(&ObservedStream, &ObservedStream) -> Result<()>,
) -> Result<()> {
    let key = world.key();
    eventually(SOON, what, async || {
        let alerts = streams::read(nats, &key.alerts_stream()).await?;
        let letters = streams::read(nats, &key.dead_letters_stream()).await?;
        probe(
            &alerts.context("no alerts")?,
            &letters.context("no dead letters")?,
        )
    })
    .await
}

fn with(mut spec: Value, knobs: Value) -> Value {
    for (name, value) in knobs.as_object().into_iter().flatten() {
        spec[name] = value.clone();
    }
    spec
}

#[tokio::test]
async fn s39_max_bytes_bounds_each_store_and_a_full_one_refuses() -> Result<()> {
    let world = World::new().await?;
    let operator = world.operator().await?;
    let knobs = json!({"alerts": {"maxBytes": "16Ki"}, "deadLetters": {"maxBytes": "8Ki"}});
    world.create(with(world.spec(), knobs)).await?;
    let nats = world.connect().await?;
    streams_are(&world, &nats, "both streams", |_, _| Ok(())).await?;
    let outbox = JetStreamOutbox::new(nats.clone(), world.key());
    let mut number = 0;
    let refused = loop {
        number += 1;
        let stored = outbox
            .create_alert(&alert(&format!("A{number}")), Lookup::No)
            .await;
        if let Err(error) = stored {
            break error;
        }
    };
    assert!(matches!(refused, StoreError::Full { .. }), "{refused:?}");
    let refused = outbox
        .park(&letter("", vec![b'x'; 9 * 1024]))
        .await
        .unwrap_err();
    assert!(matches!(refused, StoreError::Full { .. }), "{refused:?}");
    let rooms = outbox.rooms().await?;
    assert_eq!(rooms.alerts.max_bytes, Some(16 << 10));
    assert!(rooms.alerts.bytes <= 16 << 10, "{rooms:?}");
    assert!(number > 1, "not one alert was stored");
    // The other store has room of its own.
    outbox.park(&letter("", b"x".to_vec())).await?;
    operator.end().await
}

#[tokio::test]
async fn s39_what_is_older_than_max_age_goes() -> Result<()> {
    let world = World::new().await?;
    let operator = world.operator().await?;
    let knobs = json!({"alerts": {"maxAge": "1s"}, "deadLetters": {"maxAge": "1s"}});
    world.create(with(world.spec(), knobs)).await?;
    let nats = world.connect().await?;
    streams_are(&world, &nats, "both streams", |_, _| Ok(())).await?;
    let outbox = JetStreamOutbox::new(nats.clone(), world.key());
    outbox.create_alert(&alert("A"), Lookup::No).await?;
    outbox.park(&letter("", b"x".to_vec())).await?;
    streams_are(&world, &nats, "both expire", |alerts, letters| {
        for state in [&alerts.state, &letters.state] {
            ensure!((state.last_seq, state.messages) == (1, 0), "{state:?}");
        }
        Ok(())
    })
    .await?;
    // With it goes its id.
    let again = outbox.create_alert(&alert("A"), Lookup::First).await?;
    assert_eq!(again, Stored::New(2));
    operator.end().await
}

/// The copies that the servers keep of a stream, leader included.
async fn copies(js: &jetstream::Context, stream: &str) -> Result<usize> {
    let stream = js.get_stream(stream).await?;
    let cluster = stream
        .cached_info()
        .cluster
        .as_ref()
        .context("no cluster")?;
    Ok(1 + cluster.replicas.len())
}

#[tokio::test]
async fn s39_streams_have_as_many_copies_as_replicas_or_the_profile_says() -> Result<()> {
    let cluster = NatsCluster::start().await?;
    let world = World::bare(ApiServer::shared().await?).await?;
    let nats = connect(cluster.urls().remove(0)).await?;
    let js = patient(nats.client().clone());
    let source = jetstream::stream::Config {
        name: operator_fixture::STREAM.to_owned(),
        subjects: vec!["events.>".to_owned()],
        ..Default::default()
    };
    js.create_stream(source).await?;
    world.create_rules("rules", RULE).await?;
    let operator = world.operator().await?;
    let urls = json!({"nats": {"urls": cluster.urls()}, "profile": "Development"});
    world.create(with(world.spec(), urls)).await?;
    let key = world.key();
    let have = async |wanted: usize| {
        eventually(SOON, &format!("{wanted} copies of both"), async || {
            for stream in [key.alerts_stream(), key.dead_letters_stream()] {
                let found = copies(&js, &stream).await?;
                ensure!(found == wanted, "{stream} has {found}");
            }
            Ok(())
        })
        .await
    };
    have(1).await?;
    let outbox = JetStreamOutbox::new(nats.clone(), key.clone());
    outbox.create_alert(&alert("A"), Lookup::No).await?;
    let change = async |spec: Value| {
        let patch = json!({ "spec": spec });
        world.merge::<DetectionPipeline>(NAME, patch).await
    };
    change(json!({"profile": "Production"})).await?;
    have(3).await?;
    change(json!({"alerts": {"replicas": 1}})).await?;
    have(1).await?;
    assert_eq!(outbox.rooms().await?.alerts.last, 1);
    operator.end().await
}

/// A server on which no profile asks for more than there is.
async fn world_with_room() -> Result<World> {
    let mut world = World::bare(ApiServer::shared().await?).await?;
    world.nats.configure(Settings {
        max_file_store: Some("1TB".to_owned()),
        ..Settings::default()
    });
    world.nats.restart().await?;
    world.create_source().await?;
    world.create_rules("rules", RULE).await?;
    Ok(world)
}

#[tokio::test]
async fn s39_streams_follow_the_profile_in_place_and_keep_what_they_hold() -> Result<()> {
    let world = world_with_room().await?;
    let operator = world.operator().await?;
    world.create(world.spec()).await?;
    let nats = world.connect().await?;
    let outbox = JetStreamOutbox::new(nats.clone(), world.key());
    streams_are(&world, &nats, "both streams", |_, _| Ok(())).await?;
    outbox.create_alert(&alert("A"), Lookup::No).await?;
    for profile in [
        Profile::HighThroughput,
        Profile::Development,
        Profile::Production,
    ] {
        let patch = json!({"spec": {"profile": profile}});
        world.merge::<DetectionPipeline>(NAME, patch).await?;
        let knobs = profile.knobs();
        let wanted = [
            (knobs.alerts_age.milliseconds(), knobs.alerts_bytes.bytes()),
            (
                knobs.dead_letters_age.milliseconds(),
                knobs.dead_letters_bytes.bytes(),
            ),
        ];
        streams_are(&world, &nats, &format!("{profile:?}"), |alerts, letters| {
            let found = [alerts, letters].map(|it| {
                let age = it.max_age().unwrap_or_default().as_millis();
                (
                    u64::try_from(age).unwrap_or(u64::MAX),
                    it.max_bytes().unwrap_or_default(),
                )
            });
            ensure!(found == wanted, "{found:?}");
            ensure!(alerts.state.messages == 1, "{:?}", alerts.state);
            Ok(())
        })
        .await?;
    }
    operator.end().await
}

const EVENT: &str = "{\"kind\":\"other\"}";

/// Never within a test.
const LONG: u64 = 3_600_000;

#[tokio::test]
async fn s39_a_batch_is_committed_once_it_has_as_many_events_as_commit_events() -> Result<()> {
    let mut rig = Rig::new().await?;
    rig.config.commit = CommitConfig {
        interval_ms: LONG,
        events: 10,
    };
    rig.publish_all(EVENT, 25).await?;
    let worker = rig.start();
    worker.applied(20).await?;
    // The other five wait for their fellows.
    rig.publish_all(EVENT, 4).await?;
    eventually(SOON, "all are delivered", async || {
        let (delivered, _) = rig.cursor().await?;
        ensure!(delivered == 29, "{delivered}");
        Ok(())
    })
    .await?;
    assert_eq!(worker.position(), 20);
    rig.publish_all(EVENT, 1).await?;
    worker.applied(30).await?;
    worker.drain().await
}

#[tokio::test]
async fn s39_a_batch_is_committed_once_it_is_as_old_as_commit_interval() -> Result<()> {
    const INTERVAL: Duration = Duration::from_secs(2);
    let mut rig = Rig::new().await?;
    rig.config.commit = CommitConfig {
        interval_ms: 2_000,
        events: 100_000,
    };
    let worker = rig.start();
    worker
        .until("it is ready", || {
            ensure!(worker.readiness.waiting().is_empty());
            Ok(())
        })
        .await?;
    let begun = Instant::now();
    rig.publish_all(EVENT, 25).await?;
    worker.applied(25).await?;
    let took = begun.elapsed();
    assert!(took >= INTERVAL, "{took:?}");
    worker.drain().await
}
