//! Redrives into source streams that do not take the event: it stays, and can be let go.

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::stream::{Config, DiscardPolicy, Source};
use lookback::nats::deadletters::LetterError;
use lookback_protocol::deadletter::{DISCARDED, PARKED, REDRIVING};

use crate::nats_fixture::STREAM;
use crate::store_fixture::Copies;
use crate::store_letters::{Letters, SUBJECT, ask, id, letter, source};

/// Redrives a letter into the source stream, which says `refusal`, and lets it go then.
async fn is_refused(letters: &Letters, refusal: &str) -> Result<()> {
    letters.park_all(1..2).await?;
    let redriven = letters.store.redrive(&id(1), &ask("ann")).await;
    let error = redriven.err().context("it was sent")?;
    ensure!(matches!(error, LetterError::Send { .. }), "{error:?}");
    let words = format!("{:#}", anyhow::Error::from(error));
    assert!(words.contains(refusal), "{words}");
    assert_eq!(letters.state(1).await?, REDRIVING);
    assert!(letters.sent().await?.is_empty());
    letters.store.discard(&id(1), &ask("ann")).await?;
    assert_eq!(letters.state(1).await?, DISCARDED);
    Ok(())
}

#[tokio::test]
async fn dlq_a_mirror_takes_no_event_and_its_origin_does_not_either() -> Result<()> {
    let letters = Letters::r1().await?;
    let js = &letters.fixture.js;
    js.delete_stream(STREAM).await?;
    let origin = Config {
        name: "ORIGIN".to_owned(),
        ..source(Copies::One)
    };
    let mut origin = js.create_stream(origin).await?;
    let mirror = Config {
        mirror: Some(Source {
            name: "ORIGIN".to_owned(),
            ..Source::default()
        }),
        subjects: Vec::new(),
        ..source(Copies::One)
    };
    js.create_stream(mirror).await?;
    is_refused(&letters, "expected stream does not match (10060)").await?;
    assert_eq!(origin.info().await?.state.messages, 0);
    Ok(())
}

#[tokio::test]
async fn dlq_a_sealed_stream_takes_no_event() -> Result<()> {
    let letters = Letters::r1().await?;
    let sealed = Config {
        sealed: true,
        ..source(Copies::One)
    };
    letters.fixture.js.update_stream(&sealed).await?;
    is_refused(&letters, "sealed stream").await
}

#[tokio::test]
async fn dlq_a_stream_that_has_one_of_the_subject_already_takes_no_event() -> Result<()> {
    let letters = Letters::r1().await?;
    let js = &letters.fixture.js;
    let once = Config {
        max_messages_per_subject: 1,
        discard: DiscardPolicy::New,
        discard_new_per_subject: true,
        ..source(Copies::One)
    };
    js.update_stream(&once).await?;
    js.publish(SUBJECT, "first".into()).await?.await?;
    is_refused(&letters, "maximum messages per subject exceeded").await
}

/// To a server only the ASCII space ends a subject.
#[tokio::test]
async fn dlq_an_event_whose_subject_ends_in_a_space_is_not_sent_to_another_subject() -> Result<()> {
    let letters = Letters::r1().await?;
    let mut odd = letter(1, "", "x");
    odd.delivery.subject = format!("{SUBJECT}\u{a0}");
    letters.park(&odd).await?;
    let error = letters.store.redrive(&id(1), &ask("ann")).await;
    let error = error.unwrap_err();
    assert!(
        matches!(error, LetterError::NotResendable { .. }),
        "{error:?}"
    );
    assert_eq!(letters.state(1).await?, PARKED);
    assert!(letters.sent().await?.is_empty());
    Ok(())
}
