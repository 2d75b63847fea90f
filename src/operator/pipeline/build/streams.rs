//! The pipeline's own streams.

use lookback_protocol::names::Owner;

use super::Streams;
use crate::nats::desired::DesiredStream;
use crate::operator::pipeline::validate::ValidatedPipeline;

pub(super) fn build(pipeline: &ValidatedPipeline) -> Streams {
    let key = &pipeline.owner.pipeline;
    let ours = |stream: DesiredStream| DesiredStream {
        adopt: pipeline.adopt.as_ref().map(Owner::to_string),
        ..stream
    };
    let owner = pipeline.owner.to_string();
    let (alerts, letters) = (&pipeline.alerts, &pipeline.dead_letters);
    Streams {
        state_bucket: DesiredStream::state_bucket(pipeline.bucket_replicas),
        audit: DesiredStream::audit(pipeline.bucket_replicas),
        alerts: ours(DesiredStream::alerts(
            key,
            Some(alerts.max_bytes),
            Some(alerts.max_age),
            alerts.replicas,
            owner.clone(),
        )),
        dead_letters: ours(DesiredStream::store(
            key.dead_letters_stream(),
            key.dead_letter_subjects(),
            Some(letters.max_bytes),
            Some(letters.max_age),
            letters.replicas,
            owner,
        )),
    }
}
