//! The end of a pipeline with `deletionPolicy: Delete`: first the workers, so that nothing writes any
//! more, then consumer, streams and checkpoint, each only if its metadata says that it is ours. The
//! volume goes with the StatefulSet, by its retention policy; a pipeline whose policy was changed and
//! that was deleted at once may have had no reconcile between the two, so the StatefulSet is given the
//! policy first, and stays until its controller has taken the claims over.
//!
//! A NATS that does not answer must not keep a namespace from going: after the deadline the finalizer
//! goes anyway, and an Event names what is left.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, ResourceExt};
use lookback_protocol::names::{Owner, PipelineKey};
use serde_json::json;

use crate::api::DetectionPipeline;
use crate::nats::connect::Nats;
use crate::nats::ensure::{Deleted, ObjectError};
use crate::nats::{checkpoint, consumers, streams};
use crate::operator::controller::Context;
use crate::operator::lease::NotLeader;
use crate::operator::pipeline::build::PARTITION;
use crate::operator::pipeline::validate::EPOCH;
use crate::operator::pipeline::{dereference, owned_by};
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
    let left = match workers(key, context).await? {
        Some(left) => Some(left),
        None => match dereference::connect(pipeline, key, context).await? {
            Err(sentence) => Some(sentence),
            Ok(nats) => {
                lead(key, context)?;
                jetstream(&nats, pipeline, key, context)
                    .await
                    .err()
                    .map(|error| chain(&error))
            }
        },
    };
    let deleted = pipeline
        .metadata
        .deletion_timestamp
        .as_ref()
        .map(|time| time.0);
    let age = deleted.and_then(|deleted| Duration::try_from(now.duration_since(deleted)).ok());
    Ok(progress(
        left,
        age.unwrap_or_default(),
        context.pace.cleanup_deadline,
        key,
    ))
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
                "the pipeline goes although not everything is deleted ({left}); look for streams {}, {} and consumer {} and delete them yourself",
                key.alerts_stream(),
                key.dead_letters_stream(),
                key.consumer(PARTITION, EPOCH),
            );
            Progress::Done(Some(Notice::warning("CleanupIncomplete", note)))
        }
    }
}

fn lead(key: &PipelineKey, context: &Context) -> Result<(), Error> {
    context
        .leadership
        .check()
        .map_err(|source| Error::NotLeader {
            pipeline: key.to_string(),
            source,
        })
}

/// Deletes the StatefulSet; what is left of it, if anything.
async fn workers(key: &PipelineKey, context: &Context) -> Result<Option<String>, Error> {
    lead(key, context)?;
    let failed = |verb, kind| {
        let pipeline = key.to_string();
        move |source: kube::Error| Error::Api {
            verb,
            kind,
            pipeline,
            source: Box::new(source),
        }
    };
    let client = &context.client;
    let sets = Api::<StatefulSet>::namespaced(client.clone(), key.namespace());
    let owned = owned_by(key);
    let existing = sets
        .list(&owned)
        .await
        .map_err(failed("list", "StatefulSets"))?;
    if !existing.items.is_empty() {
        let claims = Api::<PersistentVolumeClaim>::namespaced(client.clone(), key.namespace());
        let claims = claims
            .list(&owned)
            .await
            .map_err(failed("list", "volume claims"))?;
        for set in existing.iter().filter(|set| !takes_volumes(set)) {
            let policy = json!({"whenDeleted": "Delete", "whenScaled": "Retain"});
            let patch = json!({"spec": {"persistentVolumeClaimRetentionPolicy": policy}});
            sets.patch(
                &set.name_any(),
                &PatchParams::default(),
                &Patch::Merge(patch),
            )
            .await
            .map_err(failed("set the retention policy of", "the StatefulSet"))?;
        }
        let staying = staying(&existing.items, &claims.items);
        if !staying.is_empty() {
            let staying = staying.join(", ");
            return Ok(Some(format!(
                "volume claim {staying} does not belong to the StatefulSet yet"
            )));
        }
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

fn takes_volumes(set: &StatefulSet) -> bool {
    let spec = set.spec.as_ref();
    let policy = spec.and_then(|spec| spec.persistent_volume_claim_retention_policy.as_ref());
    policy.and_then(|policy| policy.when_deleted.as_deref()) == Some("Delete")
}

/// Claims that would outlive the sets.
fn staying(sets: &[StatefulSet], claims: &[PersistentVolumeClaim]) -> Vec<String> {
    let is_taken = |claim: &PersistentVolumeClaim| {
        let mut owners = claim.owner_references().iter();
        owners.any(|owner| {
            sets.iter()
                .any(|set| set.uid().as_ref() == Some(&owner.uid))
        })
    };
    claims
        .iter()
        .filter(|claim| !is_taken(claim))
        .map(ResourceExt::name_any)
        .collect()
}

async fn jetstream(
    nats: &Nats,
    pipeline: &DetectionPipeline,
    key: &PipelineKey,
    context: &Context,
) -> Result<(), ObjectError> {
    let owner = Owner {
        cluster: context.settings.cluster.clone(),
        pipeline: key.clone(),
    };
    let name = owner.to_string();
    let consumer = key.consumer(PARTITION, EPOCH);
    ours(consumers::delete(nats, &pipeline.spec.source.stream, &consumer, &name).await)?;
    ours(streams::delete(nats, &key.alerts_stream(), &name).await)?;
    ours(streams::delete(nats, &key.dead_letters_stream(), &name).await)?;
    ours(checkpoint::delete(nats, &owner, PARTITION).await)
}

/// What is not ours is not left over.
fn ours(deleted: Result<Deleted, ObjectError>) -> Result<(), ObjectError> {
    match deleted {
        Ok(Deleted::Now | Deleted::Absent) | Err(ObjectError::Foreign { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(when_deleted: &str) -> StatefulSet {
        serde_json::from_value(json!({
            "metadata": {"name": "edr", "uid": "1"},
            "spec": {
                "selector": {}, "serviceName": "edr-worker", "template": {},
                "persistentVolumeClaimRetentionPolicy": {"whenDeleted": when_deleted},
            },
        }))
        .unwrap()
    }

    fn claim(owner: &str) -> PersistentVolumeClaim {
        serde_json::from_value(
            json!({"metadata": {"name": "state-edr-0", "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "edr", "uid": owner},
            ]}}),
        )
        .unwrap()
    }

    #[test]
    fn a_set_that_retains_does_not_take_its_volumes_along() {
        assert!(takes_volumes(&set("Delete")));
        assert!(!takes_volumes(&set("Retain")));
    }

    #[test]
    fn a_claim_stays_until_it_belongs_to_the_set() {
        let sets = [set("Delete")];
        assert_eq!(staying(&sets, &[claim("2")]), ["state-edr-0"]);
        assert!(staying(&sets, &[claim("1")]).is_empty());
    }

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
