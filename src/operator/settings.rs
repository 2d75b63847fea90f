//! The operator's flags, and what they come to.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{ArgAction, Args};
use jiff::SignedDuration;
use lookback_protocol::replay::machine::Limits;

use crate::api;
use crate::operator::controller::Scope;
use crate::operator::lease::Timing;

/// Flags of `lookback operator`.
#[derive(Args, Clone, Debug)]
pub struct OperatorArgs {
    /// Tells this cluster's pipelines from others in the same NATS; default: the uid of kube-system
    #[arg(long, env = "LOOKBACK_CLUSTER_ID")]
    pub cluster_id: Option<String>,
    /// The namespace of the Lease
    #[arg(long, env = "POD_NAMESPACE", default_value = "lookback-system")]
    pub namespace: String,
    /// This replica's name in Events and in the Lease
    #[arg(long, env = "POD_NAME", default_value = "lookback-operator")]
    pub pod_name: String,
    /// Where /live, /ready and /metrics are served
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub admin_addr: SocketAddr,
    /// The image of workers whose pipeline names none
    #[arg(long, env = "LOOKBACK_IMAGE")]
    pub image: String,
    /// Work only while holding the Lease
    #[arg(long, default_value_t = true, action = ArgAction::Set)]
    pub leader_elect: bool,
    /// Only pipelines of this namespace; default: all namespaces
    #[arg(long)]
    pub watch_namespace: Option<String>,
    /// Pipelines reconciled at the same time
    #[arg(long, default_value_t = 8)]
    pub concurrency: u16,
    /// Between two replays of one pipeline that are begun, such as 60s or 5m: ids that change with
    /// every apply must not rewind it over and over
    #[arg(long, default_value = "60s", value_name = "DURATION")]
    pub replay_min_interval: api::Duration,
    /// How long one step of a replay may take before it is undone, as long as it can be
    #[arg(long, default_value = "30m", value_name = "DURATION")]
    pub replay_step_timeout: api::Duration,
    /// How long the consumer of an epoch that was left is kept
    #[arg(long, default_value = "24h", value_name = "DURATION")]
    pub replay_keep_consumers: api::Duration,
}

/// What one operator needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Tells clusters apart; `None` asks for the uid of kube-system.
    pub cluster: Option<String>,
    /// The namespace of the Lease.
    pub namespace: String,
    /// This replica's name; not unique over restarts.
    pub instance: String,
    /// The image of workers whose pipeline names none.
    pub image: String,
    /// How the leader is elected; `None` leads without asking.
    pub election: Option<Timing>,
    /// Which pipelines, and how many at the same time.
    pub scope: Scope,
    /// What lasts how long.
    pub pace: Pace,
    /// What bounds a replay in time.
    pub limits: Limits,
}

/// How often the operator looks without being told, and how long a cleanup may take.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Between two looks at a pipeline that runs.
    pub resync: Duration,
    /// Between two looks at a pipeline that waits for something.
    pub waiting: Duration,
    /// After which a deleted pipeline goes although NATS did not answer.
    pub cleanup_deadline: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            resync: Duration::from_secs(30),
            waiting: Duration::from_secs(5),
            cleanup_deadline: Duration::from_secs(300),
        }
    }
}

impl From<OperatorArgs> for Settings {
    fn from(args: OperatorArgs) -> Self {
        Self {
            cluster: args.cluster_id,
            namespace: args.namespace,
            instance: args.pod_name,
            image: args.image,
            election: args.leader_elect.then(Timing::default),
            scope: Scope {
                namespace: args.watch_namespace,
                concurrency: args.concurrency,
            },
            pace: Pace::default(),
            limits: Limits {
                min_interval: signed(&args.replay_min_interval),
                step_timeout: signed(&args.replay_step_timeout),
                keep_consumers: signed(&args.replay_keep_consumers),
            },
        }
    }
}

fn signed(duration: &api::Duration) -> SignedDuration {
    let milliseconds = i64::try_from(duration.milliseconds());
    SignedDuration::from_millis(milliseconds.unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        operator: OperatorArgs,
    }

    fn limits(flags: &[&str]) -> Limits {
        let program = ["lookback", "--image", "lookback:1"];
        let args = Program::try_parse_from(program.iter().chain(flags)).unwrap();
        Settings::from(args.operator).limits
    }

    #[test]
    fn replays_are_bounded_in_time_without_a_flag() {
        let expected = Limits {
            min_interval: SignedDuration::from_secs(60),
            step_timeout: SignedDuration::from_mins(30),
            keep_consumers: SignedDuration::from_hours(24),
        };
        assert_eq!(limits(&[]), expected);
    }

    #[test]
    fn each_bound_has_its_flag() {
        let flags = [
            "--replay-min-interval=1s",
            "--replay-step-timeout=15s",
            "--replay-keep-consumers=500ms",
        ];
        let expected = Limits {
            min_interval: SignedDuration::from_secs(1),
            step_timeout: SignedDuration::from_secs(15),
            keep_consumers: SignedDuration::from_millis(500),
        };
        assert_eq!(limits(&flags), expected);
    }
}
