//! Events that leave the source stream while a worker is on its way to them. The consumer goes on
//! behind them without a word, and its own numbering shows nothing; only the stream's sequences jump.
//! Most jumps are innocent: a filter, or messages that people deleted. One is reported when retention
//! has come further than we had. How many events were pending at the delivery before it says nothing:
//! the server counted them when it sent that delivery, and more may have come and gone since.

use lookback_protocol::checkpoint::Gap;
use lookback_protocol::position::StreamSeq;
use lookback_protocol::start::Begin;

use super::patience::Patience;
use super::ports::{Checkpoints, Delivery, Log, Outbox};
use super::run::Worker;
use super::start::note;
use super::stop::{Ending, Stop};

impl<L: Log, O: Outbox, C: Checkpoints> Worker<L, O, C> {
    /// Processes a batch, reporting what expired before and within it. What comes before a gap is
    /// committed before the gap is written down, so that a crash between the two finds it again.
    pub(super) async fn process_and_report(
        &mut self,
        mut batch: Vec<Delivery>,
    ) -> Result<(), Ending> {
        let Some(last) = batch.last().map(|delivery| delivery.sequence) else {
            return Ok(());
        };
        if jumps(self.read, &batch) {
            let first = self.first_sequence().await?;
            let filtered = !self.config.source.subjects.is_empty();
            let mut processed = 0;
            for (index, gap) in gaps(self.read, &batch, first, filtered) {
                let rest = batch.split_off(index - processed);
                self.process(std::mem::replace(&mut batch, rest)).await?;
                self.report(gap)?;
                processed = index;
            }
        }
        self.read = last;
        self.process(batch).await
    }

    fn report(&mut self, gap: Gap) -> Result<(), Stop> {
        let begin = Begin {
            position: self.file.position()?,
            published_through: StreamSeq(0),
            gap: Some(gap),
        };
        note(&mut self.file, &self.identity, &begin, &self.metrics)
    }

    async fn first_sequence(&mut self) -> Result<StreamSeq, Ending> {
        let mut patience = Patience::new();
        loop {
            match self.log.stream().await {
                Ok(stream) => return Ok(stream.first),
                Err(error) => patience.wait(error, &mut self.shutdown).await?,
            }
        }
    }
}

/// Whether any jump in `batch` is worth asking the stream for.
fn jumps(read: StreamSeq, batch: &[Delivery]) -> bool {
    let mut before = read;
    batch.iter().any(|delivery| {
        let jumps = delivery.sequence > before.next();
        before = delivery.sequence;
        jumps
    })
}

/// The gaps in `batch` of a stream that now begins at `first`, each with the index of the event
/// behind it.
fn gaps(
    read: StreamSeq,
    batch: &[Delivery],
    first: StreamSeq,
    filtered: bool,
) -> Vec<(usize, Gap)> {
    let mut before = read;
    let mut gaps = Vec::new();
    for (index, delivery) in batch.iter().enumerate() {
        let from = before.next();
        if delivery.sequence > from && first > from {
            let gap = Gap {
                from,
                to: delivery.sequence.min(first).previous(),
                possible: filtered,
            };
            gaps.push((index, gap));
        }
        before = delivery.sequence;
    }
    gaps
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use crate::worker::fakes;

    use super::*;

    fn batch(sequences: &[u64]) -> Vec<Delivery> {
        let deliver = |sequence: &u64| fakes::delivery(1, *sequence, &Bytes::new());
        sequences.iter().map(deliver).collect()
    }

    fn gap(from: u64, to: u64) -> Gap {
        Gap {
            from: StreamSeq(from),
            to: StreamSeq(to),
            possible: false,
        }
    }

    #[test]
    fn a_jump_over_what_retention_took_is_a_gap() {
        let batch = batch(&[11, 12, 20, 21]);
        let found = gaps(StreamSeq(10), &batch, StreamSeq(20), false);
        assert_eq!(found, [(2, gap(13, 19))]);
    }

    #[test]
    fn a_jump_before_the_first_event_of_a_batch_is_seen() {
        let found = gaps(StreamSeq(10), &batch(&[15]), StreamSeq(15), false);
        assert_eq!(found, [(0, gap(11, 14))]);
    }

    #[test]
    fn what_is_still_in_the_stream_was_not_ours() {
        let found = gaps(StreamSeq(10), &batch(&[20]), StreamSeq(14), false);
        assert_eq!(found, [(0, gap(11, 13))]);
    }

    #[test]
    fn a_jump_beyond_the_first_sequence_is_innocent() {
        assert_eq!(gaps(StreamSeq(10), &batch(&[20]), StreamSeq(3), false), []);
    }

    #[test]
    fn a_batch_without_a_jump_asks_for_nothing() {
        assert!(!jumps(StreamSeq(10), &batch(&[11, 12, 13])));
        assert!(jumps(StreamSeq(10), &batch(&[11, 13])));
    }

    #[test]
    fn under_a_filter_a_gap_is_only_possible() {
        let found = gaps(StreamSeq(10), &batch(&[20]), StreamSeq(20), true);
        assert!(found[0].1.possible);
    }
}
