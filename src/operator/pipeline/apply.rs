//! The apply step: brings JetStream and the API server to what was built. Everything is create or
//! update in place, so a reconcile that died half way is finished by the next one.
//!
//! The order is that of [`Desired`]: what a worker needs comes before the worker. While something in
//! JetStream cannot be had, the StatefulSet stays as it is; a worker never starts without its stores,
//! but it can always be stopped.
//! The StatefulSet is written only onto the version that the decision was taken from, so that a leader
//! of yesterday cannot undo what its successor decided.
//! What exists under our name and is not ours is left alone and becomes a problem.

mod garbage;
mod jetstream;
mod kubernetes;
mod volumes;
mod workers;

use lookback_protocol::names::PipelineKey;

use crate::operator::controller::Context;
use crate::operator::lease::NotLeader;
use crate::operator::pipeline::build::Desired;
use crate::operator::pipeline::dereference::Found;
use crate::operator::pipeline::problem::Problem;
use crate::operator::pipeline::write;

/// Why a step had to stop half way.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another replica leads now.
    #[error("cannot apply the objects of {pipeline}")]
    NotLeader {
        /// The pipeline.
        pipeline: String,
        /// Why not.
        #[source]
        source: NotLeader,
    },
    /// The API server.
    #[error("cannot {verb} {kind} {name}")]
    Api {
        /// What we tried.
        verb: &'static str,
        /// The object's kind.
        kind: String,
        /// The object.
        name: String,
        /// What the API server said.
        #[source]
        source: Box<kube::Error>,
    },
}

impl Error {
    /// Whether somebody changed the object while we decided: no failure, the decision is void.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        let Self::Api { source, .. } = self else {
            return false;
        };
        matches!(source.as_ref(), kube::Error::Api(status) if status.is_conflict())
    }
}

/// Stops the workers and changes nothing else: what is asked for now cannot be built, and what runs must
/// not run on.
///
/// # Errors
/// [`Error`] when the API server did not do it.
pub async fn stop(found: &Found, key: &PipelineKey, context: &Context) -> Result<(), Error> {
    lead(key, context)?;
    workers::stop(&context.client, key, found.set.as_ref()).await
}

/// Applies everything; returns what could not be had, and what someone must do.
///
/// # Errors
/// [`Error`] names the object on which it stopped.
pub async fn apply(
    desired: &Desired,
    found: &Found,
    key: &PipelineKey,
    context: &Context,
) -> Result<Vec<Problem>, Error> {
    // Without `..`: a new object fails to compile here instead of silently never being applied.
    let Desired {
        streams,
        workflow,
        consumer,
        service_account,
        network_policy,
        service,
        config_maps,
        volumes: desired_volumes,
        stateful_set,
        hold_template,
    } = desired;
    lead(key, context)?;
    let mut problems = Vec::new();
    if let Some(nats) = &found.nats {
        let reached = jetstream::apply(nats, streams, consumer, found).await;
        // At once: what is done is not done again for being told when a later object fails.
        write::events(&found.pipeline, &reached.notices, context).await;
        problems = reached.problems;
    }
    // Known before anything is added to the problems that a worker can do without.
    let stores_are_there = problems.is_empty();
    if let (Some(nats), Some(workflow)) = (&found.nats, workflow) {
        let reached = jetstream::apply_workflow(nats, workflow).await;
        write::events(&found.pipeline, &reached.notices, context).await;
        problems.extend(reached.problems);
    }

    lead(key, context)?;
    let client = &context.client;
    let mut note = |result: Result<(), Problem>| problems.extend(result.err());
    note(
        kubernetes::apply(client, key, service_account)
            .await?
            .map(drop),
    );
    note(
        kubernetes::apply(client, key, network_policy)
            .await?
            .map(drop),
    );
    note(kubernetes::apply(client, key, service).await?.map(drop));
    for config_map in config_maps {
        note(kubernetes::apply(client, key, config_map).await?.map(drop));
    }
    for volume in desired_volumes {
        note(volumes::grow(client, key, volume, &found.facts.volumes).await?);
    }
    if !stores_are_there {
        if workers::are_unwanted(stateful_set) {
            stop(found, key, context).await?;
        }
        return Ok(problems);
    }
    if *hold_template && workers::is_held(found.set.as_ref(), stateful_set) {
        return Ok(problems);
    }
    let stateful_set = workers::onto(stateful_set, found.set.as_ref());
    match kubernetes::apply(client, key, &stateful_set).await? {
        Ok(stateful_set) => {
            lead(key, context)?;
            garbage::collect(client, key, config_maps, &found.pods, &stateful_set).await?;
        }
        Err(problem) => problems.push(problem),
    }
    Ok(problems)
}

fn lead(key: &PipelineKey, context: &Context) -> Result<(), Error> {
    let held = context.leadership.check();
    held.map_err(|source| Error::NotLeader {
        pipeline: key.to_string(),
        source,
    })
}
