//! What the API server knows of the workers: StatefulSet, pods and volumes.

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, PersistentVolumeClaim, Pod};
use kube::ResourceExt;
use lookback_protocol::termination::TerminationMessage;

use crate::api::Bytes;
use crate::operator::pipeline::build::names;
use crate::operator::pipeline::facts::{PodFacts, PodWait, Stop, VolumeFacts};

/// Reasons by which the kubelet says that there is no image.
const IMAGE_WAITS: [&str; 4] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
];

/// A pod, as far as it matters.
pub(super) fn pod(pod: &Pod) -> PodFacts {
    let status = pod.status.as_ref();
    let container = status
        .and_then(|status| status.container_statuses.as_ref())
        .and_then(|containers| containers.first());
    PodFacts {
        name: pod.name_any(),
        epoch: names::epoch_in(&pod.metadata),
        ready: container.is_some_and(|container| container.ready),
        terminating: pod.metadata.deletion_timestamp.is_some(),
        // The API server adds the grace period to the time of the deletion.
        deadline: pod.metadata.deletion_timestamp.as_ref().map(|time| time.0),
        restarts: container.map_or(0, |container| container.restart_count),
        waiting: container
            .and_then(|container| container.state.as_ref())
            .and_then(waiting)
            .or_else(|| unschedulable(pod)),
        stopped: container.and_then(stopped),
    }
}

/// A claim, as far as it matters.
pub(super) fn volume(claim: &PersistentVolumeClaim) -> VolumeFacts {
    let phase = claim
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let resources = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref());
    let requested = resources
        .and_then(|resources| resources.requests.as_ref())
        .and_then(|requests| requests.get("storage"));
    VolumeFacts {
        name: claim.name_any(),
        bound: phase == Some("Bound"),
        requested: requested.and_then(|quantity| Bytes::try_from(quantity.clone()).ok()),
    }
}

/// Whether the StatefulSet belongs to the pipeline of this uid.
pub(super) fn is_owned(stateful_set: &StatefulSet, uid: &str) -> bool {
    let owners = stateful_set.owner_references();
    owners.iter().any(|owner| owner.uid == uid)
}

fn waiting(state: &ContainerState) -> Option<PodWait> {
    let waiting = state.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().unwrap_or("waiting");
    let sentence = match waiting.message.as_deref() {
        Some(message) => format!("{reason}: {message}"),
        None => reason.to_owned(),
    };
    if IMAGE_WAITS.contains(&reason) {
        return Some(PodWait::Image(sentence));
    }
    Some(PodWait::Other(sentence))
}

fn unschedulable(pod: &Pod) -> Option<PodWait> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let condition = conditions.iter().find(|condition| {
        condition.type_ == "PodScheduled"
            && condition.status == "False"
            && condition.reason.as_deref() == Some("Unschedulable")
    })?;
    let message = condition.message.clone().unwrap_or_default();
    Some(PodWait::Unschedulable(message))
}

/// How the container stopped last: in its current state when it is not running again, else before.
fn stopped(container: &ContainerStatus) -> Option<Stop> {
    let now = container
        .state
        .as_ref()
        .and_then(|state| state.terminated.as_ref());
    let before = container
        .last_state
        .as_ref()
        .and_then(|state| state.terminated.as_ref());
    let terminated = now.or(before)?;
    let message = terminated.message.as_deref().unwrap_or_default();
    Some(Stop {
        message: serde_json::from_str::<TerminationMessage>(message).ok(),
        exit_code: terminated.exit_code,
        finished: terminated.finished_at.as_ref().map(|time| time.0),
    })
}

#[cfg(test)]
mod tests {
    use lookback_protocol::termination::ExitReason;
    use serde_json::{Value, json};

    use super::*;

    fn pod_with(status: Value) -> PodFacts {
        let pod = json!({"metadata": {"name": "edr-0"}, "status": status});
        super::pod(&serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn a_termination_message_is_read_from_the_last_state_of_a_restarted_container() {
        let message = r#"{"v":1,"reason":"StateLost","message":"gone","facts":{}}"#;
        let facts = pod_with(json!({"containerStatuses": [{
            "name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 3,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 3, "message": message}},
        }]}));
        let stop = facts.stopped.unwrap();
        assert_eq!(stop.message.unwrap().reason, ExitReason::StateLost);
        assert_eq!(facts.restarts, 3);
        assert_eq!(
            facts.waiting,
            Some(PodWait::Other("CrashLoopBackOff".to_owned()))
        );
    }

    #[test]
    fn what_no_worker_wrote_is_no_message_but_still_a_stop() {
        let facts = pod_with(json!({"containerStatuses": [{
            "name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 1,
            "lastState": {"terminated": {"exitCode": 137, "message": "OOMKilled"}},
        }]}));
        let stop = facts.stopped.unwrap();
        assert_eq!((stop.message, stop.exit_code), (None, 137));
    }

    #[test]
    fn an_image_that_cannot_be_pulled_is_told_from_other_waits() {
        let facts = pod_with(json!({"containerStatuses": [{
            "name": "worker", "image": "", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}},
        }]}));
        let expected = "ImagePullBackOff: no such image".to_owned();
        assert_eq!(facts.waiting, Some(PodWait::Image(expected)));
    }

    #[test]
    fn a_pod_without_a_node_says_what_the_scheduler_said() {
        let facts = pod_with(json!({"conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/3 nodes are available",
        }]}));
        let expected = PodWait::Unschedulable("0/3 nodes are available".to_owned());
        assert_eq!(facts.waiting, Some(expected));
    }

    #[test]
    fn a_claim_without_a_volume_is_not_bound() {
        let claim = json!({
            "metadata": {"name": "state-edr-0"},
            "spec": {"resources": {"requests": {"storage": "5Gi"}}},
            "status": {"phase": "Pending"},
        });
        let facts = volume(&serde_json::from_value(claim).unwrap());
        assert_eq!((facts.bound, facts.requested), (false, "5Gi".parse().ok()));
    }
}
