//! People and programs at work on a cluster whose servers are killed and come back, one at a time.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use lookback::nats::alerts::{AlertStore, StepError, StoredAlert};
use lookback::nats::connect::Timeouts;
use lookback::nats::entries::ReadError;
use lookback_dev::support::eventually;
use lookback_protocol::alert::{ARCHIVED, AlertRecord, HistoryEntry, NEW, OP_ID, PREV_SEQ};
use lookback_protocol::audit::{Act, AuditRecord};
use lookback_protocol::names::AUDIT_STREAM;
use lookback_protocol::workflow::{Ask, To};
use tokio::sync::watch;

use crate::nats_fixture::key;
use crate::replay_fixture::Dice;
use crate::store_fixture::{
    Raw, Servers, StoreFixture, ask, connect_with, listed, mark, owner, raw, standing, to,
};

const ALERTS: u64 = 1000;
/// Only those behind these are ever archived, so every list of all holds these.
const NEVER_ARCHIVED: usize = 900;
/// So few are asked for half of the time, that movers meet.
const HOT: usize = 20;
const MOVERS: u64 = 8;
const READERS: u64 = 4;
const KILLS: usize = 6;
/// Steps taken while a server is down, and between two kills.
const STEPS: u64 = 150;
/// For the survivors to take so many steps.
const PROGRESS: Duration = Duration::from_secs(180);

/// What everyone knows.
struct Scene {
    ids: Vec<String>,
    /// The highest sequence of each alert that the server has acknowledged.
    acknowledged: Vec<AtomicU64>,
    /// Steps taken.
    steps: AtomicU64,
    /// Complete lists.
    lists: AtomicU64,
    /// Operations without an answer.
    silent: AtomicU64,
    /// Operations that others were faster than.
    lost: AtomicU64,
    done: watch::Receiver<bool>,
}

/// One step as its mover knows it.
#[derive(Debug)]
struct Taken {
    alert: usize,
    op_id: String,
    expected: u64,
    /// The version it made; `None` when it is not known whether it made one.
    made: Option<u64>,
    /// Whether its mover was told that it is in the audit.
    audited: bool,
}

impl Scene {
    fn is_done(&self) -> bool {
        *self.done.borrow()
    }

    /// Reads an alert; `None` when there was no answer. It is never absent, nor older than what was
    /// acknowledged before.
    async fn read(&self, store: &AlertStore, alert: usize) -> Result<Option<StoredAlert>> {
        let at_least = self.acknowledged[alert].load(Ordering::SeqCst);
        let id = &self.ids[alert];
        match store.get(id).await {
            Ok(read) => {
                ensure!(
                    read.sequence >= at_least,
                    "{id} is at {at_least}, but {read:?} was read"
                );
                Ok(Some(read))
            }
            Err(ReadError::Api { .. }) => {
                self.silent.fetch_add(1, Ordering::SeqCst);
                Ok(None)
            }
            Err(error) => Err(error).with_context(|| format!("{id} was at {at_least}")),
        }
    }

    /// Moves alerts until it is done; what it did.
    async fn mover(&self, store: AlertStore, name: u64, mut dice: Dice) -> Result<Vec<Taken>> {
        let mut all = Vec::new();
        while !self.is_done() {
            let hot = dice.below(2) == 0;
            let alert = dice.pick(if hot { HOT } else { self.ids.len() });
            let Some(read) = self.read(&store, alert).await? else {
                continue;
            };
            let Some(ask) = some_step(&read, alert, name, &mut dice) else {
                continue;
            };
            let mut taken = Taken {
                alert,
                op_id: ask.op_id.clone(),
                expected: read.sequence,
                made: None,
                audited: false,
            };
            match store.step(&read.id, Some(read.sequence), &ask).await {
                Ok(stepped) => {
                    let sequence = stepped.sequence;
                    ensure!(sequence > read.sequence, "{stepped:?} from {read:?}");
                    self.acknowledged[alert].fetch_max(sequence, Ordering::SeqCst);
                    self.steps.fetch_add(1, Ordering::SeqCst);
                    taken.made = Some(sequence);
                    taken.audited = true;
                    all.push(taken);
                }
                Err(StepError::Conflict { sequence, .. }) => {
                    ensure!(sequence > read.sequence, "{sequence} won over {read:?}");
                    self.lost.fetch_add(1, Ordering::SeqCst);
                }
                // Neither was anything tried.
                Err(StepError::AuditBefore { .. }) => {
                    self.silent.fetch_add(1, Ordering::SeqCst);
                }
                Err(
                    StepError::Unknown { .. }
                    | StepError::AuditAfter { .. }
                    | StepError::Read(ReadError::Api { .. }),
                ) => {
                    self.silent.fetch_add(1, Ordering::SeqCst);
                    all.push(taken);
                }
                Err(error) => {
                    let error = anyhow::Error::from(error);
                    return Err(error.context(format!("{ask:?} of {read:?}")));
                }
            }
        }
        Ok(all)
    }

    /// Reads in every way until it is done.
    async fn reader(&self, store: AlertStore, mut dice: Dice) -> Result<()> {
        while !self.is_done() {
            let alert = dice.pick(self.ids.len());
            self.read(&store, alert).await?;
            let state = ["triage", "closed", NEW][dice.pick(3)];
            if let Ok(list) = listed(&store, Some(state), 1000).await {
                ensure!(
                    list.iter().all(|alert| alert.state == state),
                    "{state}: {list:?}"
                );
            }
            if let Ok(list) = listed(&store, None, 400).await {
                let listed: BTreeSet<_> = list.iter().map(|alert| &alert.id).collect();
                let kept = &self.ids[..NEVER_ARCHIVED];
                let missed: Vec<_> = kept.iter().filter(|id| !listed.contains(id)).collect();
                ensure!(missed.is_empty(), "a list lacks {missed:?}");
                self.lists.fetch_add(1, Ordering::SeqCst);
            }
            match store.counts().await {
                Ok(_) | Err(ReadError::Api { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Waits until some lists were complete.
    async fn is_listed(&self) -> Result<()> {
        eventually(PROGRESS, "lists are complete", async || {
            ensure!(
                self.lists.load(Ordering::SeqCst) > 10,
                "{} steps, {} conflicts, {} without an answer",
                self.steps.load(Ordering::SeqCst),
                self.lost.load(Ordering::SeqCst),
                self.silent.load(Ordering::SeqCst),
            );
            Ok(())
        })
        .await
    }

    async fn progress(&self) -> Result<()> {
        let enough = self.steps.load(Ordering::SeqCst) + STEPS;
        eventually(PROGRESS, "the movers go on", async || {
            let steps = self.steps.load(Ordering::SeqCst);
            ensure!(
                steps >= enough || self.is_done(),
                "{steps} steps of {enough}"
            );
            Ok(())
        })
        .await
    }
}

/// A step that the workflow allows; its reason is the operation, so that the history tells it.
fn some_step(read: &StoredAlert, alert: usize, name: u64, dice: &mut Dice) -> Option<Ask> {
    let ways: &[&str] = match read.state.as_str() {
        NEW => &["triage"],
        "triage" => &["escalated", "closed"],
        "escalated" => &["closed"],
        "closed" => &["triage"],
        _ => return None,
    };
    let mut step = match dice.below(10) {
        0 if alert >= NEVER_ARCHIVED => ask(To::Archive),
        1 | 2 => ask(To::Stay),
        _ => to(ways[dice.pick(ways.len())]),
    };
    if step.to == To::Stay {
        let value = Some(step.op_id.clone());
        step.metadata.insert(format!("by-{name}"), value);
    }
    step.by = format!("user/{name}");
    step.reason = step.op_id.clone();
    Some(step)
}

#[tokio::test]
async fn one_winner_a_move_and_no_alert_lost_while_servers_are_killed_and_come_back() -> Result<()>
{
    chaos(Dice::new(1)).await
}

async fn chaos(mut dice: Dice) -> Result<()> {
    let mut fixture = StoreFixture::r3().await?;
    let ids = fixture.create(0..ALERTS).await?;
    let (done, is_done) = watch::channel(false);
    let scene = Scene {
        acknowledged: ids.iter().map(|_| AtomicU64::new(0)).collect(),
        ids,
        steps: AtomicU64::new(0),
        lists: AtomicU64::new(0),
        silent: AtomicU64::new(0),
        lost: AtomicU64::new(0),
        done: is_done,
    };
    let mut stores = Vec::new();
    for _ in 0..MOVERS + READERS {
        let timeouts = Timeouts {
            connect: Duration::from_secs(2),
            request: Duration::from_secs(3),
        };
        let nats = connect_with(fixture.servers.urls(), timeouts).await?;
        stores.push(AlertStore::new(nats, owner()));
    }
    let readers = stores.split_off(usize::try_from(MOVERS)?);
    let seeds: Vec<u64> = (0..MOVERS + READERS).map(|_| dice.below(1 << 30)).collect();
    let moving = try_join_all(
        stores
            .into_iter()
            .zip(0..)
            .map(|(store, name)| scene.mover(store, name, Dice::new(seeds[name as usize]))),
    );
    let reading = try_join_all(
        readers
            .into_iter()
            .zip(&seeds[usize::try_from(MOVERS)?..])
            .map(|(store, seed)| scene.reader(store, Dice::new(*seed))),
    );
    let killing = async {
        for _ in 0..KILLS {
            scene.progress().await?;
            let at = dice.pick(3);
            servers(&mut fixture)?[at].kill();
            scene.progress().await?;
            servers(&mut fixture)?[at].restart().await?;
            fixture.healed().await?;
        }
        scene.progress().await?;
        scene.is_listed().await?;
        done.send_replace(true);
        anyhow::Ok(())
    };
    let (taken, _, ()) = futures::try_join!(moving, reading, killing)?;
    let taken: Vec<_> = taken.into_iter().flatten().collect();
    settle(&fixture, &scene, &taken).await
}

fn servers(fixture: &mut StoreFixture) -> Result<&mut [lookback_dev::support::NatsServer]> {
    match &mut fixture.servers {
        Servers::Three(cluster) => Ok(cluster.servers()),
        Servers::One(_) => bail!("there are three servers"),
    }
}

/// Compares what the movers were told with what the streams hold.
async fn settle(fixture: &StoreFixture, scene: &Scene, taken: &[Taken]) -> Result<()> {
    fixture.healed().await?;
    let name = key().alerts_stream();
    let mut stream = fixture.js.get_stream(&name).await?;
    let consumers = stream.info().await?.state.consumer_count;
    ensure!(consumers == 0, "readers left {consumers} consumers");
    let messages = raw(&fixture.js, &name).await?;
    let subjects: HashSet<_> = messages
        .iter()
        .map(|message| message.subject.as_str())
        .collect();
    let standing = standing(&messages)?;
    let found: BTreeSet<_> = standing.keys().collect();
    ensure!(
        found == scene.ids.iter().collect(),
        "some are lost: {} stand",
        found.len()
    );
    let audit = audited(&raw(&fixture.js, AUDIT_STREAM).await?)?;

    let mut by_state: BTreeMap<&str, u64> = BTreeMap::new();
    for (alert, id) in scene.ids.iter().enumerate() {
        let held = standing[id];
        let state = state_of(held)?;
        *by_state.entry(state).or_default() += 1;
        let record = match state {
            ARCHIVED => archived(held, id, &audit)?.clone(),
            _ => serde_json::from_slice(&held.body)?,
        };
        let steps: Vec<_> = taken.iter().filter(|step| step.alert == alert).collect();
        explained(&record, held.sequence, &steps, &audit)
            .with_context(|| format!("alert {id} at {}: {record:?}\n{steps:?}", held.sequence))?;
        left(&record, &audit, &subjects).with_context(|| format!("alert {id}"))?;
    }
    let counts = fixture.alerts.counts().await?;
    let counts: BTreeMap<_, _> = counts
        .iter()
        .map(|(state, count)| (state.as_str(), *count))
        .filter(|(_, count)| *count > 0)
        .collect();
    ensure!(counts == by_state, "{counts:?} counted, {by_state:?} stand");
    for (state, count) in by_state {
        let list = fixture.listed(Some(state), 1000).await?;
        ensure!(
            list.len() as u64 == count,
            "{} listed in {state}, {count} stand",
            list.len()
        );
    }
    Ok(())
}

fn state_of(message: &Raw) -> Result<&str> {
    message
        .subject
        .rsplit('.')
        .nth(1)
        .context("a subject without a state")
}

/// What the audit says.
#[derive(Default)]
struct Audit {
    /// Operations, by id.
    acts: BTreeSet<String>,
    /// What went out of histories, by alert.
    past: BTreeMap<String, BTreeMap<u64, HistoryEntry>>,
    /// By alert and the version that was archived.
    /// By the operation that archived it, or tried to.
    archived: BTreeMap<String, AlertRecord>,
}

fn archived<'a>(stub: &Raw, id: &str, audit: &'a Audit) -> Result<&'a AlertRecord> {
    let by = stub.header(OP_ID).context("a stub without its operation")?;
    let found = audit.archived.get(by).context("it is not in the audit")?;
    let from: u64 = stub
        .header(PREV_SEQ)
        .context("a stub without its version")?
        .parse()?;
    ensure!(found.id == id && found.prev_seq == from, "{found:?}");
    Ok(found)
}

fn audited(messages: &[Raw]) -> Result<Audit> {
    let mut audit = Audit::default();
    for message in messages {
        let record: AuditRecord = serde_json::from_slice(&message.body)?;
        match record.act {
            Act::Alert(act) => {
                audit.acts.insert(act.op_id);
            }
            Act::History(step) => {
                let past = audit.past.entry(step.alert).or_default();
                past.insert(step.number, step.entry);
            }
            Act::Archive(archived) => {
                let key = archived.alert.op_id.clone();
                audit.archived.insert(key, *archived.alert);
            }
            other => bail!("{other:?} in the audit"),
        }
    }
    Ok(audit)
}

/// The whole history of an alert, with what stands in the audit.
fn history(record: &AlertRecord, audit: &Audit) -> Result<Vec<HistoryEntry>> {
    let none = BTreeMap::new();
    let past = audit.past.get(&record.id).unwrap_or(&none);
    let mut all = Vec::new();
    for number in 0..record.earlier {
        let entry = past.get(&number);
        all.push(
            entry
                .with_context(|| format!("step {number} is in no audit"))?
                .clone(),
        );
    }
    all.extend(record.history.iter().cloned());
    Ok(all)
}

/// Whether the history is a chain that the movers' answers explain.
fn explained(record: &AlertRecord, sequence: u64, steps: &[&Taken], audit: &Audit) -> Result<()> {
    let history = history(record, audit)?;
    ensure!(record.prev_seq < sequence, "it follows itself");
    let mut expected = BTreeSet::new();
    for step in steps.iter().filter(|step| step.made.is_some()) {
        ensure!(
            expected.insert(step.expected),
            "two won over {}",
            step.expected
        );
    }
    let mut told: BTreeMap<_, _> = steps
        .iter()
        .map(|step| (step.op_id.as_str(), *step))
        .collect();
    for (at, pair) in history.windows(2).enumerate() {
        let [before, entry] = pair else {
            bail!("a window of two has two");
        };
        ensure!(
            entry.from.as_ref() == Some(&before.to),
            "step {at} begins elsewhere"
        );
        ensure!(
            entry.prev_seq > before.prev_seq,
            "step {at} is not after the one before it"
        );
        let step = told.remove(entry.reason.as_str());
        let step = step.with_context(|| format!("nobody took step {at}, {entry:?}, once"))?;
        ensure!(step.expected == entry.prev_seq, "{step:?} is not {entry:?}");
        let made = history.get(at + 2).map_or(sequence, |next| next.prev_seq);
        ensure!(
            step.made.is_none_or(|it| it == made),
            "{step:?} made {made}"
        );
        ensure!(
            !step.audited || audit.acts.contains(&step.op_id),
            "{step:?} is in no audit"
        );
    }
    let untold: Vec<_> = told.values().filter(|step| step.made.is_some()).collect();
    ensure!(untold.is_empty(), "{untold:?} succeeded and left no trace");
    Ok(())
}

/// Whether a tombstone and a mark stand wherever the alert was, unless it came back, and nowhere else.
fn left(record: &AlertRecord, audit: &Audit, subjects: &HashSet<&str>) -> Result<()> {
    let history = history(record, audit)?;
    let now = history.last().context("no history")?.to.as_str();
    let was: BTreeSet<_> = history
        .windows(2)
        .filter(|pair| pair[0].to != pair[1].to)
        .map(|pair| pair[0].to.as_str())
        .collect();
    let id = &record.id;
    let holds = |subject: String| subjects.contains(subject.as_str());
    for state in [NEW, "triage", "escalated", "closed", ARCHIVED] {
        let marked = holds(mark(state, id));
        let stands = holds(key().alert_subject(state, id));
        ensure!(
            marked == was.contains(state),
            "{state} is marked: {marked}, was: {was:?}"
        );
        ensure!(
            stands == (marked || state == now),
            "{state} stands: {stands}, now: {now}"
        );
    }
    Ok(())
}
