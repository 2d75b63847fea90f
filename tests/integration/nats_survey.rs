//! What a replay is planned from, read off real streams.

use std::collections::BTreeMap;
use std::convert::Infallible;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::{self, stream};
use jiff::Timestamp;
use lookback::nats::api::Code;
use lookback::nats::consumers;
use lookback::nats::survey::{Message, Survey, SurveyError};
use lookback_dev::support::{NatsCluster, TcpProxy, eventually, patient};
use lookback_protocol::position::StreamSeq;

use crate::nats_fixture::{CONSUMER, Fixture, SOON, STREAM, connect};

/// A filter, and which subjects of the stream are under it.
type Case = (&'static [&'static str], fn(&str) -> bool);

const CASES: [Case; 4] = [
    (&[], |_| true),
    (&["ev.b"], |subject| subject == "ev.b"),
    (&["ev.b", "ev.c.>"], |subject| subject != "ev.a"),
    (&["ev.*"], |subject| subject != "ev.c.d"),
];
/// Forty of these fill several blocks of a store of [`MAX_BYTES`].
const BODY: usize = 2560;
const MAX_BYTES: i64 = 124_000;
const SUBJECTS: [&str; 4] = ["ev.a", "ev.b", "ev.c.d", "ev.a"];

fn survey(fixture: &Fixture, filters: &[&str]) -> Survey {
    let filters: Vec<_> = filters.iter().map(|&filter| filter.to_owned()).collect();
    Survey::new(fixture.nats.clone(), STREAM, &filters)
}

async fn publish(fixture: &Fixture, events: usize) -> Result<()> {
    for n in 0..events {
        let subject = SUBJECTS[n % SUBJECTS.len()];
        let body = vec![b'.'; BODY].into();
        fixture.js.publish(subject, body).await?.await?;
    }
    Ok(())
}

async fn publish_for_ever(js: jetstream::Context) -> Result<Infallible> {
    loop {
        js.publish("ev.a", "{}".into()).await?.await?;
    }
}

async fn delete(fixture: &Fixture, sequences: impl IntoIterator<Item = u64>) -> Result<()> {
    let stream = fixture.js.get_stream(STREAM).await?;
    for sequence in sequences {
        stream.delete_message(sequence).await?;
    }
    Ok(())
}

/// 40 events of three subjects in turn, of which these are deleted: the first two, some single ones, a
/// run, and the last two.
async fn with_holes() -> Result<Fixture> {
    let fixture = Fixture::bare().await?;
    let config = stream::Config {
        name: STREAM.to_owned(),
        subjects: vec!["ev.>".to_owned()],
        max_bytes: MAX_BYTES,
        ..Default::default()
    };
    fixture.js.create_stream(config).await?;
    publish(&fixture, 40).await?;
    delete(&fixture, [1, 2, 5, 9, 13, 20, 21, 22, 23, 24, 39, 40]).await?;
    Ok(fixture)
}

/// What the stream holds, message by message.
/// What the stream holds: subject and time by sequence.
type Held = BTreeMap<u64, (String, Timestamp)>;

async fn held(fixture: &Fixture) -> Result<Held> {
    let stream = fixture.js.get_stream(STREAM).await?;
    let mut held = BTreeMap::new();
    for sequence in 1..=stream.cached_info().state.last_sequence {
        if let Ok(message) = stream.get_raw_message(sequence).await {
            let time = Timestamp::from_nanosecond(message.time.unix_timestamp_nanos())?;
            held.insert(sequence, (message.subject.to_string(), time));
        }
    }
    Ok(held)
}

/// The sequences under a filter.
fn under(held: &Held, is_under: fn(&str) -> bool) -> Vec<u64> {
    let found = held.iter().filter(|(_, (subject, _))| is_under(subject));
    found.map(|(sequence, _)| *sequence).collect()
}

fn message(sequence: u64, held: &Held) -> Message {
    Message {
        sequence: StreamSeq(sequence),
        published: held[&sequence].1,
    }
}

async fn consumers_of(fixture: &Fixture) -> Result<usize> {
    let info = fixture.js.get_stream(STREAM).await?;
    Ok(info.cached_info().state.consumer_count)
}

#[tokio::test]
async fn every_time_leads_to_the_first_message_at_or_after_it() -> Result<()> {
    let fixture = with_holes().await?;
    let survey = survey(&fixture, &["ev.b"]);
    let held = held(&fixture).await?;
    let nanosecond = jiff::SignedDuration::from_nanos(1);
    for (_, time) in held.values() {
        for time in [*time, *time + nanosecond, *time - nanosecond] {
            let expected = held.iter().find(|(_, (_, stored))| *stored >= time);
            let expected = expected.map(|(sequence, _)| message(*sequence, &held));
            assert_eq!(survey.at_or_after(time).await?, expected, "{time}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_time_among_deleted_messages_leads_past_them() -> Result<()> {
    let fixture = Fixture::with_events(5).await?;
    let before = held(&fixture).await?;
    let survey = survey(&fixture, &[]);
    delete(&fixture, [3, 4]).await?;
    let time = before[&3].1;
    assert_eq!(survey.at_or_after(time).await?, Some(message(5, &before)));
    delete(&fixture, [5]).await?;
    assert_eq!(survey.at_or_after(time).await?, None);
    Ok(())
}

#[tokio::test]
async fn next_and_last_under_a_filter_are_those_of_the_stream() -> Result<()> {
    let fixture = with_holes().await?;
    let held = held(&fixture).await?;
    for (filters, is_under) in CASES {
        let survey = survey(&fixture, filters);
        let under = under(&held, is_under);
        for from in 0..=42 {
            let expected = under.iter().find(|&&sequence| sequence >= from);
            let expected = expected.map(|&sequence| message(sequence, &held));
            let found = survey.next_under_filter(StreamSeq(from)).await?;
            assert_eq!(found, expected, "{filters:?} from {from}");
        }
        let expected = under.last().map(|&sequence| message(sequence, &held));
        assert_eq!(survey.last_under_filter().await?, expected, "{filters:?}");
    }
    let none = survey(&fixture, &["ev.none"]);
    assert_eq!(none.next_under_filter(StreamSeq(1)).await?, None);
    assert_eq!(none.last_under_filter().await?, None);
    Ok(())
}

#[tokio::test]
async fn the_last_message_is_found_behind_deleted_ones_of_a_short_subject_too() -> Result<()> {
    let fixture = Fixture::bare().await?;
    let config = stream::Config {
        name: STREAM.to_owned(),
        subjects: vec!["one".to_owned()],
        ..Default::default()
    };
    fixture.js.create_stream(config).await?;
    for _ in 0..3 {
        fixture.js.publish("one", "{}".into()).await?.await?;
    }
    delete(&fixture, [2, 3]).await?;
    for filters in [&[][..], &["one"], &["*"]] {
        let last = survey(&fixture, filters).last_under_filter().await?;
        assert_eq!(last.context("none")?.sequence, StreamSeq(1), "{filters:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_message_that_was_deleted_is_none() -> Result<()> {
    let fixture = with_holes().await?;
    let survey = survey(&fixture, &["ev.b"]);
    let held = held(&fixture).await?;
    assert_eq!(survey.message_at(StreamSeq(9)).await?, None);
    assert_eq!(survey.message_at(StreamSeq(41)).await?, None);
    let found = survey.message_at(StreamSeq(4)).await?;
    assert_eq!(found, Some(message(4, &held)));
    Ok(())
}

#[tokio::test]
async fn the_extent_is_that_of_the_messages_there_are() -> Result<()> {
    let fixture = with_holes().await?;
    let held = held(&fixture).await?;
    let extent = survey(&fixture, &["ev.b"])
        .extent()
        .await?
        .context("it is not empty")?;
    assert_eq!(extent.first, message(3, &held));
    assert_eq!(extent.last, message(38, &held));
    assert_eq!(extent.messages, 28);
    let bytes = BODY as u64..BODY as u64 + 100;
    assert!(bytes.contains(&extent.average_bytes()), "{extent:?}");
    Ok(())
}

#[tokio::test]
async fn an_empty_stream_has_no_extent_and_nothing_under_any_filter() -> Result<()> {
    let fixture = Fixture::with_events(2).await?;
    fixture.js.get_stream(STREAM).await?.purge().await?;
    let survey = survey(&fixture, &[]);
    assert_eq!(survey.extent().await?, None);
    assert_eq!(survey.last_under_filter().await?, None);
    assert_eq!(survey.next_under_filter(StreamSeq(1)).await?, None);
    assert_eq!(survey.at_or_after(Timestamp::UNIX_EPOCH).await?, None);
    Ok(())
}

#[tokio::test]
async fn a_count_is_exact_for_every_range_under_every_filter() -> Result<()> {
    let fixture = with_holes().await?;
    let held = held(&fixture).await?;
    for (filters, is_under) in CASES {
        let survey = survey(&fixture, filters);
        let under = under(&held, is_under);
        let ends = [under[0], under[under.len() / 2], under[under.len() - 1]];
        for through in ends {
            for from in [0, 1, 3, 5, 9, 10, 20, 22, 25, 38, 39, 41] {
                let expected = under
                    .iter()
                    .filter(|&&sequence| (from..=through).contains(&sequence))
                    .count();
                let counted = survey.count(StreamSeq(from), StreamSeq(through)).await?;
                assert_eq!(
                    counted, expected as u64,
                    "{filters:?} {from} through {through}"
                );
            }
        }
    }
    assert_eq!(consumers_of(&fixture).await?, 0);
    Ok(())
}

#[tokio::test]
async fn messages_that_arrive_meanwhile_do_not_count() -> Result<()> {
    let fixture = Fixture::with_events(1000).await?;
    let survey = survey(&fixture, &["ev.a"]);
    let publishing = tokio::spawn(publish_for_ever(fixture.js.clone()));
    for _ in 0..20 {
        let counted = survey.count(StreamSeq(11), StreamSeq(1000)).await?;
        assert!((990..1040).contains(&counted), "{counted}");
    }
    ensure!(!publishing.is_finished(), "nothing was published meanwhile");
    publishing.abort();
    Ok(())
}

#[tokio::test]
async fn the_end_of_a_range_must_be_there() -> Result<()> {
    let fixture = Fixture::with_events(5).await?;
    let survey = survey(&fixture, &[]);
    let counted = survey.count(StreamSeq(1), StreamSeq(6)).await;
    assert!(
        matches!(counted, Err(SurveyError::Behind { .. })),
        "{counted:?}"
    );
    assert_eq!(survey.count(StreamSeq(6), StreamSeq(5)).await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_survey_moves_no_cursor_and_takes_nothing() -> Result<()> {
    let fixture = Fixture::with_events(10).await?;
    let mut log = fixture.log();
    crate::nats_fixture::position(&mut log, 1).await?;
    crate::nats_fixture::delivery(&mut log).await?;
    let facts = async || {
        let consumer = consumers::read(&fixture.nats, STREAM, CONSUMER).await?;
        anyhow::Ok(consumer.context("it is gone")?.facts())
    };
    let before = facts().await?;
    let survey = survey(&fixture, &["ev.a"]);
    survey.extent().await?;
    survey.last_under_filter().await?;
    assert_eq!(survey.count(StreamSeq(3), StreamSeq(10)).await?, 8);
    assert_eq!(facts().await?, before);
    assert_eq!(held(&fixture).await?.len(), 10);
    Ok(())
}

#[tokio::test]
async fn a_count_that_is_given_up_leaves_no_consumer_behind() -> Result<()> {
    let fixture = Fixture::bare().await?;
    fixture.create_events_stream().await?;
    fixture.publish_events(5).await?;
    let proxy = TcpProxy::start(fixture.server.address()).await?;
    let far = connect(format!("nats://{}", proxy.address())).await?;
    let survey = Survey::new(far, STREAM, &[]);
    proxy.freeze_at("CONSUMER.RESET");
    let counting = tokio::spawn(async move { survey.count(StreamSeq(1), StreamSeq(5)).await });
    eventually(SOON, "it is about to count", async || {
        ensure!(proxy.is_frozen(), "not yet");
        Ok(())
    })
    .await?;
    ensure!(consumers_of(&fixture).await? == 1, "there is no consumer");
    counting.abort();
    eventually(SOON, "the server has deleted it", async || {
        ensure!(consumers_of(&fixture).await? == 0, "still there");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_missing_stream_is_told_by_its_code() -> Result<()> {
    let fixture = Fixture::bare().await?;
    let Err(SurveyError::Api { source, .. }) = survey(&fixture, &[]).extent().await else {
        anyhow::bail!("there is an extent");
    };
    assert_eq!(source.code(), Some(Code::STREAM_NOT_FOUND));
    Ok(())
}

#[tokio::test]
async fn a_message_as_large_as_they_may_be_is_found() -> Result<()> {
    let fixture = Fixture::with_events(1).await?;
    let body = vec![b'.'; 1_048_576 - 200].into();
    fixture.js.publish("ev.b", body).await?.await?;
    let last = survey(&fixture, &[]).last_under_filter().await?;
    assert_eq!(last.context("none")?.sequence, StreamSeq(2));
    Ok(())
}

#[tokio::test]
async fn three_replicas_count_alike_whichever_of_them_counts() -> Result<()> {
    let cluster = NatsCluster::start().await?;
    let nats = connect(cluster.urls().remove(0)).await?;
    let js = patient(nats.client().clone());
    let config = stream::Config {
        name: STREAM.to_owned(),
        subjects: vec!["ev.>".to_owned()],
        num_replicas: 3,
        ..Default::default()
    };
    js.create_stream(config).await?;
    for n in 0..300 {
        let subject = SUBJECTS[n % SUBJECTS.len()];
        js.publish(subject, "{}".into()).await?.await?;
    }
    let survey = Survey::new(nats, STREAM, &["ev.a".to_owned(), "ev.c.d".to_owned()]);
    for _ in 0..10 {
        js.publish("ev.a", "{}".into()).await?.await?;
        let last = survey.last_under_filter().await?.context("none")?.sequence;
        let all = eventually(SOON, "the replica has caught up", async || {
            Ok(survey.count(StreamSeq(1), last).await?)
        })
        .await?;
        assert_eq!(all, 225 + (last.0 - 300));
    }
    Ok(())
}
