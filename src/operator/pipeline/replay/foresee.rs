//! What a request would do, for people who ask before they put it into a spec: the operator's own
//! questions and the operator's own plan, with the rights of whoever asks. Nothing is written anywhere.

use jiff::Timestamp;
use lookback_engine::RuleSet;
use lookback_protocol::names::PipelineKey;
use lookback_protocol::replay::record::Plan;
use lookback_protocol::replay::request::ReplayRequest;

use super::facts;
use super::plan::{self, Answer, Asked};
use crate::api::DetectionPipeline;
use crate::nats::connect::Nats;
use crate::nats::survey::Survey;
use crate::operator::pipeline::dereference;
use crate::operator::pipeline::facts::Retention;
use crate::operator::pipeline::validate;

/// What would come of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Foreseen {
    /// This, as long as stream and position stay as they are.
    Plan(Box<Plan>),
    /// It cannot work as it is; why.
    Rejected(String),
    /// It cannot be said now; why.
    Unavailable(String),
}

/// Plans `request` over the stream as it is now. `rules` are those that the pipeline would run.
pub async fn foresee(
    request: &ReplayRequest,
    pipeline: &DetectionPipeline,
    rules: &RuleSet,
    nats: &Nats,
    key: &PipelineKey,
) -> Foreseen {
    let unavailable = |why: &str| Foreseen::Unavailable(why.to_owned());
    let found = match dereference::to_plan(nats, key, pipeline).await {
        Ok(found) => found,
        Err(why) => return unavailable(&why),
    };
    let checkpoint = found.checkpoint.as_ref();
    let source = found.source.as_ref();
    let Some(source) = source.filter(|it| it.retention == Retention::Limits) else {
        return unavailable("there is no source stream with limits retention");
    };
    let spec = &pipeline.spec;
    let survey = Survey::new(nats.clone(), &spec.source.stream, &spec.source.subjects);
    let asked = Asked {
        now: Timestamp::now(),
        source,
        checkpoint,
        correlation: &validate::correlation(spec),
        longest_chain: rules.longest_chain(),
        session_windows: rules.has_session_windows(),
        rate: facts::rate(pipeline, checkpoint),
        known_alerts: facts::known_alerts(found.alerts),
    };
    match plan::plan(request, &survey, &asked).await {
        Answer::Done(plan) => Foreseen::Plan(plan),
        Answer::Rejected(why) => Foreseen::Rejected(why),
        Answer::Unavailable(why) => Foreseen::Unavailable(why),
        Answer::NotAsked => unavailable("nobody asked"),
    }
}
