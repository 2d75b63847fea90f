//! Proof that no delivery went to someone who lost it. After a reset the consumer numbers its
//! deliveries from 1; as long as each carries the next number, everything between two positions was
//! seen. A jump means a message went elsewhere: a cut connection, a half-open old client, a full
//! channel. A heartbeat that shows a higher number says the same of the tail, where no later
//! delivery could jump.

use crate::position::StreamSeq;

/// The state of the check since the last positioning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Continuity {
    delivered: u64,
    accepted: StreamSeq,
}

/// What to do with a delivery or a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Next in order: apply it.
    Accept,
    /// Next in order but already accepted by this process: do not apply it again.
    Ignore,
    /// Something was delivered to someone else: stop pulling, commit what is applied, position again.
    Hole,
}

impl Continuity {
    /// The check after a proven reset; `accepted` is the last sequence accepted by this process.
    #[must_use]
    pub fn after_reset(accepted: StreamSeq) -> Self {
        Self {
            delivered: 0,
            accepted,
        }
    }

    /// Judges a delivery by its consumer sequence and its stream sequence.
    pub fn on_delivery(&mut self, consumer_sequence: u64, sequence: StreamSeq) -> Verdict {
        if consumer_sequence != self.delivered + 1 {
            return Verdict::Hole;
        }
        self.delivered = consumer_sequence;
        if sequence <= self.accepted {
            return Verdict::Ignore;
        }
        self.accepted = sequence;
        Verdict::Accept
    }

    /// Judges a heartbeat by the last consumer sequence the server gave to anyone.
    #[must_use]
    pub fn on_heartbeat(&self, last_consumer_sequence: u64) -> Verdict {
        if last_consumer_sequence > self.delivered {
            Verdict::Hole
        } else {
            Verdict::Ignore
        }
    }

    /// The last sequence accepted.
    #[must_use]
    pub fn accepted(&self) -> StreamSeq {
        self.accepted
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn check() -> Continuity {
        Continuity::after_reset(StreamSeq(100))
    }

    #[test]
    fn deliveries_in_order_are_accepted() {
        let mut check = check();
        assert_eq!(check.on_delivery(1, StreamSeq(101)), Verdict::Accept);
        assert_eq!(check.on_delivery(2, StreamSeq(105)), Verdict::Accept);
    }

    #[test]
    fn a_first_delivery_that_is_not_the_first_is_a_hole() {
        assert_eq!(check().on_delivery(2, StreamSeq(102)), Verdict::Hole);
    }

    #[test]
    fn a_jump_is_a_hole() {
        let mut check = check();
        check.on_delivery(1, StreamSeq(101));
        assert_eq!(check.on_delivery(3, StreamSeq(103)), Verdict::Hole);
    }

    #[test]
    fn a_redelivery_out_of_order_is_a_hole() {
        let mut check = check();
        check.on_delivery(1, StreamSeq(101));
        assert_eq!(check.on_delivery(1, StreamSeq(101)), Verdict::Hole);
    }

    #[test]
    fn a_sequence_already_accepted_is_ignored() {
        let mut check = check();
        assert_eq!(check.on_delivery(1, StreamSeq(100)), Verdict::Ignore);
    }

    #[test]
    fn a_heartbeat_beyond_our_last_delivery_is_a_hole() {
        let mut check = check();
        check.on_delivery(1, StreamSeq(101));
        assert_eq!(check.on_heartbeat(1), Verdict::Ignore);
        assert_eq!(check.on_heartbeat(2), Verdict::Hole);
    }

    /// What happens next between the consumer and us.
    #[derive(Clone, Debug)]
    enum Act {
        /// The next message is delivered; it reaches us, or someone else.
        Deliver { to_us: bool },
        /// A message is delivered again, as after `ack_wait`, and counted like any delivery.
        Redeliver { back: usize, to_us: bool },
        /// A delivery made before comes late, or a second time.
        Late { back: usize },
        /// The consumer is idle.
        Heartbeat,
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let to_us = || proptest::bool::weighted(0.9);
        let act = prop_oneof![
            6 => to_us().prop_map(|to_us| Act::Deliver { to_us }),
            1 => (0..5usize, to_us()).prop_map(|(back, to_us)| Act::Redeliver { back, to_us }),
            1 => (0..5usize).prop_map(|back| Act::Late { back }),
            1 => Just(Act::Heartbeat),
        ];
        vec(act, 1..60)
    }

    proptest! {
        /// The messages under the filter stand at every third sequence. Whatever happens to
        /// deliveries, what is accepted is a run of messages without one left out or taken twice,
        /// and a heartbeat that is no hole proves that everything delivered was seen.
        #[test]
        fn nothing_is_accepted_twice_or_left_out(acts in acts(), begun in 0..5usize) {
            let message = |index: usize| StreamSeq(100 + 3 * index as u64);
            let mut check = Continuity::after_reset(message(begun));
            let mut accepted = begun;
            let mut newest = 0;
            let mut deliveries: Vec<usize> = Vec::new();
            for act in acts {
                let arrives = match act {
                    Act::Deliver { to_us } => {
                        newest += 1;
                        deliveries.push(newest);
                        to_us.then_some(deliveries.len())
                    }
                    Act::Redeliver { back, to_us } => {
                        deliveries.push(newest.saturating_sub(back).max(1));
                        newest = newest.max(1);
                        to_us.then_some(deliveries.len())
                    }
                    Act::Late { back } => deliveries.len().checked_sub(back).filter(|&n| n > 0),
                    Act::Heartbeat => {
                        if check.on_heartbeat(deliveries.len() as u64) == Verdict::Hole {
                            break;
                        }
                        prop_assert_eq!(accepted, begun.max(newest));
                        None
                    }
                };
                let Some(count) = arrives else {
                    continue;
                };
                let index = deliveries[count - 1];
                match check.on_delivery(count as u64, message(index)) {
                    Verdict::Accept => {
                        prop_assert_eq!(index, accepted + 1);
                        accepted = index;
                    }
                    Verdict::Ignore => prop_assert!(index <= accepted),
                    Verdict::Hole => break,
                }
            }
        }
    }
}
