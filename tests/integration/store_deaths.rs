//! Who dies, or is held up, between two steps, and what others find then: no event is sent twice, and the
//! audit gets what it lacks.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use lookback::nats::alerts::{AlertStore, StepError};
use lookback::nats::audit;
use lookback::nats::connect::Timeouts;
use lookback::nats::deadletters::{DeadLetterStore, LetterError};
use lookback::nats::entries::{Cursor, ReadError};
use lookback_dev::support::{TcpProxy, eventually};
use lookback_protocol::alert::ARCHIVED;
use lookback_protocol::audit::{Act, AlertAct, AuditKind};
use lookback_protocol::deadletter::{DISCARDED, PARKED, REDRIVEN, REDRIVING};
use lookback_protocol::workflow::{Ask, Refusal};
use tokio::task::JoinHandle;

use crate::nats_fixture::{SOON, key};
use crate::store_fixture::{
    Copies, Servers, StoreFixture, connect, connect_with, observed, owner, to,
};
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
    // Both go on with what was begun, so it is done as both asked.
    assert_eq!(slow.await??, redriven);
    assert_eq!(letters.sent_once(1).await?.sequence, redriven.sequence);
    assert_eq!(letters.acts().await?.len(), 1);
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

/// The alerts, by a way that can be cut.
async fn far(fixture: &StoreFixture) -> Result<(TcpProxy, AlertStore)> {
    let Servers::One(server) = &fixture.servers else {
        anyhow::bail!("there is more than one way to a cluster");
    };
    let proxy = TcpProxy::start(server.address()).await?;
    let nats = connect(vec![format!("nats://{}", proxy.address())]).await?;
    Ok((proxy, AlertStore::new(nats, owner())))
}

/// Takes a step by a process that dies when the step is taken and not yet in the audit.
async fn die_before_the_audit(fixture: &StoreFixture, id: &str, ask: &Ask) -> Result<()> {
    let (proxy, store) = far(fixture).await?;
    proxy.freeze_at("PUB lookback.audit.prod.edr.alert.");
    let (id, ask) = (id.to_owned(), ask.clone());
    let dying = tokio::spawn(async move { store.step(&id, None, &ask).await });
    frozen(&proxy).await?;
    dying.abort();
    Ok(())
}

/// What the audit says was done to alerts, and by whom.
async fn alert_acts(fixture: &StoreFixture) -> Result<Vec<(String, AlertAct)>> {
    let kind = Some(AuditKind::Alert);
    let page = audit::page(&fixture.nats, &key(), kind, Cursor::default(), 100).await?;
    page.items
        .into_iter()
        .map(|item| {
            let record = item.record.map_err(anyhow::Error::msg)?;
            match record.act {
                Act::Alert(act) => Ok((record.by, act)),
                other => anyhow::bail!("{other:?} among the acts on alerts"),
            }
        })
        .collect()
}

#[tokio::test]
async fn a_step_whose_mover_died_is_in_the_audit_after_the_next_step() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let first = fixture.one().await?;
    let id = first.id;
    let mut dying = to("triage");
    dying.by = "user/dying".to_owned();
    die_before_the_audit(&fixture, &id, &dying).await?;
    let moved = fixture.alerts.get(&id).await?;
    assert_eq!(moved.state, "triage");
    assert_eq!(alert_acts(&fixture).await?, []);
    let next = to("closed");
    let closed = fixture.alerts.step(&id, None, &next).await?;
    let mut acts = alert_acts(&fixture).await?;
    acts.sort_by_key(|(_, act)| act.sequence);
    let act = |ask: &Ask, transition: &str, from: &str, to: &str, sequence| AlertAct {
        alert: id.clone(),
        op_id: ask.op_id.clone(),
        transition: transition.to_owned(),
        from: from.to_owned(),
        to: to.to_owned(),
        reason: ask.reason.clone(),
        sequence,
    };
    let of_dying = act(&dying, "triage", "new", "triage", moved.sequence);
    let of_ann = act(&next, "close", "triage", "closed", closed.sequence);
    assert_eq!(
        acts,
        [
            ("user/dying".to_owned(), of_dying),
            ("user/ann".to_owned(), of_ann)
        ]
    );
    // Whoever was not dead after all finds it said.
    let late = fixture
        .alerts
        .step(&id, Some(first.sequence), &dying)
        .await?;
    assert_eq!(late.sequence, moved.sequence);
    assert_eq!(alert_acts(&fixture).await?.len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_step_whose_mover_died_is_in_the_audit_also_when_the_answer_to_the_next_is_lost()
-> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let id = fixture.one().await?.id;
    let dying = to("triage");
    die_before_the_audit(&fixture, &id, &dying).await?;
    let (proxy, store) = far(&fixture).await?;
    proxy.cut_at("{\"stream\":\"LB_prod_edr_ALERTS\"");
    let next = to("closed");
    store.step(&id, None, &next).await?;
    let acts = alert_acts(&fixture).await?;
    let said: BTreeSet<_> = acts.iter().map(|(_, act)| act.op_id.as_str()).collect();
    assert_eq!(said, BTreeSet::from([&*dying.op_id, &*next.op_id]));
    Ok(())
}

#[tokio::test]
async fn a_step_whose_mover_died_is_in_the_audit_once_it_is_asked_for_again() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let id = fixture.one().await?.id;
    for (at, state) in ["triage", ARCHIVED].into_iter().enumerate() {
        let dying = to(state);
        die_before_the_audit(&fixture, &id, &dying).await?;
        assert_eq!(alert_acts(&fixture).await?.len(), at);
        let again = fixture.alerts.step(&id, None, &to(state)).await;
        let error = again.unwrap_err();
        assert!(
            matches!(
                &error,
                StepError::Refused {
                    source: Refusal::AlreadyThere { .. } | Refusal::Archived { .. },
                    ..
                }
            ),
            "{error:?}"
        );
        let acts = alert_acts(&fixture).await?;
        assert_eq!(acts.len(), at + 1);
        assert_eq!(acts[at].1.op_id, dying.op_id);
    }
    Ok(())
}

#[tokio::test]
async fn a_discard_whose_asker_died_is_in_the_audit_once_it_is_asked_for_again() -> Result<()> {
    let letters = Letters::r1().await?;
    letters.park_all(1..3).await?;
    letters.die_before(2, "Nats-Msg-Id: redrive-").await?;
    for (number, from) in [(1, PARKED), (2, REDRIVING)] {
        let (proxy, store) = letters.far().await?;
        proxy.freeze_at("PUB lookback.audit.");
        let mut dying = ask("dying");
        dying.reason = "a test of the scanner".to_owned();
        let asked = dying.clone();
        let discard = tokio::spawn(async move { store.discard(&id(number), &asked).await });
        frozen(&proxy).await?;
        discard.abort();
        assert_eq!(letters.state(number).await?, DISCARDED);
        let before = letters.acts().await?.len();
        let again = letters.store.discard(&id(number), &ask("ann")).await;
        let error = again.unwrap_err();
        assert!(matches!(error, LetterError::WrongState { .. }), "{error:?}");
        let acts = letters.acts().await?;
        assert_eq!(acts.len(), before + 1);
        let (by, act) = acts.last().context("no act")?;
        assert_eq!((by.as_str(), &act.op_id), ("user/dying", &dying.op_id));
        assert_eq!((act.from.as_str(), act.to.as_str()), (from, DISCARDED));
        assert_eq!((&act.letter, &act.reason), (&id(number), &dying.reason));
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

const LETTERS: u64 = 60;
const KILLS: usize = 6;

/// Grows with each move of a letter.
async fn moves(letters: &Letters) -> Result<u64> {
    eventually(SOON, "the way back is found", async || {
        let stream = observed(&letters.fixture.nats, &key().dead_letters_stream()).await?;
        Ok(stream.state.last_seq)
    })
    .await
}

/// Goes over all letters, from one of them on, and does with each what it does, whatever comes of it.
async fn at_work(store: DeadLetterStore, redrives: bool, first: u64) {
    for number in (0..LETTERS).map(|at| 1 + (first + at) % LETTERS) {
        if redrives {
            store.redrive(&id(number), &ask("each")).await.ok();
        } else {
            store.discard(&id(number), &ask("each")).await.ok();
        }
    }
}

/// Redrives and discards by four people at once, while the server is killed and comes back.
#[tokio::test]
async fn t11_each_letter_ends_once_while_the_server_is_killed_and_comes_back() -> Result<()> {
    let mut letters = Letters::r1().await?;
    letters.park_all(1..LETTERS + 1).await?;
    let mut people = Vec::new();
    for (at, redrives) in [true, true, false, false].into_iter().enumerate() {
        let timeouts = Timeouts {
            request: Duration::from_millis(500),
            ..Timeouts::default()
        };
        let nats = connect_with(letters.fixture.servers.urls(), timeouts).await?;
        let store = DeadLetterStore::new(nats, owner());
        people.push(tokio::spawn(at_work(store, redrives, 20 * at as u64)));
    }
    let is_over = || people.iter().all(JoinHandle::is_finished);
    for _ in 0..KILLS {
        let Servers::One(server) = &mut letters.fixture.servers else {
            anyhow::bail!("it is one server");
        };
        server.kill();
        server.restart().await?;
        let before = moves(&letters).await?;
        eventually(SOON, "people go on", async || {
            ensure!(is_over() || moves(&letters).await? > before + 10, "not yet");
            Ok(())
        })
        .await?;
    }
    try_join_all(people).await?;
    let store = DeadLetterStore::new(connect(letters.fixture.servers.urls()).await?, owner());
    moves(&letters).await?;
    for number in 1..=LETTERS {
        if [PARKED, REDRIVING].contains(&letters.state(number).await?.as_str()) {
            store.redrive(&id(number), &ask("ann")).await?;
        }
        if letters.state(number).await? == DISCARDED {
            store.discard(&id(number), &ask("ann")).await.unwrap_err();
        }
    }
    let sent = letters.sent().await?;
    let acts = letters.acts().await?;
    let said: BTreeSet<_> = acts
        .iter()
        .map(|(_, act)| (act.letter.clone(), act.to.clone()))
        .collect();
    for number in 1..=LETTERS {
        let state = letters.state(number).await?;
        let times = sent.get(&id(number)).map_or(0, Vec::len);
        let told = format!("letter {number} is {state} and was sent {times} times");
        // A discard may come while the answer to the event is lost.
        assert!(times == 1 || times == 0 && state == DISCARDED, "{told}");
        assert!(said.contains(&(id(number), state)), "{told}: {acts:?}");
    }
    Ok(())
}
