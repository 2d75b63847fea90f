//! Events that cannot be applied.

use lookback_protocol::config::CommitConfig;

use super::{LAST, SOON, directed, expect, fail, idle, seconds, story};
use crate::case::{Case, Setup};

fn parked(case: &Case) -> Vec<(String, u64)> {
    case.world.look(|state| {
        let all = state.dead_letters.all();
        let mut parked: Vec<_> = all
            .map(|(_, it)| {
                let reason = it.body["reason"].as_str().unwrap_or_default().to_owned();
                (reason, it.body["sequence"].as_u64().unwrap_or_default())
            })
            .collect();
        parked.sort_by_key(|(_, sequence)| *sequence);
        parked
    })
}

#[test]
fn h15_empty_payloads_are_parked_and_the_pipeline_advances() {
    directed(Setup::default(), async |case| {
        case.start();
        case.publish("ev.win", "".into());
        case.publish("ev.win", " \n".into());
        let last = fail(case, LAST);
        case.reach(last, SOON).await?;
        let empty = |sequence| ("Empty".to_owned(), sequence);
        expect(parked(case) == [empty(1), empty(2)], "both are parked")?;
        case.finish().await
    });
}

#[test]
fn h16_a_dead_letter_is_stored_before_its_event_is_acked() {
    directed(Setup::default(), async |case| {
        case.world.lock().dead_letters.fill(200_000);
        case.start();
        case.publish("ev.win", "{".into());
        fail(case, LAST);
        seconds(20).await;
        expect(case.position() == 0, "full dead letters hold the position")?;
        case.kill(true).await;
        case.start();
        seconds(5).await;
        case.finish().await
    });
}

#[test]
fn h17_malformed_json_is_parked() {
    directed(Setup::default(), async |case| {
        case.start();
        case.publish("ev.win", "{\"kind\": \"fail\"".into());
        case.publish("ev.win", "Nov 21 16:00:00 host sshd: failed".into());
        let last = case.publish("ev.win", "[1]".into());
        case.reach(last, SOON).await?;
        let reasons: Vec<_> = parked(case).into_iter().map(|(reason, _)| reason).collect();
        expect(
            reasons == ["NotJson", "NotJson", "NotObject"],
            "each with its reason",
        )?;
        case.finish().await
    });
}

#[test]
fn h18_an_event_that_kills_the_worker_is_parked() {
    directed(alone(), async |case| {
        case.config.dead_letters.max_attempts = 3;
        idle(case);
        let deadly = fail(case, LAST);
        let last = idle(case);
        for _ in 0..12 {
            case.start();
            case.kill_at_first_alert_request(SOON).await;
            if case.position() >= last {
                break;
            }
        }
        let expected = [("CrashLoop".to_owned(), deadly)];
        expect(parked(case) == expected, "the deadly event and no other")
    });
}

#[test]
fn kills_at_changing_places_park_nobody() {
    directed(alone(), async |case| {
        case.config.dead_letters.max_attempts = 3;
        story(case);
        for calls in 0..20 {
            case.start();
            case.kill_at_call(calls, SOON).await;
        }
        case.start();
        case.finish().await
    });
}

#[test]
fn h19_bytes_that_are_no_utf8_reach_the_dead_letter_unchanged() {
    directed(Setup::default(), async |case| {
        case.start();
        case.publish("ev.win", b"{\"kind\": \"\xff\xfe\"}".as_slice().into());
        case.finish().await
    });
}

fn alone() -> Setup {
    Setup {
        commit: CommitConfig {
            interval_ms: 50,
            events: 3,
        },
        ..Setup::default()
    }
}
