//! Named schedules, for what chance may rarely hit. Those that begin with `h` and a number are holes
//! known from other detection daemons.

mod delivery;
mod identity;
mod poison;
mod workers;

use std::time::Duration;

use tokio::time::sleep;

use crate::case::{Case, Setup};
use crate::in_model_time;
use crate::scenario::logon;

/// Long enough for every delay of a worker that is not held.
const SOON: Duration = Duration::from_secs(30);

/// Runs `body` and prints everything that happened when it fails.
fn directed(setup: Setup, body: impl AsyncFnOnce(&mut Case) -> Result<(), String>) {
    in_model_time(async {
        let mut case = Case::new(setup);
        let breach = body(&mut case).await.err();
        let trace = case.world.look(|state| std::mem::take(&mut state.trace));
        assert_eq!(breach, None, "{}", trace.join("\n"));
    });
}

fn expect(holds: bool, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.to_owned()) }
}

/// Three failed logons of one user on three hosts, of which the third completes two windows.
const ALMOST: [(&str, &str); 2] = [("alice", "h1"), ("alice", "h2")];
const LAST: (&str, &str) = ("alice", "h3");

fn fail(case: &Case, (user, host): (&str, &str)) -> u64 {
    case.publish("ev.win", logon("fail", user, host))
}

fn idle(case: &Case) -> u64 {
    case.publish("ev.win", logon("idle", "dave", "h1"))
}

/// Events of every kind, a poisoned one included; gives the last sequence.
fn story(case: &Case) -> u64 {
    for event in ALMOST {
        fail(case, event);
    }
    case.publish("ev.win", logon("ok", "bob", "h1"));
    case.publish("ev.win", "{".into());
    fail(case, ("bob", "h1"));
    fail(case, LAST);
    idle(case);
    fail(case, ("alice", "h3"))
}

/// Alerts stored for the rule that ends in `number`.
fn alerts_of(case: &Case, number: &str) -> usize {
    case.world.look(|state| {
        let of_rule = |body: &serde_json::Value| {
            let id = body["rule"]["id"].as_str().unwrap_or_default();
            id.ends_with(number) && id.starts_with('2')
        };
        state
            .alerts
            .all()
            .filter(|(_, it)| of_rule(&it.body))
            .count()
    })
}

async fn seconds(count: u64) {
    sleep(Duration::from_secs(count)).await;
}
