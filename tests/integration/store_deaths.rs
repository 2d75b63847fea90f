//! Who dies, or is held up, between two steps, and what others find then: no event is sent twice.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::future::try_join_all;
use lookback::nats::connect::Timeouts;
use lookback::nats::deadletters::{DeadLetterStore, LetterError};
use lookback::nats::entries::ReadError;
use lookback_dev::support::{TcpProxy, eventually};
use lookback_protocol::deadletter::{REDRIVEN, REDRIVING};

use crate::nats_fixture::{SOON, key};
use crate::store_fixture::{Copies, Servers, connect_with, owner};
use crate::store_letters::{Letters, SUBJECT, ask, id};

/// Longer than anybody trusts what they saw, of a stream that remembers message ids for less.
const HELD_UP: Duration = Duration::from_secs(2);

/// A way in that can be cut, for somebody who waits for answers longer than they are held up.
async fn patient(letters: &Letters) -> Result<(TcpProxy, DeadLetterStore)> {
    let Servers::One(server) = &letters.fixture.servers else {
        anyhow::bail!("there is more than one way to a cluster");
    };
    let proxy = TcpProxy::start(server.address()).await?;
    let timeouts = Timeouts {
        request: Duration::from_secs(60),
        ..Timeouts::default()
    };
    let nats = connect_with(vec![format!("nats://{}", proxy.address())], timeouts).await?;
    Ok((proxy, DeadLetterStore::new(nats, owner())))
}

async fn frozen(proxy: &TcpProxy) -> Result<()> {
    eventually(SOON, "it comes to where it is held up", async || {
        ensure!(proxy.is_frozen(), "it does not");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn t11_who_is_held_up_before_sending_does_not_send_what_another_has_sent() -> Result<()> {
    let letters = Letters::forgetful(Copies::One).await?;
    letters.park_all(1..2).await?;
    let (proxy, store) = patient(&letters).await?;
    proxy.freeze_at("Nats-Batch-Commit");
    let slow = tokio::spawn(async move { store.redrive(&id(1), &ask("slow")).await });
    frozen(&proxy).await?;
    // It takes the letter and reads it back, and then is held up while it is about to send.
    proxy.mute_at("last_by_subj");
    proxy.thaw();
    eventually(SOON, "the letter is taken", async || {
        ensure!(proxy.is_mute(), "it is not read back");
        Ok(())
    })
    .await?;
    let held_up = Instant::now();
    assert_eq!(letters.state(1).await?, REDRIVING);
    let redriven = letters.store.redrive(&id(1), &ask("ann")).await?;
    letters.forget_message_ids().await?;
    eventually(SOON, "it was held up for long", async || {
        ensure!(held_up.elapsed() > HELD_UP, "not yet");
        Ok(())
    })
    .await?;
    proxy.thaw();
    assert_eq!(slow.await??, redriven);
    assert_eq!(letters.sent_once(1).await?.sequence, redriven.sequence);
    assert_eq!(letters.acts().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn t11_who_is_held_up_while_looking_does_not_send_what_another_has_sent() -> Result<()> {
    let letters = Letters::forgetful(Copies::One).await?;
    letters.park_all(1..2).await?;
    letters.die_before(1, "Nats-Msg-Id: redrive-").await?;
    let js = &letters.fixture.js;
    js.publish(SUBJECT, "something to look at".into())
        .await?
        .await?;
    let (proxy, store) = patient(&letters).await?;
    proxy.freeze_at("next_by_subj");
    let slow = tokio::spawn(async move { store.redrive(&id(1), &ask("slow")).await });
    frozen(&proxy).await?;
    let redriven = letters.store.redrive(&id(1), &ask("ann")).await?;
    letters.forget_message_ids().await?;
    proxy.thaw();
    let error = slow.await?.unwrap_err();
    assert!(
        matches!(&error, LetterError::Conflict { state, .. } if state == REDRIVEN),
        "{error:?}"
    );
    assert_eq!(letters.sent_once(1).await?.sequence, redriven.sequence);
    Ok(())
}

#[tokio::test]
async fn t11_an_event_is_found_wherever_it_stands_among_many_of_its_subject() -> Result<()> {
    let letters = Letters::forgetful(Copies::One).await?;
    let js = &letters.fixture.js;
    let others = async |count: usize| {
        let publish = (0..count).map(async |_| js.publish(SUBJECT, "other".into()).await?.await);
        try_join_all(publish).await
    };
    for (number, (before, after)) in (1..).zip([(0, 700), (350, 350), (700, 0), (1, 63), (0, 0)]) {
        letters.park_all(number..number + 1).await?;
        // Sent between the others, by somebody who dies then.
        letters.die_before(number, "Nats-Msg-Id: redrive-").await?;
        others(before).await?;
        letters.die_before(number, "lookback.audit.").await?;
        others(after).await?;
        letters.forget_message_ids().await?;
        let redriven = letters.store.redrive(&id(number), &ask("ann")).await?;
        let sent = letters.sent_once(number).await?;
        assert_eq!(sent.sequence, redriven.sequence, "{before}, {after}");
    }
    Ok(())
}

#[tokio::test]
async fn dlq_a_letter_that_was_purged_is_not_there() -> Result<()> {
    let letters = Letters::r1().await?;
    letters.park_all(1..2).await?;
    letters.store.redrive(&id(1), &ask("ann")).await?;
    let stream = key().dead_letters_stream();
    let stream = letters.fixture.js.get_stream(&stream).await?;
    let done_with = key().dead_letter_subject(REDRIVEN, "*");
    stream.purge().filter(done_with).await?;
    for given in [id(1), id(1)[..8].to_owned()] {
        let error = letters.store.get(&given).await.unwrap_err();
        assert!(
            matches!(error, ReadError::NotFound { .. }),
            "{given}: {error:?}"
        );
    }
    Ok(())
}
