//! The consumer of partition 0 and the current epoch.

use lookback_protocol::consumer::ConsumerMetadata;

use super::PARTITION;
use crate::nats::desired::DesiredConsumer;
use crate::operator::pipeline::validate::ValidatedPipeline;

pub(super) fn build(pipeline: &ValidatedPipeline) -> DesiredConsumer {
    let ValidatedPipeline {
        owner,
        epoch,
        source,
        ..
    } = pipeline;
    DesiredConsumer {
        stream: source.stream.name.clone(),
        name: owner.pipeline.consumer(PARTITION, *epoch),
        filter_subjects: source.subjects.clone(),
        metadata: ConsumerMetadata::new(owner, *epoch, source.start).to_map(),
        adopt: None,
    }
}
