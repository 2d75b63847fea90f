//! Hearing of alerts: live, and by durable subscriptions.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use lookback::nats::alerts::{AlertStore, Begin, Heard, Live, StoredAlert, Subscription};
use lookback::nats::entries::Cursor;
use lookback_dev::support::TcpProxy;
use lookback_protocol::alert::{AlertRecord, MOVED_TO, NEW};
use lookback_protocol::workflow::{To, WorkflowSpec};
use tokio::time::timeout;

use crate::nats_fixture::{SOON, key};
use crate::store_fixture::{Servers, StoreFixture, ask, connect, record, to};

/// Long enough for what was published to arrive, when something is expected not to.
const QUIET: Duration = Duration::from_millis(500);

async fn heard(live: &mut Live) -> Result<StoredAlert> {
    let next = timeout(SOON, live.next())
        .await
        .context("nothing is heard")?;
    match next.context("the connection is closed")?? {
        Heard::Alert(alert) => Ok(*alert),
        Heard::Interrupted => anyhow::bail!("an interruption"),
    }
}

async fn next(subscription: &mut Subscription) -> Result<StoredAlert> {
    Ok(timeout(SOON, subscription.next())
        .await
        .context("nothing comes")??)
}

#[tokio::test]
async fn s25_a_new_alert_is_heard_with_all_that_it_is() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let mut live = Live::open(&fixture.nats, &key(), None).await?;
    let created = fixture.one().await?;
    // Sequence, time, subject and state are those of a read; type, ids and author stand in the record.
    assert_eq!(heard(&mut live).await?, created);
    let record = created.record.context("archived")?;
    assert_eq!(record.history[0].transition, "create");
    assert_eq!(record.by, "worker/edr-0");
    Ok(())
}

#[tokio::test]
async fn s26_a_move_is_heard_once_with_where_from_where_to_and_by_what() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let id = fixture.one().await?.id;
    let mut live = Live::open(&fixture.nats, &key(), None).await?;
    for (state, from, transition) in [
        ("triage", NEW, "triage"),
        ("closed", "triage", "close"),
        ("triage", "closed", "reopen"),
    ] {
        let stepped = fixture.alerts.step(&id, None, &to(state)).await?;
        // Neither the tombstone nor the mark is taken for an alert.
        let alert = heard(&mut live).await?;
        assert_eq!(alert, stepped.alert);
        let record = alert.record.context("archived")?;
        let last = record.history.last().context("no history")?;
        assert_eq!(
            (last.from.as_deref(), last.to.as_str()),
            (Some(from), state)
        );
        assert_eq!(
            (last.transition.as_str(), last.by.as_str()),
            (transition, "user/ann")
        );
    }
    Ok(())
}

#[tokio::test]
async fn s11_a_listener_of_one_state_hears_what_comes_into_it_and_nothing_else() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let ids = fixture.create(0..3).await?;
    let mut live = Live::open(&fixture.nats, &key(), Some("closed")).await?;
    for (id, state) in [
        (0, "triage"),
        (1, "triage"),
        (1, "closed"),
        (1, "triage"),
        (0, "closed"),
    ] {
        fixture.alerts.step(&ids[id], None, &to(state)).await?;
    }
    let closed = [heard(&mut live).await?, heard(&mut live).await?];
    let closed = closed.map(|alert| (alert.id, alert.state));
    assert_eq!(
        closed,
        [1, 0].map(|at| (ids[at].clone(), "closed".to_owned()))
    );
    Ok(())
}

#[tokio::test]
async fn s11_any_nats_client_can_listen_to_one_state() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let client = fixture.js.clone();
    let subject = "lookback.v1ev.prod.edr.alert.triage.*";
    let mut messages = fixture.nats.client().subscribe(subject).await?;
    fixture.nats.client().flush().await?;
    client.query_account().await?;
    let id = fixture.one().await?.id;
    let stepped = fixture.alerts.step(&id, None, &to("triage")).await?;
    let message = timeout(SOON, messages.next()).await?.context("closed")?;
    let headers = message.headers.context("no headers")?;
    let header = |name: &str| headers.get(name).map(ToString::to_string);
    assert_eq!(
        header("Nats-Sequence"),
        Some(stepped.alert.sequence.to_string())
    );
    assert_eq!(header("Nats-Subject"), Some(stepped.alert.subject));
    assert_eq!(header(MOVED_TO), None);
    let record: AlertRecord = serde_json::from_slice(&message.payload)?;
    assert_eq!(Some(record), stepped.alert.record);
    Ok(())
}

#[tokio::test]
async fn a_listener_is_told_that_its_connection_was_cut() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let Servers::One(server) = &fixture.servers else {
        anyhow::bail!("there is one server");
    };
    let proxy = TcpProxy::start(server.address()).await?;
    let nats = connect(vec![format!("nats://{}", proxy.address())]).await?;
    let mut live = Live::open(&nats, &key(), None).await?;
    proxy.cut();
    let next = timeout(SOON, live.next())
        .await
        .context("nothing is heard")?;
    let next = next.context("the connection is closed")??;
    assert_eq!(next, Heard::Interrupted);
    // What it missed is in the list, and it hears on.
    let missed = fixture.one().await?;
    let listed = AlertStore::new(fixture.nats.clone(), crate::store_fixture::owner())
        .list(None, Cursor::default(), 10)
        .await?;
    assert_eq!(listed.items, [missed]);
    Ok(())
}

#[tokio::test]
async fn s27_two_subscribers_each_get_every_alert() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let before = fixture.create(0..10).await?;
    let nats = &fixture.nats;
    let mut one = Subscription::open(nats, &key(), "soar", &[], Begin::All).await?;
    let mut other = Subscription::open(nats, &key(), "siem", &[], Begin::All).await?;
    let after = fixture.create(10..20).await?;
    let expected: Vec<_> = before.iter().chain(&after).collect();
    for subscription in [&mut one, &mut other] {
        let mut got = Vec::new();
        for _ in 0..20 {
            let alert = next(subscription).await?;
            subscription.done(&alert).await?;
            got.push(alert.id);
        }
        assert_eq!(got.iter().collect::<Vec<_>>(), expected);
    }
    Ok(())
}

#[tokio::test]
async fn s27_a_new_subscriber_may_begin_with_what_comes_next() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    fixture.create(0..10).await?;
    let mut new = Subscription::open(&fixture.nats, &key(), "soar", &[], Begin::New).await?;
    let id = fixture.create(10..11).await?.remove(0);
    assert_eq!(next(&mut new).await?.id, id);
    Ok(())
}

#[tokio::test]
async fn s27_s31_a_subscriber_that_comes_back_goes_on_behind_what_it_has_done() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let ids = fixture.create(0..6).await?;
    let nats = connect(fixture.servers.urls()).await?;
    let mut first = Subscription::open(&nats, &key(), "soar", &[], Begin::All).await?;
    for id in &ids[..3] {
        let alert = next(&mut first).await?;
        assert_eq!(&alert.id, id);
        first.done(&alert).await?;
    }
    drop((first, nats));
    // What came while it was away comes too, and neither is what was done given again.
    let late = fixture.create(6..8).await?;
    let mut again = Subscription::open(&fixture.nats, &key(), "soar", &[], Begin::All).await?;
    for id in ids[3..].iter().chain(&late) {
        let alert = next(&mut again).await?;
        assert_eq!(&alert.id, id);
        again.done(&alert).await?;
    }
    assert!(timeout(QUIET, again.next()).await.is_err());
    Ok(())
}

#[tokio::test]
async fn s27_an_alert_that_moved_on_comes_in_its_newest_version_only() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let ids = fixture.create(0..3).await?;
    let mut all = Subscription::open(&fixture.nats, &key(), "soar", &[], Begin::All).await?;
    fixture.alerts.step(&ids[0], None, &to("triage")).await?;
    let closed = fixture.alerts.step(&ids[0], None, &to("closed")).await?;
    let mut got = Vec::new();
    for _ in 0..3 {
        let alert = next(&mut all).await?;
        all.done(&alert).await?;
        got.push(alert);
    }
    assert_eq!(got[2], closed.alert);
    let ids: BTreeSet<_> = ids.into_iter().collect();
    assert_eq!(
        got.into_iter()
            .map(|alert| alert.id)
            .collect::<BTreeSet<_>>(),
        ids
    );
    assert!(timeout(QUIET, all.next()).await.is_err());
    Ok(())
}

#[tokio::test]
async fn s27_a_subscription_to_states_gets_what_comes_into_them() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let ids = fixture.create(0..4).await?;
    let states = ["escalated", "closed"];
    let mut some = Subscription::open(&fixture.nats, &key(), "soar", &states, Begin::All).await?;
    for (id, state) in ids.iter().zip(states) {
        fixture.alerts.step(id, None, &to("triage")).await?;
        fixture.alerts.step(id, None, &to(state)).await?;
        let alert = next(&mut some).await?;
        assert_eq!((&alert.id, alert.state.as_str()), (id, state));
        some.done(&alert).await?;
    }
    Ok(())
}

#[tokio::test]
async fn s27_what_is_no_name_is_no_subscriber() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    for bad in ["", "*", ">", "a.b", "a b"] {
        let opened = Subscription::open(&fixture.nats, &key(), bad, &[], Begin::All).await;
        assert!(opened.is_err(), "{bad:?}");
    }
    assert_eq!(
        fixture
            .js
            .get_stream(key().alerts_stream())
            .await?
            .cached_info()
            .state
            .consumer_count,
        0
    );
    Ok(())
}

/// From the definition to the archive, through the library alone.
#[tokio::test]
async fn s28_the_whole_life_of_an_alert_through_the_library() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    fixture.define(WorkflowSpec::default()).await?;
    let mut live = Live::open(&fixture.nats, &key(), None).await?;
    let created = fixture.one().await?;
    let store = &fixture.alerts;
    let workflow = store.workflow().await?;
    assert_eq!(workflow.spec(), &WorkflowSpec::default());
    let found = store.find(&created.id[..8]).await?;
    assert_eq!((&found, &created.record), (&created, &Some(record(1))));
    let mut at = created.sequence;
    for step in [
        to("triage"),
        ask(To::Transition("escalate".to_owned())),
        to("closed"),
        ask(To::Archive),
    ] {
        let stepped = store.step(&found.id, Some(at), &step).await?;
        at = stepped.alert.sequence;
        let listed = store
            .list(Some(&stepped.alert.state), Cursor::default(), 10)
            .await?;
        ensure!(listed.items == [stepped.alert.clone()], "{listed:?}");
        ensure!(store.counts().await?[&stepped.alert.state] == 1);
    }
    for state in [NEW, "triage", "escalated", "closed"] {
        assert_eq!(heard(&mut live).await?.state, state);
    }
    let archived = store.archived(&found.id).await?;
    let way: Vec<_> = archived
        .history
        .iter()
        .map(|step| step.to.as_str())
        .collect();
    assert_eq!(way, [NEW, "triage", "escalated", "closed", "archived"]);
    assert_eq!(archived.data, record(1).data);
    assert_eq!(fixture.listed(None, 10).await?, []);
    Ok(())
}
