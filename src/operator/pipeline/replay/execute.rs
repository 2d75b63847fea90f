//! The executor of one round. What makes a replay happen once is said here and nowhere else: a decision
//! either writes what it decided and then nothing else is done, or does what was written before.

use lookback_protocol::replay::machine::{Actions, Decision, Effect, Step};

use super::ports::{Claim, Outcome, Ports, Recorded, TakeBack};

/// How a round ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round<A> {
    /// The decision is written; what it permits comes in the next round, which should come at once.
    Recorded,
    /// Somebody else came first: the decision is void.
    Overtaken,
    /// NATS does not answer, and the workers were not touched.
    Waiting,
    /// Everything that is permitted is done.
    Applied(A),
}

/// Does what was decided.
///
/// # Errors
/// Those of the ports; everything done so far stands, and the next round goes on from there.
pub async fn execute<P: Ports>(
    decision: &Decision,
    ports: &mut P,
) -> Result<Round<P::Applied>, P::Error> {
    ports.lead()?;
    match &decision.step {
        Step::Write(written) => Ok(match ports.record(written).await? {
            Recorded::Written => Round::Recorded,
            Recorded::Conflict => Round::Overtaken,
        }),
        Step::Act(actions) => act(actions, ports).await,
    }
}

async fn act<P: Ports>(actions: &Actions, ports: &mut P) -> Result<Round<P::Applied>, P::Error> {
    let Actions { effects, workers } = actions;
    for effect in effects {
        ports.lead()?;
        match perform(effect, ports).await? {
            Outcome::Done => {}
            Outcome::Overtaken => return Ok(Round::Overtaken),
            Outcome::Unreachable => return Ok(Round::Waiting),
        }
    }
    ports.lead()?;
    ports.apply(workers).await.map(Round::Applied)
}

async fn perform<P: Ports>(effect: &Effect, ports: &mut P) -> Result<Outcome, P::Error> {
    match effect {
        Effect::Claim {
            id,
            fingerprint,
            epoch,
            plan_hash,
        } => {
            let claim = Claim {
                id: id.clone(),
                fingerprint: fingerprint.clone(),
                epoch: *epoch,
                plan_hash: plan_hash.clone(),
            };
            ports.claim(&claim).await
        }
        Effect::TakeBack { from, to, resumes } => {
            let take_back = TakeBack {
                from: *from,
                to: *to,
                resumes: *resumes,
            };
            ports.take_back(&take_back).await
        }
        Effect::DeleteConsumer(epoch) => ports.delete_consumer(*epoch).await,
    }
}

#[cfg(test)]
mod tests;
