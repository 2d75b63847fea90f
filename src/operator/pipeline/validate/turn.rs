//! What the workers are told of their epoch. All of it stays as it is as long as the epoch does: another
//! text of `config.json` would be another pod.

use lookback_protocol::checkpoint::Checkpoint;
use lookback_protocol::config::Cursor;
use lookback_protocol::position::{Epoch, StreamIdentity, StreamSeq};
use lookback_protocol::replay::ledger;
use lookback_protocol::replay::machine::Workers;
use lookback_protocol::replay::record::ReplayPhase;

use super::ValidatedTurn;
use crate::api::DetectionPipeline;
use crate::api::pipeline::Start;
use crate::operator::pipeline::facts::{
    Dereferenced, NatsFacts, Running, ServerFacts, SourceFacts,
};

/// The turn of `workers`; `None` when nothing may be done to them.
pub(super) fn of(
    workers: &Workers,
    pipeline: &DetectionPipeline,
    facts: &Dereferenced,
) -> Option<ValidatedTurn> {
    let (epoch, cursor, replicas, hold_template) = match workers {
        Workers::Unchanged => return None,
        Workers::Stop {
            epoch,
            cursor,
            hold_template,
        } => (*epoch, cursor, 0, *hold_template),
        Workers::Run {
            epoch,
            cursor,
            hold_template,
        } => (*epoch, cursor, 1, *hold_template),
    };
    Some(ValidatedTurn {
        epoch,
        cursor: cursor.clone(),
        applied: is_applied(epoch, cursor, pipeline, facts),
        replicas,
        hold_template,
    })
}

/// The incarnation of the stream that the epoch's position is in; `None` when it begins on the stream
/// as it is now.
pub(super) fn stream<'a>(
    turn: &ValidatedTurn,
    facts: &'a Dereferenced,
    server: &'a ServerFacts,
) -> Option<&'a StreamIdentity> {
    let of_running = |running: &'a Running| &running.config.source.stream;
    let of_checkpoint = |checkpoint: &'a Checkpoint| &checkpoint.stream;
    if let Some(running) = running(facts, turn.epoch) {
        return Some(of_running(running));
    }
    let checkpoint = checkpoint(server);
    if let Some(mine) = checkpoint.filter(|it| it.epoch == turn.epoch) {
        return Some(of_checkpoint(mine));
    }
    if begins_anew(&turn.cursor) {
        return None;
    }
    checkpoint
        .map(of_checkpoint)
        .or_else(|| facts.running.as_ref().map(of_running))
}

/// Where a brand-new state file of the epoch begins. Resolved once, when the consumer is made, and kept
/// in its metadata; a consumer that was deleted is made again with what the workers were told, or
/// behind what one has committed.
pub(super) fn start(
    turn: &ValidatedTurn,
    wanted: Start,
    facts: &Dereferenced,
    server: &ServerFacts,
    source: &SourceFacts,
) -> StreamSeq {
    if let Cursor::Rewind(rewind) = &turn.cursor {
        return rewind.start;
    }
    let consumer = server.consumers.get(&turn.epoch);
    if let Some(metadata) = consumer.and_then(|consumer| consumer.metadata.as_ref()) {
        return metadata.start;
    }
    if let Some(running) = running(facts, turn.epoch) {
        return running.config.source.start;
    }
    if let Some(checkpoint) = checkpoint(server) {
        return checkpoint.position.sequence.next();
    }
    match wanted {
        Start::Latest => source.last.next(),
        Start::Earliest => source.first,
    }
}

/// The first epoch of a pipeline moves no file: a consumer without a checkpoint is then a fresh start.
fn is_applied(
    epoch: Epoch,
    cursor: &Cursor,
    pipeline: &DetectionPipeline,
    facts: &Dereferenced,
) -> bool {
    if *cursor == Cursor::default() {
        return false;
    }
    let NatsFacts::Reached(server) = &facts.nats else {
        return false;
    };
    let consumer = server.consumers.get(&epoch);
    let metadata = consumer.and_then(|consumer| consumer.metadata.as_ref());
    let by_consumer = metadata.is_some_and(|metadata| metadata.applied);
    let by_checkpoint = checkpoint(server).is_some_and(|it| ledger::is_applied(it, epoch));
    let record = pipeline.status.as_ref().and_then(|it| it.replay.as_ref());
    let by_record = record.is_some_and(|record| {
        use ReplayPhase::{CatchingUp, Completed, StateApplied};
        record.epoch == Some(epoch) && matches!(record.phase, StateApplied | CatchingUp | Completed)
    });
    by_consumer || by_checkpoint || by_record
}

fn begins_anew(cursor: &Cursor) -> bool {
    match cursor {
        Cursor::Resume { .. } => false,
        Cursor::Rewind(rewind) => rewind.state_policy.begins_anew() || rewind.of.is_none(),
    }
}

fn running(facts: &Dereferenced, epoch: Epoch) -> Option<&Running> {
    let running = facts.running.as_ref();
    running.filter(|running| running.config.epoch == epoch)
}

fn checkpoint(server: &ServerFacts) -> Option<&Checkpoint> {
    server.checkpoint.as_ref().ok()?.as_ref()
}

#[cfg(test)]
mod tests;
