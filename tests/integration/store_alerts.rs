//! Creating alerts and getting them back, on one server and on three.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use lookback::nats::alerts::{AlertStore, anywhere};
use lookback::nats::entries::ReadError;
use lookback::nats::outbox::JetStreamOutbox;
use lookback::worker::ports::{Lookup, Outbox, StoreError, Stored};
use lookback_protocol::alert::{AlertRecord, NEW};
use lookback_protocol::names::PipelineKey;
use lookback_protocol::workflow::To;
use serde_json::Value;

use crate::nats_fixture::key;
use crate::store_fixture::{
    Copies, Spy, StoreFixture, ask, create_streams, owner, raw, record, record_of, standing, to,
};

/// What is created and got, as often as the row asks for.
const MANY: u64 = 2000;

fn is_absent<T>(answer: &Result<T, ReadError>) -> bool {
    matches!(answer, Err(ReadError::NotFound { .. }))
}

#[tokio::test]
async fn s05_an_alert_reads_back_with_all_that_it_was_created_with() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let alert = fixture.one().await?;
    assert_eq!(alert.record, Some(record(1)));
    assert_eq!((alert.id, alert.state), (record(1).id, NEW.to_owned()));
    Ok(())
}

#[tokio::test]
async fn s05_an_alert_that_is_found_again_has_the_id_it_had() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    fixture.one().await?;
    for lookup in [Lookup::First, Lookup::No] {
        let stored = fixture.outbox.create_alert(&record(1), lookup).await?;
        assert_eq!(stored, Stored::Known);
    }
    assert_ne!(record(1).id, record(2).id);
    assert_eq!(fixture.listed(None, 10).await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn s08_sequence_time_and_subject_are_the_servers_and_stand_in_no_body() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let before = Timestamp::now();
    let created = fixture.one().await?;
    let moved = fixture
        .alerts
        .step(&created.id, None, &to("triage"))
        .await?;
    let read = fixture.alerts.get(&created.id).await?;
    for alert in [&moved.alert, &read] {
        let messages = raw(&fixture.js, &key().alerts_stream()).await?;
        let held = standing(&messages)?[&alert.id];
        assert_eq!(alert.sequence, held.sequence);
        assert_eq!(alert.subject, held.subject);
        assert_eq!(alert.subject, key().alert_subject("triage", &alert.id));
        let body: serde_json::Map<String, Value> = serde_json::from_slice(&held.body)?;
        for field in ["sequence", "seq", "time", "subject", "stored"] {
            assert!(!body.contains_key(field), "{field} stands in the record");
        }
    }
    let held = raw(&fixture.js, &key().alerts_stream()).await?;
    assert_eq!(read.time, standing(&held)?[&read.id].time);
    assert!(before <= created.time && created.time <= read.time);
    Ok(())
}

#[tokio::test]
async fn s10_an_alert_has_a_subject_of_its_own_under_its_state() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let ids = fixture.create(0..3).await?;
    fixture.alerts.step(&ids[1], None, &to("triage")).await?;
    let messages = raw(&fixture.js, &key().alerts_stream()).await?;
    let subjects: Vec<_> = ids
        .iter()
        .map(|id| standing(&messages).map(|all| all[id].subject.clone()))
        .collect::<Result<_>>()?;
    let expected = [(NEW, 0), ("triage", 1), (NEW, 2)]
        .map(|(state, at)| format!("lookback.v1.prod.edr.alert.{state}.{}", ids[at]));
    assert_eq!(subjects, expected);
    Ok(())
}

#[tokio::test]
async fn s10_what_is_no_subject_token_is_the_id_of_no_alert() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let id = fixture.one().await?.id;
    fixture.alerts.step(&id, None, &to("triage")).await?;
    let last = fixture.alerts_stream().await?.state.last_seq;
    let whole = format!("{id}.>");
    let left = format!("triage.{id}");
    for bad in ["*", ">", "", "a b", "a\r\nb", "left.*", &whole, &left] {
        let got = fixture.alerts.get(bad).await;
        assert!(is_absent(&got), "{bad:?}: {got:?}");
        let found = fixture.alerts.find(bad).await;
        assert!(found.is_err(), "{bad:?}: {found:?}");
        let stepped = fixture.alerts.step(bad, None, &to("closed")).await;
        assert!(stepped.is_err(), "{bad:?}: {stepped:?}");
    }
    assert_eq!(fixture.alerts_stream().await?.state.last_seq, last);
    Ok(())
}

#[tokio::test]
async fn s10_a_state_with_a_wildcard_lists_no_alert() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let id = fixture.one().await?.id;
    fixture.alerts.step(&id, None, &to("triage")).await?;
    for bad in ["*", ">", "left", "left.*", "left.new", "new.*", "a b"] {
        let listed = fixture.listed(Some(bad), 10).await;
        let items = listed.unwrap_or_default();
        assert!(items.is_empty(), "{bad:?}: {items:?}");
    }
    Ok(())
}

#[tokio::test]
async fn s17_a_create_is_one_publish_and_asks_the_server_nothing_else() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let mut spy = Spy::open(&fixture).await?;
    fixture.create(0..100).await?;
    assert_eq!(spy.heard().await?, Vec::<String>::new());
    let state = fixture.alerts_stream().await?.state;
    assert_eq!((state.messages, state.last_seq), (100, 100));
    Ok(())
}

#[tokio::test]
async fn s17_a_create_never_overwrites_what_a_person_wrote() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let id = fixture.one().await?.id;
    let mut update = ask(To::Stay);
    let note = ("note".to_owned(), Some("mine".to_owned()));
    update.metadata.insert(note.0, note.1);
    fixture.alerts.step(&id, None, &update).await?;
    for lookup in [Lookup::First, Lookup::No] {
        let stored = fixture.outbox.create_alert(&record(1), lookup).await?;
        assert_eq!(stored, Stored::Known);
    }
    let read = fixture.alerts.get(&id).await?.record.context("archived")?;
    assert_eq!(read.metadata["note"], "mine");
    Ok(())
}

#[tokio::test]
async fn s18_an_alert_is_found_by_its_id_in_whatever_state_by_one_request() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let ids = fixture.create(0..20).await?;
    let mut spy = Spy::open(&fixture).await?;
    for state in ["triage", "escalated", "closed", "triage"] {
        fixture.alerts.step(&ids[7], None, &to(state)).await?;
        spy.heard().await?;
        let alert = fixture.alerts.get(&ids[7]).await?;
        assert_eq!(alert.state, state);
        let request = format!("STREAM.MSG.GET.{}", key().alerts_stream());
        assert_eq!(spy.heard().await?, [request]);
    }
    fixture
        .alerts
        .step(&ids[7], None, &ask(To::Archive))
        .await?;
    let archived = fixture.alerts.get(&ids[7]).await?;
    assert_eq!(
        (archived.state.as_str(), archived.record),
        ("archived", None)
    );
    Ok(())
}

#[tokio::test]
async fn s18_an_alert_is_found_across_pipelines_by_its_id_alone() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    fixture.create(0..5).await?;
    let other = PipelineKey::new("test", "web")?;
    create_streams(&fixture.nats, &other, Copies::One).await?;
    let outbox = JetStreamOutbox::new(fixture.nats.clone(), other.clone());
    let theirs = record_of(&other, 77);
    outbox.create_alert(&theirs, Lookup::No).await?;
    let (pipeline, alert) = anywhere(&fixture.nats, &theirs.id).await?;
    assert_eq!((pipeline, alert.record), (other, Some(theirs)));
    let (pipeline, alert) = anywhere(&fixture.nats, &record(3).id).await?;
    assert_eq!((pipeline, alert.record), (key(), Some(record(3))));
    let absent = anywhere(&fixture.nats, &record(99).id).await;
    assert!(is_absent(&absent), "{absent:?}");
    Ok(())
}

#[tokio::test]
async fn s19_no_server_shows_the_state_that_an_alert_has_left() -> Result<()> {
    let fixture = StoreFixture::r3().await?;
    let readers = readers(&fixture).await?;
    let id = fixture.one().await?.id;
    for round in 0..300 {
        let state = ["triage", "closed"][round % 2];
        let stepped = fixture.alerts.step(&id, None, &to(state)).await?;
        let read = readers[round % readers.len()].get(&id).await?;
        assert_eq!(read, stepped.alert, "round {round}");
    }
    Ok(())
}

#[tokio::test]
async fn s33_the_newest_version_is_the_one_with_the_highest_sequence() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let created = fixture.one().await?;
    let mut slow = to("triage");
    slow.time = Timestamp::UNIX_EPOCH;
    let moved = fixture.alerts.step(&created.id, None, &slow).await?;
    let read = fixture.alerts.get(&created.id).await?;
    assert_eq!(
        (read.state.as_str(), read.sequence),
        ("triage", moved.alert.sequence)
    );
    let shown: Vec<_> = fixture.listed(None, 10).await?;
    assert_eq!(shown, [read]);
    Ok(())
}

#[tokio::test]
async fn s34_s43_t3_the_first_read_of_a_version_shows_all_of_it_r1() -> Result<()> {
    complete_on_first_read(&StoreFixture::r1().await?).await
}

#[tokio::test]
async fn s34_s43_t3_the_first_read_of_a_version_shows_all_of_it_r3() -> Result<()> {
    complete_on_first_read(&StoreFixture::r3().await?).await
}

/// Readers look all the time, from before an alert exists; each version they see is whole, and once
/// they have seen it, it is never missing.
async fn complete_on_first_read(fixture: &StoreFixture) -> Result<()> {
    const ALERTS: u64 = 40;
    let readers = readers(fixture).await?;
    let writing = async {
        for n in 0..ALERTS {
            let id = fixture.create(n..n + 1).await?.remove(0);
            for state in ["triage", "escalated", "closed"] {
                fixture.alerts.step(&id, None, &to(state)).await?;
            }
        }
        anyhow::Ok(())
    };
    let reading = try_join_all(readers.iter().map(async |reader| {
        for n in 0..ALERTS {
            watch_until_closed(reader, &record(n)).await?;
        }
        anyhow::Ok(())
    }));
    futures::try_join!(writing, reading)?;
    Ok(())
}

async fn watch_until_closed(reader: &AlertStore, first: &AlertRecord) -> Result<()> {
    let mut seen = None;
    loop {
        let alert = match reader.get(&first.id).await {
            Err(ReadError::NotFound { .. }) if seen.is_none() => continue,
            alert => alert.with_context(|| format!("{} after {seen:?}", first.id))?,
        };
        let record = alert.record.as_ref().context("no record")?;
        let subject = key().alert_subject(&alert.state, &alert.id);
        ensure!(
            alert.subject == subject && record.state == alert.state,
            "{alert:?}"
        );
        ensure!(Some(alert.sequence) >= seen, "{alert:?} after {seen:?}");
        let steps: Vec<_> = record.history.iter().map(|step| step.to.as_str()).collect();
        let path = [NEW, "triage", "escalated", "closed"];
        ensure!(path.starts_with(&steps), "{steps:?}");
        ensure!(
            steps.last() == Some(&alert.state.as_str()),
            "{steps:?} in {}",
            alert.state
        );
        if steps.len() == 1 {
            ensure!(record == first, "{record:?}");
        }
        let from = record.history.last().map(|step| step.prev_seq);
        ensure!(
            from == Some(record.prev_seq) && record.prev_seq < alert.sequence,
            "{record:?}"
        );
        seen = Some(alert.sequence);
        if alert.state == "closed" {
            return Ok(());
        }
    }
}

#[tokio::test]
async fn s35_every_write_gives_the_sequence_that_the_server_acknowledged() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let stored = fixture.outbox.create_alert(&record(1), Lookup::No).await?;
    let created = fixture.alerts.get(&record(1).id).await?;
    assert_eq!(stored, Stored::New(created.sequence));
    let mut update = ask(To::Stay);
    update.metadata.insert("a".to_owned(), Some("b".to_owned()));
    for ask in [to("triage"), update, to("closed"), ask(To::Archive)] {
        let stepped = fixture.alerts.step(&created.id, None, &ask).await?;
        assert_eq!(stepped.alert, fixture.alerts.get(&created.id).await?);
        let messages = raw(&fixture.js, &key().alerts_stream()).await?;
        assert_eq!(
            stepped.alert.sequence,
            standing(&messages)?[&created.id].sequence
        );
    }
    Ok(())
}

#[tokio::test]
async fn s36_an_alert_that_is_not_there_is_asked_for_once() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    fixture.create(0..3).await?;
    let mut spy = Spy::open(&fixture).await?;
    let absent = fixture.alerts.get(&record(9).id).await;
    assert!(is_absent(&absent), "{absent:?}");
    assert_eq!(spy.heard().await?.len(), 1);
    let message = absent.map_err(|error| error.to_string()).unwrap_err();
    assert_eq!(message, format!("there is no alert {}", record(9).id));
    Ok(())
}

#[tokio::test]
async fn s38_no_other_alert_is_given_instead_of_one_that_is_not_there() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let ids = fixture.create(0..50).await?;
    let absent = record(999).id;
    assert!(is_absent(&fixture.alerts.get(&absent).await));
    assert!(is_absent(&fixture.alerts.find(&absent).await));
    assert!(is_absent(&fixture.alerts.find(&absent[..8]).await));
    // An id's beginning is no id.
    assert!(is_absent(&fixture.alerts.get(&ids[0][..20]).await));
    assert_eq!(fixture.alerts.find(&ids[0][..12]).await?.id, ids[0]);
    for short in ["", &ids[0][..1], &ids[0][..5]] {
        let found = fixture.alerts.find(short).await;
        assert!(found.is_err(), "{short:?}: {found:?}");
    }
    let stepped = fixture.alerts.step(&absent, None, &to("triage")).await;
    assert!(stepped.is_err(), "{stepped:?}");
    assert_eq!(fixture.listed(Some(NEW), 100).await?.len(), 50);
    Ok(())
}

#[tokio::test]
async fn s38_a_beginning_that_fits_several_ids_names_them_and_picks_none() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let mut records = [record(1), record(2)];
    for (at, record) in records.iter_mut().enumerate() {
        record.id = format!("ABCDEFGHIJKLMNOPQRSTUVWX{at}A");
        fixture.outbox.create_alert(record, Lookup::No).await?;
    }
    // What an alert leaves behind when it moves makes it no second one.
    fixture
        .alerts
        .step(&records[0].id, None, &to("triage"))
        .await?;
    match fixture.alerts.find("ABCDEFGH").await {
        Err(ReadError::Ambiguous { mut ids, .. }) => {
            ids.sort();
            assert_eq!(ids, [records[0].id.clone(), records[1].id.clone()]);
        }
        other => panic!("{other:?}"),
    }
    let found = fixture.alerts.find(&records[0].id[..25]).await?;
    assert_eq!(
        (found.id, found.state.as_str()),
        (records[0].id.clone(), "triage")
    );
    Ok(())
}

#[tokio::test]
async fn s41_t1_every_alert_is_there_as_soon_as_it_is_created_r1() -> Result<()> {
    created_and_got(&StoreFixture::r1().await?).await
}

#[tokio::test]
async fn s41_t1_every_alert_is_there_as_soon_as_it_is_created_r3() -> Result<()> {
    created_and_got(&StoreFixture::r3().await?).await
}

async fn created_and_got(fixture: &StoreFixture) -> Result<()> {
    let readers = readers(fixture).await?;
    let mut got = 0;
    for n in 0..MANY {
        let id = fixture.create(n..n + 1).await?.remove(0);
        let reader = &readers[usize::try_from(n)? % readers.len()];
        let alert = reader
            .get(&id)
            .await
            .with_context(|| format!("alert {n}"))?;
        ensure!(alert.record == Some(record(n)), "{alert:?}");
        got += 1;
    }
    assert_eq!(got, MANY);
    Ok(())
}

#[tokio::test]
async fn s42_t2_of_sixteen_creates_of_one_id_one_wins_r1() -> Result<()> {
    one_create_wins(&StoreFixture::r1().await?).await
}

#[tokio::test]
async fn s42_t2_of_sixteen_creates_of_one_id_one_wins_r3() -> Result<()> {
    one_create_wins(&StoreFixture::r3().await?).await
}

async fn one_create_wins(fixture: &StoreFixture) -> Result<()> {
    const ROUNDS: u64 = 50;
    let outboxes: Vec<_> = fixture
        .each()
        .await?
        .into_iter()
        .map(|nats| Arc::new(JetStreamOutbox::new(nats, key())))
        .collect();
    for round in 0..ROUNDS {
        let creates = (0..16).map(|writer| {
            let outbox = outboxes[writer % outboxes.len()].clone();
            let mut record = record(round);
            record.by = format!("worker/edr-{writer}");
            async move {
                // A copy that is behind may only say that another write is in process.
                let stored = match outbox.create_alert(&record, Lookup::No).await {
                    Err(StoreError::Unavailable(_)) => None,
                    stored => Some(stored?),
                };
                anyhow::Ok((record.by, stored))
            }
        });
        let stored = try_join_all(creates).await?;
        let won = |stored: &Option<Stored>| matches!(stored, Some(Stored::New(_)));
        let winners: Vec<_> = stored.iter().filter(|(_, stored)| won(stored)).collect();
        let [(by, Some(Stored::New(sequence)))] = winners[..] else {
            anyhow::bail!("round {round}: {stored:?}");
        };
        let again = outboxes[0].create_alert(&record(round), Lookup::No).await?;
        assert_eq!(again, Stored::Known);
        let alert = fixture.alerts.get(&record(round).id).await?;
        assert_eq!(alert.sequence, *sequence);
        assert_eq!(&alert.record.context("archived")?.by, by);
    }
    assert_eq!(fixture.alerts_stream().await?.state.messages, ROUNDS);
    Ok(())
}

#[tokio::test]
async fn s42_t2_two_thousand_alerts_created_at_once_are_all_there_once_r1() -> Result<()> {
    many_creates(&StoreFixture::r1().await?).await
}

#[tokio::test]
async fn s42_t2_two_thousand_alerts_created_at_once_are_all_there_once_r3() -> Result<()> {
    many_creates(&StoreFixture::r3().await?).await
}

async fn many_creates(fixture: &StoreFixture) -> Result<()> {
    let ids = fixture.create(0..MANY).await?;
    let alerts = &fixture.alerts;
    let got: Vec<_> = stream::iter(&ids)
        .map(async |id| alerts.get(id).await)
        .buffered(32)
        .try_collect()
        .await?;
    for (n, alert) in (0..MANY).zip(got) {
        assert_eq!(alert.record, Some(record(n)));
    }
    let state = fixture.alerts_stream().await?.state;
    assert_eq!((state.messages, state.last_seq), (MANY, MANY));
    Ok(())
}

/// Stores over a connection to each server.
async fn readers(fixture: &StoreFixture) -> Result<Vec<AlertStore>> {
    let each = fixture.each().await?;
    let store = |nats| AlertStore::new(nats, owner());
    Ok(each.into_iter().map(store).collect())
}
