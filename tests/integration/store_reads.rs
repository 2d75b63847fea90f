//! Reading alerts: lists, counts, errors that are not taken for absence, and what reads cost the server.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use futures::{StreamExt, TryStreamExt, stream};
use lookback::nats::alerts::{AlertStore, StepError, StoredAlert, anywhere};
use lookback::nats::connect::Timeouts;
use lookback::nats::entries::{Cursor, ReadError};
use lookback_dev::support::{TcpProxy, eventually};
use lookback_protocol::alert::NEW;
use lookback_protocol::names::{Owner, PipelineKey};
use lookback_protocol::workflow::{To, WorkflowSpec};

use crate::nats_fixture::{SOON, key};
use crate::store_fixture::{Servers, Spy, StoreFixture, ask, connect_with, listed, owner, to};

/// More than a page and more than a server looks up at once.
const MANY: u64 = 2500;

fn ids(alerts: &[StoredAlert]) -> Vec<&str> {
    alerts.iter().map(|alert| alert.id.as_str()).collect()
}

fn silent<T>(answer: &Result<T, ReadError>) -> bool {
    matches!(answer, Err(ReadError::Api { .. }))
}

#[tokio::test]
async fn s21_all_pages_together_hold_every_alert_once_r1() -> Result<()> {
    pages_hold_all(&StoreFixture::r1().await?).await
}

#[tokio::test]
async fn s21_all_pages_together_hold_every_alert_once_r3() -> Result<()> {
    pages_hold_all(&StoreFixture::r3().await?).await
}

async fn pages_hold_all(fixture: &StoreFixture) -> Result<()> {
    let created = fixture.create(0..MANY).await?;
    let moved = &created[..1200];
    let archived = &created[..7];
    step_all(&fixture.alerts, moved, "triage").await?;
    for id in archived {
        fixture.alerts.step(id, None, &ask(To::Archive)).await?;
    }
    let kept: BTreeSet<_> = created[7..].iter().map(String::as_str).collect();
    for nats in fixture.each().await? {
        let store = AlertStore::new(nats, owner());
        for limit in [1000, 333] {
            let all = listed(&store, None, limit).await?;
            assert_eq!(all.len(), kept.len());
            assert_eq!(ids(&all).into_iter().collect::<BTreeSet<_>>(), kept);
            assert!(all.is_sorted_by_key(|alert| alert.sequence));
        }
        let new = listed(&store, Some(NEW), 1000).await?;
        assert_eq!(ids(&new), created[1200..].iter().collect::<Vec<_>>());
        let triage = listed(&store, Some("triage"), 100).await?;
        let triage: BTreeSet<_> = ids(&triage).into_iter().collect();
        assert_eq!(
            triage,
            created[7..1200].iter().map(String::as_str).collect()
        );
        let archive = listed(&store, Some("archived"), 1000).await?;
        assert_eq!(ids(&archive), archived.iter().collect::<Vec<_>>());
        let counts = store.counts().await?;
        let expected = [("new", 1300), ("triage", 1193), ("archived", 7)];
        for (state, count) in expected {
            assert_eq!(counts[state], count, "{state}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn s21_a_page_is_as_long_as_was_asked_for_and_says_where_the_next_begins() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let created = fixture.create(0..10).await?;
    let first = fixture.alerts.list(None, Cursor::default(), 4).await?;
    assert_eq!(ids(&first.items), created[..4].iter().collect::<Vec<_>>());
    let next = first.next.context("there are more")?;
    let second = fixture.alerts.list(None, next, 4).await?;
    assert_eq!(ids(&second.items), created[4..8].iter().collect::<Vec<_>>());
    // The same page again is the same page.
    assert_eq!(fixture.alerts.list(None, next, 4).await?, second);
    let last = second.next.context("there are more")?;
    let last = fixture.alerts.list(None, last, 4).await?;
    assert_eq!(ids(&last.items), created[8..].iter().collect::<Vec<_>>());
    assert_eq!(last.next, None);
    Ok(())
}

#[tokio::test]
async fn s21_a_pipeline_without_alerts_has_an_empty_list_and_counts_of_zero() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    assert_eq!(fixture.listed(None, 10).await?, []);
    assert_eq!(fixture.listed(Some(NEW), 10).await?, []);
    let counts = fixture.alerts.counts().await?;
    let states = [NEW, "triage", "escalated", "closed", "archived"];
    assert_eq!(counts, states.map(|state| (state.to_owned(), 0)).into());
    Ok(())
}

#[tokio::test]
async fn s22_alerts_in_a_state_that_the_workflow_has_no_more_are_counted_there() -> Result<()> {
    for fixture in [StoreFixture::r1().await?, StoreFixture::r3().await?] {
        let mut waiting = WorkflowSpec::default();
        waiting.states.push("waiting".to_owned());
        waiting.transitions[0].to = "waiting".to_owned();
        waiting.transitions[1].from.push("waiting".to_owned());
        waiting.transitions[3].from.push("escalated".to_owned());
        fixture.define(waiting).await?;
        let created = fixture.create(0..20).await?;
        step_all(&fixture.alerts, &created[..7], "waiting").await?;
        fixture.define(WorkflowSpec::default()).await?;
        // Once more, as every reconcile does: what is former stays known.
        fixture.define(WorkflowSpec::default()).await?;
        let counts = fixture.alerts.counts().await?;
        assert_eq!((counts[NEW], counts["waiting"]), (13, 7), "{counts:?}");
        let listed = fixture.listed(Some("waiting"), 100).await?;
        assert_eq!(listed.len(), 7);
    }
    Ok(())
}

#[tokio::test]
async fn s22_a_list_made_while_others_write_misses_none_that_stayed_r1() -> Result<()> {
    none_is_missed(&StoreFixture::r1().await?).await
}

#[tokio::test]
async fn s22_a_list_made_while_others_write_misses_none_that_stayed_r3() -> Result<()> {
    none_is_missed(&StoreFixture::r3().await?).await
}

/// Some alerts are moved about and some only updated, while readers list. Those that stay in their state
/// are in every list; again only in a newer version.
async fn none_is_missed(fixture: &StoreFixture) -> Result<()> {
    const LISTS: usize = 25;
    /// Steps of each writer meanwhile, at least.
    const STEPS: usize = 100;
    let created = fixture.create(0..300).await?;
    step_all(&fixture.alerts, &created, "triage").await?;
    let (staying, moving) = created.split_at(200);
    let (done, is_done) = tokio::sync::watch::channel(false);
    let (moved, updated) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let writing = async |ids: &[String], moves: bool, steps: &AtomicUsize| {
        let store = fixture.another().await?;
        for (n, id) in ids.iter().cycle().enumerate() {
            if *is_done.borrow() {
                break;
            }
            let round = n / ids.len();
            let mut step = ask(To::Stay);
            step.metadata
                .insert("round".to_owned(), Some(round.to_string()));
            if moves {
                step = to(["closed", "triage"][round % 2]);
            }
            store.step(id, None, &step).await?;
            steps.store(n + 1, Ordering::SeqCst);
        }
        anyhow::Ok(())
    };
    let enough = || {
        let both = [&moved, &updated];
        both.iter()
            .all(|steps| steps.load(Ordering::SeqCst) >= STEPS)
    };
    let reading = async {
        let lists = try_join_all(fixture.each().await?.into_iter().map(async |nats| {
            let store = AlertStore::new(nats, owner());
            let mut round = 0;
            while round < LISTS || !enough() {
                let limit = [1000, 90, 17][round % 3];
                let triage = listed(&store, Some("triage"), limit).await?;
                holds(&triage, staying).with_context(|| format!("list {round}"))?;
                let all = listed(&store, None, limit).await?;
                holds(&all, &created).with_context(|| format!("list {round} of all"))?;
                round += 1;
            }
            anyhow::Ok(())
        }))
        .await;
        done.send_replace(true);
        lists
    };
    futures::try_join!(
        reading,
        writing(moving, true, &moved),
        writing(staying, false, &updated)
    )?;
    Ok(())
}

fn holds(list: &[StoredAlert], expected: &[String]) -> Result<()> {
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    for alert in list {
        let before = seen.insert(&alert.id, alert.sequence);
        ensure!(before < Some(alert.sequence), "{} comes twice", alert.id);
    }
    let missed: Vec<_> = expected
        .iter()
        .filter(|id| !seen.contains_key(id.as_str()))
        .collect();
    ensure!(
        missed.is_empty(),
        "{missed:?} of {} are missing",
        list.len()
    );
    Ok(())
}

#[tokio::test]
async fn s37_silence_is_an_error_and_neither_absence_nor_an_empty_list() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let alert = fixture.one().await?;
    let Servers::One(server) = &fixture.servers else {
        anyhow::bail!("there is one server");
    };
    let proxy = TcpProxy::start(server.address()).await?;
    let way = vec![format!("nats://{}", proxy.address())];
    let nats = connect_with(way, Timeouts::default()).await?;
    let store = AlertStore::new(nats.clone(), owner());
    let mut spy = Spy::open(&fixture).await?;
    proxy.freeze();
    let ask = to("triage");
    let (get, find, list, counts, workflow, archived, any, step) = futures::join!(
        store.get(&alert.id),
        store.find(&alert.id[..8]),
        store.list(None, Cursor::default(), 10),
        store.counts(),
        store.workflow(),
        store.archived(&alert.id),
        anywhere(&nats, &alert.id),
        store.step(&alert.id, None, &ask),
    );
    assert!(silent(&get), "{get:?}");
    assert!(silent(&find), "{find:?}");
    assert!(silent(&list), "{list:?}");
    assert!(silent(&counts), "{counts:?}");
    assert!(silent(&workflow), "{workflow:?}");
    assert!(silent(&archived), "{archived:?}");
    assert!(silent(&any), "{any:?}");
    assert!(
        matches!(step, Err(StepError::Read(ReadError::Api { .. }))),
        "{step:?}"
    );
    // Nothing was tried again in secret: what arrives, before the request that is answered, is one of
    // each, and two of the step, which asks for alert and workflow at once.
    proxy.thaw();
    assert_eq!(store.get(&alert.id).await?, alert);
    let asked = spy.heard().await?;
    assert_eq!(asked.len(), 9 + 1, "{asked:?}");
    Ok(())
}

#[tokio::test]
async fn s37_a_stream_that_is_not_there_is_an_error_and_no_empty_list() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let alert = fixture.one().await?;
    let elsewhere = Owner {
        pipeline: PipelineKey::new("prod", "nowhere")?,
        ..owner()
    };
    let store = AlertStore::new(fixture.nats.clone(), elsewhere);
    let get = store.get(&alert.id).await;
    assert!(silent(&get), "{get:?}");
    let list = store.list(None, Cursor::default(), 10).await;
    assert!(silent(&list), "{list:?}");
    let list = store.list(Some(NEW), Cursor::default(), 10).await;
    assert!(silent(&list), "{list:?}");
    let counts = store.counts().await;
    assert!(silent(&counts), "{counts:?}");
    let find = store.find(&alert.id[..8]).await;
    assert!(silent(&find), "{find:?}");
    Ok(())
}

#[tokio::test]
async fn s37_an_alert_that_cannot_be_read_is_an_error_and_not_left_out() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let id = fixture.one().await?.id;
    let subject = key().alert_subject("triage", "FROMTHEFUTURE");
    let body = r#"{"v":2,"id":"FROMTHEFUTURE"}"#;
    fixture.js.publish(subject, body.into()).await?.await?;
    let get = fixture.alerts.get("FROMTHEFUTURE").await;
    assert!(matches!(get, Err(ReadError::Unreadable { .. })), "{get:?}");
    let list = fixture.alerts.list(None, Cursor::default(), 10).await;
    assert!(
        matches!(list, Err(ReadError::Unreadable { .. })),
        "{list:?}"
    );
    // It does not stand in the way of others.
    assert_eq!(fixture.listed(Some(NEW), 10).await?.len(), 1);
    assert_eq!(fixture.alerts.get(&id).await?.state, NEW);
    assert_eq!(fixture.alerts.counts().await?["triage"], 1);
    Ok(())
}

#[tokio::test]
async fn s53_no_read_makes_a_consumer() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let created = fixture.create(0..1500).await?;
    step_all(&fixture.alerts, &created[..1100], "triage").await?;
    fixture
        .alerts
        .step(&created[0], None, &ask(To::Archive))
        .await?;
    let mut spy = Spy::open(&fixture).await?;
    let store = &fixture.alerts;
    store.get(&created[1]).await?;
    store.find(&created[1][..10]).await?;
    store.archived(&created[0]).await?;
    store.counts().await?;
    store.workflow().await?;
    fixture.listed(None, 1000).await?;
    fixture.listed(Some("triage"), 1000).await?;
    anywhere(&fixture.nats, &created[1]).await?;
    let heard = spy.heard().await?;
    assert!(heard.len() > 8, "{heard:?}");
    let harmless = [
        "STREAM.INFO.",
        "STREAM.MSG.GET.",
        "STREAM.NAMES",
        "DIRECT.GET.",
    ];
    for request in heard {
        let known = harmless.iter().any(|prefix| request.starts_with(prefix));
        assert!(known, "a read asks for {request}");
    }
    Ok(())
}

#[tokio::test]
async fn s54_a_store_goes_on_at_another_server_when_its_own_dies() -> Result<()> {
    let mut fixture = StoreFixture::r3().await?;
    let id = fixture.one().await?.id;
    let nats = connect_with(fixture.servers.urls(), Timeouts::default()).await?;
    let alerts = AlertStore::new(nats.clone(), owner());
    for state in ["triage", "closed", "triage"] {
        let name = nats.client().server_info().server_name;
        let at = ["n1", "n2", "n3"].iter().position(|it| *it == name);
        let at = at.with_context(|| format!("a server {name}"))?;
        let Servers::Three(cluster) = &mut fixture.servers else {
            anyhow::bail!("there are three servers");
        };
        cluster.servers()[at].kill();
        // An operation keeps its id, so trying it again after silence is safe.
        let step = to(state);
        let stepped = eventually(SOON, "a step is taken", async || {
            Ok(alerts.step(&id, None, &step).await?)
        })
        .await?;
        assert_eq!(stepped.alert.state, state);
        assert_ne!(nats.client().server_info().server_name, name);
        let Servers::Three(cluster) = &mut fixture.servers else {
            anyhow::bail!("there are three servers");
        };
        cluster.servers()[at].restart().await?;
        fixture.healed().await?;
    }
    let record = fixture.alerts.get(&id).await?.record.context("archived")?;
    assert_eq!(record.history.len(), 4);
    Ok(())
}

/// Where product code may wait for time to pass, and why.
const WAITS: [(&str, &str); 10] = [
    (
        "src/ctl/alerts/watch.rs",
        "asks again, as often as --interval says, for what an interruption hid",
    ),
    (
        "src/ctl/output/live.rs",
        "looks again, as often as --interval says",
    ),
    (
        "src/nats/log/pull.rs",
        "takes a pull without heartbeats for dead",
    ),
    ("src/operator.rs", "asks NATS again that does not answer"),
    (
        "src/operator/checkpoint_watch.rs",
        "opens a watch again that ended",
    ),
    (
        "src/operator/lease/candidate.rs",
        "asks for the lease again that another holds",
    ),
    (
        "src/worker/hold.rs",
        "tries again what a full or silent store refused",
    ),
    ("src/worker/intake.rs", "commits when the interval is over"),
    ("src/worker/patience.rs", "backs off from a silent server"),
    (
        "src/worker/rewind.rs",
        "lets an old pull end before the next reset",
    ),
];

#[test]
fn s57_nothing_waits_for_time_to_pass_but_where_it_is_known_why() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    let mut seen = 0;
    for directory in ["src", "crates/protocol/src", "crates/engine/src"] {
        for path in sources(&root.join(directory))? {
            seen += 1;
            let text = fs::read_to_string(&path)?;
            let product = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
            let waits = ["sleep(", "sleep_until(", "time::interval"];
            let code = product
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            if code
                .clone()
                .any(|line| waits.iter().any(|wait| line.contains(wait)))
            {
                let path = path.strip_prefix(root)?;
                found.insert(path.to_string_lossy().into_owned());
            }
        }
    }
    assert!(seen > 150, "only {seen} files were looked at");
    let known = WAITS.map(|(path, _)| path.to_owned()).into();
    assert_eq!(found, known);
    Ok(())
}

/// Rust files of the product; those that only tests include are left out.
fn sources(directory: &Path) -> Result<Vec<PathBuf>> {
    let of_tests = ["tests", "tests.rs", "fakes.rs", "test_support.rs"];
    let mut all = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if of_tests.contains(&name.as_ref()) {
            continue;
        }
        if path.is_dir() {
            all.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push(path);
        }
    }
    Ok(all)
}

/// Moves all of these alerts to `state`.
async fn step_all(store: &AlertStore, ids: &[String], state: &str) -> Result<()> {
    stream::iter(ids)
        .map(async |id| store.step(id, None, &to(state)).await.map(drop))
        .buffer_unordered(16)
        .try_collect::<()>()
        .await?;
    Ok(())
}
