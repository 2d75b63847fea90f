//! Alerts at their limits, in their second life, and in a stream that somebody changed by hand.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream;
use lookback::nats::alerts::{AlertStore, StepError};
use lookback::nats::desired::DesiredStream;
use lookback::nats::outbox::JetStreamOutbox;
use lookback::nats::streams;
use lookback_dev::support::{NatsServer, Settings};
use lookback_protocol::alert::{ARCHIVED, MAX_HISTORY, NEW};
use lookback_protocol::workflow::{
    MAX_METADATA, MAX_METADATA_KEY, MAX_METADATA_VALUE, MAX_REASON, To,
};
use serde_json::{Value, json};

use crate::nats_fixture::key;
use crate::store_fixture::{
    Servers, StoreFixture, ask, connect, observed, owner, raw, standing, to,
};

/// More steps than a record has room for.
async fn many_steps(fixture: &StoreFixture, id: &str) -> Result<()> {
    for n in 0..MAX_HISTORY + 3 {
        let step = to(["triage", "closed"][n % 2]);
        let taken = fixture.alerts.step(id, None, &step).await;
        taken.with_context(|| format!("step {n}"))?;
    }
    Ok(())
}

#[tokio::test]
async fn an_alert_that_was_purged_and_found_again_can_be_moved_as_often_as_before() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let id = fixture.one().await?.id;
    many_steps(&fixture, &id).await?;
    let stream = fixture.js.get_stream(key().alerts_stream()).await?;
    stream.purge().await?;
    assert_eq!(fixture.one().await?.id, id);
    many_steps(&fixture, &id).await?;
    let mut done = to(ARCHIVED);
    done.reason = "done with".to_owned();
    fixture.alerts.step(&id, None, &done).await?;
    Ok(())
}

#[tokio::test]
async fn an_alert_with_as_much_as_it_may_hold_can_be_moved_and_archived() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let id = fixture.one().await?.id;
    let metadata: BTreeMap<_, _> = (0..MAX_METADATA - 1)
        .map(|n| {
            let key = format!("{n:0>MAX_METADATA_KEY$}");
            (key, Some("\"".repeat(MAX_METADATA_VALUE)))
        })
        .collect();
    for n in 0..MAX_HISTORY + 3 {
        let mut step = ask(To::State(["triage", "closed"][n % 2].to_owned()));
        step.reason = "\u{1f980}".repeat(MAX_REASON);
        step.metadata.clone_from(&metadata);
        fixture.alerts.step(&id, None, &step).await?;
    }
    let mut done = to(ARCHIVED);
    done.reason = "\u{1f980}".repeat(MAX_REASON);
    fixture.alerts.step(&id, None, &done).await?;
    let archived = fixture.alerts.archived(&id).await?;
    assert_eq!(archived.metadata.len(), MAX_METADATA);
    assert_eq!(archived.history.len(), MAX_HISTORY);
    Ok(())
}

/// Changes the stream of alerts as somebody may who does not know what it is for.
async fn by_hand(fixture: &StoreFixture, change: &Value) -> Result<()> {
    let name = key().alerts_stream();
    let mut config = Value::Object(observed(&fixture.nats, &name).await?.config);
    for (field, value) in change.as_object().context("fields")? {
        config[field] = value.clone();
    }
    let answer: Value = fixture
        .js
        .request(format!("STREAM.UPDATE.{name}"), &config)
        .await?;
    ensure!(answer["error"].is_null(), "{answer}");
    Ok(())
}

#[tokio::test]
async fn without_batches_an_alert_stays_where_it_is_until_the_stream_takes_them_again() -> Result<()>
{
    let fixture = StoreFixture::r1().await?;
    let seen = fixture.one().await?;
    by_hand(&fixture, &json!({"allow_atomic": false})).await?;
    let error = fixture.alerts.step(&seen.id, None, &to("triage")).await;
    let error = error.unwrap_err();
    assert!(matches!(error, StepError::NotWritten { .. }), "{error:?}");
    let words = format!("{:#}", anyhow::Error::from(error));
    assert!(words.contains("atomic publish is disabled"), "{words}");
    assert_eq!(fixture.alerts.get(&seen.id).await?, seen);
    assert_eq!(fixture.alerts_stream().await?.state.messages, 1);
    let desired = DesiredStream::alerts(&key(), None, None, 1, owner().to_string());
    streams::ensure(&fixture.nats, &desired).await?;
    fixture.alerts.step(&seen.id, None, &to("triage")).await?;
    Ok(())
}

#[tokio::test]
async fn without_direct_gets_a_list_fails_and_an_alert_is_still_found_and_moved() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let id = fixture.one().await?.id;
    by_hand(&fixture, &json!({"allow_direct": false})).await?;
    let listed = fixture.listed(Some(NEW), 10).await;
    let words = format!("{:#}", listed.unwrap_err());
    assert!(words.contains("its allow_direct is off"), "{words}");
    fixture.alerts.step(&id, None, &to("triage")).await?;
    assert_eq!(fixture.alerts.get(&id).await?.state, "triage");
    Ok(())
}

/// A pipeline whose account may hold no more than so many bytes; its streams have no limit of their own.
async fn in_an_account_with(bytes: u64) -> Result<StoreFixture> {
    let extra = format!(
        "accounts {{ A: {{ jetstream: {{ max_file: {bytes} }}, users: [{{ user: a, password: a }}] }} }}\n\
         no_auth_user: a\n"
    );
    let settings = Settings {
        extra,
        ..Settings::default()
    };
    let server = NatsServer::start_with(settings).await?;
    let nats = connect(vec![server.url()]).await?;
    let alerts = DesiredStream::alerts(&key(), None, None, 1, owner().to_string());
    let (bucket, audit) = (DesiredStream::state_bucket(1), DesiredStream::audit(1));
    for stream in [alerts, bucket, audit] {
        streams::ensure(&nats, &stream).await?;
    }
    Ok(StoreFixture {
        js: jetstream::new(nats.client().clone()),
        outbox: JetStreamOutbox::new(nats.clone(), key()),
        alerts: AlertStore::new(nats.clone(), owner()),
        nats,
        servers: Servers::One(Box::new(server)),
    })
}

#[tokio::test]
async fn in_an_account_without_room_an_alert_stands_whole_where_it_was_or_where_it_went()
-> Result<()> {
    let fixture = in_an_account_with(60_000).await?;
    let mut ids = Vec::new();
    for n in 1..20 {
        ids.extend(fixture.create(n..n + 1).await?);
    }
    let mut refused = 0;
    for n in 0..10 {
        for id in &ids {
            let before = fixture.alerts.get(id).await?;
            let step = to(["triage", "closed"][n % 2]);
            let Err(error) = fixture.alerts.step(id, None, &step).await else {
                continue;
            };
            let now = fixture.alerts.get(id).await?;
            match &error {
                StepError::AuditAfter { .. } => assert_ne!(now, before, "{error:?}"),
                StepError::Full { .. } => {
                    refused += 1;
                    assert_eq!(now, before, "{error:?}");
                }
                // The server keeps a batch without room open for some seconds, and not many of them.
                StepError::NotWritten { .. } => assert_eq!(now, before, "{error:?}"),
                StepError::Refused { .. } => {}
                _ => anyhow::bail!("{error:?}"),
            }
        }
    }
    assert!(refused > 0, "there was room for all");
    let messages = raw(&fixture.js, &key().alerts_stream()).await?;
    assert_eq!(standing(&messages)?.len(), ids.len());
    Ok(())
}
