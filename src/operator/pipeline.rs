//! One pipeline, from what a person asks for to what runs. A reconcile is level-triggered and runs the
//! same steps whatever triggered it: dereference (I/O), decide about epoch and replay (pure, then
//! written), validate, build (pure), apply (I/O), status (pure, then written).
//!
//! # Layout
//! - [`dereference`] reads everything outside into [`facts`].
//! - [`replay`] decides which epoch the workers are in; what it decides is written before it is done.
//! - [`validate`] parses spec and facts into a pipeline that can be built, or [`problem`]s.
//! - [`build`] makes every object from it.
//! - [`apply`] brings JetStream and the API server to them.
//! - [`status`] says what came of it.
//! - `acts`: what of all this the audit has. Pure.
//! - `write` puts status, finalizers and Events onto the pipeline itself.
//! - [`cleanup`] is the other end: what a deleted pipeline leaves in NATS.

pub mod apply;
pub mod build;
pub mod cleanup;
pub mod dereference;
pub mod facts;
pub mod problem;
pub mod replay;
pub mod status;
pub mod validate;

mod acts;
mod finalizer;
mod notices;
#[cfg(test)]
mod purity;
#[cfg(test)]
pub(crate) mod test_support;
mod write;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::ListParams;
use kube::runtime::controller::Action;
use lookback_protocol::names::{NameError, Owner, PipelineKey};
use lookback_protocol::replay::machine::Workers;
use tokio::task::{JoinError, spawn_blocking};

use crate::api::DetectionPipeline;
use crate::api::status::{DeadLettersStatus, Phase};
use crate::operator::controller::Context;
use crate::operator::pipeline::build::names;
use crate::operator::pipeline::cleanup::Progress;
use crate::operator::pipeline::dereference::Found;
use crate::operator::pipeline::problem::Problem;
use crate::operator::pipeline::replay::execute::{Round, execute};
use crate::operator::pipeline::replay::ports::Ports;
use crate::operator::pipeline::replay::{Decided, Done, Outside};
use crate::operator::pipeline::status::Observation;
use crate::operator::pipeline::validate::Chosen;

/// What the operator made carries this label.
pub const OURS: &str = "app.kubernetes.io/managed-by=lookback";
/// The label that names the pipeline of an object in the same namespace.
pub const INSTANCE: &str = "app.kubernetes.io/instance";
/// When what we decided from has changed meanwhile; the watch brings the news, this is for the case
/// that it does not.
const AFTER_CONFLICT: Duration = Duration::from_secs(1);

/// Why a reconcile did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What stands in the API server is no DetectionPipeline of this version.
    #[error("the object cannot be read as a DetectionPipeline: {0}")]
    Unreadable(String),
    /// The definition allows only names that fit; an object from before it may have another.
    #[error("the pipeline has a name that cannot be used")]
    Name(#[source] NameError),
    /// Reading.
    #[error("cannot find out how things are")]
    Dereference(#[from] dereference::Error),
    /// Validation panicked, which is a bug.
    #[error("validation ended abnormally")]
    Validate(#[source] JoinError),
    /// What a replay does in NATS.
    #[error("cannot go on with the replay")]
    Replay(#[from] replay::EffectError),
    /// Applying.
    #[error("cannot bring things to where they belong")]
    Apply(#[from] apply::Error),
    /// Cleaning up.
    #[error("cannot clean up")]
    Cleanup(#[from] cleanup::Error),
    /// Writing the finalizer or the status.
    #[error("cannot write the {what} of the pipeline")]
    Write {
        /// `finalizers` or `status`.
        what: &'static str,
        /// What the API server said.
        #[source]
        source: Box<kube::Error>,
    },
}

impl Error {
    /// A closed set: the reason of the Event and the label of the metric.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "UnreadableObject",
            Self::Name(_) => "InvalidName",
            Self::Dereference(_) => "DereferenceFailed",
            Self::Validate(_) => "ValidateFailed",
            Self::Replay(_) => "ReplayStepFailed",
            Self::Apply(_) => "ApplyFailed",
            Self::Cleanup(_) => "CleanupFailed",
            Self::Write { .. } => "WriteFailed",
        }
    }

    /// Whether only a change of the object can help.
    #[must_use]
    pub fn awaits_change(&self) -> bool {
        matches!(self, Self::Unreadable(_) | Self::Name(_))
    }

    /// Whether somebody changed the object while we decided: no failure, the decision is void.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        match self {
            Self::Write { source, .. } => {
                matches!(source.as_ref(), kube::Error::Api(status) if status.is_conflict())
            }
            Self::Apply(error) => error.is_conflict(),
            _ => false,
        }
    }
}

/// One reconcile.
///
/// # Errors
/// [`Error`]; everything done so far stands, and the next reconcile goes on from there.
pub async fn reconcile(pipeline: &DetectionPipeline, context: &Context) -> Result<Action, Error> {
    let namespace = pipeline.namespace().unwrap_or_default();
    let key = PipelineKey::new(&namespace, &pipeline.name_any()).map_err(Error::Name)?;
    let result = if pipeline.metadata.deletion_timestamp.is_some() {
        end(pipeline, &key, context).await
    } else {
        advance(pipeline, &key, context).await
    };
    match result {
        Err(error) if error.is_conflict() => Ok(Action::requeue(AFTER_CONFLICT)),
        result => result,
    }
}

/// Objects of `key`'s pipeline, for a list.
#[must_use]
pub fn owned_by(key: &PipelineKey) -> ListParams {
    let labels = names::ownership(key);
    let terms: Vec<String> = labels
        .iter()
        .map(|(label, value)| format!("{label}={value}"))
        .collect();
    ListParams::default().labels(&terms.join(","))
}

async fn advance(
    pipeline: &DetectionPipeline,
    key: &PipelineKey,
    context: &Context,
) -> Result<Action, Error> {
    if let Some(finalizers) = finalizer::needed(pipeline) {
        write::finalizers(pipeline, &finalizers, context).await?;
        // The write changes what the status would be conditional on; its event brings us back.
        return Ok(Action::requeue(AFTER_CONFLICT));
    }
    let Some(found) = dereference::dereference(key, context).await? else {
        return Ok(Action::await_change());
    };
    if found.pipeline.metadata.deletion_timestamp.is_some() {
        return Ok(Action::requeue(AFTER_CONFLICT));
    }
    let (found, chosen) = choose_rules(found, context).await?;
    let owner = Owner {
        cluster: context.settings.cluster.clone(),
        pipeline: key.clone(),
    };
    if let Some(nats) = &found.nats {
        let author = context.author(nats, &owner);
        let standing = acts::standing(&found.pipeline, &found.facts);
        context.auditor.keep(author, standing).await;
    }
    let Decided { decision, problem } = replay::decide(&found, &chosen, &owner, context).await;
    let mut outside = Outside {
        found: &found,
        chosen: &chosen,
        owner: &owner,
        context,
    };
    let done = match execute(&decision, &mut outside).await? {
        Round::Recorded => return Ok(Action::requeue(Duration::ZERO)),
        Round::Overtaken => return Ok(Action::requeue(AFTER_CONFLICT)),
        Round::Waiting => outside.apply(&Workers::Unchanged).await?,
        Round::Applied(done) => done,
    };
    let Done {
        validation,
        desired,
        problems,
    } = done;
    let refused: Vec<Problem> = problem.into_iter().chain(problems).collect();
    let observation = Observation {
        pipeline: &found.pipeline,
        facts: &found.facts,
        validation: &validation,
        desired: desired.as_ref(),
        refused: &refused,
        decision: Some(&decision),
        now: Timestamp::now(),
    };
    let status = status::status(&observation);
    context.metrics.show(key, status::horizon(&observation));
    let alerts = status.alerts.clone().unwrap_or_default().by_state;
    let letters = status
        .dead_letters
        .as_ref()
        .map(DeadLettersStatus::by_state);
    let letters = letters.unwrap_or_default();
    context.metrics.show_counts(key, &alerts, &letters);
    let pace = &context.pace;
    let wait = match status.phase {
        Some(Phase::Running) => pace.resync,
        _ => pace.waiting,
    };
    write::status(&found.pipeline, &status, context).await?;
    let soon = decision.look_again.unwrap_or(wait);
    Ok(Action::requeue(wait.min(soon)))
}

/// Compiling a large set of rules takes a second, too long for a thread that serves others.
async fn choose_rules(found: Found, context: &Context) -> Result<(Found, Chosen), Error> {
    let compiler = Arc::clone(&context.compiler);
    spawn_blocking(move || {
        let chosen = validate::rules(&found.pipeline, &found.facts, &compiler);
        (found, chosen)
    })
    .await
    .map_err(Error::Validate)
}

async fn end(
    pipeline: &DetectionPipeline,
    key: &PipelineKey,
    context: &Context,
) -> Result<Action, Error> {
    context.forget(key.namespace(), key.name());
    let Some(finalizers) = finalizer::without(pipeline) else {
        return Ok(Action::await_change());
    };
    let progress = cleanup::cleanup(pipeline, key, context, Timestamp::now()).await?;
    if let Progress::Done(notice) = progress {
        write::events(pipeline, notice.as_slice(), context).await;
        write::finalizers(pipeline, &finalizers, context).await?;
        return Ok(Action::await_change());
    }
    let Some(found) = dereference::dereference(key, context).await? else {
        return Ok(Action::await_change());
    };
    let (found, chosen) = choose_rules(found, context).await?;
    let validation = validate::validate(
        &found.pipeline,
        &found.facts,
        chosen,
        &Workers::Unchanged,
        &context.settings,
    );
    let status = status::status(&Observation {
        pipeline: &found.pipeline,
        facts: &found.facts,
        validation: &validation,
        desired: None,
        refused: &[],
        decision: None,
        now: Timestamp::now(),
    });
    write::status(&found.pipeline, &status, context).await?;
    Ok(Action::requeue(context.pace.waiting))
}

#[cfg(test)]
mod tests;
