//! The finalizer stands only on pipelines whose deletion takes their streams along: all others must be
//! deletable without an operator.

use kube::ResourceExt;

use crate::api::DetectionPipeline;
use crate::api::pipeline::{DeletionPolicy, FINALIZER};

/// The finalizers the pipeline must have, when they are others than it has.
pub(super) fn needed(pipeline: &DetectionPipeline) -> Option<Vec<String>> {
    match pipeline.spec.deletion_policy {
        DeletionPolicy::Retain => without(pipeline),
        DeletionPolicy::Delete if has(pipeline) => None,
        DeletionPolicy::Delete => {
            let others = pipeline.finalizers().iter().cloned();
            Some(others.chain([FINALIZER.to_owned()]).collect())
        }
    }
}

/// The finalizers without ours, when ours is among them.
pub(super) fn without(pipeline: &DetectionPipeline) -> Option<Vec<String>> {
    let others = pipeline
        .finalizers()
        .iter()
        .filter(|name| *name != FINALIZER);
    has(pipeline).then(|| others.cloned().collect())
}

fn has(pipeline: &DetectionPipeline) -> bool {
    pipeline.finalizers().iter().any(|name| name == FINALIZER)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pipeline(policy: &str, finalizers: &[&str]) -> DetectionPipeline {
        serde_json::from_value(json!({
            "apiVersion": "lookback.dev/v1alpha1", "kind": "DetectionPipeline",
            "metadata": {"name": "edr", "namespace": "detections", "finalizers": finalizers},
            "spec": {
                "nats": {"urls": ["nats://nats:4222"]},
                "source": {"stream": "EVENTS", "logsource": {"product": "windows"}},
                "rules": {"configMaps": [{"name": "rules"}]},
                "deletionPolicy": policy,
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_pipeline_that_deletes_gets_the_finalizer_beside_those_of_others() {
        let needed = needed(&pipeline("Delete", &["other.dev/x"])).unwrap();
        assert_eq!(needed, ["other.dev/x", FINALIZER]);
    }

    #[test]
    fn a_pipeline_that_has_it_is_left_alone() {
        assert_eq!(needed(&pipeline("Delete", &[FINALIZER])), None);
    }

    #[test]
    fn a_pipeline_that_retains_loses_it_and_keeps_those_of_others() {
        let needed = needed(&pipeline("Retain", &[FINALIZER, "other.dev/x"])).unwrap();
        assert_eq!(needed, ["other.dev/x"]);
    }

    #[test]
    fn a_pipeline_that_retains_and_has_none_is_left_alone() {
        assert_eq!(needed(&pipeline("Retain", &[])), None);
    }
}
