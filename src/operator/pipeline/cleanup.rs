//! The end of a pipeline with `deletionPolicy: Delete`: first the workers, so that nothing writes any
//! more, then the consumers of all epochs, streams, workflow and checkpoint, each only if it says that it
//! is ours. The volume goes with the StatefulSet (`volumes`).
//!
//! A NATS that does not answer must not keep a namespace from going: after the deadline the finalizer
//! goes anyway, and an Event names what is left.

mod volumes;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, ResourceExt};
use lookback_protocol::names::{Owner, PipelineKey};
use lookback_protocol::position::Epoch;

use crate::api::DetectionPipeline;
use crate::nats::connect::Nats;
use crate::nats::ensure::{Deleted, ObjectError};
use crate::nats::{checkpoint, consumers, definition, streams};
use crate::operator::audit;
use crate::operator::controller::Context;
use crate::operator::lease::NotLeader;
use crate::operator::pipeline::build::PARTITION;
use crate::operator::pipeline::{acts, dereference, owned_by};
use crate::operator::report::Notice;
use crate::runtime::telemetry::chain;

/// Why a cleanup stopped half way.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another replica leads now.
    #[error("cannot delete what {pipeline} owns")]
    NotLeader {
        /// The pipeline.
        pipeline: String,
        /// Why not.
        #[source]
        source: NotLeader,
    },
    /// Reading the Secrets.
    #[error(transparent)]
    Dereference(#[from] dereference::Error),
    /// The API server.
    #[error("cannot {verb} {kind} of {pipeline}")]
    Api {
        /// What we tried.
        verb: &'static str,
        /// On what.
        kind: &'static str,
        /// The pipeline.
        pipeline: String,
        /// What the API server said.
        #[source]
        source: Box<kube::Error>,
    },
}

/// How far it is.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// Something is left; look again.
    Waiting,
    /// The finalizer may go; with what people should hear of, if anything.
    Done(Option<Notice>),
}

/// One step, safe to repeat.
///
/// # Errors
/// [`Error`] names what the API server did not do.
pub async fn cleanup(
    pipeline: &DetectionPipeline,
    key: &PipelineKey,
    context: &Context,
    now: Timestamp,
) -> Result<Progress, Error> {
    lead(key, context)?;
    let owner = Owner {
        cluster: context.settings.cluster.clone(),
        pipeline: key.clone(),
    };
    let mut connected = None;
    let left = match workers(key, context).await? {
        Some(left) => Some(left),
        None => match dereference::connect(pipeline, key, context).await? {
            Err(sentence) => Some(sentence),
            Ok(nats) => {
                let left = jetstream(&nats, pipeline, &owner, context).await?;
                connected = Some(nats);
                left
            }
        },
    };
    let deleted = pipeline
        .metadata
        .deletion_timestamp
        .as_ref()
        .map(|time| time.0);
    let age = deleted.and_then(|deleted| Duration::try_from(now.duration_since(deleted)).ok());
    let progress = progress(
        left.clone(),
        age.unwrap_or_default(),
        context.pace.cleanup_deadline,
        key,
    );
    if let (Progress::Done(_), Some(nats)) = (&progress, &connected) {
        let told = acts::cleaned_up(pipeline, key, left.as_deref());
        audit::record(context.author(nats, &owner), told).await;
    }
    Ok(progress)
}

fn progress(
    left: Option<String>,
    age: Duration,
    deadline: Duration,
    key: &PipelineKey,
) -> Progress {
    match left {
        None => Progress::Done(None),
        Some(_) if age < deadline => Progress::Waiting,
        Some(left) => {
            let note = format!(
                "the pipeline goes although not everything is deleted ({left}); look for streams {}, {} and consumer {} and those of later epochs, and delete them yourself",
                key.alerts_stream(),
                key.dead_letters_stream(),
                key.consumer(PARTITION, Epoch(1)),
            );
            Progress::Done(Some(Notice::warning("CleanupIncomplete", note)))
        }
    }
}

/// Deletes the StatefulSet; what is left of it, if anything.
async fn workers(key: &PipelineKey, context: &Context) -> Result<Option<String>, Error> {
    let failed = |verb, kind| api_error(key, verb, kind);
    let client = &context.client;
    let sets = Api::<StatefulSet>::namespaced(client.clone(), key.namespace());
    let owned = owned_by(key);
    let existing = sets.list(&owned).await;
    let existing = existing.map_err(failed("list", "StatefulSets"))?.items;
    if let Some(left) = volumes::bind(&existing, key, context).await? {
        return Ok(Some(left));
    }
    for set in existing {
        let parameters = DeleteParams::background().preconditions(Preconditions {
            uid: set.uid(),
            resource_version: None,
        });
        match sets.delete(&set.name_any(), &parameters).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
            Err(source) => return Err(failed("delete", "the StatefulSet")(source)),
        }
    }
    let pods = Api::<Pod>::namespaced(client.clone(), key.namespace());
    let pods = pods
        .list_metadata(&owned)
        .await
        .map_err(failed("list", "pods"))?;
    let names: Vec<String> = pods.iter().map(ResourceExt::name_any).collect();
    Ok((!names.is_empty()).then(|| format!("pod {} still runs", names.join(", "))))
}

/// Deletes what is ours in JetStream; why something is left, if anything.
async fn jetstream(
    nats: &Nats,
    pipeline: &DetectionPipeline,
    owner: &Owner,
    context: &Context,
) -> Result<Option<String>, Error> {
    let key = &owner.pipeline;
    let name = owner.to_string();
    let source = &pipeline.spec.source.stream;
    let consumers = match consumers::list(nats, source, key, PARTITION).await {
        Ok(consumers) => consumers,
        Err(error) => return Ok(Some(chain(&error))),
    };
    for epoch in consumers.into_keys() {
        let consumer = key.consumer(PARTITION, epoch);
        lead(key, context)?;
        if let Some(left) = left(consumers::delete(nats, source, &consumer, &name).await) {
            return Ok(Some(left));
        }
    }
    for stream in [key.alerts_stream(), key.dead_letters_stream()] {
        lead(key, context)?;
        if let Some(left) = left(streams::delete(nats, &stream, &name).await) {
            return Ok(Some(left));
        }
    }
    lead(key, context)?;
    if let Some(left) = left(definition::delete(nats, owner).await) {
        return Ok(Some(left));
    }
    lead(key, context)?;
    Ok(left(checkpoint::delete(nats, owner, PARTITION).await))
}

/// What is not ours is not left over.
fn left(deleted: Result<Deleted, ObjectError>) -> Option<String> {
    match deleted {
        Ok(Deleted::Now | Deleted::Absent) | Err(ObjectError::Foreign { .. }) => None,
        Err(error) => Some(chain(&error)),
    }
}

fn api_error(
    key: &PipelineKey,
    verb: &'static str,
    kind: &'static str,
) -> impl FnOnce(kube::Error) -> Error {
    let pipeline = key.to_string();
    move |source| Error::Api {
        verb,
        kind,
        pipeline,
        source: Box::new(source),
    }
}

fn lead(key: &PipelineKey, context: &Context) -> Result<(), Error> {
    let held = context.leadership.check();
    held.map_err(|source| Error::NotLeader {
        pipeline: key.to_string(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn after(left: Option<&str>, age: Duration) -> Progress {
        let key = PipelineKey::new("detections", "edr").unwrap();
        progress(left.map(str::to_owned), age, 5 * MINUTE, &key)
    }

    #[test]
    fn when_nothing_is_left_the_finalizer_goes_at_once() {
        assert_eq!(after(None, Duration::ZERO), Progress::Done(None));
    }

    #[test]
    fn before_the_deadline_it_waits_for_what_is_left() {
        assert_eq!(
            after(Some("NATS does not answer"), 4 * MINUTE),
            Progress::Waiting
        );
    }

    #[test]
    fn after_the_deadline_the_finalizer_goes_and_an_event_names_what_is_left() {
        let Progress::Done(Some(notice)) = after(Some("NATS does not answer"), 5 * MINUTE) else {
            panic!("it still waits");
        };
        assert!(
            notice.note.contains("NATS does not answer"),
            "{}",
            notice.note
        );
        assert!(
            notice.note.contains("LB_detections_edr_ALERTS"),
            "{}",
            notice.note
        );
    }
}
