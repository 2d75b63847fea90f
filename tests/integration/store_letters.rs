//! What people do with dead letters: look, redrive, discard. No event is sent twice, whoever dies when.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::HeaderMap;
use async_nats::jetstream::stream::{Config, DiscardPolicy, SubjectTransform};
use bytes::Bytes;
use data_encoding::BASE64;
use futures::future::join_all;
use jiff::Timestamp;
use lookback::nats::audit;
use lookback::nats::connect::Timeouts;
use lookback::nats::deadletters::{
    DeadLetterStore, Histogram, LetterAsk, LetterError, LetterHead, Selector,
};
use lookback::nats::entries::{Cursor, ReadError};
use lookback::worker::ports::{AckToken, DeadLetter, Delivery, Outbox, Stored};
use lookback_dev::support::{TcpProxy, eventually};
use lookback_protocol::audit::{Act, AuditKind, DeadLetterAct};
use lookback_protocol::deadletter::{
    DISCARDED, PARKED, REDRIVE_OF, REDRIVEN, REDRIVES, REDRIVING, Reason, resend,
};
use lookback_protocol::position::{Epoch, StreamSeq};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::nats_fixture::{SOON, STREAM, key};
use crate::store_fixture::{Copies, Servers, StoreFixture, connect, connect_with, owner};

pub(crate) const SUBJECT: &str = "ev.a";
/// The shortest that a server takes, where nobody sends at once: then what proves that an event was sent
/// is in the stream.
const SHORT_WINDOW: Duration = Duration::from_millis(100);

/// A pipeline's streams, its source stream, and letters in them.
pub(crate) struct Letters {
    pub(crate) fixture: StoreFixture,
    pub(crate) store: DeadLetterStore,
}

pub(crate) fn source(copies: Copies) -> Config {
    Config {
        name: STREAM.to_owned(),
        subjects: vec!["ev.>".to_owned()],
        num_replicas: match copies {
            Copies::One => 1,
            Copies::Three => 3,
        },
        ..Config::default()
    }
}

/// One that forgets message ids within a test.
fn forgetful(copies: Copies) -> Config {
    Config {
        duplicate_window: SHORT_WINDOW,
        ..source(copies)
    }
}

pub(crate) fn id(number: u64) -> String {
    format!("0-{number}-{number:08x}")
}

pub(crate) fn letter(
    number: u64,
    headers: impl Into<Bytes>,
    payload: impl Into<Bytes>,
) -> DeadLetter {
    let second = 1_700_000_000 + i64::try_from(number).expect("tests count to less");
    DeadLetter {
        id: id(number),
        reason: Reason::NotJson,
        error: "expected value at line 1 column 1".to_owned(),
        stream: STREAM.to_owned(),
        delivery: Delivery {
            consumer_sequence: number,
            sequence: StreamSeq(number),
            published: Timestamp::from_second(second).expect("it is after 1970"),
            subject: SUBJECT.to_owned(),
            headers: headers.into(),
            payload: payload.into(),
            pending: 0,
            ack: AckToken(String::new()),
        },
        attempts: 1,
        epoch: Epoch(1),
    }
}

pub(crate) fn ask(by: &str) -> LetterAsk {
    LetterAsk {
        by: format!("user/{by}"),
        reason: "the decoder is mended".to_owned(),
        op_id: Uuid::now_v7().to_string(),
        time: Timestamp::now(),
        max_redrives: 3,
    }
}

/// An event in the source stream that was sent again.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) sequence: u64,
    /// Names and values as they stand there.
    headers: Vec<(String, String)>,
    payload: Vec<u8>,
}

impl Letters {
    async fn new(copies: Copies) -> Result<Self> {
        Self::with(copies, source(copies)).await
    }

    pub(crate) async fn forgetful(copies: Copies) -> Result<Self> {
        Self::with(copies, forgetful(copies)).await
    }

    async fn with(copies: Copies, source: Config) -> Result<Self> {
        let fixture = StoreFixture::start(copies).await?;
        fixture.js.create_stream(source).await?;
        Ok(Self {
            store: DeadLetterStore::new(fixture.nats.clone(), owner()),
            fixture,
        })
    }

    pub(crate) async fn r1() -> Result<Self> {
        Self::new(Copies::One).await
    }

    pub(crate) async fn park(&self, letter: &DeadLetter) -> Result<()> {
        let stored = self.fixture.outbox.park(letter).await?;
        ensure!(
            matches!(stored, Stored::New(_)),
            "{}: {stored:?}",
            letter.id
        );
        Ok(())
    }

    /// Parks letters of these numbers.
    pub(crate) async fn park_all(&self, numbers: std::ops::Range<u64>) -> Result<()> {
        for number in numbers {
            self.park(&letter(number, "", format!("event {number}")))
                .await?;
        }
        Ok(())
    }

    pub(crate) async fn state(&self, number: u64) -> Result<String> {
        Ok(self.store.get(&id(number)).await?.state)
    }

    /// Everything in the source stream that is a redriven event, by letter.
    pub(crate) async fn sent(&self) -> Result<BTreeMap<String, Vec<Sent>>> {
        let stream = self.fixture.js.get_stream(STREAM).await?;
        let state = &stream.cached_info().state;
        let mut sent: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for sequence in state.first_sequence.max(1)..=state.last_sequence {
            let event = self.event(sequence).await?;
            if let Some(of) = values(&event.headers, REDRIVE_OF).first() {
                sent.entry(of.clone()).or_default().push(event);
            }
        }
        Ok(sent)
    }

    /// The event at `sequence`. The client's own call keeps one value of each header.
    async fn event(&self, sequence: u64) -> Result<Sent> {
        let subject = format!("STREAM.MSG.GET.{STREAM}");
        let js = &self.fixture.js;
        let found: Value = js.request(subject, &json!({ "seq": sequence })).await?;
        let bytes = |name: &str| {
            let text = found["message"][name].as_str().unwrap_or_default();
            BASE64.decode(text.as_bytes())
        };
        let (headers, payload) = (bytes("hdrs")?, bytes("data")?);
        let pairs = resend::headers(&headers)?
            .into_iter()
            .map(|header| (header.name.to_owned(), header.value.to_owned()));
        Ok(Sent {
            sequence,
            headers: pairs.collect(),
            payload,
        })
    }

    /// The one event that letter `number` was redriven as.
    pub(crate) async fn sent_once(&self, number: u64) -> Result<Sent> {
        let mut sent = self.sent().await?.remove(&id(number)).unwrap_or_default();
        ensure!(sent.len() == 1, "letter {number} was sent as {sent:?}");
        Ok(sent.remove(0))
    }

    /// What the audit says was done to dead letters.
    pub(crate) async fn acts(&self) -> Result<Vec<(String, DeadLetterAct)>> {
        let nats = &self.fixture.nats;
        let kind = Some(AuditKind::DeadLetter);
        let page = audit::page(nats, &key(), kind, Cursor::default(), 1000).await?;
        page.items
            .into_iter()
            .map(|item| {
                let record = item.record.map_err(anyhow::Error::msg)?;
                match record.act {
                    Act::DeadLetter(act) => Ok((record.by, act)),
                    other => anyhow::bail!("{other:?} among the acts on dead letters"),
                }
            })
            .collect()
    }

    async fn counts(&self) -> Result<[u64; 4]> {
        let counts = self.store.counts().await?;
        Ok([PARKED, REDRIVING, REDRIVEN, DISCARDED].map(|state| counts[state]))
    }

    /// Every letter by all pages of `limit`.
    async fn listed(
        &self,
        state: Option<&str>,
        selector: &Selector,
        limit: usize,
    ) -> Result<Vec<LetterHead>> {
        let mut all = Vec::new();
        let mut from = Cursor::default();
        loop {
            let page = self.store.list(state, selector, from, limit).await?;
            ensure!(page.items.len() <= limit, "{} items", page.items.len());
            all.extend(page.items);
            match page.next {
                Some(next) => from = next,
                None => return Ok(all),
            }
        }
    }

    /// A way to the server that can be cut, and the store over it.
    pub(crate) async fn far(&self) -> Result<(TcpProxy, DeadLetterStore)> {
        let Servers::One(server) = &self.fixture.servers else {
            anyhow::bail!("there is more than one way to a cluster");
        };
        let proxy = TcpProxy::start(server.address()).await?;
        let way = vec![format!("nats://{}", proxy.address())];
        let nats = connect_with(way, Timeouts::default()).await?;
        Ok((proxy, DeadLetterStore::new(nats, owner())))
    }

    /// Redrives letter `number` by a process that dies when it has sent everything up to the message
    /// that holds `text`, which does not arrive any more.
    pub(crate) async fn die_before(&self, number: u64, text: &str) -> Result<()> {
        let (proxy, store) = self.far().await?;
        proxy.freeze_at(text);
        let dying = tokio::spawn(async move { store.redrive(&id(number), &ask("dying")).await });
        eventually(SOON, "the redrive comes to where it dies", async || {
            ensure!(!dying.is_finished(), "it ended before {text}");
            ensure!(proxy.is_frozen(), "it has not come to {text}");
            Ok(())
        })
        .await?;
        dying.abort();
        Ok(())
    }

    /// Waits until the source stream has forgotten every message id.
    pub(crate) async fn forget_message_ids(&self) -> Result<()> {
        let probe_id = Uuid::now_v7().to_string();
        let probe = async || {
            let mut headers = HeaderMap::new();
            headers.insert("Nats-Msg-Id", probe_id.as_str());
            let js = &self.fixture.js;
            let ack = js.publish_with_headers("ev.probe", headers, Bytes::new());
            anyhow::Ok(ack.await?.await?)
        };
        ensure!(!probe().await?.duplicate, "the first probe is one");
        eventually(SOON, "the source stream forgets message ids", async || {
            ensure!(!probe().await?.duplicate, "it remembers the probe");
            Ok(())
        })
        .await
    }
}

fn values(headers: &[(String, String)], name: &str) -> Vec<String> {
    let of_it = headers.iter().filter(|(it, _)| it == name);
    of_it.map(|(_, value)| value.clone()).collect()
}

#[tokio::test]
async fn dlq_a_parked_letter_is_read_by_its_id_and_by_the_beginning_of_it() -> Result<()> {
    let letters = Letters::r1().await?;
    letters
        .park(&letter(4_711, "NATS/1.0\r\nA: 1\r\n\r\n", "x"))
        .await?;
    let whole = letters.store.get(&id(4_711)).await?;
    assert_eq!(whole.id, id(4_711));
    assert_eq!((whole.state.as_str(), whole.redrives), (PARKED, 0));
    assert_eq!((whole.by.as_deref(), whole.note.as_deref()), (None, None));
    assert_eq!(whole.event.headers, "NATS/1.0\r\nA: 1\r\n\r\n");
    assert_eq!(letters.store.get("0-4711").await?, whole);
    for other in ["0-4712", "*.*.*.*", "0-4711-*", ">>>>>>>"] {
        let error = letters.store.get(other).await.unwrap_err();
        assert!(
            matches!(error, ReadError::NotFound { .. }),
            "{other}: {error:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn dlq_lists_are_paged_and_hold_what_the_selector_picks() -> Result<()> {
    let letters = Letters::r1().await?;
    for number in 1..=230 {
        let mut letter = letter(number, "", "x");
        if number % 10 == 0 {
            letter.reason = Reason::EnginePanic;
            letter.error = "rule Brute Force went wrong".to_owned();
        }
        letters.park(&letter).await?;
    }
    let tens: Vec<_> = (1..=23).map(|ten| id(ten * 10)).collect();
    let selector = Selector {
        reasons: vec![Reason::EnginePanic],
        rule: Some("brute force".to_owned()),
        ..Selector::default()
    };
    for limit in [1, 7, 23, 1000] {
        let listed = letters.listed(Some(PARKED), &selector, limit).await?;
        let ids: Vec<_> = listed.into_iter().map(|head| head.id).collect();
        assert_eq!(ids, tens, "pages of {limit}");
    }
    let all = letters.listed(None, &Selector::default(), 100).await?;
    assert_eq!(all.len(), 230);
    let mut histogram = Histogram::default();
    all.iter().for_each(|head| histogram.add(head));
    assert_eq!(
        histogram.reasons,
        BTreeMap::from([(Reason::NotJson, 207), (Reason::EnginePanic, 23)])
    );
    assert_eq!(letters.counts().await?, [230, 0, 0, 0]);
    Ok(())
}

async fn a_letter_redriven_twice_gives_one_event(copies: Copies) -> Result<()> {
    let letters = Letters::new(copies).await?;
    let headers = "NATS/1.0\r\nB: 2\r\nA: x\r\nB: 1\r\nNats-Msg-Id: once\r\n\
                   nats-expected-last-msg-id: nobody\r\nNats-Expected-Last-Msg-Id: nobody\r\n\
                   Nats-Rollup: all\r\nNats-Expected-Stream: OTHER\r\nNats-TTL: 1s\r\n\
                   Lookback-Redrives: 1\r\nLookback-Redrive-Of: 0-1-00000001\r\n\r\n";
    let payload = b"\xff\x00 no json \r\n".to_vec();
    letters.park(&letter(7, headers, payload.clone())).await?;
    let first = ask("ann");
    let redriven = letters.store.redrive(&id(7), &first).await?;
    let error = letters
        .store
        .redrive(&id(7), &ask("bob"))
        .await
        .expect_err("it is refused");
    assert_eq!(
        error.to_string(),
        format!("dead letter {} is redriven: it cannot be redriven", id(7))
    );
    let sent = letters.sent_once(7).await?;
    assert_eq!(
        (sent.sequence, &sent.payload[..]),
        (redriven.sequence, &payload[..])
    );
    let mut names: Vec<_> = sent.headers.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let expected = [
        "A",
        "B",
        "Lookback-Redrive-Of",
        "Lookback-Redrives",
        "Nats-Expected-Stream",
        "Nats-Msg-Id",
    ];
    assert_eq!(names, expected);
    assert_eq!(values(&sent.headers, "B"), ["2", "1"]);
    assert_eq!(values(&sent.headers, REDRIVES), ["2"]);
    assert_eq!(
        values(&sent.headers, "Nats-Msg-Id"),
        [format!("redrive-{}-2", id(7))]
    );
    let letter = letters.store.get(&id(7)).await?;
    assert_eq!((letter.state.as_str(), letter.redrives), (REDRIVEN, 2));
    assert_eq!(letter.by.as_deref(), Some("user/ann"));
    assert_eq!(letter.note, Some(first.reason.clone()));
    assert_eq!(
        (&letter.event.headers[..], &letter.event.payload[..]),
        (headers.as_bytes(), &payload[..])
    );
    let act = DeadLetterAct {
        letter: id(7),
        op_id: first.op_id,
        from: PARKED.to_owned(),
        to: REDRIVEN.to_owned(),
        reason: first.reason,
        redriven: Some(redriven.sequence),
    };
    assert_eq!(letters.acts().await?, [("user/ann".to_owned(), act)]);
    // A header that expects another last message id would have ended a replicated stream for good.
    let ack = letters
        .fixture
        .js
        .publish("ev.b", "alive".into())
        .await?
        .await?;
    assert_eq!(ack.sequence, redriven.sequence + 1);
    assert_eq!(letters.counts().await?, [0, 0, 1, 0]);
    Ok(())
}

#[tokio::test]
async fn t11_a_letter_redriven_twice_gives_one_event() -> Result<()> {
    a_letter_redriven_twice_gives_one_event(Copies::One).await
}

#[tokio::test]
async fn t11_a_letter_redriven_twice_gives_one_event_on_three_replicas() -> Result<()> {
    a_letter_redriven_twice_gives_one_event(Copies::Three).await
}

/// Eight people, each over a connection of their own, redrive every letter at once.
async fn of_many_who_redrive_at_once_one_sends(copies: Copies, rounds: u64) -> Result<()> {
    let letters = Letters::new(copies).await?;
    letters.park_all(1..rounds + 1).await?;
    let mut people = Vec::new();
    for _ in 0..8 {
        let nats = connect(letters.fixture.servers.urls()).await?;
        people.push(DeadLetterStore::new(nats, owner()));
    }
    for round in 1..=rounds {
        let id = id(round);
        let redrives = people
            .iter()
            .map(async |store| store.redrive(&id, &ask("each")).await);
        let results = join_all(redrives).await;
        let done: Vec<_> = results.iter().flatten().map(|it| it.sequence).collect();
        let sent = letters.sent_once(round).await?;
        assert!(!done.is_empty(), "round {round}: {results:?}");
        assert!(
            done.iter().all(|&it| it == sent.sequence),
            "round {round}: {results:?}"
        );
        // Who went on with another's redrive while that was under way may leave it for the other.
        if letters.state(round).await? != REDRIVEN {
            letters.store.redrive(&id, &ask("last")).await?;
        }
    }
    assert_eq!(letters.counts().await?, [0, 0, rounds, 0]);
    assert_eq!(letters.sent().await?.len() as u64, rounds);
    let acts = letters.acts().await?;
    assert_eq!(acts.len() as u64, rounds, "{acts:?}");
    Ok(())
}

#[tokio::test]
async fn t11_of_eight_who_redrive_at_once_one_sends() -> Result<()> {
    of_many_who_redrive_at_once_one_sends(Copies::One, 40).await
}

#[tokio::test]
async fn t11_of_eight_who_redrive_at_once_on_three_replicas_one_sends() -> Result<()> {
    of_many_who_redrive_at_once_one_sends(Copies::Three, 15).await
}

#[tokio::test]
async fn t11_whoever_dies_between_two_steps_one_event_is_sent() -> Result<()> {
    let letters = Letters::forgetful(Copies::One).await?;
    let steps = [
        ("dlq.redriving.", PARKED),
        ("Nats-Msg-Id: redrive-", REDRIVING),
        ("lookback.audit.", REDRIVING),
        ("dlq.redriven.", REDRIVING),
    ];
    for (number, (text, state)) in (1..).zip(steps) {
        letters.park_all(number..number + 1).await?;
        letters.die_before(number, text).await?;
        assert_eq!(letters.state(number).await?, state, "{text}");
        letters.forget_message_ids().await?;
        let redriven = letters.store.redrive(&id(number), &ask("ann")).await?;
        assert_eq!(letters.sent_once(number).await?.sequence, redriven.sequence);
        let acts = letters.acts().await?;
        let of_this: Vec<_> = acts
            .iter()
            .filter(|(_, act)| act.letter == id(number))
            .collect();
        let by = match state {
            PARKED => "user/ann",
            _ => "user/dying",
        };
        assert_eq!(of_this.len(), 1, "{text}: {acts:?}");
        assert_eq!(of_this[0].0, by, "{text}");
        assert_eq!(of_this[0].1.redriven, Some(redriven.sequence), "{text}");
    }
    assert_eq!(letters.counts().await?, [0, 0, 4, 0]);
    Ok(())
}

/// The answer to the event is lost: it was stored, and who sent it does not know.
#[tokio::test]
async fn t11_whoever_loses_the_answer_to_the_event_finds_it() -> Result<()> {
    let letters = Letters::forgetful(Copies::One).await?;
    letters.park_all(1..2).await?;
    let (proxy, store) = letters.far().await?;
    proxy.cut_at("{\"stream\":\"EVENTS\"");
    let error = store.redrive(&id(1), &ask("bob")).await.unwrap_err();
    assert!(matches!(error, LetterError::Send { .. }), "{error:?}");
    assert_eq!(letters.state(1).await?, REDRIVING);
    letters.sent_once(1).await?;
    letters.forget_message_ids().await?;
    let redriven = letters.store.redrive(&id(1), &ask("bob")).await?;
    assert_eq!(letters.sent_once(1).await?.sequence, redriven.sequence);
    Ok(())
}

/// Gives up a future that is not done after it was looked at so many times, at whichever await it is.
async fn looked_at<T>(times: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut looks = 0;
    poll_fn(|context| {
        if looks == times {
            return Poll::Ready(None);
        }
        looks += 1;
        match future.as_mut().poll(context) {
            Poll::Pending if looks == times => Poll::Ready(None),
            looked => looked.map(Some),
        }
    })
    .await
}

/// Redrives are dropped wherever they happen to be, then all are redriven again. A few letters at a
/// time, because what was dropped is still worked off by the server.
async fn redrives_that_are_dropped_anywhere_send_each_event_once(
    copies: Copies,
    count: u64,
) -> Result<()> {
    let letters = Letters::forgetful(copies).await?;
    letters.park_all(0..count + 1).await?;
    let mut whole = 0;
    let first = id(0);
    let ask_first = ask("ann");
    let mut redrive = pin!(letters.store.redrive(&first, &ask_first));
    poll_fn(|context| {
        whole += 1;
        redrive.as_mut().poll(context)
    })
    .await?;
    let numbers: Vec<_> = (1..=count).collect();
    let mut dropped_in: BTreeMap<String, u64> = BTreeMap::new();
    for some in numbers.chunks(10) {
        for (number, round) in some.iter().flat_map(|&number| [(number, 0), (number, 1)]) {
            let times = usize::try_from(number * 7_919 + round * 104_729)? % whole;
            let id = id(number);
            let ask = ask("dying");
            let redrive = letters.store.redrive(&id, &ask);
            if looked_at(times, redrive).await.is_none() {
                *dropped_in.entry(letters.state(number).await?).or_default() += 1;
            }
        }
        letters.forget_message_ids().await?;
        for &number in some {
            match letters.store.redrive(&id(number), &ask("ann")).await {
                Ok(_) | Err(LetterError::WrongState { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    let both = [PARKED, REDRIVING].map(|state| dropped_in.get(state).copied());
    assert!(both.iter().all(Option::is_some), "{dropped_in:?}");
    let sent = letters.sent().await?;
    assert_eq!(sent.len() as u64, count + 1);
    for (letter, events) in sent {
        assert_eq!(events.len(), 1, "{letter}: {events:?}");
    }
    assert_eq!(letters.counts().await?, [0, 0, count + 1, 0]);
    assert_eq!(letters.acts().await?.len() as u64, count + 1);
    Ok(())
}

#[tokio::test]
async fn t11_redrives_that_are_dropped_anywhere_send_each_event_once() -> Result<()> {
    redrives_that_are_dropped_anywhere_send_each_event_once(Copies::One, 100).await
}

#[tokio::test]
async fn t11_redrives_that_are_dropped_anywhere_send_each_event_once_on_three_replicas()
-> Result<()> {
    redrives_that_are_dropped_anywhere_send_each_event_once(Copies::Three, 40).await
}

#[tokio::test]
async fn t11_an_event_that_cannot_be_proven_unsent_is_not_sent_again() -> Result<()> {
    let letters = Letters::r1().await?;
    letters.park_all(1..2).await?;
    letters.die_before(1, "lookback.audit.").await?;
    letters.sent_once(1).await?;
    letters.fixture.js.get_stream(STREAM).await?.purge().await?;
    let error = letters
        .store
        .redrive(&id(1), &ask("ann"))
        .await
        .unwrap_err();
    assert!(
        matches!(error, LetterError::Unproven { after: 0, .. }),
        "{error:?}"
    );
    assert_eq!(letters.sent().await?.len(), 0);
    letters.store.discard(&id(1), &ask("ann")).await?;
    assert_eq!(letters.state(1).await?, DISCARDED);
    Ok(())
}

#[tokio::test]
async fn t11_a_source_stream_that_was_made_anew_proves_nothing() -> Result<()> {
    let letters = Letters::r1().await?;
    letters.park_all(1..2).await?;
    letters.die_before(1, "lookback.audit.").await?;
    letters.fixture.js.delete_stream(STREAM).await?;
    letters
        .fixture
        .js
        .create_stream(source(Copies::One))
        .await?;
    letters
        .fixture
        .js
        .publish(SUBJECT, "new".into())
        .await?
        .await?;
    let error = letters
        .store
        .redrive(&id(1), &ask("ann"))
        .await
        .unwrap_err();
    assert!(matches!(error, LetterError::Unproven { .. }), "{error:?}");
    Ok(())
}

#[tokio::test]
async fn t11_an_event_that_its_stream_may_have_replaced_is_not_sent_again() -> Result<()> {
    let letters = Letters::r1().await?;
    let js = &letters.fixture.js;
    let newest_only = Config {
        max_messages_per_subject: 1,
        ..source(Copies::One)
    };
    js.update_stream(&newest_only).await?;
    js.publish("ev.first", "stays".into()).await?.await?;
    letters.park_all(1..2).await?;
    letters.die_before(1, "lookback.audit.").await?;
    js.publish(SUBJECT, "replaces it".into()).await?.await?;
    let error = letters.store.redrive(&id(1), &ask("ann")).await;
    let error = error.unwrap_err();
    assert!(
        matches!(error, LetterError::Unproven { after: 1, .. }),
        "{error:?}"
    );
    Ok(())
}

#[tokio::test]
async fn t11_an_event_that_its_stream_stores_under_another_subject_is_found() -> Result<()> {
    let letters = Letters::forgetful(Copies::One).await?;
    let transforming = Config {
        subject_transform: Some(SubjectTransform {
            source: "ev.>".to_owned(),
            destination: "ev.in.>".to_owned(),
        }),
        ..forgetful(Copies::One)
    };
    letters.fixture.js.update_stream(&transforming).await?;
    letters.park_all(1..2).await?;
    letters.die_before(1, "lookback.audit.").await?;
    letters.forget_message_ids().await?;
    let redriven = letters.store.redrive(&id(1), &ask("ann")).await?;
    assert_eq!(letters.sent_once(1).await?.sequence, redriven.sequence);
    Ok(())
}

async fn entries_in_parts_move_whole(copies: Copies) -> Result<()> {
    let letters = Letters::new(copies).await?;
    let bytes =
        |size: usize| -> Vec<u8> { (0..size).map(|n| (n % 251).to_le_bytes()[0]).collect() };
    // As large as an event may be that is sent again, and larger than any: 6 parts.
    let header = "h".repeat(45 * 1024);
    let headers = format!("NATS/1.0\r\nLarge: {header}\r\n\r\n");
    let fits = bytes(letters.fixture.nats.max_payload() - headers.len() - 512);
    let huge = bytes(5 << 20);
    letters
        .park(&letter(1, headers.clone(), fits.clone()))
        .await?;
    letters
        .park(&letter(2, headers.clone(), huge.clone()))
        .await?;
    letters.park_all(3..6).await?;
    assert_eq!(letters.counts().await?, [5, 0, 0, 0]);
    letters.store.redrive(&id(1), &ask("ann")).await?;
    let sent = letters.sent_once(1).await?;
    assert!(sent.payload == fits);
    assert_eq!(values(&sent.headers, "Large"), [header]);
    let error = letters
        .store
        .redrive(&id(2), &ask("ann"))
        .await
        .expect_err("it is refused");
    assert!(matches!(error, LetterError::Send { .. }), "{error:?}");
    assert_eq!(letters.state(2).await?, REDRIVING);
    assert_eq!(letters.counts().await?, [3, 1, 1, 0]);
    letters.store.discard(&id(2), &ask("ann")).await?;
    for (number, state, payload) in [(1, REDRIVEN, fits), (2, DISCARDED, huge)] {
        let letter = letters.store.get(&id(number)).await?;
        assert_eq!(letter.state, state);
        assert_eq!(letter.event.headers, headers);
        assert!(letter.event.payload == payload);
    }
    assert_eq!(letters.counts().await?, [3, 0, 1, 1]);
    let ids: Vec<_> = letters
        .listed(None, &Selector::default(), 2)
        .await?
        .into_iter()
        .map(|head| head.id)
        .collect();
    assert_eq!(ids, [3, 4, 5, 1, 2].map(id));
    Ok(())
}

#[tokio::test]
async fn dlq_entries_in_parts_move_whole() -> Result<()> {
    entries_in_parts_move_whole(Copies::One).await
}

#[tokio::test]
async fn dlq_entries_in_parts_move_whole_on_three_replicas() -> Result<()> {
    entries_in_parts_move_whole(Copies::Three).await
}

/// Readers see one version of an entry in parts, or the other, while it is moved.
#[tokio::test]
async fn dlq_an_entry_in_parts_is_read_whole_while_it_is_moved() -> Result<()> {
    let letters = Letters::r1().await?;
    let headers = vec![b'h'; 60 * 1024];
    for number in 1..=40 {
        letters.park(&letter(number, headers.clone(), "x")).await?;
        let read = async {
            let mut states = Vec::new();
            loop {
                let whole = letters.store.get(&id(number)).await?;
                ensure!(whole.event.headers == headers && whole.event.payload == "x");
                let done = whole.state == DISCARDED;
                states.push(whole.state);
                if done {
                    return anyhow::Ok(states);
                }
            }
        };
        let discard = async { Ok(letters.store.discard(&id(number), &ask("ann")).await?) };
        let (states, ()) = futures::try_join!(read, discard)?;
        assert!(
            states.is_sorted_by(|a, b| a == b || a == PARKED),
            "{states:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn dlq_an_event_that_is_refused_stays_redriving_and_is_sent_once_there_is_room() -> Result<()>
{
    let letters = Letters::r1().await?;
    let full = Config {
        max_messages: 1,
        discard: DiscardPolicy::New,
        ..source(Copies::One)
    };
    letters.fixture.js.update_stream(&full).await?;
    letters
        .fixture
        .js
        .publish(SUBJECT, "x".into())
        .await?
        .await?;
    letters.park_all(1..3).await?;
    for number in [1, 2] {
        let error = letters
            .store
            .redrive(&id(number), &ask("ann"))
            .await
            .unwrap_err();
        let words = format!("{:#}", anyhow::Error::from(error));
        assert!(
            words.contains("maximum messages exceeded (10077)"),
            "{words}"
        );
        assert_eq!(letters.state(number).await?, REDRIVING);
    }
    letters
        .fixture
        .js
        .update_stream(&source(Copies::One))
        .await?;
    letters.store.redrive(&id(1), &ask("ann")).await?;
    assert_eq!(letters.sent_once(1).await?.payload, b"event 1");
    letters.store.discard(&id(2), &ask("ann")).await?;
    let acts = letters.acts().await?;
    let discard = &acts.last().context("no acts")?.1;
    assert_eq!(
        (discard.from.as_str(), discard.to.as_str()),
        (REDRIVING, DISCARDED)
    );
    assert_eq!(letters.sent().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn dlq_an_event_whose_subject_no_stream_takes_stays_redriving() -> Result<()> {
    let letters = Letters::r1().await?;
    let mut lost = letter(1, "", "x");
    lost.delivery.subject = "gone.a".to_owned();
    letters.park(&lost).await?;
    let error = letters
        .store
        .redrive(&id(1), &ask("ann"))
        .await
        .unwrap_err();
    let words = format!("{:#}", anyhow::Error::from(error));
    assert!(
        words.contains("gone.a: no answer: no responders"),
        "{words}"
    );
    assert_eq!(letters.state(1).await?, REDRIVING);
    Ok(())
}

#[tokio::test]
async fn dlq_an_event_does_not_go_into_another_stream_than_it_came_from() -> Result<()> {
    let letters = Letters::r1().await?;
    let other = Config {
        name: "OTHER".to_owned(),
        subjects: vec!["gone.>".to_owned()],
        ..Config::default()
    };
    let mut other = letters.fixture.js.create_stream(other).await?;
    let mut lost = letter(1, "", "x");
    lost.delivery.subject = "gone.a".to_owned();
    letters.park(&lost).await?;
    let error = letters
        .store
        .redrive(&id(1), &ask("ann"))
        .await
        .unwrap_err();
    let words = format!("{:#}", anyhow::Error::from(error));
    assert!(
        words.contains("expected stream does not match (10060)"),
        "{words}"
    );
    assert_eq!(other.info().await?.state.messages, 0);
    Ok(())
}

/// Somebody listens on the events' subject and answers faster than the stream.
#[tokio::test]
async fn dlq_an_answer_that_is_not_the_streams_proves_nothing() -> Result<()> {
    let letters = Letters::r1().await?;
    letters.park_all(1..2).await?;
    let (proxy, store) = letters.far().await?;
    proxy.freeze_at("Nats-Msg-Id: redrive-");
    let client = letters.fixture.nats.client().clone();
    let redrive = tokio::spawn(async move { store.redrive(&id(1), &ask("ann")).await });
    eventually(SOON, "the event is on its way", async || {
        ensure!(proxy.is_frozen(), "it is not");
        Ok(())
    })
    .await?;
    // The stream is not there while the event arrives, but somebody else is.
    let mut listener = client.subscribe(SUBJECT).await?;
    letters.fixture.js.delete_stream(STREAM).await?;
    proxy.thaw();
    let message = futures::StreamExt::next(&mut listener)
        .await
        .context("no event")?;
    let reply = message.reply.context("no reply subject")?;
    let ack = Bytes::from(r#"{"stream":"ELSEWHERE","seq":9}"#);
    client.publish(reply, ack).await?;
    let error = redrive.await?.unwrap_err();
    let words = format!("{:#}", anyhow::Error::from(error));
    assert!(words.contains("it is that of stream ELSEWHERE"), "{words}");
    assert_eq!(letters.state(1).await?, REDRIVING);
    Ok(())
}

#[tokio::test]
async fn dlq_a_letter_whose_source_stream_is_gone_stays_parked_and_can_be_discarded() -> Result<()>
{
    let letters = Letters::r1().await?;
    letters.park_all(1..2).await?;
    letters.fixture.js.delete_stream(STREAM).await?;
    let error = letters
        .store
        .redrive(&id(1), &ask("ann"))
        .await
        .unwrap_err();
    assert!(matches!(error, LetterError::Source { .. }), "{error:?}");
    assert_eq!(letters.state(1).await?, PARKED);
    letters.store.discard(&id(1), &ask("ann")).await?;
    assert_eq!(letters.counts().await?, [0, 0, 0, 1]);
    Ok(())
}

#[tokio::test]
async fn dlq_a_discard_needs_a_reason_and_is_audited() -> Result<()> {
    let letters = Letters::r1().await?;
    letters.park_all(1..2).await?;
    let silent = LetterAsk {
        reason: " ".to_owned(),
        ..ask("ann")
    };
    let error = letters.store.discard(&id(1), &silent).await.unwrap_err();
    assert!(matches!(error, LetterError::NoReason), "{error:?}");
    assert_eq!(letters.state(1).await?, PARKED);
    let loud = LetterAsk {
        reason: "a test\r\nof the scanner".to_owned(),
        ..ask("ann")
    };
    letters.store.discard(&id(1), &loud).await?;
    let letter = letters.store.get(&id(1)).await?;
    assert_eq!(letter.state, DISCARDED);
    assert_eq!(letter.note.as_deref(), Some("a test  of the scanner"));
    let act = DeadLetterAct {
        letter: id(1),
        op_id: loud.op_id,
        from: PARKED.to_owned(),
        to: DISCARDED.to_owned(),
        // As the letter has it, since whoever records it for somebody who died knows no more.
        reason: letter.note.unwrap_or_default(),
        redriven: None,
    };
    assert_eq!(letters.acts().await?, [("user/ann".to_owned(), act)]);
    for verb in ["redriven", "discarded"] {
        let error = match verb {
            "redriven" => letters
                .store
                .redrive(&id(1), &ask("bob"))
                .await
                .unwrap_err(),
            _ => letters
                .store
                .discard(&id(1), &ask("bob"))
                .await
                .unwrap_err(),
        };
        assert_eq!(
            error.to_string(),
            format!("dead letter {} is discarded: it cannot be {verb}", id(1))
        );
    }
    Ok(())
}

#[tokio::test]
async fn dlq_a_letter_whose_event_was_sent_is_not_discarded() -> Result<()> {
    let letters = Letters::r1().await?;
    letters.park_all(1..3).await?;
    letters.die_before(1, "lookback.audit.").await?;
    letters.die_before(2, "Nats-Msg-Id: redrive-").await?;
    let error = letters
        .store
        .discard(&id(1), &ask("ann"))
        .await
        .unwrap_err();
    assert!(
        matches!(error, LetterError::Sent { sequence: 1, .. }),
        "{error:?}"
    );
    assert_eq!(letters.state(1).await?, REDRIVING);
    letters.store.discard(&id(2), &ask("ann")).await?;
    assert_eq!(letters.state(2).await?, DISCARDED);
    Ok(())
}

async fn of_a_redrive_and_discards_one_wins(copies: Copies, rounds: u64) -> Result<()> {
    let letters = Letters::new(copies).await?;
    letters.park_all(1..rounds + 1).await?;
    let nats = connect(letters.fixture.servers.urls()).await?;
    let other = DeadLetterStore::new(nats, owner());
    for round in 1..=rounds {
        let id = id(round);
        let (redrive, ann, bob) = (ask("eve"), ask("ann"), ask("bob"));
        let (redriven, ann, bob) = futures::join!(
            letters.store.redrive(&id, &redrive),
            other.discard(&id, &ann),
            letters.store.discard(&id, &bob),
        );
        let state = letters.state(round).await?;
        let sent = letters
            .sent()
            .await?
            .remove(&id)
            .map_or(0, |sent| sent.len());
        let discarded = usize::from(ann.is_ok()) + usize::from(bob.is_ok());
        let told = format!("round {round}: {state}, {redriven:?}, {ann:?}, {bob:?}");
        match state.as_str() {
            REDRIVEN => assert!(redriven.is_ok() && discarded == 0 && sent == 1, "{told}"),
            // A discard may come between the look for the event and its sending: that is then said.
            DISCARDED => {
                let overtaken = matches!(redriven, Err(LetterError::Overtaken { .. }));
                assert!(discarded == 1 && sent == usize::from(overtaken), "{told}");
            }
            _ => anyhow::bail!("{told}"),
        }
    }
    let [parked, redriving, redriven, discarded] = letters.counts().await?;
    assert_eq!((parked, redriving, redriven + discarded), (0, 0, rounds));
    Ok(())
}

#[tokio::test]
async fn dlq_of_a_redrive_and_discards_at_once_one_wins() -> Result<()> {
    of_a_redrive_and_discards_one_wins(Copies::One, 60).await
}

#[tokio::test]
async fn dlq_of_a_redrive_and_discards_at_once_on_three_replicas_one_wins() -> Result<()> {
    of_a_redrive_and_discards_one_wins(Copies::Three, 20).await
}

#[tokio::test]
async fn dlq_who_comes_second_is_told_who_won() -> Result<()> {
    let letters = Letters::r1().await?;
    letters.park_all(1..2).await?;
    let (proxy, store) = letters.far().await?;
    proxy.freeze_at("dlq.discarded.");
    let slow = tokio::spawn(async move { store.discard(&id(1), &ask("slow")).await });
    eventually(SOON, "the discard is on its way", async || {
        ensure!(proxy.is_frozen(), "it is not");
        Ok(())
    })
    .await?;
    letters.store.discard(&id(1), &ask("ann")).await?;
    proxy.thaw();
    let error = slow.await?.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "dead letter {} is left as it is: user/ann has moved it to discarded",
            id(1)
        )
    );
    Ok(())
}

#[tokio::test]
async fn dlq_an_event_that_was_redriven_as_often_as_allowed_is_not_sent() -> Result<()> {
    let letters = Letters::r1().await?;
    let headers = "NATS/1.0\r\nLookback-Redrives: 3\r\n\r\n";
    letters.park(&letter(1, headers, "x")).await?;
    let error = letters
        .store
        .redrive(&id(1), &ask("ann"))
        .await
        .unwrap_err();
    assert!(
        matches!(error, LetterError::Loop { redrives: 3, .. }),
        "{error:?}"
    );
    assert_eq!(letters.state(1).await?, PARKED);
    let more = LetterAsk {
        max_redrives: 4,
        ..ask("ann")
    };
    letters.store.redrive(&id(1), &more).await?;
    let sent = letters.sent_once(1).await?;
    assert_eq!(values(&sent.headers, REDRIVES), ["4"]);
    Ok(())
}

#[tokio::test]
async fn dlq_an_event_that_could_not_be_sent_as_it_was_stays_parked() -> Result<()> {
    let letters = Letters::r1().await?;
    let headers = b"NATS/1.0\r\nLatin: caf\xe9\r\n\r\n".to_vec();
    letters.park(&letter(1, headers, "x")).await?;
    let error = letters
        .store
        .redrive(&id(1), &ask("ann"))
        .await
        .unwrap_err();
    assert!(
        matches!(error, LetterError::NotResendable { .. }),
        "{error:?}"
    );
    assert_eq!(letters.state(1).await?, PARKED);
    letters.store.discard(&id(1), &ask("ann")).await?;
    assert_eq!(letters.counts().await?, [0, 0, 0, 1]);
    Ok(())
}
