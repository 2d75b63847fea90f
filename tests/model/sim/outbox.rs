//! The outbox port over the modelled stores.

use lookback::worker::ports::{
    DeadLetter, Lookup, Outbox, Room, Rooms, StoreError, Stored, Unavailable,
};
use lookback_protocol::alert::{AlertRecord, NEW};
use lookback_protocol::deadletter::PARKED;

use super::store::{Store, Written};
use super::{Faults, State, Way, World, unavailable};

/// One process's way to the stores.
#[derive(Debug)]
pub(crate) struct SimOutbox {
    world: World,
    process: u64,
}

impl SimOutbox {
    pub(crate) fn new(world: &World, process: u64) -> Self {
        Self {
            world: world.clone(),
            process,
        }
    }

    async fn request<T>(
        &self,
        operation: &'static str,
        carry_out: impl FnOnce(&mut State) -> T,
    ) -> Result<T, Unavailable> {
        self.request_over(operation, lost, carry_out).await
    }

    async fn request_over<T>(
        &self,
        operation: &'static str,
        lost: fn(&Faults) -> (u64, u64),
        carry_out: impl FnOnce(&mut State) -> T,
    ) -> Result<T, Unavailable> {
        let way = self.world.travel(self.process, lost).await;
        if way == Way::Lost {
            return Err(unavailable(operation, "store"));
        }
        let answer = carry_out(&mut self.world.lock());
        self.world.travel_back(self.process, way).await;
        if way == Way::Unanswered {
            return Err(unavailable(operation, "store"));
        }
        Ok(answer)
    }

    async fn create(
        &self,
        store: fn(&mut State) -> &mut Store,
        id: &str,
        state: &str,
        body: serde_json::Value,
    ) -> Result<Stored, StoreError> {
        let process = self.process;
        let written = self
            .request_over("create", create_lost, |world| {
                store(world).create(id, state, body)
            })
            .await?;
        self.world
            .note(|| format!("w{process} create {id} {written:?}"));
        match written {
            Written::At(sequence) => Ok(Stored::New(sequence)),
            Written::NoRoom => Err(StoreError::Full {
                stream: id.to_owned(),
            }),
            Written::Conflict => {
                let known = self.knows(store, id).await?;
                if known {
                    Ok(Stored::Known)
                } else {
                    Err(unavailable("create", id).into())
                }
            }
        }
    }

    async fn knows(
        &self,
        store: fn(&mut State) -> &mut Store,
        id: &str,
    ) -> Result<bool, Unavailable> {
        self.request("leader get", |world| store(world).knows(id))
            .await
    }
}

impl Outbox for SimOutbox {
    async fn create_alert(
        &self,
        record: &AlertRecord,
        lookup: Lookup,
    ) -> Result<Stored, StoreError> {
        let store: fn(&mut State) -> &mut Store = |world| &mut world.alerts;
        if self.world.look(|state| state.kill_on_create) {
            self.world.kill_here(self.process).await;
        }
        if lookup == Lookup::First && self.knows(store, &record.id).await? {
            return Ok(Stored::Known);
        }
        let body = serde_json::to_value(record).expect("an alert is JSON");
        self.create(store, &record.id, NEW, body).await
    }

    async fn park(&self, letter: &DeadLetter) -> Result<Stored, StoreError> {
        let body = serde_json::json!({
            "reason": letter.reason,
            "sequence": letter.delivery.sequence,
            "payload": letter.delivery.payload.to_vec(),
            "subject": letter.delivery.subject,
            "stream": letter.stream,
        });
        self.create(|world| &mut world.dead_letters, &letter.id, PARKED, body)
            .await
    }

    async fn rooms(&self) -> Result<Rooms, Unavailable> {
        self.request("STREAM.INFO", |state| Rooms {
            alerts: room(&state.alerts),
            dead_letters: room(&state.dead_letters),
        })
        .await
    }
}

fn lost(faults: &Faults) -> (u64, u64) {
    (faults.store_lost, faults.store_unanswered)
}

fn create_lost(faults: &Faults) -> (u64, u64) {
    let unanswered = faults.store_unanswered.max(faults.create_unanswered);
    (faults.store_lost, unanswered)
}

fn room(store: &Store) -> Room {
    Room {
        stream: store.name.to_owned(),
        last: store.last(),
        bytes: store.bytes(),
        max_bytes: store.max_bytes,
    }
}
