//! The consumer of partition 0 and the current epoch.

use lookback_protocol::consumer::ConsumerMetadata;
use lookback_protocol::names::Owner;

use super::PARTITION;
use crate::nats::desired::DesiredConsumer;
use crate::operator::pipeline::validate::ValidatedPipeline;

pub(super) fn build(pipeline: &ValidatedPipeline) -> DesiredConsumer {
    let ValidatedPipeline {
        owner,
        adopt,
        turn,
        source,
        ..
    } = pipeline;
    let metadata = ConsumerMetadata {
        cursor: turn.cursor.clone(),
        applied: turn.applied,
        ..ConsumerMetadata::new(owner, turn.epoch, source.start)
    };
    DesiredConsumer {
        stream: source.stream.name.clone(),
        name: owner.pipeline.consumer(PARTITION, turn.epoch),
        filter_subjects: source.subjects.clone(),
        metadata: metadata.to_map(),
        adopt: adopt.as_ref().map(Owner::to_string),
    }
}
