//! Moving alerts: what a step leaves in the record and in the stream, and who wins.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::{join_all, try_join_all};
use lookback::nats::alerts::{AlertStore, StepError, Stepped, StoredAlert};
use lookback::nats::audit;
use lookback::nats::connect::Timeouts;
use lookback::nats::entries::Cursor;
use lookback_dev::support::{TcpProxy, eventually};
use lookback_protocol::alert::{ARCHIVED, AlertRecord, MAX_HISTORY, MOVED_TO, NEW};
use lookback_protocol::audit::{Act, AuditKind};
use lookback_protocol::workflow::{Ask, To, Workflow};

use crate::nats_fixture::{SOON, key};
use crate::replay_fixture::Dice;
use crate::store_fixture::{
    Copies, Servers, StoreFixture, ask, connect, connect_with, listed, mark, owner, raw, record,
    standing, to,
};

const STATES: [&str; 5] = [NEW, "triage", "escalated", "closed", ARCHIVED];

/// How long tombstones live that a test waits for.
const SHORT: Duration = Duration::from_secs(2);

/// Where the default workflow leads from a state.
fn ways(state: &str) -> &'static [&'static str] {
    match state {
        NEW => &["triage"],
        "triage" => &["escalated", "closed"],
        "escalated" => &["closed"],
        "closed" => &["triage"],
        _ => &[],
    }
}

fn set(key: &str, value: &str) -> Ask {
    let mut update = ask(To::Stay);
    update
        .metadata
        .insert(key.to_owned(), Some(value.to_owned()));
    update
}

fn record_in(alert: StoredAlert) -> Result<AlertRecord> {
    alert.record.context("an archived alert")
}

#[tokio::test]
async fn s06_each_step_stands_in_the_history_with_who_when_and_why() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let id = fixture.one().await?.id;
    let mut asked = Vec::new();
    for (state, by) in [
        ("triage", "user/ann"),
        ("closed", "user/bob"),
        ("triage", "user/cid"),
    ] {
        let mut step = to(state);
        step.by = by.to_owned();
        step.reason = format!("because of {by}");
        fixture.alerts.step(&id, None, &step).await?;
        asked.push(step);
    }
    let read = record_in(fixture.alerts.get(&id).await?)?;
    assert_eq!(read.history[0], record(1).history[0]);
    let transitions = [
        ("triage", NEW, "triage"),
        ("close", "triage", "closed"),
        ("reopen", "closed", "triage"),
    ];
    assert_eq!(read.history.len(), 4);
    for ((entry, ask), (transition, from, to)) in
        read.history[1..].iter().zip(&asked).zip(transitions)
    {
        assert_eq!(entry.time, ask.time);
        assert_eq!(entry.transition, transition);
        assert_eq!(entry.from.as_deref(), Some(from));
        assert_eq!(
            (&entry.to[..], &entry.by, &entry.reason),
            (to, &ask.by, &ask.reason)
        );
    }
    assert_eq!(
        (read.op_id, read.by),
        (asked[2].op_id.clone(), asked[2].by.clone())
    );
    assert_eq!((read.data, read.events), (record(1).data, record(1).events));
    Ok(())
}

#[tokio::test]
async fn s06_a_history_that_is_too_long_goes_on_in_the_audit() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let id = fixture.one().await?.id;
    let mut steps = Vec::new();
    for n in 0..MAX_HISTORY + 20 {
        let mut step = to(["triage", "closed"][n % 2]);
        step.reason = format!("step {}", n + 1);
        fixture.alerts.step(&id, None, &step).await?;
        steps.push(step.reason);
    }
    let read = record_in(fixture.alerts.get(&id).await?)?;
    assert_eq!((read.history.len(), read.earlier), (MAX_HISTORY, 21));
    let page = audit::page(
        &fixture.nats,
        &key(),
        Some(AuditKind::History),
        Cursor::default(),
        1000,
    )
    .await?;
    let mut past = BTreeMap::new();
    for stored in page.items {
        let record = stored.record.map_err(anyhow::Error::msg)?;
        let Act::History(step) = record.act else {
            panic!("{record:?}");
        };
        assert_eq!(step.alert, id);
        past.insert(step.number, step.entry);
    }
    let all: Vec<_> = past.values().chain(&read.history).collect();
    let reasons: Vec<_> = all.iter().skip(1).map(|entry| &entry.reason).collect();
    assert_eq!(
        past.keys().copied().collect::<Vec<_>>(),
        (0..21).collect::<Vec<_>>()
    );
    assert_eq!(reasons, steps.iter().collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn s07_each_step_is_linked_to_the_version_it_was_taken_from() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    // Others write between the steps, so no sequence follows from the one before.
    let ids = fixture.create(0..10).await?;
    let mut sequences = vec![fixture.alerts.get(&ids[3]).await?.sequence];
    for step in [to("triage"), set("a", "b"), to("escalated"), to("closed")] {
        let stepped = fixture.alerts.step(&ids[3], None, &step).await?;
        sequences.push(stepped.alert.sequence);
        fixture
            .alerts
            .step(&ids[4], None, &set("n", &step.op_id))
            .await?;
    }
    let read = fixture.alerts.get(&ids[3]).await?;
    let record = read.record.context("archived")?;
    let links: Vec<_> = record.history.iter().map(|entry| entry.prev_seq).collect();
    assert_eq!(links[0], 0);
    assert_eq!(links[1..], sequences[..sequences.len() - 1]);
    assert_eq!(Some(&read.sequence), sequences.last());
    assert_eq!(Some(&record.prev_seq), links.last());
    Ok(())
}

#[tokio::test]
async fn s20_an_update_changes_metadata_and_nothing_else() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let before = fixture.one().await?;
    let mut update = set("note", "mine");
    update.metadata.insert("team".to_owned(), None);
    let stepped = fixture.alerts.step(&before.id, None, &update).await?;
    assert_eq!(
        (stepped.from.as_str(), stepped.transition.as_str()),
        (NEW, "update")
    );
    let after = fixture.alerts.get(&before.id).await?;
    assert_eq!(stepped.alert, after);
    assert_eq!(
        (&after.subject, &after.state),
        (&before.subject, &before.state)
    );
    let (old, new) = (record_in(before)?, record_in(after)?);
    assert_eq!(
        new.metadata,
        BTreeMap::from([("note".to_owned(), "mine".to_owned())])
    );
    assert_eq!(
        (&new.data, &new.rule, &new.events),
        (&old.data, &old.rule, &old.events)
    );
    assert_eq!(new.history[..1], old.history);
    let messages = raw(&fixture.js, &key().alerts_stream()).await?;
    assert_eq!(messages.len(), 1);
    Ok(())
}

#[tokio::test]
async fn s20_of_two_updates_of_one_version_the_second_is_told_who_won() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let seen = fixture.one().await?;
    let first = fixture
        .alerts
        .step(&seen.id, Some(seen.sequence), &set("note", "first"))
        .await?;
    let mut late = set("note", "second");
    late.by = "user/bob".to_owned();
    match fixture
        .alerts
        .step(&seen.id, Some(seen.sequence), &late)
        .await
    {
        Err(StepError::Conflict {
            id,
            by,
            state,
            sequence,
        }) => {
            assert_eq!((id, by), (seen.id.clone(), "user/ann".to_owned()));
            assert_eq!((state.as_str(), sequence), (NEW, first.alert.sequence));
        }
        other => panic!("{other:?}"),
    }
    let read = record_in(fixture.alerts.get(&seen.id).await?)?;
    assert_eq!(read.metadata["note"], "first");
    Ok(())
}

#[tokio::test]
async fn s20_updates_at_the_same_time_lose_nothing_r1() -> Result<()> {
    updates_lose_nothing(&StoreFixture::r1().await?).await
}

#[tokio::test]
async fn s20_updates_at_the_same_time_lose_nothing_r3() -> Result<()> {
    updates_lose_nothing(&StoreFixture::r3().await?).await
}

async fn updates_lose_nothing(fixture: &StoreFixture) -> Result<()> {
    let id = fixture.one().await?.id;
    let writers: Vec<_> = stores(fixture, 4).await?;
    let mut written = BTreeSet::new();
    for round in 0..10 {
        let updates = writers.iter().enumerate().map(|(at, writer)| {
            let (id, key) = (&id, format!("{round}-{at}"));
            async move {
                writer.step(id, None, &set(&key, "x")).await?;
                anyhow::Ok(key)
            }
        });
        written.extend(try_join_all(updates).await?);
    }
    let read = record_in(fixture.alerts.get(&id).await?)?;
    written.insert("team".to_owned());
    assert_eq!(read.metadata.into_keys().collect::<BTreeSet<_>>(), written);
    assert_eq!(read.history.len(), 41);
    Ok(())
}

#[tokio::test]
async fn s23_a_move_leaves_a_tombstone_and_a_mark_that_both_expire() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let id = fixture.one().await?.id;
    fixture.alerts.step(&id, None, &to("triage")).await?;
    let messages = raw(&fixture.js, &key().alerts_stream()).await?;
    let subjects: BTreeSet<_> = messages
        .iter()
        .map(|message| message.subject.clone())
        .collect();
    let expected = BTreeSet::from([
        key().alert_subject(NEW, &id),
        mark(NEW, &id),
        key().alert_subject("triage", &id),
    ]);
    assert_eq!(subjects, expected);
    for message in &messages {
        let stands = message.subject == key().alert_subject("triage", &id);
        assert_eq!(message.headers.contains("Nats-TTL"), !stands, "{message:?}");
        assert_eq!(message.body.is_empty(), !stands, "{message:?}");
        let is_tombstone = message.subject == key().alert_subject(NEW, &id);
        assert_eq!(
            message.headers.contains(&format!("{MOVED_TO}: triage")),
            is_tombstone
        );
    }
    Ok(())
}

#[tokio::test]
async fn s23_a_move_that_is_cut_off_before_its_end_moves_nothing() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let (proxy, store) = behind_a_proxy(&fixture).await?;
    let seen = fixture.one().await?;
    let step = to("triage");
    proxy.freeze_at("Nats-Batch-Commit");
    let error = store.step(&seen.id, None, &step).await.unwrap_err();
    assert!(proxy.is_frozen());
    assert!(
        matches!(&error, StepError::Unknown { .. } | StepError::Read(_)),
        "{error:?}"
    );
    assert_eq!(fixture.alerts.get(&seen.id).await?, seen);
    assert_eq!(fixture.alerts_stream().await?.state.messages, 1);
    // Tried again, by another way, with the same operation.
    let stepped = fixture.alerts.step(&seen.id, None, &step).await?;
    assert_eq!(stepped.alert.state, "triage");
    // Should the end of the first try arrive after all, nothing is done twice.
    drop(proxy);
    let read = record_in(fixture.alerts.get(&seen.id).await?)?;
    assert_eq!((read.history.len(), read.op_id), (2, step.op_id));
    Ok(())
}

/// Whatever answer is lost, the mover is never told that somebody else won, and tried again with the
/// same operation, the step counts as done.
#[tokio::test]
async fn s23_a_mover_whose_answer_is_lost_does_not_conflict_with_itself() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let ids = fixture.create(0..40).await?;
    let outcomes = try_join_all(ids.iter().enumerate().map(async |(n, id)| {
        let (proxy, store) = behind_a_proxy(&fixture).await?;
        let step = to("triage");
        proxy.cut_after(1 + n * 60);
        let first = store.step(id, None, &step).await;
        proxy.spare();
        if let Err(error) = &first {
            let unanswered = matches!(
                error,
                StepError::Unknown { .. } | StepError::Read(_) | StepError::AuditAfter { .. }
            );
            ensure!(unanswered, "cut after {}: {error:?}", 1 + n * 60);
        }
        let again = fixture.alerts.step(id, None, &step).await;
        let again = again.with_context(|| format!("{id}, after {first:?}"))?;
        ensure!(
            again.alert.state == "triage" && again.from == NEW,
            "{again:?}"
        );
        ensure!(again.transition == "triage", "{again:?}");
        let read = record_in(fixture.alerts.get(id).await?)?;
        ensure!(read.history.len() == 2, "{:?}", read.history);
        ensure!(read.op_id == step.op_id, "{read:?}");
        anyhow::Ok(first.is_ok())
    }))
    .await?;
    // The cuts fell on both sides of the answers.
    assert!(
        outcomes.contains(&true) && outcomes.contains(&false),
        "{outcomes:?}"
    );
    Ok(())
}

#[tokio::test]
async fn s23_an_alert_that_goes_back_where_it_was_stands_there_again() -> Result<()> {
    let fixture = StoreFixture::r1().await?;
    let id = fixture.one().await?.id;
    for round in 0..20 {
        for state in ["triage", "closed"] {
            fixture.alerts.step(&id, None, &to(state)).await?;
            let here = fixture.listed(Some(state), 10).await?;
            assert_eq!(here.len(), 1, "round {round}, {state}");
            assert_eq!(fixture.alerts.counts().await?, counted(&[(state, 1)]));
        }
    }
    Ok(())
}

#[tokio::test]
async fn s22_s44_t4_lists_and_counts_are_exact_after_every_move_r1() -> Result<()> {
    exact_after_moves(Copies::One, 1).await
}

#[tokio::test]
async fn s22_s44_t4_lists_and_counts_are_exact_after_every_move_r3() -> Result<()> {
    exact_after_moves(Copies::Three, 2).await
}

/// Moves at random and compares with a model; then moves more, and waits until what that left has
/// expired.
async fn exact_after_moves(copies: Copies, seed: u64) -> Result<()> {
    let fixture = StoreFixture::start(copies).await?;
    let mut dice = Dice::new(seed);
    let ids = fixture.create(0..200).await?;
    let mut model: BTreeMap<String, &str> = ids.iter().map(|id| (id.clone(), NEW)).collect();
    let readers = stores(&fixture, 3).await?;
    for round in 0..20 {
        move_some(&fixture.alerts, &mut model, &mut dice).await?;
        same_as(&model, &readers[round % readers.len()])
            .await
            .with_context(|| format!("seed {seed}, round {round}"))?;
    }
    let mover = AlertStore::new(fixture.nats.clone(), owner()).with_tombstone_ttl(SHORT);
    for _ in 0..5 {
        move_some(&mover, &mut model, &mut dice).await?;
    }
    let stream = key().alerts_stream();
    eventually(SOON, "what moves left has expired", async || {
        let counts = readers[0].counts().await?;
        let exact = counts == model_counts(&model);
        let messages = raw(&fixture.js, &stream).await?;
        ensure!(
            standing(&messages)?.len() == model.len(),
            "some do not stand once"
        );
        let short = |ttl: &str| ttl.parse().is_ok_and(|ttl: u64| ttl <= 2 * SHORT.as_secs());
        let left = messages
            .iter()
            .filter(|it| it.header("Nats-TTL").is_some_and(short));
        ensure!(left.count() == 0 && exact, "some have not expired");
        Ok(())
    })
    .await?;
    for reader in &readers {
        match copies {
            Copies::One => same_as(&model, reader).await,
            // Copies of a stream do not let go of a message in the same instant.
            Copies::Three => {
                let same = async || same_as(&model, reader).await;
                eventually(SOON, "every copy has let go", same).await
            }
        }
        .context("after tombstones have expired")?;
    }
    Ok(())
}

/// Takes 30 steps at random.
async fn move_some(
    mover: &AlertStore,
    model: &mut BTreeMap<String, &str>,
    dice: &mut Dice,
) -> Result<()> {
    let ids: Vec<_> = model.keys().cloned().collect();
    for _ in 0..30 {
        let id = &ids[dice.pick(ids.len())];
        let from = model[id];
        let step = match ways(from) {
            _ if from != ARCHIVED && dice.below(12) == 0 => ask(To::Archive),
            [] => continue,
            ways => to(ways[dice.pick(ways.len())]),
        };
        let stepped = mover.step(id, None, &step).await?;
        let state = STATES
            .into_iter()
            .find(|state| *state == stepped.alert.state);
        model.insert(id.clone(), state.context("an unknown state")?);
    }
    Ok(())
}

async fn same_as(model: &BTreeMap<String, &str>, reader: &AlertStore) -> Result<()> {
    for state in STATES {
        let here = listed(reader, Some(state), 37).await?;
        let mut found: Vec<_> = here.iter().map(|alert| alert.id.as_str()).collect();
        ensure!(
            here.iter().all(|alert| alert.state == state),
            "{here:?} in {state}"
        );
        found.sort_unstable();
        let expected: Vec<_> = model
            .iter()
            .filter(|(_, at)| **at == state)
            .map(|(id, _)| id.as_str())
            .collect();
        ensure!(found == expected, "{state}: {found:?} is not {expected:?}");
    }
    let all = listed(reader, None, 50).await?;
    let all: BTreeMap<_, _> = all
        .iter()
        .map(|alert| (alert.id.clone(), &alert.state[..]))
        .collect();
    let mut expected = model.clone();
    expected.retain(|_, state| *state != ARCHIVED);
    ensure!(all == expected, "all: {all:?} is not {expected:?}");
    let counts = reader.counts().await?;
    ensure!(
        counts == model_counts(model),
        "{counts:?} is not {:?}",
        model_counts(model)
    );
    Ok(())
}

fn model_counts(model: &BTreeMap<String, &str>) -> BTreeMap<String, u64> {
    let mut counts = counted(&[]);
    for state in model.values() {
        *counts.entry((*state).to_owned()).or_default() += 1;
    }
    counts
}

fn counted(some: &[(&str, u64)]) -> BTreeMap<String, u64> {
    let mut counts: BTreeMap<_, _> = STATES.map(|state| (state.to_owned(), 0)).into();
    counts.extend(
        some.iter()
            .map(|(state, count)| ((*state).to_owned(), *count)),
    );
    counts
}

#[tokio::test]
async fn s45_of_people_who_archive_one_alert_one_wins_and_the_audit_has_theirs() -> Result<()> {
    for fixture in [StoreFixture::r1().await?, StoreFixture::r3().await?] {
        let movers = stores(&fixture, 8).await?;
        for id in fixture.create(0..10).await? {
            let asks: Vec<_> = (0..movers.len())
                .map(|mover| Ask {
                    by: format!("user/{mover}"),
                    reason: format!("reason {mover}"),
                    ..ask(To::Archive)
                })
                .collect();
            let steps = movers.iter().zip(&asks);
            let outcomes = join_all(steps.map(|(mover, ask)| mover.step(&id, None, ask))).await;
            let mut winners = Vec::new();
            for (ask, outcome) in asks.iter().zip(outcomes) {
                match outcome {
                    Ok(_) => winners.push(ask),
                    Err(StepError::Conflict { .. } | StepError::Refused { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            ensure!(winners.len() == 1, "{winners:?}");
            let kept = fixture.alerts.archived(&id).await?;
            assert_eq!(kept.op_id, winners[0].op_id);
            let last = kept.history.last().context("no history")?;
            assert_eq!(
                (&last.by, &last.reason),
                (&winners[0].by, &winners[0].reason)
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn s45_s51_t5_of_eight_movers_of_one_version_one_wins_r1() -> Result<()> {
    one_winner(&StoreFixture::r1().await?, 200).await
}

#[tokio::test]
async fn s45_s51_t5_of_eight_movers_of_one_version_one_wins_r3() -> Result<()> {
    one_winner(&StoreFixture::r3().await?, 1000).await
}

async fn one_winner(fixture: &StoreFixture, rounds: usize) -> Result<()> {
    const ALERTS: usize = 20;
    let movers = stores(fixture, 8).await?;
    let ids = fixture.create(0..ALERTS as u64).await?;
    let mut at: Vec<StoredAlert> = Vec::new();
    for id in &ids {
        at.push(fixture.alerts.get(id).await?);
    }
    let mut won = vec![Vec::new(); ALERTS];
    for round in 0..rounds {
        let seen = &at[round % ALERTS];
        let ways = ways(&seen.state);
        let asks: Vec<_> = (0..movers.len())
            .map(|mover| {
                let mut ask = to(ways[mover % ways.len()]);
                ask.by = format!("user/{mover}");
                ask.reason = ask.op_id.clone();
                ask
            })
            .collect();
        let moves = movers.iter().zip(&asks);
        let moves = moves.map(|(mover, ask)| mover.step(&seen.id, Some(seen.sequence), ask));
        let outcomes = join_all(moves).await;
        let stepped =
            only_winner(seen, &asks, outcomes).with_context(|| format!("round {round}"))?;
        let read = fixture.alerts.get(&seen.id).await?;
        ensure!(read == stepped.alert, "{read:?} is not {stepped:?}");
        won[round % ALERTS].push(record_in(stepped.alert)?.op_id);
        at[round % ALERTS] = read;
    }
    let messages = raw(&fixture.js, &key().alerts_stream()).await?;
    let standing = standing(&messages)?;
    for (id, won) in ids.iter().zip(won) {
        let held: AlertRecord = serde_json::from_slice(&standing[id].body)?;
        assert_eq!(
            held.earlier + held.history.len() as u64,
            won.len() as u64 + 1
        );
        let told: Vec<_> = held
            .history
            .iter()
            .skip(1)
            .map(|entry| &entry.reason)
            .collect();
        assert!(won.iter().collect::<Vec<_>>().ends_with(&told), "{id}");
    }
    Ok(())
}

/// The one step that was taken; all others must be told who took it.
fn only_winner(
    seen: &StoredAlert,
    asks: &[Ask],
    outcomes: Vec<Result<Stepped, StepError>>,
) -> Result<Stepped> {
    let mut winner = None;
    let mut losers = Vec::new();
    for (ask, outcome) in asks.iter().zip(outcomes) {
        match outcome {
            Ok(stepped) => {
                let record = stepped.alert.record.clone().context("no record")?;
                ensure!(record.op_id == ask.op_id, "{record:?} is not of {ask:?}");
                ensure!(stepped.from == seen.state, "{stepped:?}");
                ensure!(winner.is_none(), "two won: {winner:?} and {stepped:?}");
                winner = Some(stepped);
            }
            Err(StepError::Conflict {
                by,
                state,
                sequence,
                ..
            }) => {
                losers.push((by, state, sequence));
            }
            Err(error) => return Err(error).context("neither won nor lost"),
        }
    }
    let winner = winner.with_context(|| format!("nobody won: {losers:?}"))?;
    let by = winner.alert.record.as_ref().map(|record| record.by.clone());
    let told = (
        by.context("no record")?,
        winner.alert.state.clone(),
        winner.alert.sequence,
    );
    ensure!(
        losers.iter().all(|loser| *loser == told),
        "{losers:?} against {told:?}"
    );
    Ok(winner)
}

/// The people's way in through a proxy of its own.
async fn behind_a_proxy(fixture: &StoreFixture) -> Result<(TcpProxy, AlertStore)> {
    let Servers::One(server) = &fixture.servers else {
        anyhow::bail!("a proxy stands before one server");
    };
    let proxy = TcpProxy::start(server.address()).await?;
    let way = vec![format!("nats://{}", proxy.address())];
    let nats = connect_with(way, Timeouts::default()).await?;
    Ok((proxy, AlertStore::new(nats, owner())))
}

/// So many stores, each with a connection of its own; on a cluster, to its servers in turn.
async fn stores(fixture: &StoreFixture, count: usize) -> Result<Vec<AlertStore>> {
    let urls = fixture.servers.urls();
    let mut stores = Vec::new();
    for at in 0..count {
        let nats = connect(vec![urls[at % urls.len()].clone()]).await?;
        stores.push(AlertStore::new(nats, owner()));
    }
    Ok(stores)
}

#[test]
fn the_workflow_of_the_document_is_sound() {
    let document = include_str!("../../docs/alerts.md");
    let block = document.split("```yaml\n").nth(1).unwrap();
    let block = block.split("```").next().unwrap();
    let pipeline: serde_json::Value = serde_saphyr::from_str(block).unwrap();
    let spec = &pipeline["spec"]["alerts"]["workflow"];
    let workflow = Workflow::new(serde_json::from_value(spec.clone()).unwrap()).unwrap();
    let mut alert = record(1);
    alert.state = "triage".to_owned();
    let declare = to("incident");
    assert!(workflow.step(&alert, 1, &declare).is_err());
    alert.rule.level = Some("critical".to_owned());
    assert_eq!(
        workflow.step(&alert, 1, &declare).unwrap().record.state,
        "incident"
    );
}
