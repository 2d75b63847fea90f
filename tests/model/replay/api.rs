//! What the API server and JetStream hold of one pipeline, beside what the sim of JetStream holds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use lookback_protocol::config::Cursor;
use lookback_protocol::consumer::ConsumerMetadata;
use lookback_protocol::position::Epoch;
use lookback_protocol::replay::machine::Written;
use lookback_protocol::replay::record::{Finished, Plan, ReplayPhase};
use lookback_protocol::replay::request::{ReplayRequest, RequestId};

use crate::sim::consumer::Consumer;
use crate::sim::server::Server;

/// Everything that stands somewhere for this pipeline.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects {
    /// The resourceVersion of the pipeline; every write of it counts.
    pub(crate) version: u64,
    pub(crate) block: Option<ReplayRequest>,
    pub(crate) suspended: bool,
    pub(crate) approved: Option<String>,
    pub(crate) written: Written,
    pub(crate) set: Option<StatefulSet>,
    pub(crate) pod: Option<PodView>,
    /// The audit stream: id, epoch and fingerprint.
    pub(crate) claims: BTreeMap<RequestId, (Epoch, String)>,
    pub(crate) consumers: BTreeMap<Epoch, ConsumerMetadata>,
    /// Consumers other than the one that is served now.
    parked: BTreeMap<Epoch, Consumer>,
    serving: Option<Epoch>,
    pub(crate) witness: Witness,
}

/// A StatefulSet of one pod.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct StatefulSet {
    pub(crate) version: u64,
    pub(crate) epoch: Epoch,
    pub(crate) cursor: Cursor,
    pub(crate) runs: bool,
    /// Its controller has seen this version.
    pub(crate) observed: bool,
}

/// The pod as its status shows it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PodView {
    pub(crate) epoch: Epoch,
    /// Its worker said that its state is lost, and no other has started since.
    pub(crate) says_lost: bool,
    pub(crate) trouble: Option<String>,
}

/// What was ever written or made, for the end of a case.
#[derive(Clone, Debug, Default)]
pub(crate) struct Witness {
    pub(crate) finished: Vec<Finished>,
    pub(crate) plans: BTreeMap<RequestId, Plan>,
    pub(crate) epochs: BTreeMap<Epoch, Cursor>,
    pub(crate) was_recreated: bool,
    pub(crate) fenced_a_running_pod: bool,
    /// Something was done under a phase that was not written.
    pub(crate) acted_first: bool,
}

impl Witness {
    /// How each request ended, at last: one that was never claimed is forgotten with its object.
    pub(crate) fn last_of_each(&self) -> Vec<Finished> {
        let mut last = BTreeMap::new();
        for finished in &self.finished {
            last.insert(finished.id.clone(), finished.clone());
        }
        last.into_values().collect()
    }
}

/// A handle on them.
pub(crate) type Api = Arc<Mutex<Objects>>;

pub(crate) fn look<T>(api: &Api, read: impl FnOnce(&mut Objects) -> T) -> T {
    read(
        &mut api
            .lock()
            .expect("no test panics while it holds the objects"),
    )
}

impl Objects {
    /// A person or a tool writes the object.
    pub(crate) fn edit(&mut self, change: impl FnOnce(&mut Self)) {
        change(self);
        self.version += 1;
    }

    /// The object is deleted under Retain and created again from the same manifest.
    pub(crate) fn recreate(&mut self) {
        self.edit(|it| {
            it.written = Written::default();
            it.approved = None;
            it.set = None;
            it.witness.was_recreated = true;
        });
    }

    /// The operator writes its log.
    pub(crate) fn record(&mut self, written: &Written) {
        for finished in &written.history {
            if !self.witness.finished.contains(finished) {
                self.witness.finished.push(finished.clone());
            }
        }
        let before = self.written.record.as_ref().map(|record| record.phase);
        if let Some(record) = &written.record
            && record.phase == ReplayPhase::CursorCreated
            && before == Some(ReplayPhase::Fencing)
        {
            self.witness.fenced_a_running_pod |= self.pod.is_some();
        }
        if let Some(record) = &written.record
            && record.phase == ReplayPhase::Planned
            && let Some(plan) = &record.plan
        {
            self.witness
                .plans
                .insert(record.request.id.clone(), plan.clone());
        }
        self.edit(|it| it.written = written.clone());
    }

    /// The consumer of `epoch`, wherever it stands.
    pub(crate) fn consumer<'a>(&'a self, epoch: Epoch, server: &'a Server) -> Option<&'a Consumer> {
        if self.serving == Some(epoch) {
            server.consumer.as_ref()
        } else {
            self.parked.get(&epoch)
        }
    }

    /// The one worker there is talks to the consumer of its epoch from now on.
    pub(crate) fn serve(
        &mut self,
        epoch: Epoch,
        server: &mut Server,
        make: impl FnOnce(&mut Server),
    ) {
        if self.serving != Some(epoch) {
            server.forget_late_resets();
            if let (Some(before), Some(consumer)) = (self.serving, server.consumer.clone()) {
                self.parked.insert(before, consumer);
            }
            server.delete_consumer();
            self.serving = Some(epoch);
            if let Some(consumer) = self.parked.remove(&epoch) {
                server.consumer = Some(consumer);
            }
        }
        if server.consumer.is_none() && self.consumers.contains_key(&epoch) {
            make(server);
        }
        self.tell_applied(server);
    }

    /// The metadata of the consumer that is served is as the operator wrote it.
    pub(crate) fn tell_applied(&self, server: &mut Server) {
        let metadata = self.serving.and_then(|epoch| self.consumers.get(&epoch));
        if let (Some(metadata), Some(consumer)) = (metadata, &mut server.consumer) {
            consumer.applied = metadata.applied;
        }
    }

    pub(crate) fn delete_consumer(&mut self, epoch: Epoch, server: &mut Server) {
        self.consumers.remove(&epoch);
        self.parked.remove(&epoch);
        if self.serving == Some(epoch) {
            server.delete_consumer();
        }
    }
}
