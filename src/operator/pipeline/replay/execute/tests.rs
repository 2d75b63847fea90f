use lookback_protocol::config::Cursor;
use lookback_protocol::position::Epoch;
use lookback_protocol::replay::machine::{Accepted, Progress, Workers, Written};
use lookback_protocol::replay::request::RequestId;

use super::*;

/// An outside that notes what it is asked for.
#[derive(Default)]
struct Noted {
    calls: Vec<&'static str>,
    conflict: bool,
    claimed: Option<Outcome>,
    leads: u8,
}

impl Ports for Noted {
    type Applied = ();
    type Error = &'static str;

    fn lead(&self) -> Result<(), &'static str> {
        if self.calls.len() < usize::from(self.leads) {
            Ok(())
        } else {
            Err("another leads")
        }
    }

    async fn record(&mut self, _: &Written) -> Result<Recorded, &'static str> {
        self.calls.push("record");
        Ok(if self.conflict {
            Recorded::Conflict
        } else {
            Recorded::Written
        })
    }

    async fn claim(&mut self, _: &Claim) -> Result<Outcome, &'static str> {
        self.calls.push("claim");
        Ok(self.claimed.unwrap_or(Outcome::Done))
    }

    async fn take_back(&mut self, _: &TakeBack) -> Result<Outcome, &'static str> {
        self.calls.push("take back");
        Ok(Outcome::Done)
    }

    async fn delete_consumer(&mut self, _: Epoch) -> Result<Outcome, &'static str> {
        self.calls.push("delete consumer");
        Ok(Outcome::Done)
    }

    async fn apply(&mut self, _: &Workers) -> Result<(), &'static str> {
        self.calls.push("apply");
        Ok(())
    }
}

fn decision(step: Step) -> Decision {
    Decision {
        step,
        accepted: Accepted::NoReplay,
        accepted_because: String::new(),
        progress: Progress::NoReplay,
        look_again: None,
    }
}

fn act() -> Decision {
    decision(Step::Act(Actions {
        effects: vec![
            Effect::Claim {
                id: RequestId::new("fix-1").unwrap(),
                fingerprint: "h-0123456789ab".to_owned(),
                epoch: Epoch(2),
                plan_hash: "p-0123456789ab".to_owned(),
            },
            Effect::DeleteConsumer(Epoch(1)),
        ],
        workers: Workers::Stop {
            epoch: Epoch(1),
            cursor: Cursor::default(),
            hold_template: false,
        },
    }))
}

fn outside() -> Noted {
    Noted {
        leads: u8::MAX,
        ..Noted::default()
    }
}

#[tokio::test]
async fn a_decision_that_writes_is_written_and_nothing_else_is_done() {
    let mut ports = outside();
    let write = decision(Step::Write(Box::default()));
    assert_eq!(execute(&write, &mut ports).await, Ok(Round::Recorded));
    assert_eq!(ports.calls, ["record"]);
}

#[tokio::test]
async fn a_write_that_somebody_else_overtook_makes_the_decision_void() {
    let mut ports = Noted {
        conflict: true,
        ..outside()
    };
    let write = decision(Step::Write(Box::default()));
    assert_eq!(execute(&write, &mut ports).await, Ok(Round::Overtaken));
    assert_eq!(ports.calls, ["record"]);
}

#[tokio::test]
async fn effects_come_in_their_order_and_before_the_workers() {
    let mut ports = outside();
    assert_eq!(execute(&act(), &mut ports).await, Ok(Round::Applied(())));
    assert_eq!(ports.calls, ["claim", "delete consumer", "apply"]);
}

#[tokio::test]
async fn after_an_effect_that_is_not_done_nothing_more_is() {
    for (outcome, round) in [
        (Outcome::Overtaken, Round::Overtaken),
        (Outcome::Unreachable, Round::Waiting),
    ] {
        let mut ports = Noted {
            claimed: Some(outcome),
            ..outside()
        };
        assert_eq!(execute(&act(), &mut ports).await, Ok(round));
        assert_eq!(ports.calls, ["claim"]);
    }
}

#[tokio::test]
async fn leadership_is_asked_for_before_each_effect() {
    for (leads, done) in [
        (0, vec![]),
        (1, vec!["claim"]),
        (2, vec!["claim", "delete consumer"]),
    ] {
        let mut ports = Noted {
            leads,
            ..Noted::default()
        };
        let ended = execute(&act(), &mut ports).await;
        assert_eq!(ended, Err("another leads"));
        assert_eq!(ports.calls, done);
    }
}
