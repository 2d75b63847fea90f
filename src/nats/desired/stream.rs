//! A stream of ours: alerts, dead letters, the state bucket, the audit.

use std::collections::BTreeMap;
use std::time::Duration;

use lookback_protocol::consumer::OWNER_KEY;
use lookback_protocol::names::{
    AUDIT_STREAM, AUDIT_SUBJECTS, PipelineKey, STATE_BUCKET, STATE_STREAM,
};
use serde_json::{Value, json};

use super::drift::{Drift, drift};
use super::{Config, SHARED_OWNER, nanoseconds, object};

/// The server's default. Nothing here is published with a message id.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// How long it is known what was done.
const AUDIT_AGE: Duration = Duration::from_secs(400 * 86_400);
const STREAM_IMMUTABLE: [&str; 6] = [
    "retention",
    "storage",
    "sealed",
    "mirror",
    "persist_mode",
    "deny_purge",
];

/// One of our streams.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredStream {
    /// Its name.
    pub name: String,
    /// What it takes.
    pub subjects: Vec<String>,
    /// Bytes it may hold; `None` for no limit.
    pub max_bytes: Option<u64>,
    /// How long it keeps a message; `None` for ever.
    pub max_age: Option<Duration>,
    /// 1 or 3.
    pub replicas: u8,
    /// Messages kept of one subject.
    pub max_messages_per_subject: u32,
    /// Whether any replica may answer a read.
    pub allow_direct: bool,
    /// Whether several messages may be published as one.
    pub allow_atomic: bool,
    /// Whether a message may carry its own age limit.
    pub allow_message_ttl: bool,
    /// Whether a publish may replace what its subject holds, as KV clients do to purge a key.
    pub allow_rollup: bool,
    /// Whether single messages are safe from deletion.
    pub deny_delete: bool,
    /// Whether a subject that holds [`Self::max_messages_per_subject`] refuses the next message,
    /// instead of dropping its oldest.
    pub write_once: bool,
    /// Whether its messages, all or those of a subject, are safe from deletion.
    pub deny_purge: bool,
    /// What is published again once it is stored, if anything.
    pub republish: Option<Republish>,
    /// Ours; must hold the owner under [`OWNER_KEY`]. Keys of others are left alone.
    pub metadata: BTreeMap<String, String>,
    /// Another owner, who is gone, and whose object becomes ours in place.
    pub adopt: Option<String>,
}

/// What a server publishes again once it is stored, to whoever listens at that moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Republish {
    /// Under which subjects it was stored.
    pub source: String,
    /// Where to; `{{wildcard(n)}}` stands for the token under the nth `*` of the source.
    pub destination: String,
}

impl DesiredStream {
    /// The stream of a pipeline's alerts, as [`Self::store`]; each of them is published again. A mark
    /// that an alert left a state is not: its subject is one token longer.
    #[must_use]
    pub fn alerts(
        key: &PipelineKey,
        max_bytes: Option<u64>,
        max_age: Option<Duration>,
        replicas: u8,
        owner: String,
    ) -> Self {
        let (name, subjects) = (key.alerts_stream(), key.alert_subjects());
        Self {
            republish: Some(Republish {
                source: key.alert_subject("*", "*"),
                destination: key.alert_event_subject("{{wildcard(1)}}", "{{wildcard(2)}}"),
            }),
            ..Self::store(name, subjects, max_bytes, max_age, replicas, owner)
        }
    }

    /// A stream of alerts or dead letters: one message a subject, moves by atomic batch, full is full.
    #[must_use]
    pub fn store(
        name: String,
        subjects: String,
        max_bytes: Option<u64>,
        max_age: Option<Duration>,
        replicas: u8,
        owner: String,
    ) -> Self {
        Self {
            name,
            subjects: vec![subjects],
            max_bytes,
            max_age,
            replicas,
            max_messages_per_subject: 1,
            allow_direct: true,
            allow_atomic: true,
            allow_message_ttl: true,
            allow_rollup: false,
            deny_delete: true,
            write_once: false,
            deny_purge: false,
            republish: None,
            metadata: BTreeMap::from([(OWNER_KEY.to_owned(), owner)]),
            adopt: None,
        }
    }

    /// The KV bucket of all checkpoints of an account, readable by every KV client. No limit of age or
    /// size: a full or aged store of alerts must never block the fence between workers.
    #[must_use]
    pub fn state_bucket(replicas: u8) -> Self {
        Self {
            allow_atomic: false,
            allow_message_ttl: false,
            allow_rollup: true,
            ..Self::store(
                STATE_STREAM.to_owned(),
                format!("$KV.{STATE_BUCKET}.>"),
                None,
                None,
                replicas,
                SHARED_OWNER.to_owned(),
            )
        }
    }

    /// What was done in an account and by whom. A subject is written once and nothing is taken out
    /// before its time, so a record is also a claim that only one can hold.
    #[must_use]
    pub fn audit(replicas: u8) -> Self {
        Self {
            allow_atomic: false,
            allow_message_ttl: false,
            write_once: true,
            deny_purge: true,
            ..Self::store(
                AUDIT_STREAM.to_owned(),
                AUDIT_SUBJECTS.to_owned(),
                None,
                Some(AUDIT_AGE),
                replicas,
                SHARED_OWNER.to_owned(),
            )
        }
    }

    /// As JetStream holds it; see [`Config`].
    #[must_use]
    pub fn config(&self) -> Config {
        let mut config = object(json!({
            "name": self.name,
            "subjects": self.subjects,
            "retention": "limits",
            "storage": "file",
            "discard": "new",
            "discard_new_per_subject": self.write_once,
            "max_consumers": -1,
            "max_msgs": -1,
            "max_msgs_per_subject": self.max_messages_per_subject,
            "max_msg_size": -1,
            "max_bytes": limit(self.max_bytes),
            "max_age": nanoseconds(self.max_age.unwrap_or_default()),
            "duplicate_window": nanoseconds(self.duplicate_window()),
            "num_replicas": self.replicas,
            "no_ack": false,
            "sealed": false,
            "persist_mode": null,
            "mirror": null,
            "sources": null,
            "subject_transform": null,
            "subject_delete_marker_ttl": null,
            "deny_purge": self.deny_purge,
            "metadata": self.metadata,
        }));
        let flags = [
            ("allow_direct", self.allow_direct),
            ("allow_atomic", self.allow_atomic),
            ("allow_msg_ttl", self.allow_message_ttl),
            ("allow_rollup_hdrs", self.allow_rollup),
            ("deny_delete", self.deny_delete),
        ];
        for (flag, _) in flags.iter().filter(|(_, wanted)| *wanted) {
            config.insert((*flag).to_owned(), Value::Bool(true));
        }
        if let Some(Republish {
            source,
            destination,
        }) = &self.republish
        {
            let republish = json!({"src": source, "dest": destination, "headers_only": false});
            config.insert("republish".to_owned(), republish);
        }
        config
    }

    /// Whether it belongs to every pipeline of the account.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.metadata
            .get(OWNER_KEY)
            .is_some_and(|it| it == SHARED_OWNER)
    }

    /// Compares with what the server holds.
    #[must_use]
    pub fn drift(&self, observed: &Config) -> Drift {
        drift(&self.config(), observed, &STREAM_IMMUTABLE)
    }

    /// The server's default, unless messages go sooner: it refuses a window longer than their age.
    fn duplicate_window(&self) -> Duration {
        self.max_age
            .map_or(DUPLICATE_WINDOW, |max_age| max_age.min(DUPLICATE_WINDOW))
    }
}

fn limit(value: Option<u64>) -> i64 {
    value.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX))
}
