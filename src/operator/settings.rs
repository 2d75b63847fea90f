//! The operator's flags, and what they come to.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{ArgAction, Args};

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
        }
    }
}
