//! What the knobs of a pipeline are when its spec leaves them out: one table for three kinds of use.
//! docs/profiles.md is written from it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pipeline::{bytes, duration};
use super::{Bytes, Duration};

/// What a pipeline is for.
#[derive(JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Profile {
    /// To try rules on one server: little is kept, in one copy, and seen at once.
    Development,
    /// To rely on it.
    #[default]
    Production,
    /// To rely on it with many events: larger batches and streams, more time for an answer.
    HighThroughput,
}

/// Every knob that a profile speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Knobs {
    /// Copies of the pipeline's own streams; `None` for 3 when NATS is clustered, else 1.
    pub replicas: Option<i32>,
    /// How long alerts are kept.
    pub alerts_age: Duration,
    /// How much of them is kept.
    pub alerts_bytes: Bytes,
    /// How long dead letters are kept.
    pub dead_letters_age: Duration,
    /// How much of them is kept.
    pub dead_letters_bytes: Bytes,
    /// Time from the first event of a batch to its commit.
    pub commit_interval: Duration,
    /// Events in a batch.
    pub commit_events: i64,
    /// How long a connection may take.
    pub connect_timeout: Duration,
    /// How long an answer may take.
    pub request_timeout: Duration,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Development, Self::Production, Self::HighThroughput];

    /// Its row of the table.
    #[must_use]
    pub fn knobs(self) -> Knobs {
        match self {
            Self::Development => Knobs {
                replicas: Some(1),
                alerts_age: duration("1d"),
                alerts_bytes: bytes("256Mi"),
                dead_letters_age: duration("1d"),
                dead_letters_bytes: bytes("64Mi"),
                commit_interval: duration("100ms"),
                commit_events: 500,
                connect_timeout: duration("2s"),
                request_timeout: duration("2s"),
            },
            Self::Production => Knobs {
                replicas: None,
                alerts_age: duration("30d"),
                alerts_bytes: bytes("10Gi"),
                dead_letters_age: duration("30d"),
                dead_letters_bytes: bytes("1Gi"),
                commit_interval: duration("1s"),
                commit_events: 5_000,
                connect_timeout: duration("5s"),
                request_timeout: duration("5s"),
            },
            Self::HighThroughput => Knobs {
                replicas: None,
                alerts_age: duration("30d"),
                alerts_bytes: bytes("50Gi"),
                dead_letters_age: duration("30d"),
                dead_letters_bytes: bytes("10Gi"),
                commit_interval: duration("2s"),
                commit_events: 20_000,
                connect_timeout: duration("5s"),
                request_timeout: duration("15s"),
            },
        }
    }
}

/// The table for docs/profiles.md.
#[must_use]
pub fn markdown() -> String {
    let profiles = Profile::ALL.map(Profile::knobs);
    let mut text = String::from(
        "# Profiles\n\n\
         Written from `src/api/profile.rs` by `make generate`.\n\n\
         `spec.profile` says what these knobs are when the spec leaves them out. What the spec says itself always\n\
         wins. Another profile is taken over in place: streams are updated, none is made anew, and nothing in them is\n\
         lost unless its age is over; the worker is rolled once.\n\n\
         | Knob in `spec` | Development | Production (default) | HighThroughput | Effect |\n\
         |---|---|---|---|---|\n",
    );
    for (knob, value, effect) in ROWS {
        let [development, production, high_throughput] = profiles.each_ref().map(value);
        text += &format!(
            "| `{knob}` | {development} | {production} | {high_throughput} | {effect} |\n"
        );
    }
    text += "\n\
         - JetStream sets `maxBytes` aside when a stream is made: a server with less room than that refuses the stream,\n\
         \x20 and `NatsReady` says so (`StreamRefused`). HighThroughput asks for 60 GiB on each of three servers.\n\
         - One copy in a cluster is reported as `DurabilityAtRisk`.\n\
         - Objects written before there were profiles hold the defaults of Production as if someone had chosen them. Take\n\
         \x20 them out where another profile is to speak, for example\n\
         \x20 `kubectl patch dpl NAME --type merge -p '{\"spec\":{\"alerts\":{\"maxAge\":null}}}'`.\n";
    text
}

type Shown = fn(&Knobs) -> String;

const ROWS: [(&str, Shown, &str); 9] = [
    (
        "alerts.replicas",
        |knobs| {
            let unset = || "3 when NATS is clustered, else 1".to_owned();
            knobs.replicas.map_or_else(unset, |it| it.to_string())
        },
        "copies of the streams of alerts and dead letters",
    ),
    (
        "alerts.maxAge",
        |knobs| knobs.alerts_age.to_string(),
        "how long alerts, and with them their ids, are kept",
    ),
    (
        "alerts.maxBytes",
        |knobs| knobs.alerts_bytes.to_quantity().0,
        "how much is kept; new alerts wait at 95 % of it",
    ),
    (
        "deadLetters.maxAge",
        |knobs| knobs.dead_letters_age.to_string(),
        "how long dead letters are kept",
    ),
    (
        "deadLetters.maxBytes",
        |knobs| knobs.dead_letters_bytes.to_quantity().0,
        "how much is kept; events wait at 95 % of it",
    ),
    (
        "commit.interval",
        |knobs| knobs.commit_interval.to_string(),
        "time from a batch's first event to its commit",
    ),
    (
        "commit.events",
        |knobs| knobs.commit_events.to_string(),
        "events after which a batch is committed sooner",
    ),
    (
        "nats.connectTimeout",
        |knobs| knobs.connect_timeout.to_string(),
        "how long a server may take to let operator and worker in",
    ),
    (
        "nats.requestTimeout",
        |knobs| knobs.request_timeout.to_string(),
        "how long an answer of JetStream is waited for; after it comes an error, never \"not found\"",
    ),
];
