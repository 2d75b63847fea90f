//! Hearing of alerts: live, and by a subscription of one's own.

use anyhow::{Context, Result};
use lookback::nats::alerts::{Begin, Heard, Live, Subscription};
use lookback_protocol::workflow::To;

use crate::nats_fixture::{SOON, key};
use crate::store_fixture::{Copies, StoreFixture, ask, to};

async fn soon<T>(what: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(SOON, what)
        .await
        .context("nothing came")
}

#[tokio::test]
async fn s27_a_listener_hears_what_comes_into_its_state_and_that_it_was_cut_off() -> Result<()> {
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
async fn s27_a_subscription_misses_nothing_and_goes_on_where_it_was() -> Result<()> {
    for copies in [Copies::One, Copies::Three] {
        let fixture = StoreFixture::start(copies).await?;
        let ids = fixture.create(0..3).await?;
        let pipeline = key();
        let open = |states: &'static [&'static str], begin| {
            Subscription::open(&fixture.nats, &pipeline, "bot", states, begin)
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
        for id in &ids[1..] {
            let next = soon(bot.next()).await??;
            assert_eq!((&next.id, next.state.as_str()), (id, "triage"));
            bot.done(&next).await?;
        }
        let stream = fixture.js.get_stream(key().alerts_stream()).await?;
        let info = stream.consumer_info("lbsub_bot").await?;
        assert_eq!((info.num_pending, info.num_ack_pending), (0, 0));
    }
    Ok(())
}
