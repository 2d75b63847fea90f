//! What the worker makes of a redriven event: it is an event like any other.

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use jiff::Timestamp;
use lookback::nats::deadletters::{DeadLetterStore, LetterAsk, LetterError, LetterHead, Selector};
use lookback::nats::desired::DesiredStream;
use lookback::nats::entries::Cursor;
use lookback::nats::outbox::JetStreamOutbox;
use lookback::nats::streams;
use lookback::worker::ports::{AckToken, DeadLetter, Delivery, Outbox};
use lookback_protocol::deadletter::{PARKED, REDRIVEN, Reason};
use lookback_protocol::position::{Epoch, StreamSeq};
use uuid::Uuid;

use crate::nats_fixture::{STREAM, key};
use crate::worker_fixture::{Rig, SUBJECT};

fn ask(max_redrives: u32) -> LetterAsk {
    LetterAsk {
        by: "user/ann".to_owned(),
        reason: String::new(),
        op_id: Uuid::now_v7().to_string(),
        time: Timestamp::now(),
        max_redrives,
    }
}

async fn rig() -> Result<(Rig, DeadLetterStore)> {
    let rig = Rig::new().await?;
    streams::ensure_shared(&rig.nats, &DesiredStream::audit(1)).await?;
    let store = DeadLetterStore::new(rig.nats.clone(), rig.config.owner.clone());
    Ok((rig, store))
}

async fn parked(store: &DeadLetterStore) -> Result<LetterHead> {
    let all = Selector::default();
    let mut page = store
        .list(Some(PARKED), &all, Cursor::default(), 10)
        .await?;
    ensure!(page.items.len() == 1, "{:?}", page.items);
    page.items.pop().context("none is parked")
}

#[tokio::test]
async fn dlq_an_event_that_is_parked_again_is_a_new_letter_until_it_was_redriven_too_often()
-> Result<()> {
    let (rig, store) = rig().await?;
    rig.publish("no json").await?;
    let worker = rig.start();
    let mut before = None;
    for redrives in 0..2 {
        worker.applied(u64::from(redrives) + 1).await?;
        let letter = parked(&store).await?;
        assert_eq!(
            (letter.redrives, letter.reason),
            (redrives, Reason::NotJson)
        );
        assert_ne!(before, Some(letter.id.clone()));
        let redriven = store.redrive(&letter.id, &ask(2)).await?;
        assert_eq!(redriven.sequence, u64::from(redrives) + 2);
        before = Some(letter.id);
    }
    worker.applied(3).await?;
    let letter = parked(&store).await?;
    let error = store.redrive(&letter.id, &ask(2)).await.unwrap_err();
    assert!(
        matches!(error, LetterError::Loop { redrives: 2, .. }),
        "{error:?}"
    );
    assert_eq!(rig.last().await?, 3);
    let counts = store.counts().await?;
    assert_eq!((counts[PARKED], counts[REDRIVEN]), (1, 2));
    worker.drain().await
}

#[tokio::test]
async fn dlq_the_worker_applies_a_redriven_event() -> Result<()> {
    let (rig, store) = rig().await?;
    let letter = DeadLetter {
        id: "0-1-e590fdd3".to_owned(),
        reason: Reason::CrashLoop,
        error: "the worker died 3 times while it applied this event".to_owned(),
        stream: STREAM.to_owned(),
        delivery: Delivery {
            consumer_sequence: 1,
            sequence: StreamSeq(1),
            published: Timestamp::UNIX_EPOCH,
            subject: SUBJECT.to_owned(),
            headers: Bytes::new(),
            payload: r#"{"kind":"alarm"}"#.into(),
            pending: 0,
            ack: AckToken(String::new()),
        },
        attempts: 3,
        epoch: Epoch(1),
    };
    JetStreamOutbox::new(rig.nats.clone(), key())
        .park(&letter)
        .await?;
    let worker = rig.start();
    let redriven = store.redrive(&letter.id, &ask(1)).await?;
    worker.applied(redriven.sequence).await?;
    worker.drain().await?;
    assert_eq!(rig.alerts().await?, 1);
    Ok(())
}
