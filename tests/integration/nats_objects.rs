//! Streams and consumers kept as they must be, on a real server.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use async_nats::jetstream::consumer::FromConsumer;
use async_nats::jetstream::{consumer, stream};
use futures::future::try_join_all;
use lookback::nats::desired::{DesiredConsumer, DesiredStream};
use lookback::nats::ensure::{Deleted, Ensured, ObjectError};
use lookback::nats::log::JetStreamLog;
use lookback::nats::{consumers, streams};
use lookback_protocol::consumer::OWNER_KEY;
use lookback_protocol::names::PipelineKey;
use lookback_protocol::position::{Epoch, StreamSeq};

use crate::nats_fixture::{CONSUMER, Fixture, OWNER, STREAM, desired_consumer, key};

fn alerts() -> DesiredStream {
    DesiredStream::alerts(
        &key(),
        Some(1 << 24),
        Some(Duration::from_secs(30 * 86_400)),
        1,
        OWNER.to_owned(),
    )
}

#[tokio::test]
async fn a_missing_stream_is_created_and_then_left_alone() -> Result<()> {
    let fixture = Fixture::bare().await?;
    assert_eq!(
        streams::ensure(&fixture.nats, &alerts()).await?,
        Ensured::Created
    );
    assert_eq!(
        streams::ensure(&fixture.nats, &alerts()).await?,
        Ensured::Unchanged
    );
    Ok(())
}

#[tokio::test]
async fn the_state_bucket_is_created_as_every_kv_client_expects_it() -> Result<()> {
    let fixture = Fixture::bare().await?;
    let bucket = DesiredStream::state_bucket(1);
    assert_eq!(
        streams::ensure(&fixture.nats, &bucket).await?,
        Ensured::Created
    );
    assert_eq!(
        streams::ensure(&fixture.nats, &bucket).await?,
        Ensured::Unchanged
    );
    let kv = fixture.js.get_key_value("LOOKBACK_STATE").await?;
    kv.put("key", "value".into()).await?;
    assert_eq!(kv.get("key").await?, Some("value".into()));
    kv.purge("key").await?;
    assert_eq!(kv.get("key").await?, None);
    Ok(())
}

#[tokio::test]
async fn a_drifted_stream_is_repaired_in_place_and_keeps_its_messages() -> Result<()> {
    let fixture = Fixture::bare().await?;
    streams::ensure(&fixture.nats, &alerts()).await?;
    let subject = key().alert_subject("new", "A");
    fixture.js.publish(subject, "{}".into()).await?.await?;
    let mut config = fixture
        .js
        .get_stream(key().alerts_stream())
        .await?
        .cached_info()
        .config
        .clone();
    config.max_bytes = 1 << 20;
    config.discard = stream::DiscardPolicy::Old;
    config.metadata.insert("team".to_owned(), "blue".to_owned());
    fixture.js.update_stream(config).await?;
    let Ensured::Updated { fields } = streams::ensure(&fixture.nats, &alerts()).await? else {
        anyhow::bail!("it was not updated");
    };
    assert_eq!(fields, ["discard", "max_bytes"]);
    let observed = streams::read(&fixture.nats, &key().alerts_stream())
        .await?
        .unwrap();
    assert_eq!(observed.max_bytes(), Some(1 << 24));
    assert_eq!(observed.state.messages, 1);
    assert_eq!(observed.config["metadata"]["team"], "blue");
    Ok(())
}

#[tokio::test]
async fn a_stream_of_another_is_left_alone() -> Result<()> {
    let fixture = Fixture::bare().await?;
    let config = stream::Config {
        name: key().alerts_stream(),
        subjects: vec![key().alert_subjects()],
        ..Default::default()
    };
    fixture.js.create_stream(config).await?;
    let error = streams::ensure(&fixture.nats, &alerts()).await.unwrap_err();
    assert!(
        matches!(error, ObjectError::Foreign { owner: None, .. }),
        "{error:?}"
    );
    let error = streams::delete(&fixture.nats, &key().alerts_stream(), OWNER)
        .await
        .unwrap_err();
    assert!(matches!(error, ObjectError::Foreign { .. }), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn a_stream_in_memory_is_named_and_not_deleted() -> Result<()> {
    let fixture = Fixture::bare().await?;
    let config = stream::Config {
        name: key().alerts_stream(),
        subjects: vec![key().alert_subjects()],
        storage: stream::StorageType::Memory,
        metadata: alerts().metadata.into_iter().collect(),
        ..Default::default()
    };
    fixture.js.create_stream(config).await?;
    let error = streams::ensure(&fixture.nats, &alerts()).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "stream LB_prod_edr_ALERTS has storage \"memory\", \"file\" is needed and cannot be changed in place"
    );
    assert!(
        streams::read(&fixture.nats, &key().alerts_stream())
            .await?
            .is_some()
    );
    Ok(())
}

#[tokio::test]
async fn a_missing_stream_is_an_exact_answer() -> Result<()> {
    let fixture = Fixture::bare().await?;
    assert!(streams::read(&fixture.nats, "NOWHERE").await?.is_none());
    assert_eq!(
        streams::delete(&fixture.nats, "NOWHERE", OWNER).await?,
        Deleted::Absent
    );
    Ok(())
}

#[tokio::test]
async fn a_deleted_stream_of_ours_is_gone() -> Result<()> {
    let fixture = Fixture::bare().await?;
    streams::ensure(&fixture.nats, &alerts()).await?;
    let name = key().alerts_stream();
    assert_eq!(
        streams::delete(&fixture.nats, &name, OWNER).await?,
        Deleted::Now
    );
    assert!(streams::read(&fixture.nats, &name).await?.is_none());
    Ok(())
}

#[tokio::test]
async fn three_replicas_on_one_server_are_refused_by_name() -> Result<()> {
    let fixture = Fixture::bare().await?;
    let desired = DesiredStream {
        replicas: 3,
        ..alerts()
    };
    let error = streams::ensure(&fixture.nats, &desired).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot create stream LB_prod_edr_ALERTS");
    Ok(())
}

#[tokio::test]
async fn a_consumer_is_created_and_then_left_alone() -> Result<()> {
    let fixture = Fixture::bare().await?;
    fixture.create_events_stream().await?;
    let desired = desired_consumer();
    assert_eq!(
        consumers::ensure(&fixture.nats, &desired).await?,
        Ensured::Created
    );
    assert_eq!(
        consumers::ensure(&fixture.nats, &desired).await?,
        Ensured::Unchanged
    );
    let observed = consumers::read(&fixture.nats, STREAM, CONSUMER)
        .await?
        .unwrap();
    assert_eq!(observed.owner(), Some(OWNER));
    Ok(())
}

#[tokio::test]
async fn a_changed_filter_keeps_the_cursor() -> Result<()> {
    let fixture = Fixture::with_events(5).await?;
    let mut log = fixture.log();
    crate::nats_fixture::position(&mut log, 1).await?;
    for _ in 0..5 {
        crate::nats_fixture::delivery(&mut log).await?;
    }
    let mut desired = desired_consumer();
    desired.filter_subjects = vec!["ev.a".to_owned(), "ev.b".to_owned()];
    let fields = vec!["filter_subjects".to_owned()];
    assert_eq!(
        consumers::ensure(&fixture.nats, &desired).await?,
        Ensured::Updated { fields }
    );
    let observed = consumers::read(&fixture.nats, STREAM, CONSUMER)
        .await?
        .unwrap();
    assert_eq!(observed.facts().delivered, StreamSeq(5));
    Ok(())
}

#[tokio::test]
async fn a_filter_can_be_taken_away() -> Result<()> {
    let fixture = Fixture::with_events(0).await?;
    let mut desired = desired_consumer();
    desired.filter_subjects.clear();
    consumers::ensure(&fixture.nats, &desired).await?;
    assert_eq!(
        consumers::ensure(&fixture.nats, &desired).await?,
        Ensured::Unchanged
    );
    Ok(())
}

#[tokio::test]
async fn a_consumer_changed_by_hand_is_repaired_in_place() -> Result<()> {
    let fixture = Fixture::with_events(0).await?;
    let stream = fixture.js.get_stream(STREAM).await?;
    let mut config = stream.consumer_info(CONSUMER).await?.config;
    config.max_deliver = 3;
    config.ack_wait = Duration::from_secs(1);
    config.headers_only = true;
    stream
        .update_consumer(consumer::pull::Config::try_from_consumer_config(config).unwrap())
        .await?;
    let Ensured::Updated { fields } = consumers::ensure(&fixture.nats, &desired_consumer()).await?
    else {
        anyhow::bail!("it was not updated");
    };
    assert_eq!(fields, ["ack_wait", "headers_only", "max_deliver"]);
    Ok(())
}

#[tokio::test]
async fn a_consumer_that_cannot_be_reset_everywhere_is_named() -> Result<()> {
    let fixture = Fixture::bare().await?;
    fixture.create_events_stream().await?;
    let config = consumer::pull::Config {
        durable_name: Some(CONSUMER.to_owned()),
        deliver_policy: consumer::DeliverPolicy::New,
        ack_policy: consumer::AckPolicy::All,
        metadata: desired_consumer().metadata.into_iter().collect(),
        ..Default::default()
    };
    fixture.js.create_consumer_on_stream(config, STREAM).await?;
    let error = consumers::ensure(&fixture.nats, &desired_consumer())
        .await
        .unwrap_err();
    assert!(
        matches!(&error, ObjectError::Immutable { field, .. } if field == "deliver_policy"),
        "{error:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_consumer_of_another_cluster_is_left_alone() -> Result<()> {
    let fixture = Fixture::with_events(0).await?;
    let mut desired = desired_consumer();
    for owner in desired.metadata.values_mut() {
        *owner = "other/prod/edr".to_owned();
    }
    let error = consumers::ensure(&fixture.nats, &desired)
        .await
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "consumer lb_prod_edr_p0_e1 belongs to cluster/prod/edr, not to other/prod/edr; it is left alone"
    );
    Ok(())
}

const GONE: &str = "gone/prod/edr";

#[tokio::test]
async fn a_consumer_of_the_owner_to_adopt_becomes_ours_and_keeps_its_cursor() -> Result<()> {
    let fixture = Fixture::with_events(5).await?;
    let theirs = consumer_named("lb_prod_edr_p0_e2".to_owned(), GONE);
    consumers::ensure(&fixture.nats, &theirs).await?;
    let mut log = JetStreamLog::new(fixture.nats.clone(), STREAM, &theirs.name);
    crate::nats_fixture::position(&mut log, 3).await?;
    crate::nats_fixture::delivery(&mut log).await?;
    let facts = async || {
        let found = consumers::read(&fixture.nats, STREAM, &theirs.name).await?;
        let found = found.context("it is gone")?;
        anyhow::Ok((found.owner().map(str::to_owned), found.facts()))
    };
    let (_, before) = facts().await?;
    let ours = DesiredConsumer {
        adopt: Some(GONE.to_owned()),
        ..consumer_named(theirs.name.clone(), OWNER)
    };
    let from = GONE.to_owned();
    assert_eq!(
        consumers::ensure(&fixture.nats, &ours).await?,
        Ensured::Adopted { from }
    );
    assert_eq!(facts().await?, (Some(OWNER.to_owned()), before));
    assert_eq!(
        consumers::ensure(&fixture.nats, &ours).await?,
        Ensured::Unchanged
    );
    Ok(())
}

#[tokio::test]
async fn a_stream_of_the_owner_to_adopt_becomes_ours_with_its_messages() -> Result<()> {
    let fixture = Fixture::bare().await?;
    let mut theirs = alerts();
    theirs.metadata = BTreeMap::from([(OWNER_KEY.to_owned(), GONE.to_owned())]);
    streams::ensure(&fixture.nats, &theirs).await?;
    let subject = key().alert_subject("new", "A");
    fixture.js.publish(subject, "{}".into()).await?.await?;
    let ours = DesiredStream {
        adopt: Some(GONE.to_owned()),
        ..alerts()
    };
    let from = GONE.to_owned();
    assert_eq!(
        streams::ensure(&fixture.nats, &ours).await?,
        Ensured::Adopted { from }
    );
    let observed = streams::read(&fixture.nats, &ours.name).await?;
    let observed = observed.context("it is gone")?;
    assert_eq!(observed.owner(), Some(OWNER));
    assert_eq!(observed.state.messages, 1);
    Ok(())
}

#[tokio::test]
async fn nobody_else_is_adopted() -> Result<()> {
    let fixture = Fixture::bare().await?;
    fixture.create_events_stream().await?;
    let unowned = consumer::pull::Config {
        durable_name: Some("lb_prod_edr_p0_e3".to_owned()),
        ..Default::default()
    };
    fixture
        .js
        .create_consumer_on_stream(unowned, STREAM)
        .await?;
    let theirs = consumer_named("lb_prod_edr_p0_e2".to_owned(), "other/prod/edr");
    consumers::ensure(&fixture.nats, &theirs).await?;
    for name in ["lb_prod_edr_p0_e2", "lb_prod_edr_p0_e3"] {
        for adopt in [None, Some(GONE.to_owned())] {
            let ours = DesiredConsumer {
                adopt,
                ..consumer_named(name.to_owned(), OWNER)
            };
            let refused = consumers::ensure(&fixture.nats, &ours).await;
            assert!(
                matches!(refused, Err(ObjectError::Foreign { .. })),
                "{refused:?}"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_consumer_on_a_missing_stream_is_absent() -> Result<()> {
    let fixture = Fixture::bare().await?;
    assert!(
        consumers::read(&fixture.nats, "NOWHERE", CONSUMER)
            .await?
            .is_none()
    );
    let deleted = consumers::delete(&fixture.nats, "NOWHERE", CONSUMER, OWNER).await?;
    assert_eq!(deleted, Deleted::Absent);
    Ok(())
}

fn consumer_named(name: String, owner: &str) -> DesiredConsumer {
    DesiredConsumer {
        name,
        metadata: BTreeMap::from([(OWNER_KEY.to_owned(), owner.to_owned())]),
        ..desired_consumer()
    }
}

#[tokio::test]
async fn the_consumers_of_a_pipeline_are_listed_by_epoch_and_no_others() -> Result<()> {
    let fixture = Fixture::bare().await?;
    fixture.create_events_stream().await?;
    let other = PipelineKey::new("prod", "edr-p0").unwrap();
    let names = [
        key().consumer(0, Epoch(2)),
        key().consumer(0, Epoch(10)),
        key().consumer(1, Epoch(3)),
        other.consumer(0, Epoch(4)),
        "lb_prod_edr_p0_e5_e6".to_owned(),
    ];
    for name in names {
        consumers::ensure(&fixture.nats, &consumer_named(name, OWNER)).await?;
    }
    let foreign = consumer_named(key().consumer(0, Epoch(7)), "other/prod/edr");
    consumers::ensure(&fixture.nats, &foreign).await?;
    let listed = consumers::list(&fixture.nats, STREAM, &key(), 0).await?;
    let listed: Vec<_> = listed
        .iter()
        .map(|(epoch, consumer)| (epoch.0, consumer.owner()))
        .collect();
    let expected = [
        (2, Some(OWNER)),
        (7, Some("other/prod/edr")),
        (10, Some(OWNER)),
    ];
    assert_eq!(listed, expected);
    Ok(())
}

#[tokio::test]
async fn consumers_are_listed_beyond_the_first_page_of_names() -> Result<()> {
    let fixture = Fixture::bare().await?;
    let config = stream::Config {
        name: STREAM.to_owned(),
        subjects: vec!["ev.>".to_owned()],
        max_consumers: 2000,
        ..Default::default()
    };
    let stream = fixture.js.create_stream(config).await?;
    let others = (0..1100).map(|n| consumer::pull::Config {
        name: Some(format!("a{n:04}")),
        memory_storage: true,
        ..Default::default()
    });
    let created = others.map(|config| stream.create_consumer(config));
    try_join_all(created).await?;
    let last = consumer_named(key().consumer(0, Epoch(2)), OWNER);
    consumers::ensure(&fixture.nats, &last).await?;
    let listed = consumers::list(&fixture.nats, STREAM, &key(), 0).await?;
    assert_eq!(listed.into_keys().collect::<Vec<_>>(), [Epoch(2)]);
    Ok(())
}

#[tokio::test]
async fn a_missing_stream_has_no_consumers() -> Result<()> {
    let fixture = Fixture::bare().await?;
    let listed = consumers::list(&fixture.nats, "NOWHERE", &key(), 0).await?;
    assert!(listed.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_consumer_shows_what_waits_for_an_ack() -> Result<()> {
    let fixture = Fixture::with_events(5).await?;
    let mut log = fixture.log();
    crate::nats_fixture::position(&mut log, 3).await?;
    for _ in 0..3 {
        crate::nats_fixture::delivery(&mut log).await?;
    }
    let observed = consumers::read(&fixture.nats, STREAM, CONSUMER)
        .await?
        .unwrap();
    assert_eq!((observed.ack_pending(), observed.facts().pending), (3, 0));
    assert_eq!(observed.filters().collect::<Vec<_>>(), ["ev.>"]);
    Ok(())
}

#[tokio::test]
async fn the_consumer_of_one_epoch_is_deleted_once_and_only_by_its_owner() -> Result<()> {
    let fixture = Fixture::with_events(0).await?;
    let next = consumer_named(key().consumer(0, Epoch(2)), OWNER);
    consumers::ensure(&fixture.nats, &next).await?;
    let foreign = consumers::delete(&fixture.nats, STREAM, CONSUMER, "other/prod/edr").await;
    assert!(
        matches!(foreign, Err(ObjectError::Foreign { .. })),
        "{foreign:?}"
    );
    for expected in [Deleted::Now, Deleted::Absent] {
        let deleted = consumers::delete(&fixture.nats, STREAM, CONSUMER, OWNER).await?;
        assert_eq!(deleted, expected);
    }
    let listed = consumers::list(&fixture.nats, STREAM, &key(), 0).await?;
    assert_eq!(listed.into_keys().collect::<Vec<_>>(), [Epoch(2)]);
    Ok(())
}

#[tokio::test]
async fn a_source_stream_shows_its_retention_and_bounds() -> Result<()> {
    let fixture = Fixture::with_events(3).await?;
    let observed = streams::read(&fixture.nats, STREAM).await?.unwrap();
    assert_eq!(observed.retention(), "limits");
    assert_eq!(observed.subjects().collect::<Vec<_>>(), ["ev.>"]);
    let facts = observed.facts(STREAM);
    assert_eq!((facts.first, facts.last), (StreamSeq(1), StreamSeq(3)));
    assert_eq!(observed.max_age(), None);
    Ok(())
}
