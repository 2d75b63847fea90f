//! The way back: one write to the checkpoint's key, which the worker that begins the request writes to,
//! too. Each expects what stood there before, so exactly one of the two succeeds.

use jiff::Timestamp;
use lookback_protocol::checkpoint::{self as format, Checkpoint, Counters, Phase};
use lookback_protocol::names::Owner;
use lookback_protocol::position::{Epoch, Position};

use super::ports::{Outcome, TakeBack};
use crate::nats::checkpoint::{self, JetStreamCheckpoints};
use crate::nats::connect::Nats;
use crate::operator::pipeline::build::PARTITION;
use crate::operator::pipeline::facts::ServerFacts;
use crate::worker::ports::{CheckpointError, Checkpoints};

/// Who takes back, and from what.
pub(super) struct Taker<'a> {
    /// The pipeline.
    pub(super) owner: &'a Owner,
    /// This replica's name.
    pub(super) instance: &'a str,
    /// What NATS said.
    pub(super) server: &'a ServerFacts,
}

/// Writes, unless a worker of the epoch that is undone, or of a later one, has written first.
///
/// # Errors
/// [`CheckpointError`]: it is not decided yet. The next round looks at what stands then, a late write of
/// this one included.
pub(super) async fn take_back(
    nats: &Nats,
    take_back: TakeBack,
    taker: &Taker<'_>,
) -> Result<Outcome, CheckpointError> {
    let mut checkpoints = JetStreamCheckpoints::new(nats.clone(), &taker.owner.pipeline, PARTITION);
    let (stands, revision) = match checkpoints.load().await? {
        Some((stands, _)) if stands.epoch == take_back.to => return Ok(Outcome::Done),
        Some((stands, _)) if stands.epoch >= take_back.from => return Ok(Outcome::Overtaken),
        Some((stands, revision)) => (stands, Some(revision)),
        None => match never_written(take_back.resumes, taker) {
            Some(checkpoint) => (checkpoint, None),
            None => return Ok(Outcome::Unreachable),
        },
    };
    let checkpoint = taken_back(stands, take_back, taker, Timestamp::now());
    let taken = checkpoint::take_back(nats, PARTITION, &checkpoint, revision).await?;
    Ok(match taken {
        checkpoint::TakeBack::Won(_) => Outcome::Done,
        checkpoint::TakeBack::Lost(_) => Outcome::Overtaken,
    })
}

/// What stood, in the epoch that takes over: it still speaks for the file that was not touched.
fn taken_back(
    stands: Checkpoint,
    TakeBack {
        from: _,
        to,
        resumes,
    }: TakeBack,
    taker: &Taker<'_>,
    now: Timestamp,
) -> Checkpoint {
    Checkpoint {
        incarnation: taker.instance.to_owned(),
        owner: taker.owner.clone(),
        epoch: to,
        phase: Phase::TakenBack,
        request: None,
        resumes: Some(resumes),
        held: None,
        time: now,
        ..stands
    }
}

/// What a worker of `epoch` that never wrote a checkpoint would begin with; `None` when the source
/// stream is not there.
fn never_written(epoch: Epoch, taker: &Taker<'_>) -> Option<Checkpoint> {
    let source = taker.server.source.as_ref()?;
    let consumer = taker.server.consumers.get(&epoch);
    let metadata = consumer.and_then(|consumer| consumer.metadata.as_ref());
    let start = metadata.map_or_else(|| source.last.next(), |metadata| metadata.start);
    let position = Position::before(start);
    Some(Checkpoint {
        v: format::VERSION,
        incarnation: taker.instance.to_owned(),
        owner: taker.owner.clone(),
        epoch,
        phase: Phase::TakenBack,
        stream: source.identity.clone(),
        position,
        published_through: position.sequence,
        engine_digest: String::new(),
        groups: 0,
        gaps: Vec::new(),
        counters: Counters::default(),
        request: None,
        applied: None,
        resumes: None,
        held: None,
        time: Timestamp::UNIX_EPOCH,
    })
}

#[cfg(test)]
mod tests {
    use lookback_protocol::consumer::ConsumerMetadata;
    use lookback_protocol::position::StreamSeq;

    use super::*;
    use crate::operator::pipeline::test_support::{
        EPOCH, MINIMAL, checkpoint, consumer, facts, now, owner, pipeline, server, validated,
        with_consumer,
    };

    const BACK: TakeBack = TakeBack {
        from: Epoch(2),
        to: Epoch(3),
        resumes: EPOCH,
    };

    fn taken(stands: Checkpoint) -> Checkpoint {
        let (owner, server) = (owner(), server());
        let taker = Taker {
            owner: &owner,
            instance: "operator-0",
            server: &server,
        };
        taken_back(stands, BACK, &taker, now())
    }

    #[test]
    fn what_is_taken_back_still_speaks_for_the_file_that_was_not_touched() {
        let pipeline = pipeline(MINIMAL);
        let stands = checkpoint(&validated(&pipeline, &facts(&pipeline)));
        let taken = taken(stands.clone());
        assert_eq!((taken.epoch, taken.phase), (Epoch(3), Phase::TakenBack));
        assert_eq!(taken.resumes, Some(EPOCH));
        assert_eq!(
            (taken.position, taken.published_through, taken.counters),
            (stands.position, stands.published_through, stands.counters)
        );
    }

    #[test]
    fn a_worker_that_never_wrote_a_checkpoint_goes_on_where_it_was_told_to_begin() {
        let owner = owner();
        let mut server = server();
        let metadata = ConsumerMetadata::new(&owner, EPOCH, StreamSeq(300));
        with_consumer(&mut server, Some(consumer(metadata)));
        let taker = Taker {
            owner: &owner,
            instance: "operator-0",
            server: &server,
        };
        let position = never_written(EPOCH, &taker).unwrap().position;
        assert_eq!(position, Position::before(StreamSeq(300)));
        assert_eq!(position.published, None);
    }
}
