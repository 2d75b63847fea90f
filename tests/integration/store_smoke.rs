//! Following alerts, and what the store costs.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use async_nats::HeaderMap;
use lookback::nats::alerts::{Begin, Heard, Live, StepError, Subscription};
use lookback::nats::entries::Cursor;
use lookback_protocol::workflow::To;
use serde_json::json;

use crate::nats_fixture::{SOON, key};
use crate::store_fixture::{Copies, StoreFixture, ask, to};

async fn soon<T>(what: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(SOON, what)
        .await
        .context("nothing came")
}

#[tokio::test]
async fn smoke_live_hears_what_comes_into_a_state_and_of_cuts() -> Result<()> {
    for copies in [Copies::One, Copies::Three] {
        let fixture = StoreFixture::start(copies).await?;
        let mut any = Live::open(&fixture.nats, &key(), None).await?;
        let mut triage = Live::open(&fixture.nats, &key(), Some("triage")).await?;
        let seen = fixture.one().await?;
        let stepped = fixture.alerts.step(&seen.id, None, &to("triage")).await?;
        let archive = fixture
            .alerts
            .step(&seen.id, None, &ask(To::Archive))
            .await?;
        for expected in [&seen, &stepped.alert, &archive.alert] {
            let heard = soon(any.next()).await?.context("closed")??;
            assert_eq!(heard, Heard::Alert(Box::new(expected.clone())));
        }
        let heard = soon(triage.next()).await?.context("closed")??;
        assert_eq!(heard, Heard::Alert(Box::new(stepped.alert.clone())));
        fixture.nats.client().force_reconnect().await?;
        let heard = soon(any.next()).await?.context("closed")??;
        assert_eq!(heard, Heard::Interrupted);
    }
    Ok(())
}

#[tokio::test]
async fn smoke_a_subscription_misses_nothing_and_goes_on_where_it_was() -> Result<()> {
    for copies in [Copies::One, Copies::Three] {
        let fixture = StoreFixture::start(copies).await?;
        let ids = fixture.create(0..3).await?;
        let open = |states: &'static [&'static str], begin| {
            Subscription::open(
                &fixture.nats,
                &crate::store_smoke::KEY,
                "bot",
                states,
                begin,
            )
        };
        let mut bot = open(&["new"], Begin::All).await?;
        let first = soon(bot.next()).await??;
        assert_eq!(first.id, ids[0]);
        bot.done(&first).await?;
        assert!(bot.done(&first).await.is_err());
        fixture.alerts.step(&ids[1], None, &to("triage")).await?;
        drop(bot);
        let mut bot = open(&["new"], Begin::New).await?;
        let second = soon(bot.next()).await??;
        assert_eq!(second.id, ids[2]);
        bot.done(&second).await?;
        let mut bot = open(&["triage", "new"], Begin::All).await?;
        fixture.alerts.step(&ids[2], None, &to("triage")).await?;
        let third = soon(bot.next()).await??;
        assert_eq!(
            (third.id.as_str(), third.state.as_str()),
            (ids[2].as_str(), "triage")
        );
        bot.done(&third).await?;
        let consumer = fixture.js.get_stream(key().alerts_stream()).await?;
        let info = consumer.consumer_info("lbsub_bot").await?;
        assert_eq!((info.num_pending, info.num_ack_pending), (0, 0));
    }
    Ok(())
}

static KEY: std::sync::LazyLock<lookback_protocol::names::PipelineKey> =
    std::sync::LazyLock::new(key);

async fn p50<F: Future<Output = Result<()>>>(
    n: usize,
    mut f: impl FnMut(usize) -> F,
) -> Result<(f64, f64)> {
    let mut took = Vec::new();
    for i in 0..n {
        let t = Instant::now();
        f(i).await?;
        took.push(t.elapsed());
    }
    took.sort();
    let ms = |d: Duration| d.as_secs_f64() * 1e3;
    Ok((ms(took[n / 2]), ms(took[n * 99 / 100])))
}

async fn measure(copies: Copies, count: u64) -> Result<()> {
    let fixture = StoreFixture::start(copies).await?;
    let ids = fixture.create(0..count).await?;
    let js = &fixture.js;
    let client = fixture.nats.client();
    js.create_stream(async_nats::jetstream::stream::Config {
        name: "RAW".to_owned(),
        subjects: vec!["raw.>".to_owned()],
        num_replicas: if copies == Copies::One { 1 } else { 3 },
        allow_atomic_publish: true,
        ..Default::default()
    })
    .await?;
    let body: bytes::Bytes = vec![b'x'; 1100].into();
    let raw = p50(300, |i| {
        let body = body.clone();
        async move {
            js.publish(format!("raw.{i}"), body).await?.await?;
            Ok(())
        }
    })
    .await?;
    let batch = p50(200, |i| {
        let body = body.clone();
        async move {
            let part = |n: &str, last: bool| {
                let mut h = HeaderMap::new();
                h.insert("Nats-Batch-Id", format!("b{i}"));
                h.insert("Nats-Batch-Sequence", n);
                if last {
                    h.insert("Nats-Batch-Commit", "1");
                }
                h
            };
            let (a, b, c) = futures::join!(
                client.request_with_headers(format!("raw.b1.{i}"), part("1", false), "".into()),
                client.request_with_headers(format!("raw.b2.{i}"), part("2", false), "".into()),
                client.request_with_headers(format!("raw.b3.{i}"), part("3", true), body)
            );
            a?;
            b?;
            c?;
            Ok(())
        }
    })
    .await?;
    let stream = key().alerts_stream();
    let (stream, ids, alerts) = (&stream, &ids, &fixture.alerts);
    let raw_get = p50(300, |i| async move {
        let by = json!({"last_by_subj": key().alert_subject("new", &ids[i])});
        client
            .request(
                format!("$JS.API.STREAM.MSG.GET.{stream}"),
                by.to_string().into(),
            )
            .await?;
        Ok(())
    })
    .await?;
    let get = p50(300, |i| async move {
        alerts.get(&ids[i]).await.map(drop).map_err(Into::into)
    })
    .await?;
    let step = p50(200, |i| async move {
        alerts
            .step(&ids[i], None, &to("triage"))
            .await
            .map(drop)
            .map_err(|e: StepError| e.into())
    })
    .await?;
    let update = p50(100, |i| async move {
        alerts
            .step(&ids[i], None, &ask(To::Stay))
            .await
            .map(drop)
            .map_err(Into::into)
    })
    .await?;
    for id in &ids[..20] {
        alerts.step(id, None, &to("escalated")).await?;
    }
    let page_new = p50(10, |_| async move {
        alerts
            .list(Some("new"), Cursor::default(), 1000)
            .await
            .map(drop)
            .map_err(Into::into)
    })
    .await?;
    let page_few = p50(20, |_| async move {
        alerts
            .list(Some("escalated"), Cursor::default(), 1000)
            .await
            .map(drop)
            .map_err(Into::into)
    })
    .await?;
    let page_all = p50(10, |_| async move {
        alerts
            .list(None, Cursor::default(), 50)
            .await
            .map(drop)
            .map_err(Into::into)
    })
    .await?;
    let counts = p50(10, |_| async move {
        alerts.counts().await.map(drop).map_err(Into::into)
    })
    .await?;
    let find = p50(5, |i| async move {
        alerts
            .find(&ids[i][..10])
            .await
            .map(drop)
            .map_err(Into::into)
    })
    .await?;
    eprintln!(
        "{copies:?} {count}: raw publish {raw:?}, raw batch of 3 {batch:?}, raw get {raw_get:?}\n  get {get:?} = {:.1}x; step {step:?} = {:.1}x publish, {:.1}x batch; update {update:?} = {:.1}x\n  page(new,1000) {page_new:?}, page(escalated) {page_few:?}, page(all,50) {page_all:?}, counts {counts:?}, find {find:?}",
        get.0 / raw_get.0,
        step.0 / raw.0,
        step.0 / batch.0,
        update.0 / raw.0
    );
    Ok(())
}

#[tokio::test]
async fn measure_r1() -> Result<()> {
    measure(Copies::One, 1_000).await?;
    measure(Copies::One, 20_000).await
}

#[tokio::test]
async fn measure_r3() -> Result<()> {
    measure(Copies::Three, 1_000).await
}
