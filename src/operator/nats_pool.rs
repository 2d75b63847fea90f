//! Connections to NATS, shared by all pipelines with the same servers and the same secrets: a changed
//! Secret is another key, so it takes effect at the next reconcile. Each connection also watches the
//! checkpoints of its account and names the pipelines whose checkpoint says something new.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State as ConnectionState;
use lookback_protocol::names::PipelineKey;
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument, info_span};

use crate::nats::connect::{ConnectError, Nats, Options, Target};
use crate::operator::checkpoint_watch;

/// Connections kept; beyond it the one that was not used for longest is closed.
const MOST: usize = 64;
/// A connection that no pipeline asked for in this time is closed.
const IDLE: Duration = Duration::from_secs(600);
/// A failure is the answer to everyone who asks within this time, so that a hundred pipelines of one
/// dead server do not wait for each other's time-outs.
const FAILURE_LASTS: Duration = Duration::from_secs(2);

/// All connections of one operator.
#[derive(Debug)]
pub struct NatsPool {
    cluster: String,
    changed: mpsc::Sender<PipelineKey>,
    slots: Mutex<HashMap<Target, Slot>>,
}

#[derive(Clone, Debug)]
struct Slot {
    state: Arc<Mutex<State>>,
    used: Instant,
}

#[derive(Debug)]
enum State {
    New,
    Failed(Instant, Arc<ConnectError>),
    Open(
        Nats,
        #[expect(dead_code, reason = "it ends the watch when dropped")] AbortOnDropHandle<()>,
    ),
}

impl NatsPool {
    /// An empty pool. Pipelines of `cluster` whose checkpoint changes are sent to `changed`.
    #[must_use]
    pub fn new(cluster: String, changed: mpsc::Sender<PipelineKey>) -> Self {
        Self {
            cluster,
            changed,
            slots: Mutex::default(),
        }
    }

    /// The connection to `target`, made now if there is none.
    ///
    /// # Errors
    /// Why it could not be made; others may have found out up to two seconds ago.
    pub async fn get(&self, target: &Target) -> Result<Nats, Arc<ConnectError>> {
        let slot = self.slot(target).await;
        let mut state = slot.lock().await;
        match &*state {
            State::Open(nats, _) if is_alive(nats) => return Ok(nats.clone()),
            State::Failed(at, error) if at.elapsed() < FAILURE_LASTS => return Err(error.clone()),
            // A lost connection heals by itself, but it does not say what keeps it from that. A new
            // one does: the server may be down, or refuse what it took before.
            State::Open(..) | State::Failed(..) | State::New => {}
        }
        match Nats::connect(target, &Options::named("lookback-operator")).await {
            Ok(nats) => {
                let watch =
                    checkpoint_watch::run(nats.clone(), self.cluster.clone(), self.changed.clone());
                let watch = tokio::spawn(watch.instrument(info_span!("checkpoints")));
                *state = State::Open(nats.clone(), AbortOnDropHandle::new(watch));
                Ok(nats)
            }
            Err(error) => {
                let error = Arc::new(error);
                *state = State::Failed(Instant::now(), error.clone());
                Err(error)
            }
        }
    }

    async fn slot(&self, target: &Target) -> Arc<Mutex<State>> {
        let mut slots = self.slots.lock().await;
        let now = Instant::now();
        slots.retain(|key, slot| key == target || now.duration_since(slot.used) < IDLE);
        if MOST <= slots.len() && !slots.contains_key(target) {
            let oldest = slots.iter().min_by_key(|(_, slot)| slot.used);
            if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                slots.remove(&oldest);
            }
        }
        let slot = slots.entry(target.clone()).or_insert_with(|| Slot {
            state: Arc::new(Mutex::new(State::New)),
            used: now,
        });
        slot.used = now;
        slot.state.clone()
    }
}

fn is_alive(nats: &Nats) -> bool {
    nats.client().connection_state() == ConnectionState::Connected
}
