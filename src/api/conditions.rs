//! The one table of conditions, their reasons, and what ends each. Code takes reasons from here and
//! nowhere else; `docs/conditions.md` is written from it.
//!
//! A reason belongs to one condition, its home. `Ready`, `Reconciling` and `Stalled` repeat the reason
//! of the condition that decides them, so that `kubectl get -o wide` and kstatus need not look further.

use std::fmt;

use lookback_protocol::checkpoint::HoldReason;
use lookback_protocol::replay::record::ReplayPhase;
use lookback_protocol::termination::ExitReason;

use super::status::ConditionStatus;

/// An aspect of a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConditionType {
    /// The worker runs what the spec asks for, or the last set of rules that could be used.
    Ready,
    /// The operator, or what it waits for, is at work; no one needs to do anything.
    Reconciling,
    /// It does not go on until someone does something.
    Stalled,
    /// NATS answers, and the pipeline's own streams can be written.
    NatsReady,
    /// The source stream can be read from where the state file ends.
    ConsumerReady,
    /// The worker has its state file open.
    StateReady,
    /// Every document of the rules the spec names is loaded.
    RulesLoaded,
    /// What the spec's replay block asks for is done, or being done.
    ReplayAccepted,
    /// A replay is under way.
    ReplayInProgress,
    /// The spec says so, and no worker is left.
    Suspended,
    /// No event is parked or being redriven.
    DeadLettersClear,
    /// No event left the source stream unread, or is about to.
    RetentionSafe,
    /// The same events give the same alerts in every run.
    Deterministic,
    /// One lost disk can lose acknowledged messages.
    DurabilityAtRisk,
}

impl ConditionType {
    /// Every condition, in the order of the status.
    pub const ALL: [Self; 14] = [
        Self::Ready,
        Self::Reconciling,
        Self::Stalled,
        Self::NatsReady,
        Self::ConsumerReady,
        Self::StateReady,
        Self::RulesLoaded,
        Self::ReplayAccepted,
        Self::ReplayInProgress,
        Self::Suspended,
        Self::DeadLettersClear,
        Self::RetentionSafe,
        Self::Deterministic,
        Self::DurabilityAtRisk,
    ];
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What a reason means for the pipeline as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// As it should be.
    Fine,
    /// Shown, but the pipeline goes on.
    Warning,
    /// `Reconciling`: ends by itself.
    Waiting,
    /// `Stalled`: ends when someone does what the table says.
    Stalled,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The condition the reason stands on.
    pub condition: ConditionType,
    /// The condition's status with this reason.
    pub status: ConditionStatus,
    /// What it means for the pipeline.
    pub effect: Effect,
    /// What it says.
    pub meaning: &'static str,
    /// What ends it; empty when nothing needs to.
    pub ended_by: &'static str,
}

macro_rules! reasons {
    ($($reason:ident: $condition:ident = $status:ident, $effect:ident, $meaning:literal, $ended_by:literal;)*) => {
        /// Why a condition is as it is.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $(#[doc = $meaning] $reason,)*
        }

        impl Reason {
            /// Every reason, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$reason,)*];

            /// Its row.
            #[must_use]
            pub const fn row(self) -> Row {
                match self {
                    $(Self::$reason => Row {
                        condition: ConditionType::$condition,
                        status: ConditionStatus::$status,
                        effect: Effect::$effect,
                        meaning: $meaning,
                        ended_by: $ended_by,
                    },)*
                }
            }
        }
    };
}

reasons! {
    Running: Ready = True, Fine, "the worker reads, commits and stores alerts", "";
    InvalidSpec: Ready = False, Stalled, "a field of the spec holds what cannot work", "edit the field that the message names";
    InvalidWorkflow: Ready = False, Stalled, "spec.alerts.workflow cannot be followed; detections go on, and alerts keep the workflow that they had", "correct what the message names; alerts without a workflow have the default one";
    ObjectRefused: Ready = False, Stalled, "the API server refuses an object of the pipeline", "do what the API server's message asks for";
    ForeignObject: Ready = False, Stalled, "an object of that name exists and is not the pipeline's", "delete that object, or create the pipeline under another name";
    Settled: Reconciling = False, Fine, "nothing is left to do for this spec", "";
    RolloutInProgress: Reconciling = True, Waiting, "the worker's pod is being replaced", "ends by itself when the new pod is ready";
    Deleting: Reconciling = True, Waiting, "the pipeline is being deleted", "ends by itself, after five minutes at the latest";
    NotStalled: Stalled = False, Fine, "no one needs to do anything", "";
    Connected: NatsReady = True, Fine, "NATS answers and the pipeline's own streams are there", "";
    ServerOutdated: NatsReady = True, Warning, "NATS works, but its version has known faults", "upgrade the NATS servers to 2.14.4 or newer";
    StatesOrphaned: NatsReady = True, Warning, "alerts stand in states that the workflow does not have", "put the states that the message names back into spec.alerts.workflow, or archive these alerts";
    NatsUnavailable: NatsReady = False, Waiting, "NATS does not answer", "ends by itself when NATS answers; check spec.nats.urls and spec.nats.tls if it should";
    NatsRefused: NatsReady = False, Stalled, "NATS refuses the credentials", "put credentials that NATS accepts into the Secret, and allow what the message names";
    ServerTooOld: NatsReady = False, Stalled, "a NATS server lacks what exact positions need", "upgrade the NATS servers to 2.14 or newer";
    JetStreamDisabled: NatsReady = False, Stalled, "the account has no JetStream", "enable JetStream for the account";
    SecretMissing: NatsReady = False, Stalled, "a Secret that spec.nats names does not exist", "create the Secret";
    SecretKeyMissing: NatsReady = False, Stalled, "a Secret lacks the key that spec.nats names", "add the key to the Secret";
    ForeignStream: NatsReady = False, Stalled, "a stream of that name exists and is not the pipeline's", "delete or rename that stream, or create the pipeline under another name; if the owner that the message names is gone for good, annotate the pipeline with lookback.dev/adopt=<that owner>";
    StreamImmutable: NatsReady = False, Stalled, "one of the pipeline's own streams differs in what the server does not change", "delete that stream if its content may go; the operator creates it again";
    StreamRefused: NatsReady = False, Stalled, "the server refuses one of the pipeline's own streams", "make room or lower spec.alerts, as the server's message asks for";
    StoreRegressed: NatsReady = False, Stalled, "a stream lost alerts or dead letters that it had acknowledged", "restore the stream, or request a replay with statePolicy Clear or Rebuild and a new id: what is read again is stored again";
    AlertsFull: NatsReady = False, Stalled, "the alerts stream has no room; the worker waits and loses nothing", "raise spec.alerts.maxBytes, or purge alerts that are done with";
    StoreUnavailable: NatsReady = False, Waiting, "a store does not answer; the worker waits and loses nothing", "ends by itself when the stream has a leader again";
    NatsUnknown: NatsReady = Unknown, Waiting, "NATS was not asked yet", "ends by itself once what the other conditions name is there";
    Positioned: ConsumerReady = True, Fine, "the consumer exists, and the worker moves its cursor", "";
    SourceMissing: ConsumerReady = False, Stalled, "the source stream does not exist", "create the stream, or create the pipeline again with another source.stream";
    SourceUnsupported: ConsumerReady = False, Stalled, "the source stream has no Limits retention, so reading would take events from others", "read from a stream with Limits retention, for example a mirror or source of this one";
    StreamChanged: ConsumerReady = False, Stalled, "the source stream was deleted and created again: its sequences mean other events", "request a replay with statePolicy Clear or Rebuild and a new id: it binds the state file to the stream as it is now";
    StreamRegressed: ConsumerReady = False, Stalled, "the source stream lost messages that were applied", "restore the stream, or request a replay with statePolicy Clear or Rebuild and a new id: it binds the state file to the stream as it is now";
    ForeignConsumer: ConsumerReady = False, Stalled, "a consumer of that name exists and is not the pipeline's", "delete that consumer; if the owner that the message names is gone for good, annotate the pipeline with lookback.dev/adopt=<that owner>";
    ConsumerRefused: ConsumerReady = False, Stalled, "the server refuses the consumer", "correct spec.source.subjects, or allow what the server's message names";
    ConsumerMissing: ConsumerReady = False, Waiting, "the consumer is gone", "ends by itself: the operator creates it again";
    Fenced: ConsumerReady = False, Waiting, "another worker has taken the partition over", "ends by itself when the one that was replaced has stopped";
    ConsumerUnknown: ConsumerReady = Unknown, Waiting, "the consumer was not looked for yet", "ends by itself once what the other conditions name is there";
    StateOpen: StateReady = True, Fine, "the state file is open and its identity is checked", "";
    WorkerStarting: StateReady = False, Waiting, "the worker is not ready yet", "ends by itself when the worker has positioned its consumer";
    WorkerStopped: StateReady = False, Fine, "the worker is stopped on purpose; its volume stays", "";
    VolumePending: StateReady = False, Waiting, "the volume is not bound", "ends by itself when the storage class provides it; check spec.state.storage if it should";
    Unschedulable: StateReady = False, Waiting, "no node takes the worker", "ends by itself when a node fits; check spec.worker if one should";
    ImageUnavailable: StateReady = False, Stalled, "the worker's image cannot be pulled", "correct spec.worker.image, or give the node access to the registry";
    StateLost: StateReady = False, Stalled, "there is a checkpoint, but the volume came back empty or from an old copy", "restore the volume, or request a replay with statePolicy Clear or Rebuild and a new id; spec.state.onLoss: RebuildWindows or StartEmpty does the like by itself";
    Corrupt: StateReady = False, Stalled, "the state file cannot be read", "restore the volume; or delete its claim and the pod, and then do what ends StateLost";
    NewerSchema: StateReady = False, Stalled, "the state file was written by a newer version", "run that version or a newer one";
    OwnedByOther: StateReady = False, Stalled, "state file, checkpoint or consumer belong to another pipeline or cluster", "give the pipeline the volume it had; if the owner that the message names is gone for good, annotate the pipeline with lookback.dev/adopt=<that owner>";
    EpochAhead: StateReady = False, Stalled, "the worker's checkpoint is of a later epoch than the pipeline's status or its consumer: one of them was restored from an old copy", "delete the pipeline with deletionPolicy Retain and the consumers that the message names, and create it again: it goes on with the later epoch";
    StateLocked: StateReady = False, Waiting, "another process holds the state file", "ends by itself when that process is gone";
    VolumeFull: StateReady = False, Stalled, "the volume has no room", "raise spec.state.storage.size";
    BadConfig: StateReady = False, Stalled, "the worker cannot use its configuration, rules or credentials", "do what the message asks for; run operator and worker from one version";
    Internal: StateReady = False, Stalled, "the worker stopped with an error that it does not know", "report the message and the worker's log as a bug";
    StateUnknown: StateReady = Unknown, Waiting, "there is no worker yet", "ends by itself once what the other conditions name is there";
    Loaded: RulesLoaded = True, Fine, "every document is loaded", "";
    ConfigMapMissing: RulesLoaded = False, Stalled, "a ConfigMap that spec.rules names does not exist", "create the ConfigMap";
    NoRules: RulesLoaded = False, Stalled, "no document of the set can be used", "put Sigma rules under keys *.yml, *.yaml or *.tar.gz of the ConfigMaps";
    RulesRejected: RulesLoaded = False, Stalled, "documents cannot be used, so the set before it keeps running", "correct the documents that the message names, or set spec.rules.onError: LoadGood";
    DocumentsLeftOut: RulesLoaded = False, Warning, "documents cannot be used and are left out", "correct the documents that the message names";
    RulesUnknown: RulesLoaded = Unknown, Fine, "the rules were not looked at", "";
    NoReplay: ReplayAccepted = Unknown, Fine, "the spec asks for no replay", "";
    Accepted: ReplayAccepted = True, Fine, "the replay is being done, or was done last", "";
    AlreadyApplied: ReplayAccepted = True, Fine, "the replay was done before under this id, and is not done again", "";
    AwaitingApproval: ReplayAccepted = False, Warning, "the plan waits for a person", "read status.replay.plan, then annotate the pipeline with lookback.dev/approve=<its hash>; or take the block out";
    Queued: ReplayAccepted = False, Warning, "the replay waits for what the message names", "set spec.suspend: false, or let the replay before it end";
    Throttled: ReplayAccepted = False, Warning, "the replay before it is too young", "wait; and give replays ids that do not change with every apply";
    IdReused: ReplayAccepted = False, Stalled, "the id was used before for another start or statePolicy", "set a new id, or none";
    ReplayRejected: ReplayAccepted = False, Stalled, "the replay cannot work as it is", "correct spec.replay as the message asks for, or take it out";
    ReplayExpired: ReplayAccepted = False, Warning, "its notAfter passed before it began", "take the block out, or set a later notAfter";
    ReplayFailed: ReplayAccepted = False, Stalled, "the replay could not be begun; detections go on from the state before", "end what the message names, then set a new id; or take the block out";
    ReplaySuperseded: ReplayAccepted = False, Warning, "another request came, or it was taken out, before it was begun", "set a new id, or take the block out";
    Idle: ReplayInProgress = False, Fine, "no replay is under way", "";
    Completed: ReplayInProgress = False, Fine, "the replay has read everything up to its target", "";
    Requested: ReplayInProgress = True, Fine, "the replay is being planned", "";
    Planned: ReplayInProgress = True, Fine, "what the replay would do stands in status.replay.plan", "";
    Fencing: ReplayInProgress = True, Waiting, "the worker of the epoch before is being stopped", "ends by itself when its pod is gone";
    FencingBlocked: ReplayInProgress = True, Stalled, "the pod of the epoch before does not go, so its node may still run it", "bring the node back; or, once it is off for certain, taint it with node.kubernetes.io/out-of-service=nodeshutdown:NoExecute";
    CursorCreated: ReplayInProgress = True, Waiting, "the consumer of the new epoch is being made", "ends by itself when NATS has made it";
    RollingOut: ReplayInProgress = True, Waiting, "the worker of the new epoch is being started", "ends by itself when it has moved its state file, or after a while in the way back";
    TakingBack: ReplayInProgress = True, Waiting, "the replay is undone before it was begun; detections go on from the state before", "ends by itself when the worker of the next epoch is started";
    StateApplied: ReplayInProgress = True, Fine, "the state file is moved", "";
    CatchingUp: ReplayInProgress = True, Fine, "the worker reads up to the target of the replay", "";
    NotSuspended: Suspended = False, Fine, "the worker may run", "";
    Suspending: Suspended = False, Waiting, "the worker is being stopped", "ends by itself when its pod is gone; a pod on a node that is off goes when the node is tainted with node.kubernetes.io/out-of-service=nodeshutdown:NoExecute";
    Suspended: Suspended = True, Warning, "spec.suspend is set, and no worker is left", "set spec.suspend: false";
    NoDeadLetters: DeadLettersClear = True, Fine, "no event is parked or being redriven", "";
    EventsParked: DeadLettersClear = False, Warning, "events could not be applied and are parked or being redriven", "read them with kubectl lookback dlq list, correct their producer, and redrive or discard them, also those whose redrive did not end";
    DeadLettersFull: DeadLettersClear = False, Stalled, "the dead-letter stream has no room; the worker waits and loses nothing", "raise spec.deadLetters.maxBytes, or purge dead letters that are done with";
    DeadLettersUnknown: DeadLettersClear = Unknown, Fine, "the dead letters were not counted", "";
    EventsRetained: RetentionSafe = True, Fine, "the source stream keeps what is not read yet", "";
    EventsExpired: RetentionSafe = False, Warning, "events left the source stream before they were read", "annotate the pipeline with lookback.dev/acknowledge=<last sequence of the range>";
    RetentionLow: RetentionSafe = False, Warning, "events leave the source stream soon, and the worker has not read them", "give the worker more CPU, or set spec.suspend: false if it is suspended, or raise the limits of the source stream";
    RetentionUnknown: RetentionSafe = Unknown, Fine, "the source stream was not looked at", "";
    EventTime: Deterministic = True, Fine, "times come from the events alone", "";
    WallClock: Deterministic = False, Warning, "times come from the worker's clock, so two runs may differ", "set spec.correlation.timestampFallback to Published or Skip";
    Replicated: DurabilityAtRisk = False, Fine, "the streams have copies on other servers", "";
    SingleReplica: DurabilityAtRisk = True, Warning, "a stream has one copy in a cluster of servers", "set spec.alerts.replicas to 3, or num_replicas of the source stream";
    SingleServer: DurabilityAtRisk = True, Warning, "NATS is a single server", "run NATS as a cluster of three";
    DurabilityUnknown: DurabilityAtRisk = Unknown, Fine, "the streams were not looked at", "";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl Reason {
    /// The reason for a worker that stopped; `None` for one that was asked to.
    #[must_use]
    pub fn of_exit(exit: ExitReason) -> Option<Self> {
        Some(match exit {
            ExitReason::Drained => return None,
            ExitReason::Internal => Self::Internal,
            ExitReason::BadConfig => Self::BadConfig,
            ExitReason::Corrupt => Self::Corrupt,
            ExitReason::NewerSchema => Self::NewerSchema,
            ExitReason::StateLocked => Self::StateLocked,
            ExitReason::OwnedByOther => Self::OwnedByOther,
            ExitReason::Fenced => Self::Fenced,
            ExitReason::StreamChanged => Self::StreamChanged,
            ExitReason::StreamRegressed => Self::StreamRegressed,
            ExitReason::StoreRegressed => Self::StoreRegressed,
            ExitReason::StateLost => Self::StateLost,
            ExitReason::VolumeFull => Self::VolumeFull,
            ExitReason::NatsUnavailable => Self::NatsUnavailable,
            ExitReason::ConsumerMissing => Self::ConsumerMissing,
        })
    }

    /// The reason on `ReplayInProgress` for a replay in this phase that is not being undone.
    #[must_use]
    pub fn of_phase(phase: ReplayPhase) -> Self {
        match phase {
            ReplayPhase::Requested => Self::Requested,
            ReplayPhase::Planned | ReplayPhase::AwaitingApproval => Self::Planned,
            ReplayPhase::Fencing => Self::Fencing,
            ReplayPhase::CursorCreated => Self::CursorCreated,
            ReplayPhase::RollingOut => Self::RollingOut,
            ReplayPhase::StateApplied => Self::StateApplied,
            ReplayPhase::CatchingUp => Self::CatchingUp,
            ReplayPhase::Completed => Self::Completed,
            ReplayPhase::Failed
            | ReplayPhase::Rejected
            | ReplayPhase::Expired
            | ReplayPhase::Superseded => Self::Idle,
        }
    }

    /// The reason for a worker that waits.
    #[must_use]
    pub fn of_hold(hold: HoldReason) -> Self {
        match hold {
            HoldReason::AlertsFull => Self::AlertsFull,
            HoldReason::DeadLettersFull => Self::DeadLettersFull,
            HoldReason::StoreUnavailable => Self::StoreUnavailable,
        }
    }
}

/// The table as `docs/conditions.md` holds it.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "# Conditions\n\n\
         Written from `src/api/conditions.rs` by `make generate`.\n\n\
         Each reason belongs to one condition. `Ready`, `Reconciling` and `Stalled` repeat the reason of the\n\
         condition that decides them. A reason of effect *Stalled* ends only when someone does what the last\n\
         column says; one of effect *Waiting* ends by itself.\n",
    );
    for condition in ConditionType::ALL {
        let rows = Reason::ALL
            .iter()
            .filter(|reason| reason.row().condition == condition);
        text += &format!(
            "\n## {condition}\n\n| Reason | Status | Effect | Meaning | What ends it |\n|---|---|---|---|---|\n"
        );
        for reason in rows {
            let Row {
                status,
                effect,
                meaning,
                ended_by,
                ..
            } = reason.row();
            text += &format!("| {reason} | {status:?} | {effect:?} | {meaning} | {ended_by} |\n");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_that_is_not_fine_says_what_ends_it() {
        for reason in Reason::ALL {
            let row = reason.row();
            assert_eq!(
                row.effect == Effect::Fine,
                row.ended_by.is_empty(),
                "{reason}"
            );
        }
    }

    #[test]
    fn every_reason_that_stalls_names_a_verb_and_none_says_it_ends_by_itself() {
        for reason in Reason::ALL {
            let row = reason.row();
            let by_itself = row.ended_by.starts_with("ends by itself");
            assert_eq!(row.effect == Effect::Waiting, by_itself, "{reason}");
        }
    }

    #[test]
    fn every_condition_has_a_fine_reason() {
        for condition in ConditionType::ALL {
            let fine = Reason::ALL.iter().any(|reason| {
                reason.row().condition == condition && reason.row().effect == Effect::Fine
            });
            assert!(fine, "{condition}");
        }
    }
}
