//! The executor of one round. What makes a replay happen once is said here and nowhere else: a decision
//! that changes what is recorded is written and then nothing else is done; effects come only in a round
//! that finds its decision recorded already.

use lookback_protocol::replay::machine::{Decision, Effect, Facts, Workers};

use super::ports::{Outcome, Ports, Recorded, TakeBack};

/// How a round ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round<A> {
    /// The decision is recorded; what it permits comes in the next round, which should come at once.
    Recorded,
    /// Somebody else came first: the decision is void.
    Overtaken,
    /// Everything the record permits is done.
    Applied(A),
}

/// Does what was decided from `facts`.
///
/// # Errors
/// Those of the ports; everything done so far stands, and the next round goes on from there.
pub async fn execute<P: Ports>(
    facts: &Facts<'_>,
    decision: &Decision,
    ports: &mut P,
) -> Result<Round<P::Applied>, P::Error> {
    ports.lead()?;
    if !is_recorded(facts, decision) {
        return Ok(match ports.record(decision).await? {
            Recorded::Written => Round::Recorded,
            Recorded::Conflict => Round::Overtaken,
        });
    }
    for effect in &decision.effects {
        ports.lead()?;
        let outcome = match effect {
            Effect::Claim(claim) => ports.claim(claim).await?,
            Effect::TakeBack { from, to, resumes } => {
                let take_back = TakeBack {
                    from: *from,
                    to: *to,
                    resumes: *resumes,
                };
                ports.take_back(&take_back).await?
            }
            Effect::DeleteConsumer(epoch) => ports.delete_consumer(*epoch).await?,
        };
        if outcome == Outcome::Overtaken {
            return Ok(Round::Overtaken);
        }
    }
    ports.lead()?;
    ports.apply(&decision.workers).await.map(Round::Applied)
}

/// Whether the status says already what was decided.
fn is_recorded(facts: &Facts<'_>, decision: &Decision) -> bool {
    decision.record.as_ref() == facts.record
        && decision.epoch == facts.epoch
        && decision.history == facts.history
        && decision.retired == facts.retired
}
