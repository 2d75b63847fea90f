//! The worker's loop over a model of JetStream and a real state file: random schedules of trouble
//! against an uninterrupted run, and named schedules for what chance may rarely hit.
//!
//! `MODEL_CASES` (default 256) says how many schedules; `MODEL_SEED` runs one again and prints what
//! happened in it.

mod case;
mod conformance;
mod directed;
mod invariants;
mod oracle;
mod replay;
mod scenario;
mod schedule;
mod sim;

use std::future::Future;

/// Runs on one thread with time that passes only when everybody waits.
fn in_model_time<T>(body: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, body)
}

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok()?;
    Some(
        value
            .parse()
            .expect("MODEL_CASES and MODEL_SEED are numbers"),
    )
}

/// The schedules to run.
fn seeds() -> std::ops::Range<u64> {
    match number("MODEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MODEL_CASES").unwrap_or(256),
    }
}

#[test]
fn random_schedules_end_as_the_uninterrupted_run() {
    for seed in seeds() {
        let (trace, breach) = in_model_time(schedule::run(seed));
        assert_eq!(
            breach,
            None,
            "{}\nto run this schedule again: MODEL_SEED={seed} cargo test --test model random_schedules",
            trace.join("\n")
        );
    }
}

#[test]
fn a_seed_is_a_whole_schedule() {
    let run = || in_model_time(schedule::run(7));
    assert_eq!(run(), run());
}
