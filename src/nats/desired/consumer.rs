//! The consumer of a worker.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::drift::{Drift, drift, with_filters_as_list};
use super::{Config, nanoseconds, object};

/// How long a delivery may stay without an ack before the server gives it to someone again.
pub const ACK_WAIT: Duration = Duration::from_secs(600);
pub(super) const CONSUMER_IMMUTABLE: [&str; 5] = [
    "deliver_policy",
    "deliver_subject",
    "replay_policy",
    "ack_policy",
    "priority_policy",
];

/// The consumer of one partition and epoch: a durable pull consumer whose cursor the worker resets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredConsumer {
    /// The source stream.
    pub stream: String,
    /// Its durable name.
    pub name: String,
    /// The filter; empty for the whole stream.
    pub filter_subjects: Vec<String>,
    /// Ours; must hold the owner under [`lookback_protocol::consumer::OWNER_KEY`]. Keys of others are left alone.
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
