//! What a stream or a consumer must look like, and whether it does. Pure: the operator's builders make
//! these, the adapters read and write them.
//!
//! A configuration is compared as JSON, field by field, and only the fields set here: servers add
//! defaults and `_nats.*` metadata, and a field that a newer server knows is left alone. A server too
//! old for a field drops it in silence, so what a create or an update *echoes* is compared too.

mod subscription;

use std::collections::BTreeMap;
use std::time::Duration;

use lookback_protocol::consumer::OWNER_KEY;
use lookback_protocol::names::{
    AUDIT_STREAM, AUDIT_SUBJECTS, PipelineKey, STATE_BUCKET, STATE_STREAM,
};
use serde_json::{Map, Value, json};

pub use self::subscription::DesiredSubscription;

/// The server's default. Nothing here is published with a message id.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// How long a delivery may stay without an ack before the server gives it to someone again.
pub const ACK_WAIT: Duration = Duration::from_secs(600);
/// How long it is known what was done.
const AUDIT_AGE: Duration = Duration::from_secs(400 * 86_400);
/// The owner of what one NATS account holds once, for every pipeline in it.
pub const SHARED_OWNER: &str = "lookback";

/// A configuration in JetStream's JSON. In a desired one, `null` means "must not be set", and a flag
/// that is not needed is absent: several can only ever be switched on.
pub type Config = Map<String, Value>;

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

/// The consumer of one partition and epoch: a durable pull consumer whose cursor the worker resets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredConsumer {
    /// The source stream.
    pub stream: String,
    /// Its durable name.
    pub name: String,
    /// The filter; empty for the whole stream.
    pub filter_subjects: Vec<String>,
    /// Ours; must hold the owner under [`OWNER_KEY`]. Keys of others are left alone.
    pub metadata: BTreeMap<String, String>,
    /// Another owner, who is gone, and whose object becomes ours in place.
    pub adopt: Option<String>,
}

impl DesiredConsumer {
    /// As JetStream holds it; see [`Config`]. It starts at the first message, because only such a consumer can be
    /// reset to any sequence; it never gives up on a message, because one that is skipped is lost.
    #[must_use]
    pub fn config(&self) -> Config {
        object(json!({
            "durable_name": self.name,
            "name": self.name,
            "deliver_policy": "all",
            "deliver_subject": null,
            "replay_policy": "instant",
            "ack_policy": "all",
            "ack_wait": nanoseconds(ACK_WAIT),
            "max_ack_pending": -1,
            "max_deliver": -1,
            "backoff": null,
            "max_batch": null,
            "max_expires": null,
            "max_bytes": null,
            "inactive_threshold": null,
            "priority_policy": null,
            "headers_only": false,
            "filter_subjects": self.filter_subjects,
            "metadata": self.metadata,
        }))
    }

    /// Compares with what the server holds, which names a single filter differently.
    #[must_use]
    pub fn drift(&self, observed: &Config) -> Drift {
        let observed = with_filters_as_list(observed.clone());
        drift(&self.config(), &observed, &CONSUMER_IMMUTABLE)
    }
}

/// How an object differs from what it must look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drift {
    /// It does not.
    None,
    /// In these fields, and all of them can be updated in place.
    Update {
        /// Names of JetStream's JSON.
        fields: Vec<String>,
    },
    /// In a field that can only be set at creation. It is never repaired by deleting.
    Immutable {
        /// The name in JetStream's JSON.
        field: String,
        /// What it must be.
        desired: String,
        /// What it is.
        found: String,
    },
}

/// The owner that stands on an object, if any.
#[must_use]
pub fn owner_of(config: &Config) -> Option<&str> {
    config.get("metadata")?.get(OWNER_KEY)?.as_str()
}

/// What to send to make `observed` as desired: everything it holds, and over it what is desired. With
/// an empty `observed`, what to send to create it.
#[must_use]
pub fn merged(desired: &Config, observed: &Config) -> Config {
    let mut merged = with_filters_as_list(observed.clone());
    for (field, value) in desired {
        match (value, merged.get_mut(field)) {
            (Value::Null, _) => {
                merged.remove(field);
            }
            (Value::Object(ours), Some(Value::Object(theirs))) => theirs.extend(ours.clone()),
            _ => {
                merged.insert(field.clone(), value.clone());
            }
        }
    }
    merged
}

const STREAM_IMMUTABLE: [&str; 6] = [
    "retention",
    "storage",
    "sealed",
    "mirror",
    "persist_mode",
    "deny_purge",
];
const CONSUMER_IMMUTABLE: [&str; 5] = [
    "deliver_policy",
    "deliver_subject",
    "replay_policy",
    "ack_policy",
    "priority_policy",
];

fn drift(desired: &Config, observed: &Config, immutable: &[&str]) -> Drift {
    let mut differing = desired
        .iter()
        .filter(|(field, value)| !holds(value, observed.get(*field)))
        .peekable();
    if differing.peek().is_none() {
        return Drift::None;
    }
    let mut fields = Vec::new();
    for (field, value) in differing {
        // Those of them that are flags can be switched on, but never off.
        if immutable.contains(&field.as_str()) && *value != Value::Bool(true) {
            return Drift::Immutable {
                field: field.clone(),
                desired: value.to_string(),
                found: observed.get(field).unwrap_or(&Value::Null).to_string(),
            };
        }
        fields.push(field.clone());
    }
    Drift::Update { fields }
}

/// Whether what is observed satisfies what is desired. Servers leave zero values out.
fn holds(desired: &Value, observed: Option<&Value>) -> bool {
    match (desired, observed) {
        (Value::Object(ours), Some(theirs)) => ours
            .iter()
            .all(|(key, value)| holds(value, theirs.get(key))),
        (Value::Null, Some(observed)) => is_zero(observed),
        (_, Some(observed)) => desired == observed,
        (_, None) => is_zero(desired),
    }
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty() || text == "none",
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    }
}

fn with_filters_as_list(mut config: Config) -> Config {
    if let Some(filter) = config.remove("filter_subject")
        && !is_zero(&filter)
    {
        config.insert("filter_subjects".to_owned(), Value::Array(vec![filter]));
    }
    config
}

fn limit(value: Option<u64>) -> i64 {
    value.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX))
}

/// How JetStream counts time.
pub(super) fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

fn object(value: Value) -> Config {
    match value {
        Value::Object(fields) => fields,
        _ => Config::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> DesiredStream {
        DesiredStream::alerts(
            &PipelineKey::new("prod", "edr").unwrap(),
            Some(1 << 20),
            Some(Duration::from_secs(86_400)),
            1,
            "cluster/prod/edr".to_owned(),
        )
    }

    fn consumer(filter: &[&str]) -> DesiredConsumer {
        DesiredConsumer {
            stream: "EVENTS".to_owned(),
            name: "lb_prod_edr_p0_e1".to_owned(),
            filter_subjects: filter.iter().map(|&subject| subject.to_owned()).collect(),
            metadata: BTreeMap::from([(OWNER_KEY.to_owned(), "cluster/prod/edr".to_owned())]),
            adopt: None,
        }
    }

    fn created(desired: &Config) -> Config {
        merged(desired, &Config::new())
    }

    fn with(mut config: Config, field: &str, value: Value) -> Config {
        config.insert(field.to_owned(), value);
        config
    }

    #[test]
    fn what_was_created_as_desired_has_no_drift() {
        let desired = stream();
        assert_eq!(desired.drift(&created(&desired.config())), Drift::None);
    }

    #[test]
    fn metadata_of_others_is_no_drift_and_survives_an_update() {
        let desired = stream();
        let mut observed = created(&desired.config());
        observed["metadata"]["team"] = json!("blue");
        assert_eq!(desired.drift(&observed), Drift::None);
        assert_eq!(
            merged(&desired.config(), &observed)["metadata"]["team"],
            "blue"
        );
    }

    #[test]
    fn a_field_of_a_newer_server_is_left_alone() {
        let desired = stream();
        let observed = with(created(&desired.config()), "from_the_future", json!(7));
        assert_eq!(desired.drift(&observed), Drift::None);
        assert_eq!(merged(&desired.config(), &observed)["from_the_future"], 7);
    }

    #[test]
    fn a_changed_limit_is_updated() {
        let desired = stream();
        let observed = with(created(&desired.config()), "max_bytes", json!(5));
        let fields = vec!["max_bytes".to_owned()];
        assert_eq!(desired.drift(&observed), Drift::Update { fields });
    }

    #[test]
    fn a_flag_that_a_server_dropped_in_silence_is_drift() {
        let desired = stream();
        let mut observed = created(&desired.config());
        observed.remove("allow_atomic");
        let fields = vec!["allow_atomic".to_owned()];
        assert_eq!(desired.drift(&observed), Drift::Update { fields });
    }

    #[test]
    fn alerts_that_are_not_published_again_or_only_in_part_are_drift() {
        let desired = stream();
        let fields = vec!["republish".to_owned()];
        let drifted = Drift::Update { fields };
        let mut observed = created(&desired.config());
        observed["republish"]["headers_only"] = json!(true);
        assert_eq!(desired.drift(&observed), drifted);
        observed.remove("republish");
        assert_eq!(desired.drift(&observed), drifted);
        let echoed = json!({
            "src": "lookback.v1.prod.edr.alert.*.*",
            "dest": "lookback.v1ev.prod.edr.alert.{{wildcard(1)}}.{{wildcard(2)}}",
        });
        let observed = with(observed, "republish", echoed);
        assert_eq!(desired.drift(&observed), Drift::None);
    }

    #[test]
    fn the_duplicate_window_is_never_longer_than_the_age_of_messages() {
        let minute = Duration::from_secs(60);
        let short = DesiredStream {
            max_age: Some(minute),
            ..stream()
        };
        assert_eq!(
            short.config()["duplicate_window"],
            json!(60_000_000_000_u64)
        );
        let unlimited = DesiredStream {
            max_age: None,
            ..stream()
        };
        assert_eq!(
            unlimited.config()["duplicate_window"],
            json!(120_000_000_000_u64)
        );
    }

    #[test]
    fn another_storage_is_immutable() {
        let desired = stream();
        let observed = with(created(&desired.config()), "storage", json!("memory"));
        assert_eq!(
            desired.drift(&observed),
            Drift::Immutable {
                field: "storage".to_owned(),
                desired: "\"file\"".to_owned(),
                found: "\"memory\"".to_owned(),
            }
        );
    }

    #[test]
    fn acknowledging_before_the_write_is_immutable_drift() {
        let desired = stream();
        let observed = with(created(&desired.config()), "persist_mode", json!("async"));
        assert!(matches!(desired.drift(&observed), Drift::Immutable { .. }));
    }

    #[test]
    fn an_age_limit_on_the_state_bucket_is_drift() {
        let desired = DesiredStream::state_bucket(1);
        let observed = with(
            created(&desired.config()),
            "max_age",
            json!(60_000_000_000_i64),
        );
        let fields = vec!["max_age".to_owned()];
        assert_eq!(desired.drift(&observed), Drift::Update { fields });
    }

    #[test]
    fn an_audit_that_can_be_overwritten_is_drift() {
        let desired = DesiredStream::audit(1);
        let observed = with(
            created(&desired.config()),
            "discard_new_per_subject",
            json!(false),
        );
        let fields = vec!["discard_new_per_subject".to_owned()];
        assert_eq!(desired.drift(&observed), Drift::Update { fields });
    }

    #[test]
    fn a_purge_can_be_denied_later_but_not_allowed_again() {
        let desired = DesiredStream::audit(1);
        let mut purgeable = created(&desired.config());
        purgeable.remove("deny_purge");
        let fields = vec!["deny_purge".to_owned()];
        assert_eq!(desired.drift(&purgeable), Drift::Update { fields });
        let observed = with(created(&stream().config()), "deny_purge", json!(true));
        assert!(matches!(
            stream().drift(&observed),
            Drift::Immutable { field, .. } if field == "deny_purge"
        ));
    }

    #[test]
    fn a_single_filter_is_the_same_under_either_name() {
        let desired = consumer(&["ev.>"]);
        let mut observed = created(&desired.config());
        observed.remove("filter_subjects");
        let observed = with(observed, "filter_subject", json!("ev.>"));
        assert_eq!(desired.drift(&observed), Drift::None);
        assert!(!merged(&desired.config(), &observed).contains_key("filter_subject"));
    }

    #[test]
    fn a_changed_filter_is_updated_in_place() {
        let observed = created(&consumer(&["ev.a", "ev.b"]).config());
        let fields = vec!["filter_subjects".to_owned()];
        assert_eq!(consumer(&[]).drift(&observed), Drift::Update { fields });
    }

    #[test]
    fn a_consumer_that_starts_elsewhere_is_immutable_drift() {
        let desired = consumer(&[]);
        let observed = with(created(&desired.config()), "deliver_policy", json!("new"));
        assert!(matches!(
            desired.drift(&observed),
            Drift::Immutable { field, .. } if field == "deliver_policy"
        ));
    }

    #[test]
    fn a_consumer_that_drops_payloads_is_repaired() {
        let desired = consumer(&[]);
        let observed = with(created(&desired.config()), "headers_only", json!(true));
        let fields = vec!["headers_only".to_owned()];
        assert_eq!(desired.drift(&observed), Drift::Update { fields });
    }
}
