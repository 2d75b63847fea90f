//! How many alerts and dead letters there are in each state. To count costs a few requests, however many
//! there are; it is done when a stream has changed, and every [`NUMBERS_EVERY`] otherwise.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use lookback_protocol::alert::{ARCHIVED, NEW};
use lookback_protocol::names::{Owner, PipelineKey};
use tokio::time::Instant;
use tracing::debug;

use crate::nats::alerts::AlertStore;
use crate::nats::api::Code;
use crate::nats::connect::Nats;
use crate::nats::deadletters::DeadLetterStore;
use crate::nats::definition;
use crate::nats::entries::ReadError;
use crate::nats::streams::ObservedStream;
use crate::operator::pipeline::facts::{AlertCounts, Counts};
use crate::operator::pipeline::status::NUMBERS_EVERY;
use crate::runtime::telemetry::chain;

/// What was counted last, for every pipeline.
#[derive(Debug, Default)]
pub struct Tallies(Mutex<HashMap<PipelineKey, Tally>>);

#[derive(Clone, Debug)]
struct Tally {
    at: Instant,
    of: Place,
    counts: Counts,
}

/// Where both streams stood: the last sequence and the messages of each.
type Place = [Option<(u64, u64)>; 2];

impl Tallies {
    /// Keeps nothing of a pipeline that is gone.
    pub fn forget(&self, namespace: &str, name: &str) {
        let mut tallies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tallies.retain(|key, _| (key.namespace(), key.name()) != (namespace, name));
    }

    fn current(&self, key: &PipelineKey, place: Place) -> Option<Counts> {
        let tallies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = tallies.get(key)?;
        let is_current = tally.of == place && tally.at.elapsed() < NUMBERS_EVERY.unsigned_abs();
        is_current.then(|| tally.counts.clone())
    }

    fn keep(&self, key: &PipelineKey, of: Place, counts: &Counts) {
        let tally = Tally {
            at: Instant::now(),
            of,
            counts: counts.clone(),
        };
        let mut tallies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tallies.insert(key.clone(), tally);
    }
}

/// The counts, of those streams that exist.
pub(super) async fn read(
    tallies: &Tallies,
    nats: &Nats,
    owner: &Owner,
    [alerts, letters]: [Option<&ObservedStream>; 2],
) -> Counts {
    let key = &owner.pipeline;
    let place = [alerts, letters].map(|stream| {
        let state = &stream?.state;
        Some((state.last_seq, state.messages))
    });
    if let Some(counts) = tallies.current(key, place) {
        return counts;
    }
    let count_alerts = async {
        alerts?;
        known(key, count_alerts(nats, owner).await)
    };
    let count_letters = async {
        letters?;
        let store = DeadLetterStore::new(nats.clone(), owner.clone());
        known(key, store.counts().await)
    };
    let there = (alerts.is_some(), letters.is_some());
    let (alerts, dead_letters) = tokio::join!(count_alerts, count_letters);
    let counts = Counts {
        alerts,
        dead_letters,
    };
    // What could not be counted is tried again at the next look.
    if there == (counts.alerts.is_some(), counts.dead_letters.is_some()) {
        tallies.keep(key, place, &counts);
    }
    counts
}

/// That something cannot be counted is nothing to act on: what matters does not answer either, then.
fn known<T>(key: &PipelineKey, counted: Result<T, ReadError>) -> Option<T> {
    counted
        .inspect_err(|error| debug!(pipeline = %key, error = %chain(error), "Cannot count"))
        .ok()
}

async fn count_alerts(nats: &Nats, owner: &Owner) -> Result<AlertCounts, ReadError> {
    let found = match definition::read(nats, &owner.pipeline).await {
        // The bucket comes with the first pipeline of the account.
        Err(ReadError::Api { source, .. }) if source.code() == Some(Code::STREAM_NOT_FOUND) => None,
        found => found?,
    };
    let definition = definition::or_default(found, owner);
    let store = AlertStore::new(nats.clone(), owner.clone());
    let by_state = store.counts_by(&definition).await?;
    let always = [NEW, ARCHIVED].map(str::to_owned);
    Ok(AlertCounts {
        by_state,
        workflow: definition
            .workflow
            .states
            .into_iter()
            .chain(always)
            .collect(),
    })
}
