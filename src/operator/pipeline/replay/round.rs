//! One decision: what is found beyond what every reconcile reads, and what the protocol says to it.

use jiff::Timestamp;
use lookback_protocol::audit::{Act, AuditKind, AuditRecord, ReplayClaim};
use lookback_protocol::names::{Owner, PipelineKey};
use lookback_protocol::replay::ledger::{Ledgers, NatsLedgers, Standing};
use lookback_protocol::replay::machine::{self, Asks, Claim, Decision, Facts};
use lookback_protocol::replay::record::Record;
use lookback_protocol::replay::request::ReplayRequest;

use super::plan::{self, Answer, Asked, Checked};
use super::{facts, written};
use crate::api::conditions::Reason;
use crate::api::pipeline::APPROVE;
use crate::nats::api::{ApiError, Code};
use crate::nats::audit::{self, AuditError};
use crate::nats::survey::Survey;
use crate::operator::controller::Context;
use crate::operator::pipeline::dereference::Found;
use crate::operator::pipeline::problem::Problem;
use crate::operator::pipeline::validate::{self, Chosen};

/// What was decided, and what a person must know of where the pipeline stands.
pub(in crate::operator::pipeline) struct Decided {
    pub(in crate::operator::pipeline) decision: Decision,
    pub(in crate::operator::pipeline) problem: Option<Problem>,
}

/// Decides what to do now.
pub(in crate::operator::pipeline) async fn decide(
    found: &Found,
    chosen: &Chosen,
    owner: &Owner,
    context: &Context,
) -> Decided {
    let pipeline = &found.pipeline;
    let now = Timestamp::now();
    let written = written(pipeline);
    let wanted = facts::wanted(pipeline, &found.facts, &written);
    let adopted = validate::adopted(pipeline);
    let answered = facts::server(&found.facts);
    let consumers = answered.map(|(server, _)| facts::consumers(server));
    let checkpoint = answered.and_then(|(_, checkpoint)| checkpoint);
    let ledgers = Ledgers {
        me: owner,
        adopt: adopted.as_ref(),
        written: &written,
        running: facts::running(&found.facts),
        nats: consumers.as_deref().map(|consumers| NatsLedgers {
            consumers,
            checkpoint,
        }),
    };
    let standing = ledgers.reconcile();
    let problem = problem(&standing);
    let suspended = pipeline.spec.suspend;
    let open = written.unfinished();
    let mut answer = Answer::NotAsked;
    let mut checked = Checked::Unknown;
    match machine::asks(&written, suspended) {
        Asks::Nothing => {}
        Asks::Plan => {
            if let Some(record) = open {
                answer = ask_plan(&record.request, found, chosen, now).await;
            }
        }
        Asks::Check => {
            if let Some(record) = open {
                checked = ask_again(record, found).await;
            }
        }
    }
    let claimed = claimed(open, wanted.as_ref(), found, &owner.pipeline).await;
    let epochs: Option<Vec<_>> =
        answered.map(|(server, _)| server.consumers.keys().copied().collect());
    let view = answered.and_then(|(server, _)| {
        let epoch = written.record.as_ref()?.epoch?;
        let consumer = server.consumers.get(&epoch)?;
        Some(facts::view(
            consumer,
            server,
            &pipeline.spec.source.subjects,
        ))
    });
    let annotations = pipeline.metadata.annotations.as_ref();
    let decision = machine::decide(&Facts {
        now,
        limits: context.limits,
        key: &owner.pipeline,
        wanted: wanted.as_ref(),
        written: &written,
        highest: ledgers.highest(),
        standing,
        suspended,
        approved: annotations
            .and_then(|all| all.get(APPROVE))
            .map(String::as_str),
        plan: answer.as_planned(),
        check: checked.as_check(),
        claim: claim(&claimed, open, owner),
        workload: facts::workload(found, now),
        consumer: view,
        consumers: epochs.as_deref(),
        checkpoint,
    });
    Decided { decision, problem }
}

/// What a person must end before anything can be done.
fn problem(standing: &Standing) -> Option<Problem> {
    match standing {
        Standing::New | Standing::Stands { .. } | Standing::Underway { .. } | Standing::Unknown => {
            None
        }
        Standing::EpochAhead(message) => Some(Problem::new(Reason::EpochAhead, message)),
        Standing::OwnedByOther(message) => Some(Problem::new(Reason::OwnedByOther, message)),
    }
}

async fn ask_plan(
    request: &ReplayRequest,
    found: &Found,
    chosen: &Chosen,
    now: Timestamp,
) -> Answer {
    let unavailable = |why: &str| Answer::Unavailable(why.to_owned());
    let (Some(nats), Some((server, checkpoint))) = (&found.nats, facts::server(&found.facts))
    else {
        return unavailable("NATS does not answer");
    };
    let Some(source) = validate::source(server) else {
        return unavailable("the source stream cannot be read");
    };
    let Some(rules) = &chosen.rules else {
        return unavailable("there are no rules that could be used");
    };
    let spec = &found.pipeline.spec;
    let survey = Survey::new(nats.clone(), &spec.source.stream, &spec.source.subjects);
    let asked = Asked {
        now,
        source,
        checkpoint,
        correlation: &validate::correlation(spec),
        longest_chain: rules.longest_chain,
        session_windows: rules.has_session_windows,
        rate: facts::rate(&found.pipeline, checkpoint),
        known_alerts: facts::known_alerts(server.alerts),
    };
    plan::plan(request, &survey, &asked).await
}

async fn ask_again(record: &Record, found: &Found) -> Checked {
    let (Some(nats), Some((server, checkpoint))) = (&found.nats, facts::server(&found.facts))
    else {
        return Checked::Unknown;
    };
    let Some(source) = validate::source(server) else {
        return Checked::Unknown;
    };
    let spec = &found.pipeline.spec.source;
    let survey = Survey::new(nats.clone(), &spec.stream, &spec.subjects);
    plan::check(record, &survey, source, checkpoint).await
}

/// The audit record of an id, as far as the leader says.
enum Claimed {
    Unknown,
    Free,
    By(Owner, ReplayClaim),
}

async fn claimed(
    open: Option<&Record>,
    wanted: Option<&ReplayRequest>,
    found: &Found,
    key: &PipelineKey,
) -> Claimed {
    let request = open.map(|record| &record.request).or(wanted);
    let (Some(request), Some(nats)) = (request, &found.nats) else {
        return Claimed::Unknown;
    };
    let subject = key.audit_subject(AuditKind::Replay, request.id.as_str());
    match audit::read(nats, &subject).await {
        Ok(Some(AuditRecord {
            act: Act::Replay(claim),
            owner,
            ..
        })) => Claimed::By(owner, claim),
        // Only replays are recorded under this kind.
        Ok(Some(_)) => Claimed::Unknown,
        Ok(None) => Claimed::Free,
        Err(error) if is_without_stream(&error) => Claimed::Free,
        Err(_) => Claimed::Unknown,
    }
}

/// The stream comes with the first pipeline of the account.
fn is_without_stream(error: &AuditError) -> bool {
    let AuditError::Unavailable(unavailable) = error else {
        return false;
    };
    let refused = unavailable.source.downcast_ref::<ApiError>();
    refused.and_then(ApiError::code) == Some(Code::STREAM_NOT_FOUND)
}

fn claim<'a>(claimed: &'a Claimed, open: Option<&Record>, owner: &Owner) -> Claim<'a> {
    match claimed {
        Claimed::Unknown => Claim::Unknown,
        Claimed::Free => Claim::Free,
        Claimed::By(claimant, record) => {
            let ours = open.is_some_and(|open| {
                claimant == owner
                    && record.request_id == open.request.id
                    && record.fingerprint == open.request.fingerprint
                    && Some(record.epoch) == open.epoch
            });
            if ours {
                return Claim::Ours;
            }
            Claim::Used {
                epoch: record.epoch,
                fingerprint: &record.fingerprint,
            }
        }
    }
}
