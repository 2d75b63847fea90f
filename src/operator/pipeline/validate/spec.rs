//! The spec alone: what the shape of the definition does not rule out, but cannot work.

use std::collections::BTreeMap;
use std::time;

use lookback_protocol::config::{
    CommitConfig, CorrelationConfig, Emit, Limits, LogSource, Refire, TimestampFallback,
};
use lookback_protocol::workflow::{Workflow, sentences};

use super::{ValidatedAuth, ValidatedNats, ValidatedWorker};
use crate::api::conditions::Reason;
use crate::api::pipeline::{self as api, DetectionPipelineSpec, NatsSpec, SecretKeyRef};
use crate::api::profile::Knobs;
use crate::api::{Bytes, Duration};
use crate::nats::connect::Timeouts;
use crate::operator::pipeline::problem::Problem;

const USERNAME: &str = "username";
const PASSWORD: &str = "password";
const NATS_PORT: u16 = 4222;
/// JetStream counts an age in 63 bits of nanoseconds, and takes 0 as "for ever".
const AGES: (u64, u64) = (1_000, 36_500 * 86_400_000);
/// A batch that stays open longer would be delivered again.
const INTERVALS: (u64, u64) = (1, 60_000);
/// Below, the way to a server alone takes longer; above, nobody would learn that it is gone.
const TIMEOUTS: (u64, u64) = (100, 60_000);
const OUR_PREFIX: &str = "lookback.dev/";
const OUR_LABELS: [&str; 4] = [
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/component",
    "app.kubernetes.io/managed-by",
];

/// The Secret keys a spec names, which [`Dereferenced::secrets`] must answer in this order.
///
/// [`Dereferenced::secrets`]: crate::operator::pipeline::facts::Dereferenced::secrets
#[must_use]
pub fn needed_secrets(nats: &NatsSpec) -> Vec<SecretKeyRef> {
    let of_user = nats.user_password_secret_ref.iter().flat_map(|secret| {
        [USERNAME, PASSWORD].map(|key| SecretKeyRef {
            name: secret.name.clone(),
            key: key.to_owned(),
        })
    });
    nats.credentials_secret_ref
        .iter()
        .cloned()
        .chain(of_user)
        .chain(nats.tls.ca_secret_ref.clone())
        .collect()
}

/// Every knob: what the spec says, else what its profile does.
pub(super) fn knobs(spec: &DetectionPipelineSpec) -> Knobs {
    let usual = spec.profile.knobs();
    let (alerts, dead_letters) = (spec.alerts.clone(), spec.dead_letters.clone());
    let (commit, nats) = (spec.commit.clone(), &spec.nats);
    Knobs {
        replicas: alerts.replicas.or(usual.replicas),
        alerts_age: alerts.max_age.unwrap_or(usual.alerts_age),
        alerts_bytes: alerts.max_bytes.unwrap_or(usual.alerts_bytes),
        dead_letters_age: dead_letters.max_age.unwrap_or(usual.dead_letters_age),
        dead_letters_bytes: dead_letters.max_bytes.unwrap_or(usual.dead_letters_bytes),
        commit_interval: commit.interval.unwrap_or(usual.commit_interval),
        commit_events: commit.events.unwrap_or(usual.commit_events),
        connect_timeout: nats
            .connect_timeout
            .clone()
            .unwrap_or(usual.connect_timeout),
        request_timeout: nats
            .request_timeout
            .clone()
            .unwrap_or(usual.request_timeout),
    }
}

/// How long NATS is waited for. The operator asks NATS before it says that a spec cannot work, so what is
/// out of bounds is brought within them.
#[must_use]
pub fn timeouts(spec: &DetectionPipelineSpec) -> Timeouts {
    let knobs = knobs(spec);
    let (least, most) = TIMEOUTS;
    let within = |it: &Duration| time::Duration::from_millis(it.milliseconds().clamp(least, most));
    Timeouts {
        connect: within(&knobs.connect_timeout),
        request: within(&knobs.request_timeout),
    }
}

/// Whatever in `spec`, with its `knobs`, cannot work, whatever is outside.
pub(super) fn problems(spec: &DetectionPipelineSpec, knobs: &Knobs) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (field, length, bounds, least, most) in [
        ("alerts.maxAge", &knobs.alerts_age, AGES, "1s", "36500d"),
        (
            "deadLetters.maxAge",
            &knobs.dead_letters_age,
            AGES,
            "1s",
            "36500d",
        ),
        (
            "commit.interval",
            &knobs.commit_interval,
            INTERVALS,
            "1ms",
            "1m",
        ),
        (
            "nats.connectTimeout",
            &knobs.connect_timeout,
            TIMEOUTS,
            "100ms",
            "1m",
        ),
        (
            "nats.requestTimeout",
            &knobs.request_timeout,
            TIMEOUTS,
            "100ms",
            "1m",
        ),
    ] {
        problems.extend(out_of_range(field, length, bounds, least, most));
    }
    for (field, amount) in [
        ("alerts.maxBytes", &knobs.alerts_bytes),
        ("deadLetters.maxBytes", &knobs.dead_letters_bytes),
        ("state.storage.size", &spec.state.storage.size),
    ] {
        problems.extend(is_zero(field, amount));
    }
    problems.extend(subjects(&spec.source.subjects));
    problems.extend(ours("worker.labels", &spec.worker.labels));
    problems.extend(ours("worker.annotations", &spec.worker.annotations));
    problems
}

/// How workers reach NATS.
pub(super) fn nats(spec: &NatsSpec, timeouts: Timeouts) -> ValidatedNats {
    let credentials =
        spec.credentials_secret_ref
            .as_ref()
            .map(|secret| ValidatedAuth::Credentials {
                secret: secret.name.clone(),
                key: secret.key.clone(),
            });
    let user = || {
        let secret = spec.user_password_secret_ref.as_ref()?;
        Some(ValidatedAuth::UserPassword {
            secret: secret.name.clone(),
        })
    };
    let mut ports: Vec<u16> = spec.urls.iter().map(|url| port(url)).collect();
    ports.sort_unstable();
    ports.dedup();
    ValidatedNats {
        urls: spec.urls.clone(),
        ports,
        auth: credentials.or_else(user),
        ca: spec
            .tls
            .ca_secret_ref
            .as_ref()
            .map(|secret| (secret.name.clone(), secret.key.clone())),
        tls_required: spec.tls.required,
        timeouts,
    }
}

/// Time and windows.
pub(super) fn correlation(spec: &api::CorrelationSpec) -> CorrelationConfig {
    CorrelationConfig {
        timestamp_fields: spec.timestamp_fields.clone(),
        timestamp_fallback: match spec.timestamp_fallback {
            api::TimestampFallback::Published => TimestampFallback::Published,
            api::TimestampFallback::WallClock => TimestampFallback::WallClock,
            api::TimestampFallback::Skip => TimestampFallback::Skip,
        },
        allowed_lateness_seconds: spec.allowed_lateness.seconds(),
        max_future_skew_seconds: spec.max_future_skew.seconds(),
        refire: match spec.refire {
            api::Refire::OncePerWindow => Refire::OncePerWindow,
            api::Refire::EveryEvent => Refire::EveryEvent,
        },
        emit: match spec.emit {
            api::Emit::All => Emit::All,
            api::Emit::Correlations => Emit::Correlations,
        },
        limits: Limits {
            groups: spec.limits.groups.unsigned_abs(),
            events_per_group: spec.limits.events_per_group.unsigned_abs(),
        },
    }
}

/// The steps that alerts can take.
pub(super) fn workflow(spec: &api::AlertsSpec) -> Result<Workflow, Problem> {
    let Some(workflow) = &spec.workflow else {
        return Ok(Workflow::default());
    };
    Workflow::new(workflow.clone()).map_err(|faults| {
        let message = format!("spec.alerts.workflow: {}", sentences(&faults));
        Problem::new(Reason::InvalidWorkflow, message)
    })
}

/// Batches.
pub(super) fn commit(knobs: &Knobs) -> CommitConfig {
    CommitConfig {
        interval_ms: knobs.commit_interval.milliseconds(),
        events: knobs.commit_events.unsigned_abs(),
    }
}

/// The default log source.
pub(super) fn logsource(spec: &api::LogSourceSpec) -> LogSource {
    LogSource {
        product: spec.product.clone(),
        service: spec.service.clone(),
        category: spec.category.clone(),
    }
}

/// The pod.
pub(super) fn worker(spec: &api::WorkerSpec, operators_image: &str) -> ValidatedWorker {
    ValidatedWorker {
        image: spec
            .image
            .clone()
            .unwrap_or_else(|| operators_image.to_owned()),
        resources: spec.resources.clone(),
        node_selector: spec.node_selector.clone(),
        tolerations: spec.tolerations.clone(),
        affinity: spec.affinity.clone(),
        priority_class_name: spec.priority_class_name.clone(),
        annotations: spec.annotations.clone(),
        labels: spec.labels.clone(),
        log_level: spec.log_level,
    }
}

fn invalid(field: &str, what: impl std::fmt::Display) -> Problem {
    Problem::new(Reason::InvalidSpec, format!("spec.{field} {what}"))
}

fn out_of_range(
    field: &str,
    duration: &Duration,
    (least, most): (u64, u64),
    least_text: &str,
    most_text: &str,
) -> Option<Problem> {
    let fits = (least..=most).contains(&duration.milliseconds());
    (!fits).then(|| {
        invalid(
            field,
            format!("is {duration}, which is not between {least_text} and {most_text}"),
        )
    })
}

fn is_zero(field: &str, amount: &Bytes) -> Option<Problem> {
    (amount.bytes() == 0).then(|| invalid(field, "is 0, which holds nothing"))
}

/// JetStream refuses filters that overlap: an event would be delivered twice.
fn subjects(subjects: &[String]) -> Vec<Problem> {
    let malformed = subjects
        .iter()
        .filter(|subject| !is_filter(subject))
        .map(|subject| invalid("source.subjects", format!("holds {subject:?}, which is no subject: tokens are parted by single dots, and > stands last")));
    let pairs = subjects
        .iter()
        .enumerate()
        .flat_map(|(at, one)| subjects[at + 1..].iter().map(move |other| (one, other)));
    let overlapping = pairs
        .filter(|(one, other)| overlap(one, other))
        .map(|(one, other)| {
            invalid(
                "source.subjects",
                format!("holds {one:?} and {other:?}, which overlap: leave out the narrower one"),
            )
        });
    malformed.chain(overlapping).collect()
}

fn is_filter(subject: &str) -> bool {
    let mut tokens = subject.split('.').rev();
    let last = tokens.next().unwrap_or_default();
    let is_token = |token: &str| !token.is_empty() && (token == "*" || !token.contains(['*', '>']));
    (last == ">" || is_token(last)) && tokens.all(is_token)
}

/// Whether there is a subject that both filters take.
#[must_use]
pub fn overlap(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        match (one.next(), other.next()) {
            (None, None) | (Some(">"), Some(_)) | (Some(_), Some(">")) => return true,
            (Some(a), Some(b)) if a == b || a == "*" || b == "*" => {}
            _ => return false,
        }
    }
}

fn ours(field: &str, map: &BTreeMap<String, String>) -> Vec<Problem> {
    map.keys()
        .filter(|key| key.starts_with(OUR_PREFIX) || OUR_LABELS.contains(&key.as_str()))
        .map(|key| invalid(field, format!("holds {key}, which is the operator's own")))
        .collect()
}

fn port(url: &str) -> u16 {
    let host = url.split_once("://").map_or(url, |(_, host)| host);
    let after_host = host.rsplit_once(']').map_or(host, |(_, rest)| rest);
    after_host
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse().ok())
        .unwrap_or(NATS_PORT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_overlap_as_nats_says() {
        for (one, other, expected) in [
            ("ev.>", "ev.a", true),
            ("ev.*", "ev.a", true),
            ("ev.*.x", "ev.a.*", true),
            ("ev.a", "ev.b", false),
            ("ev.>", "ev", false),
            ("ev.*", "ev.a.b", false),
            (">", "anything.at.all", true),
        ] {
            assert_eq!(overlap(one, other), expected, "{one} {other}");
        }
    }

    #[test]
    fn subjects_that_are_no_filters_are_named() {
        for subject in ["ev..a", ".ev", "ev.", "ev.>.a", "ev.a*", ""] {
            assert!(!is_filter(subject), "{subject:?} was accepted");
        }
        for subject in ["ev", "ev.>", ">", "*", "ev.*.a"] {
            assert!(is_filter(subject), "{subject:?} was refused");
        }
    }

    #[test]
    fn the_port_of_a_url_is_4222_unless_it_names_one() {
        let ports = [
            "nats://a",
            "nats://a:4333",
            "tls://[::1]:5222",
            "tls://[::1]",
        ]
        .map(port);
        assert_eq!(ports, [4222, 4333, 5222, 4222]);
    }
}
