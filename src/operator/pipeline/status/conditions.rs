//! Findings -> conditions. `Ready`, `Reconciling` and `Stalled` are what kstatus reads: at most one of
//! the latter two holds, so that a tool that waits either goes on waiting or fails.

use jiff::{Timestamp, Unit};

use super::Observation;
use crate::api::conditions::{ConditionType, Effect, Reason};
use crate::api::status::{Condition, ConditionStatus, MAX_MESSAGE, Time};
use crate::operator::pipeline::problem::Problem;

/// What is said on one condition.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) condition: ConditionType,
    pub(super) reason: Reason,
    pub(super) message: String,
}

impl Finding {
    /// The gravest of `problems` on `condition` gives the reason, and those of its gravity the message.
    pub(super) fn new(
        condition: ConditionType,
        problems: &[Problem],
        fine: impl FnOnce() -> Problem,
    ) -> Self {
        let here = || {
            problems
                .iter()
                .filter(|it| it.reason.row().condition == condition)
        };
        // Of equals the first counts: steps report causes before consequences.
        let gravest = here()
            .rev()
            .max_by_key(|problem| problem.reason.row().effect);
        let Some(gravest) = gravest else {
            let Problem { reason, message } = fine();
            return Self {
                condition,
                reason,
                message,
            };
        };
        let mut messages: Vec<&str> = Vec::new();
        for problem in here().filter(|it| it.reason.row().effect == gravest.reason.row().effect) {
            if !messages.contains(&problem.message.as_str()) {
                messages.push(&problem.message);
            }
        }
        Self {
            condition,
            reason: gravest.reason,
            message: messages.join("; "),
        }
    }

    fn effect(&self) -> Effect {
        self.reason.row().effect
    }
}

/// What keeps the pipeline from being ready, if anything: what someone must end before what ends by
/// itself. Rules that cannot be used do not, as long as a worker runs others, nor does a replay that
/// is not done, as long as one runs without it.
pub(super) fn blocker(findings: &[Finding]) -> Option<&Finding> {
    let state_open = findings.iter().any(|it| it.reason == Reason::StateOpen);
    let blocks = |finding: &&Finding| {
        let aside = matches!(
            finding.condition,
            ConditionType::RulesLoaded | ConditionType::ReplayAccepted
        );
        let blocks = finding.effect() >= Effect::Waiting || finding.reason == Reason::Suspended;
        blocks && !(aside && state_open)
    };
    findings
        .iter()
        .filter(blocks)
        .rev()
        .max_by_key(|it| it.effect())
}

/// All conditions, those whose status is as before with the time they had.
pub(super) fn write(
    observation: &Observation<'_>,
    previous: &[Condition],
    findings: &[Finding],
) -> Vec<Condition> {
    let summed = sum(observation, findings);
    let others = findings
        .iter()
        .filter(|it| it.condition > ConditionType::Stalled);
    let others = others.map(|it| {
        (
            it.condition,
            it.reason.row().status,
            it.reason,
            it.message.clone(),
        )
    });
    summed
        .into_iter()
        .chain(others)
        .map(|(condition, status, reason, message)| {
            let name = condition.to_string();
            let before = previous
                .iter()
                .find(|it| it.r#type == name && it.status == status);
            Condition {
                status,
                observed_generation: observation.pipeline.metadata.generation,
                last_transition_time: before.map_or_else(
                    || Time(to_seconds(observation.now)),
                    |it| it.last_transition_time,
                ),
                reason: reason.to_string(),
                message: cut(&message, MAX_MESSAGE),
                r#type: name,
            }
        })
        .collect()
}

/// At most `characters` of `text`.
pub(super) fn cut(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        None => text.to_owned(),
        Some(_) => {
            let kept: String = text.chars().take(characters - 1).collect();
            format!("{kept}…")
        }
    }
}

type Row = (ConditionType, ConditionStatus, Reason, String);

fn sum(observation: &Observation<'_>, findings: &[Finding]) -> [Row; 3] {
    use ConditionStatus::{False, True};

    let fine = |reason: Reason| (reason, reason.row().meaning.to_owned());
    let deleting = observation.is_deleting().then(|| fine(Reason::Deleting));
    let of = |finding: &Finding| (finding.reason, finding.message.clone());
    let blocker = deleting.clone().or_else(|| blocker(findings).map(of));
    let stalled = findings
        .iter()
        .filter(|it| it.effect() == Effect::Stalled && !observation.is_deleting())
        .min_by_key(|it| it.condition)
        .map(|it| {
            (
                it.reason,
                format!("{}. To end it: {}", it.message, it.reason.row().ended_by),
            )
        });
    let waiting = findings
        .iter()
        .find(|it| it.effect() == Effect::Waiting)
        .map(of);
    let waiting = deleting.or(waiting).filter(|_| stalled.is_none());
    let row = |condition, status, (reason, message)| (condition, status, reason, message);
    [
        match blocker {
            Some(blocker) => row(ConditionType::Ready, False, blocker),
            None => row(ConditionType::Ready, True, fine(Reason::Running)),
        },
        match waiting {
            Some(waiting) => row(ConditionType::Reconciling, True, waiting),
            None => row(ConditionType::Reconciling, False, fine(Reason::Settled)),
        },
        match stalled {
            Some(stalled) => row(ConditionType::Stalled, True, stalled),
            None => row(ConditionType::Stalled, False, fine(Reason::NotStalled)),
        },
    ]
}

fn to_seconds(time: Timestamp) -> Timestamp {
    time.round(Unit::Second).unwrap_or(time)
}
