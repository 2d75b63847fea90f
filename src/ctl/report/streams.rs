//! What NATS holds of a pipeline: infos, never messages.

use lookback_protocol::names::{AUDIT_STREAM, STATE_STREAM};
use serde_json::json;

use super::bundle::Bundle;
use crate::ctl::context::Reached;
use crate::ctl::state;
use crate::nats::consumers;
use crate::nats::streams::{self, ObservedStream};
use crate::operator::pipeline::build::PARTITION;
use crate::runtime::telemetry::chain;

/// Adds what can be read; gives the server's version.
pub(super) async fn collect(reached: &Reached, bundle: &mut Bundle) -> Option<String> {
    let Reached {
        pipeline,
        owner,
        nats,
    } = reached;
    let key = &owner.pipeline;
    let source = pipeline.spec.source.stream.clone();
    let ours = [key.alerts_stream(), key.dead_letters_stream()];
    let shared = [STATE_STREAM, AUDIT_STREAM].map(str::to_owned);
    for name in [source.clone()].into_iter().chain(ours).chain(shared) {
        let file = format!("nats/stream-{name}.yaml");
        match streams::read(nats, &name).await {
            Ok(Some(found)) => bundle.object(&file, &stream(&found)),
            Ok(None) => bundle.left_out(&file, "there is no such stream"),
            Err(error) => bundle.left_out(&file, chain(&error)),
        }
    }
    match consumers::list(nats, &source, key, PARTITION).await {
        Ok(found) => {
            for (epoch, consumer) in found {
                let facts = consumer.facts();
                let consumer = json!({
                    "config": consumer.config,
                    "delivered": facts.delivered.0,
                    "ackPending": consumer.ack_pending(),
                    "pending": facts.pending,
                });
                bundle.object(&format!("nats/consumer-of-epoch-{epoch}.yaml"), &consumer);
            }
        }
        Err(error) => bundle.left_out("nats/ consumers", chain(&error)),
    }
    match state::inspect(reached).await {
        Ok(inspected) => bundle.object("nats/state.yaml", &inspected),
        Err(error) => bundle.left_out("nats/state.yaml", chain(error.as_ref())),
    }
    match nats.server().await {
        Ok(server) => Some(server.version),
        Err(error) => {
            bundle.left_out("the version of NATS", chain(&error));
            None
        }
    }
}

fn stream(found: &ObservedStream) -> serde_json::Value {
    let state = &found.state;
    json!({
        "created": found.created,
        "config": found.config,
        "messages": state.messages,
        "bytes": state.bytes,
        "firstSequence": state.first_seq,
        "firstTime": state.first_ts,
        "lastSequence": state.last_seq,
        "lastTime": state.last_ts,
    })
}
