//! What the start decision looks at, read from the leaders. The same table decides when a process
//! begins and each time the consumer is positioned, so nothing that is refused at a start can slip in
//! while a worker runs.

use std::collections::BTreeMap;

use lookback_protocol::checkpoint::Checkpoint;
use lookback_protocol::config::WorkerConfig;
use lookback_protocol::position::{Position, StreamSeq};
use lookback_protocol::start::{
    FileFacts, MessageAt, StartDecision, StartFacts, StreamFacts, Told, decide,
};

use super::ports::{ConsumerFacts, Log, Outbox, Rooms, Unavailable};

/// What the servers say at one moment.
#[derive(Debug)]
pub(super) struct Observed {
    stream: StreamFacts,
    at_position: MessageAt,
    rooms: Rooms,
    /// `None` when the consumer does not exist.
    pub(super) consumer: Option<ConsumerFacts>,
}

/// Reads everything there is to know about a file at `position`.
pub(super) async fn observe<L: Log, O: Outbox>(
    log: &mut L,
    outbox: &O,
    position: Position,
) -> Result<Observed, Unavailable> {
    let at_position = match position.published {
        Some(_) => log.message_at(position.sequence).await?,
        None => MessageAt::Absent,
    };
    Ok(Observed {
        // Read after the message, so that a message published meanwhile is within the bounds.
        stream: log.stream().await?,
        at_position,
        rooms: outbox.rooms().await?,
        consumer: log.consumer().await?,
    })
}

impl Observed {
    /// The decision for a process that begins.
    ///
    /// A consumer that has delivered less than the file holds was made again after the one that did, and
    /// one that has delivered nothing may have been, when an earlier process began on this file. What
    /// the one before delivered beyond the file is not known, so it is taken to be everything.
    pub(super) fn decide_start(
        &self,
        config: &WorkerConfig,
        file: FileFacts,
        acknowledged: &BTreeMap<String, u64>,
        checkpoint: Option<&Checkpoint>,
    ) -> StartDecision {
        let delivered = self.consumer.map(|consumer| {
            let delivered = consumer.delivered;
            match &file {
                FileFacts::State(file)
                    if delivered < file.position.sequence || delivered == StreamSeq(0) =>
                {
                    self.stream.last
                }
                _ => delivered,
            }
        });
        self.decide_with(config, file, acknowledged, checkpoint, delivered)
    }

    /// The decision for a process that has begun.
    pub(super) fn decide_again(
        &self,
        config: &WorkerConfig,
        file: FileFacts,
        acknowledged: &BTreeMap<String, u64>,
        checkpoint: &Checkpoint,
    ) -> StartDecision {
        let delivered = self.consumer.map(|consumer| consumer.delivered);
        self.decide_with(config, file, acknowledged, Some(checkpoint), delivered)
    }

    fn decide_with(
        &self,
        config: &WorkerConfig,
        file: FileFacts,
        acknowledged: &BTreeMap<String, u64>,
        checkpoint: Option<&Checkpoint>,
        consumer_delivered: Option<StreamSeq>,
    ) -> StartDecision {
        let stores = [&self.rooms.alerts, &self.rooms.dead_letters].map(|room| {
            let acknowledged = acknowledged.get(&room.stream).copied().unwrap_or_default();
            room.facts(acknowledged)
        });
        decide(&StartFacts {
            told: Told {
                owner: &config.owner,
                partition: config.partition,
                epoch: config.epoch,
                cursor: &config.cursor,
                adopt: config.adopt.as_ref(),
                stream: &config.source.stream,
                start: config.source.start,
                filtered: !config.source.subjects.is_empty(),
            },
            file,
            checkpoint,
            stream: self.stream.clone(),
            at_position: self.at_position,
            consumer_delivered,
            consumer_applied: self.consumer.is_some_and(|consumer| consumer.applied),
            stores: stores.to_vec(),
        })
    }
}
