//! Random schedules. A seed decides the set-up, how likely each kind of trouble is in this case, and
//! every step; many cases lack most kinds, so that the others meet undisturbed.

use std::time::Duration;

use lookback_protocol::config::CommitConfig;
use tokio::time::sleep;

use crate::case::{Case, Setup};
use crate::scenario;
use crate::sim::rng::Rng;
use crate::sim::{Faults, State};

/// A kind of step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Publish,
    Wait,
    WaitLong,
    CutSilently,
    CutDead,
    DropDelivery,
    SwapDeliveries,
    Redeliver,
    KillNow,
    KillAtCall,
    Drain,
    RestartNats,
    DeleteConsumer,
    StallStores,
    FillStore,
    MakeRoom,
    MoveAlerts,
    ExpireRead,
    ExpireUnread,
    ExpireAhead,
    DeleteRead,
    LeaveZombie,
    RestoreOlderVolume,
}

/// Each with its weight in a case that has it.
const STEPS: [(Step, u64); 23] = [
    (Step::Publish, 30),
    (Step::Wait, 20),
    (Step::WaitLong, 1),
    (Step::CutSilently, 5),
    (Step::CutDead, 3),
    (Step::DropDelivery, 4),
    (Step::SwapDeliveries, 3),
    (Step::Redeliver, 4),
    (Step::KillNow, 4),
    (Step::KillAtCall, 8),
    (Step::Drain, 3),
    (Step::RestartNats, 2),
    (Step::DeleteConsumer, 2),
    (Step::StallStores, 2),
    (Step::FillStore, 2),
    (Step::MakeRoom, 2),
    (Step::MoveAlerts, 6),
    (Step::ExpireRead, 2),
    (Step::ExpireUnread, 2),
    (Step::ExpireAhead, 1),
    (Step::DeleteRead, 2),
    (Step::LeaveZombie, 2),
    (Step::RestoreOlderVolume, 2),
];

/// Runs the schedule of `seed` to its end; gives everything that happened, and the first breach.
pub(crate) async fn run(seed: u64) -> (Vec<String>, Option<String>) {
    let mut rng = Rng::new(seed);
    let mut case = Case::new(setup(seed, &mut rng));
    let mut schedule = Schedule::new(rng);
    let breach = schedule.play(&mut case).await.err();
    let trace = case.world.look(|state| std::mem::take(&mut state.trace));
    (trace, breach)
}

fn setup(seed: u64, rng: &mut Rng) -> Setup {
    Setup {
        seed: rng.next() ^ seed,
        commit: CommitConfig {
            interval_ms: *rng.pick(&[20, 100, 500, 1_000]),
            events: *rng.pick(&[1, 2, 3, 5, 8, 40]),
        },
        filtered: rng.chance(300),
        ack_wait: Duration::from_secs(*rng.pick(&[2, 5, 600])),
        batch: *rng.pick(&[1, 2, 5, 10, 50]),
    }
}

struct Schedule {
    rng: Rng,
    weights: Vec<(Step, u64)>,
    poison: u64,
    foreign: u64,
    rates: Faults,
    /// An older copy of the volume, and how far its alerts may have been stored.
    copy: Option<std::path::PathBuf>,
}

impl Schedule {
    fn new(mut rng: Rng) -> Self {
        let weights = STEPS
            .into_iter()
            .filter(|(step, _)| matches!(step, Step::Publish | Step::Wait) || rng.chance(450))
            .collect();
        let mut rate = |high: u64| match rng.below(3) {
            0 => rng.between(1, high),
            _ => 0,
        };
        let rates = Faults {
            log_lost: rate(100),
            log_unanswered: rate(100),
            reset_lost: rate(300),
            late_reset: rate(300),
            ack_lost: rate(300),
            store_lost: rate(100),
            store_unanswered: rate(100),
            create_unanswered: rate(200),
            checkpoint_lost: rate(100),
            checkpoint_unanswered: rate(150),
            latency: rate(30),
        };
        let poison = rate(120);
        let foreign = rate(300);
        Self {
            rng,
            weights,
            poison,
            foreign,
            rates,
            copy: None,
        }
    }

    async fn play(&mut self, case: &mut Case) -> Result<(), String> {
        case.world.lock().faults = self.rates;
        let steps = self.rng.between(10, 60);
        case.care().await?;
        for _ in 0..steps {
            let step = self.rng.weighted(&self.weights);
            case.world.note(|| format!("-- {step:?}"));
            self.take(step, case).await?;
            let pause = *self.rng.pick(&[0, 0, 1, 5, 30, 200]);
            sleep(Duration::from_millis(pause)).await;
            case.care().await?;
        }
        case.finish().await
    }

    async fn take(&mut self, step: Step, case: &mut Case) -> Result<(), String> {
        match step {
            Step::Publish => self.publish(case).await,
            Step::Wait => self.wait(20, 2_500).await,
            Step::WaitLong => self.wait(3_000, 20_000).await,
            Step::CutSilently => self.disturb(case, |state, inbox, now| {
                state.server.cut(inbox, true, now);
                redeliver_some(state);
            }),
            Step::CutDead => self.disturb(case, |state, inbox, now| {
                state.server.cut(inbox, false, now);
                redeliver_some(state);
            }),
            Step::DropDelivery => self.disturb(case, |state, inbox, _| {
                let count = state.server.on_its_way(inbox);
                let index = state.rng.below(count as u64);
                state.server.drop_delivery(inbox, index as usize);
            }),
            Step::SwapDeliveries => self.disturb(case, |state, inbox, _| {
                let count = state.server.on_its_way(inbox) as u64;
                let (a, b) = (state.rng.below(count), state.rng.below(count));
                state.server.swap_deliveries(inbox, a as usize, b as usize);
            }),
            Step::Redeliver => self.disturb(case, |state, _, _| redeliver_some(state)),
            Step::KillNow => {
                let noticed = self.rng.chance(300);
                case.kill(noticed).await;
            }
            Step::KillAtCall => {
                let calls = self.rng.below(60);
                case.kill_at_call(calls, Duration::from_secs(3)).await;
            }
            Step::Drain => self.drain(case).await?,
            Step::RestartNats => self.restart_nats(case).await,
            Step::DeleteConsumer => case.world.lock().server.delete_consumer(),
            Step::StallStores => self.stall_stores(case).await,
            Step::FillStore => {
                let mut state = case.world.lock();
                if self.rng.chance(500) {
                    state.alerts.fill(200_000);
                } else {
                    state.dead_letters.fill(200_000);
                }
            }
            Step::MakeRoom => {
                let mut state = case.world.lock();
                state.alerts.make_room();
                state.dead_letters.make_room();
            }
            Step::MoveAlerts => {
                let mut state = case.world.lock();
                for id in state.alerts.in_state("new") {
                    if self.rng.chance(500) {
                        state.alerts.move_on(&id, "new", "triage");
                    }
                }
            }
            Step::ExpireRead => {
                let through = self.rng.below(case.applied() + 1);
                case.world.lock().server.stream.expire_through(through);
            }
            Step::ExpireUnread => self.expire_unread(case).await?,
            Step::ExpireAhead => {
                case.trust_gaps = true;
                let last = case.world.look(|state| state.server.stream.last());
                let through = self.rng.below(last + 1);
                case.world.lock().server.stream.expire_through(through);
            }
            Step::DeleteRead => {
                let position = case.applied();
                let sequence = self.rng.below(position + 1);
                case.world.lock().server.stream.delete(sequence);
                // An older copy could not read it again, and nobody could tell.
                self.copy = None;
            }
            Step::LeaveZombie => {
                if case.zombies.is_empty() {
                    case.leave_as_zombie();
                }
            }
            Step::RestoreOlderVolume => self.restore_older_volume(case).await,
        }
        Ok(())
    }

    async fn publish(&mut self, case: &Case) {
        for _ in 0..self.rng.between(1, 8) {
            let (subject, payload) = scenario::event(&mut self.rng, self.poison, self.foreign);
            case.publish(subject, payload);
            if self.rng.chance(400) {
                self.wait(0, 800).await;
            }
        }
    }

    async fn wait(&mut self, low: u64, high: u64) {
        sleep(Duration::from_millis(self.rng.between(low, high))).await;
    }

    /// Does something to the pull of the running worker.
    fn disturb(&self, case: &Case, what: impl FnOnce(&mut State, u64, Duration)) {
        let now = case.world.now();
        let mut state = case.world.lock();
        let process = case.process();
        let inbox = process.and_then(|it| state.processes[&it].inbox);
        if let Some(inbox) = inbox {
            state.settle(now);
            what(&mut state, inbox, now);
        }
    }

    async fn drain(&self, case: &mut Case) -> Result<(), String> {
        if !case.is_running() {
            return Ok(());
        }
        // A worker that is held, or whose servers do not answer, may take its time; it is killed then.
        match case.drain(Duration::from_secs(20)).await {
            Ok(_) => {}
            Err(_) => case.kill(true).await,
        }
        case.breaches()
    }

    async fn restart_nats(&mut self, case: &Case) {
        let now = case.world.now();
        {
            let mut state = case.world.lock();
            state.server.restart(now);
            silence(&mut state.faults);
        }
        self.wait(100, 6_000).await;
        case.world.lock().faults = self.rates;
    }

    async fn stall_stores(&mut self, case: &Case) {
        case.world.lock().faults.store_lost = 1_000;
        self.wait(1_000, 8_000).await;
        case.world.lock().faults.store_lost = self.rates.store_lost;
    }

    /// Retention overtakes a worker that is down. Only from a state nothing was published beyond:
    /// alerts of events that expired between their publication and their commit stay, by contract.
    async fn expire_unread(&mut self, case: &mut Case) -> Result<(), String> {
        self.drain(case).await?;
        let position = case.position_on_volume();
        let (last, published) = case.world.look(|state| {
            let published = state.alerts.all().filter_map(|(_, it)| {
                let events = it.body["events"].as_array()?;
                events.last()?["sequence"].as_u64()
            });
            let parked = state.dead_letters.all();
            let parked = parked.filter_map(|(_, it)| it.body["sequence"].as_u64());
            let published = published.chain(parked).max().unwrap_or(0);
            (state.server.stream.last(), published)
        });
        if !case.zombies.is_empty() || published > position || position == 0 || last <= position {
            return Ok(());
        }
        let through = self.rng.between(position + 1, last);
        let first = case.world.look(|state| state.server.stream.facts().first.0);
        if first > position + 1 {
            return Ok(());
        }
        case.world.lock().server.stream.expire_through(through);
        let first = case.world.look(|state| state.server.stream.facts().first.0);
        case.unread.push(position + 1..=first - 1);
        self.copy = None;
        Ok(())
    }

    /// The volume comes back from a snapshot taken earlier.
    async fn restore_older_volume(&mut self, case: &mut Case) {
        case.kill(true).await;
        let now = case.volume.clone();
        if let Some(older) = self.copy.take()
            && case.zombies.is_empty()
        {
            // What is left of the last process would reset beyond the older position.
            case.world.lock().server.forget_late_resets();
            let (position, first) = case.world.look(|state| {
                let position = crate::invariants::position_in(&older);
                (position, state.server.stream.facts().first.0)
            });
            if position > 0 && first <= position + 1 {
                case.volume = Some(older);
            }
        }
        self.copy = now;
    }
}

/// Nothing answers.
fn silence(faults: &mut Faults) {
    faults.log_lost = 1_000;
    faults.store_lost = 1_000;
    faults.checkpoint_lost = 1_000;
}

/// The server sends what it believes lost at once, in any order.
fn redeliver_some(state: &mut State) {
    let Some(consumer) = &mut state.server.consumer else {
        return;
    };
    let mut unacked = consumer.unacked();
    unacked.retain(|_| state.rng.chance(500));
    if state.rng.chance(500) {
        state.rng.shuffle(&mut unacked);
    }
    consumer.redeliver(unacked);
}
