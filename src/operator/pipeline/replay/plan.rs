//! What a request would do, asked of the source stream's leader. The questions are the protocol's; here
//! they are only put. That NATS does not answer is no error: it is asked again.

use jiff::Timestamp;
use lookback_protocol::checkpoint::Checkpoint;
use lookback_protocol::config::CorrelationConfig;
use lookback_protocol::position::StreamIdentity;
use lookback_protocol::replay::machine::{Check, Planned};
use lookback_protocol::replay::plan::{
    self, Answers, Bounds, Facts, Find, Message, Range, Stop, StoredState,
};
use lookback_protocol::replay::record::{Plan, Record};
use lookback_protocol::replay::request::ReplayRequest;

use crate::nats::survey::{self, Survey, SurveyError};
use crate::operator::pipeline::facts::SourceFacts;
use crate::runtime::telemetry::chain;

/// What is known before the stream is asked.
pub(super) struct Asked<'a> {
    pub(super) now: Timestamp,
    pub(super) source: &'a SourceFacts,
    pub(super) checkpoint: Option<&'a Checkpoint>,
    pub(super) correlation: &'a CorrelationConfig,
    /// Of the rules, in seconds.
    pub(super) longest_chain: u64,
    pub(super) session_windows: bool,
    pub(super) rate: Option<u64>,
    pub(super) known_alerts: Option<u64>,
}

/// What came of planning.
pub(super) enum Answer {
    /// Nobody asked.
    NotAsked,
    /// It cannot be said now.
    Unavailable(String),
    /// The request cannot work as it is.
    Rejected(String),
    /// This.
    Done(Box<Plan>),
}

impl Answer {
    pub(super) fn as_planned(&self) -> Planned<'_> {
        match self {
            Self::NotAsked => Planned::NotAsked,
            Self::Unavailable(why) => Planned::Unavailable(why),
            Self::Rejected(why) => Planned::Rejected(why),
            Self::Done(plan) => Planned::Done(plan),
        }
    }
}

/// Plans `request`.
pub(super) async fn plan(request: &ReplayRequest, survey: &Survey, asked: &Asked<'_>) -> Answer {
    let stream = match bounds(survey, asked.source).await {
        Ok(stream) => stream,
        Err(error) => return Answer::Unavailable(chain(&error)),
    };
    let state = asked.checkpoint.map(stored);
    let facts = Facts {
        now: asked.now,
        stream: &stream,
        state: state.as_ref(),
        correlation: asked.correlation,
        longest_chain_seconds: asked.longest_chain,
        session_windows: asked.session_windows,
        rate: asked.rate,
        known_alerts: asked.known_alerts,
    };
    let mut answers = Answers::default();
    loop {
        let question = match plan::plan(request, &facts, &answers) {
            Ok(plan) => return Answer::Done(Box::new(plan)),
            Err(Stop::Rejected(rejection)) => return Answer::Rejected(rejection.to_string()),
            Err(Stop::Find(find)) => Question::Find(find),
            Err(Stop::Count(range)) => Question::Count(range),
        };
        if let Err(error) = answer(question, survey, &mut answers).await {
            return Answer::Unavailable(chain(&error));
        }
    }
}

enum Question {
    Find(Find),
    Count(Range),
}

async fn answer(
    question: Question,
    survey: &Survey,
    answers: &mut Answers,
) -> Result<(), SurveyError> {
    match question {
        Question::Find(question) => {
            let found = find(survey, question).await?;
            answers.found.insert(question, found);
        }
        Question::Count(range) => {
            let count = survey.count(range.from, range.through).await?;
            answers.counts.insert(range, count);
        }
    }
    Ok(())
}

/// Whether a plan still holds.
pub(super) enum Checked {
    /// Nobody asked, or it cannot be said now.
    Unknown,
    /// It does.
    Holds,
    /// It does not; why.
    Outdated(String),
}

impl Checked {
    pub(super) fn as_check(&self) -> Check<'_> {
        match self {
            Self::Unknown => Check::Unknown,
            Self::Holds => Check::Holds,
            Self::Outdated(why) => Check::Outdated(why),
        }
    }
}

/// Whether what was planned is still what would be done.
pub(super) async fn check(
    record: &Record,
    survey: &Survey,
    source: &SourceFacts,
    checkpoint: Option<&Checkpoint>,
) -> Checked {
    let (Some(plan), Ok(stream)) = (&record.plan, bounds(survey, source).await) else {
        return Checked::Unknown;
    };
    let state = checkpoint.map(stored);
    match plan::check_again(&record.request, plan, &stream, state.as_ref()) {
        Ok(()) => Checked::Holds,
        Err(rejection) => Checked::Outdated(rejection.to_string()),
    }
}

async fn find(survey: &Survey, question: Find) -> Result<Option<Message>, SurveyError> {
    let found = match question {
        Find::At(sequence) => survey.message_at(sequence).await?,
        Find::Since(time) => survey.at_or_after(time).await?,
        Find::FirstUnderFilter(from) => survey.next_under_filter(from).await?,
        Find::LastUnderFilter => survey.last_under_filter().await?,
    };
    Ok(found.map(
        |survey::Message {
             sequence,
             published,
         }| Message {
            sequence,
            published,
        },
    ))
}

/// An empty stream has its bounds from what was read of it before.
async fn bounds(survey: &Survey, source: &SourceFacts) -> Result<Bounds, SurveyError> {
    let identity: StreamIdentity = source.identity.clone();
    Ok(match survey.extent().await? {
        Some(extent) => Bounds {
            identity,
            first: extent.first.sequence,
            last: extent.last.sequence.max(source.last),
            first_time: Some(extent.first.published),
            last_time: Some(extent.last.published),
            messages: extent.messages,
            bytes: extent.bytes,
        },
        None => Bounds {
            identity,
            first: source.last.next(),
            last: source.last,
            first_time: None,
            last_time: source.last_time,
            messages: 0,
            bytes: 0,
        },
    })
}

fn stored(checkpoint: &Checkpoint) -> StoredState {
    StoredState {
        stream: checkpoint.stream.clone(),
        position: checkpoint.position,
        groups: checkpoint.groups,
        late: checkpoint.counters.late,
    }
}
