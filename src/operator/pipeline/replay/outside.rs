//! The ports over the API server and JetStream.

use jiff::Timestamp;
use lookback_protocol::audit::{self as protocol, Act, AuditRecord, ReplayClaim};
use lookback_protocol::names::Owner;
use lookback_protocol::position::Epoch;
use lookback_protocol::replay::machine::{Workers, Written};
use serde_json::{Value, json};

use super::ports::{Claim, Outcome, Ports, Recorded, TakeBack};
use super::take_back::{self, Taker};
use super::{with_log, written};
use crate::nats::desired::DesiredStream;
use crate::nats::ensure::ObjectError;
use crate::nats::{audit, consumers, streams};
use crate::operator;
use crate::operator::controller::Context;
use crate::operator::pipeline::apply;
use crate::operator::pipeline::build::{self, Desired, PARTITION};
use crate::operator::pipeline::dereference::Found;
use crate::operator::pipeline::facts::NatsFacts;
use crate::operator::pipeline::problem::Problem;
use crate::operator::pipeline::validate::{self, Chosen, Validation};
use crate::operator::pipeline::{Error, acts, write};
use crate::worker::ports::CheckpointError;

/// The outside of one round.
pub(in crate::operator::pipeline) struct Outside<'a> {
    pub(in crate::operator::pipeline) found: &'a Found,
    pub(in crate::operator::pipeline) chosen: &'a Chosen,
    pub(in crate::operator::pipeline) owner: &'a Owner,
    pub(in crate::operator::pipeline) context: &'a Context,
}

/// What applying came to.
pub(in crate::operator::pipeline) struct Done {
    pub(in crate::operator::pipeline) validation: Validation,
    pub(in crate::operator::pipeline) desired: Option<Desired>,
    pub(in crate::operator::pipeline) problems: Vec<Problem>,
}

/// Why an effect in NATS is not known to be done.
#[derive(Debug, thiserror::Error)]
pub enum EffectError {
    /// The claim of a request id.
    #[error("cannot claim replay {id}")]
    Claim {
        /// The id.
        id: String,
        /// Why.
        #[source]
        source: audit::AuditError,
    },
    /// The stream with the claims.
    #[error("cannot claim a replay without the audit stream")]
    AuditStream(#[source] ObjectError),
    /// The checkpoint.
    #[error("cannot take the checkpoint back from epoch {from} to epoch {to}")]
    TakeBack {
        /// The epoch that is undone.
        from: Epoch,
        /// The epoch that takes over.
        to: Epoch,
        /// Why.
        #[source]
        source: CheckpointError,
    },
    /// A consumer of an epoch that was left.
    #[error("cannot delete the consumer of epoch {epoch}")]
    DeleteConsumer {
        /// The epoch.
        epoch: Epoch,
        /// Why.
        #[source]
        source: ObjectError,
    },
}

impl Ports for Outside<'_> {
    type Applied = Done;
    type Error = Error;

    fn lead(&self) -> Result<(), Error> {
        let held = self.context.leadership.check();
        held.map_err(|source| {
            Error::Apply(apply::Error::NotLeader {
                pipeline: self.owner.pipeline.to_string(),
                source,
            })
        })
    }

    async fn record(&mut self, written: &Written) -> Result<Recorded, Error> {
        let pipeline = &self.found.pipeline;
        let status = with_log(pipeline, written);
        match write::status(pipeline, &status, self.context).await {
            Ok(()) => Ok(Recorded::Written),
            Err(error) if error.is_conflict() => Ok(Recorded::Conflict),
            Err(error) => Err(error),
        }
    }

    async fn claim(&mut self, claim: &Claim) -> Result<Outcome, Error> {
        let Some(nats) = &self.found.nats else {
            return Ok(Outcome::Unreachable);
        };
        let stream = DesiredStream::audit(self.copies());
        streams::ensure_shared(nats, &stream)
            .await
            .map_err(EffectError::AuditStream)?;
        let record = self.audit_record(claim);
        let claimed = audit::claim(nats, &record).await;
        let claimed = claimed.map_err(|source| EffectError::Claim {
            id: claim.id.to_string(),
            source,
        })?;
        Ok(match claimed {
            audit::Claim::Taken => Outcome::Done,
            audit::Claim::Found(found) if found.is_same_claim(&record) => Outcome::Done,
            audit::Claim::Found(_) => Outcome::Overtaken,
        })
    }

    async fn take_back(&mut self, take_back: &TakeBack) -> Result<Outcome, Error> {
        let Some(nats) = &self.found.nats else {
            return Ok(Outcome::Unreachable);
        };
        let NatsFacts::Reached(server) = &self.found.facts.nats else {
            return Ok(Outcome::Unreachable);
        };
        let taker = Taker {
            owner: self.owner,
            instance: self.context.reporter.instance(),
            server,
        };
        let taken = take_back::take_back(nats, *take_back, &taker).await;
        let TakeBack { from, to, .. } = *take_back;
        Ok(taken.map_err(|source| EffectError::TakeBack { from, to, source })?)
    }

    async fn delete_consumer(&mut self, epoch: Epoch) -> Result<Outcome, Error> {
        let Some(nats) = &self.found.nats else {
            return Ok(Outcome::Unreachable);
        };
        let source = &self.found.pipeline.spec.source.stream;
        let key = &self.owner.pipeline;
        let name = key.consumer(PARTITION, epoch);
        let adopted = validate::adopted(&self.found.pipeline);
        for owner in [Some(self.owner), adopted.as_ref()].into_iter().flatten() {
            match consumers::delete(nats, source, &name, &owner.to_string()).await {
                Ok(_) => {
                    // Also when it was gone already: who deleted it may have died before saying so.
                    let told = acts::consumer_deleted(&self.found.pipeline, key, epoch);
                    operator::audit::record(self.context.author(nats, self.owner), told).await;
                    return Ok(Outcome::Done);
                }
                Err(ObjectError::Foreign { .. }) => {}
                Err(source) => return Err(EffectError::DeleteConsumer { epoch, source }.into()),
            }
        }
        // What is not ours is not for us to delete.
        Ok(Outcome::Done)
    }

    async fn apply(&mut self, workers: &Workers) -> Result<Done, Error> {
        let Self {
            found,
            chosen,
            owner,
            context,
        } = self;
        let validation = validate::validate(
            &found.pipeline,
            &found.facts,
            (*chosen).clone(),
            workers,
            &context.settings,
        );
        let desired = validation.pipeline.as_ref().map(build::build);
        let key = &owner.pipeline;
        let problems = match (&desired, workers) {
            (Some(desired), _) => apply::apply(desired, found, key, context).await?,
            (None, Workers::Stop { .. }) => {
                apply::stop(found, key, context).await?;
                Vec::new()
            }
            (None, Workers::Unchanged | Workers::Run { .. }) => Vec::new(),
        };
        Ok(Done {
            validation,
            desired,
            problems,
        })
    }
}

impl Outside<'_> {
    fn audit_record(&self, claim: &Claim) -> AuditRecord {
        let record = written(&self.found.pipeline).record;
        let details = record.map_or(
            Value::Null,
            |record| json!({"request": record.request, "of": record.of, "plan": record.plan}),
        );
        AuditRecord {
            v: protocol::VERSION,
            act: Act::Replay(ReplayClaim {
                request_id: claim.id.clone(),
                fingerprint: claim.fingerprint.clone(),
                epoch: claim.epoch,
                plan_hash: claim.plan_hash.clone(),
            }),
            owner: self.owner.clone(),
            by: self.context.reporter.instance().to_owned(),
            time: Timestamp::now(),
            details,
        }
    }

    /// Copies of the audit stream, when this pipeline is the one that creates it.
    fn copies(&self) -> u8 {
        match &self.found.facts.nats {
            NatsFacts::Reached(server) => validate::copies(None, server),
            _ => 1,
        }
    }
}
