//! Replays: the operator's decisions, executor and all, and the worker's loop over one model of the API
//! server, of a node and of JetStream. Requests come, go, come back and are corrected, objects are made
//! again, and everything dies anywhere; then every request must have been applied once or never.

mod api;
mod cluster;
mod end;
mod lineage;
mod operator;
mod ports;
mod schedule;

use crate::{in_model_time, seeds};

#[test]
fn random_replays_are_applied_once_or_never() {
    for seed in seeds() {
        let (trace, breach) = in_model_time(schedule::run(seed));
        assert_eq!(
            breach,
            None,
            "{}\nto run this schedule again: MODEL_SEED={seed} cargo test --test model random_replays",
            trace.join("\n")
        );
    }
}

#[test]
fn a_seed_is_a_whole_schedule_of_replays() {
    let run = || in_model_time(schedule::run(7));
    assert_eq!(run(), run());
}
