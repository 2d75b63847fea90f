//! The consumer of a subscriber to alerts.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::consumer::CONSUMER_IMMUTABLE;
use super::drift::{Drift, drift, with_filters_as_list};
use super::{Config, nanoseconds, object};

/// The field that says where a consumer began.
const DELIVER_POLICY: &str = "deliver_policy";

/// A durable pull consumer that gives each message out until it is acknowledged by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredSubscription {
    /// The stream.
    pub stream: String,
    /// Its durable name.
    pub name: String,
    /// What it is about.
    pub filter_subjects: Vec<String>,
    /// Whether it begins behind what is there. One that exists goes on where it is.
    pub only_new: bool,
    /// How long a message may stay without an ack before it is given out again.
    pub ack_wait: Duration,
    /// Must hold the owner under [`lookback_protocol::consumer::OWNER_KEY`].
    pub metadata: BTreeMap<String, String>,
}

impl DesiredSubscription {
    /// As JetStream holds it; see [`Config`]. What was decided when `observed` was created stays.
    #[must_use]
    pub fn config(&self, observed: Option<&Config>) -> Config {
        let mut config = object(json!({
            "durable_name": self.name,
            "name": self.name,
            DELIVER_POLICY: if self.only_new { "new" } else { "all" },
            "deliver_subject": null,
            "replay_policy": "instant",
            "ack_policy": "explicit",
            "ack_wait": nanoseconds(self.ack_wait),
            "max_deliver": -1,
            "backoff": null,
            "inactive_threshold": null,
            "priority_policy": null,
            "headers_only": false,
            "filter_subjects": self.filter_subjects,
            "metadata": self.metadata,
        }));
        if let Some(began) = observed.and_then(|observed| observed.get(DELIVER_POLICY)) {
            config.insert(DELIVER_POLICY.to_owned(), Value::clone(began));
        }
        config
    }

    /// Compares with what the server holds, which names a single filter differently.
    #[must_use]
    pub fn drift(&self, observed: &Config) -> Drift {
        let desired = self.config(Some(observed));
        let observed = with_filters_as_list(observed.clone());
        drift(&desired, &observed, &CONSUMER_IMMUTABLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desired(filter: &str, only_new: bool) -> DesiredSubscription {
        DesiredSubscription {
            stream: "LB_prod_edr_ALERTS".to_owned(),
            name: "lbsub_bot".to_owned(),
            filter_subjects: vec![filter.to_owned()],
            only_new,
            ack_wait: Duration::from_secs(60),
            metadata: BTreeMap::new(),
        }
    }

    #[test]
    fn a_subscription_goes_on_where_it_is_and_takes_another_filter() {
        let first = desired("a.new.*", true);
        let observed = first.config(None);
        assert_eq!(observed[DELIVER_POLICY], "new");
        assert_eq!(desired("a.new.*", false).drift(&observed), Drift::None);
        let fields = vec!["filter_subjects".to_owned()];
        assert_eq!(
            desired("a.triage.*", false).drift(&observed),
            Drift::Update { fields }
        );
    }

    #[test]
    fn a_consumer_of_another_kind_is_no_subscription() {
        let mut observed = desired("a.new.*", true).config(None);
        observed.insert("ack_policy".to_owned(), json!("none"));
        assert!(matches!(
            desired("a.new.*", true).drift(&observed),
            Drift::Immutable { .. }
        ));
    }
}
