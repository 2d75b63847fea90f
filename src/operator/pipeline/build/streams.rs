//! The pipeline's own streams.

use lookback_protocol::names::Owner;

use super::Streams;
use crate::nats::desired::DesiredStream;
use crate::operator::pipeline::validate::{ValidatedPipeline, ValidatedStore};

pub(super) fn build(pipeline: &ValidatedPipeline) -> Streams {
    let key = &pipeline.owner.pipeline;
    let store = |name: String, subjects: String, store: &ValidatedStore| DesiredStream {
        adopt: pipeline.adopt.as_ref().map(Owner::to_string),
        ..DesiredStream::store(
            name,
            subjects,
            Some(store.max_bytes),
            Some(store.max_age),
            store.replicas,
            pipeline.owner.to_string(),
        )
    };
    Streams {
        state_bucket: DesiredStream::state_bucket(pipeline.bucket_replicas),
        audit: DesiredStream::audit(pipeline.bucket_replicas),
        alerts: store(key.alerts_stream(), key.alert_subjects(), &pipeline.alerts),
        dead_letters: store(
            key.dead_letters_stream(),
            key.dead_letter_subjects(),
            &pipeline.dead_letters,
        ),
    }
}
