//! `config.json` as an immutable ConfigMap: a change is another name, hence a rollout.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use lookback_protocol::config::{
    DeadLettersConfig, NatsAuth, NatsConfig, RulesConfig, SourceConfig, VERSION, WorkerConfig,
};

use super::names::{self, AUTH_DIR, CA_DIR, CONFIG_KEY};
use super::{PARTITION, rules};
use crate::nats::connect::Timeouts;
use crate::operator::pipeline::validate::{ValidatedAuth, ValidatedNats, ValidatedPipeline};

pub(super) const CREDENTIALS: &str = "user.creds";
pub(super) const USERNAME: &str = "username";
pub(super) const PASSWORD: &str = "password";
pub(super) const CA: &str = "ca.crt";

/// What the worker is told.
#[must_use]
pub fn worker_config(pipeline: &ValidatedPipeline) -> WorkerConfig {
    let key = &pipeline.owner.pipeline;
    WorkerConfig {
        v: VERSION,
        owner: pipeline.owner.clone(),
        partition: PARTITION,
        epoch: pipeline.turn.epoch,
        cursor: pipeline.turn.cursor.clone(),
        adopt: pipeline.adopt.clone(),
        nats: nats(&pipeline.nats),
        source: SourceConfig {
            stream: pipeline.source.stream.clone(),
            consumer: key.consumer(PARTITION, pipeline.turn.epoch),
            subjects: pipeline.source.subjects.clone(),
            logsource: pipeline.source.logsource.clone(),
            start: pipeline.source.start,
        },
        rules: RulesConfig {
            files: rules::references(&pipeline.rules.files),
            processing: pipeline.rules.processing.clone(),
            engine_digest: pipeline.rules.engine_digest.clone(),
        },
        correlation: pipeline.correlation.clone(),
        commit: pipeline.commit,
        alerts_stream: key.alerts_stream(),
        dead_letters: DeadLettersConfig {
            stream: key.dead_letters_stream(),
            max_attempts: pipeline.max_attempts,
        },
    }
}

pub(super) fn build(pipeline: &ValidatedPipeline) -> ConfigMap {
    let text = serde_json::to_string_pretty(&worker_config(pipeline))
        .expect("a struct of strings, numbers and lists is JSON");
    let hash = names::content_hash([text.as_bytes()]);
    let name = format!("{}-config-{hash}", pipeline.owner.pipeline.name());
    ConfigMap {
        metadata: names::metadata(pipeline, name),
        data: Some(BTreeMap::from([(CONFIG_KEY.to_owned(), text)])),
        immutable: Some(true),
        ..ConfigMap::default()
    }
}

fn nats(nats: &ValidatedNats) -> NatsConfig {
    let auth = nats.auth.as_ref().map(|auth| match auth {
        ValidatedAuth::Credentials { .. } => NatsAuth::Credentials {
            file: format!("{AUTH_DIR}/{CREDENTIALS}"),
        },
        ValidatedAuth::UserPassword { .. } => NatsAuth::UserPassword {
            username_file: format!("{AUTH_DIR}/{USERNAME}"),
            password_file: format!("{AUTH_DIR}/{PASSWORD}"),
        },
    });
    let usual = Timeouts::default();
    NatsConfig {
        urls: nats.urls.clone(),
        auth,
        ca_file: nats.ca.as_ref().map(|_| format!("{CA_DIR}/{CA}")),
        tls_required: nats.tls_required,
        connect_timeout_ms: unusual(nats.timeouts.connect, usual.connect),
        request_timeout_ms: unusual(nats.timeouts.request, usual.request),
    }
}

/// Milliseconds, unless a worker takes that long by itself.
fn unusual(timeout: Duration, usual: Duration) -> Option<u64> {
    (timeout != usual).then(|| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX))
}
