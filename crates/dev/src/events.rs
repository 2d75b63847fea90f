//! Realistic Windows events, the same for the same seed: the daily noise of a company, with intruders
//! in it who set off every rule of `deploy/examples/rules`.
//!
//! Event time runs from a fixed start, a step an event, so that windows fill and close as they would in
//! production, however fast the events are published.

mod intruders;
mod noise;
mod random;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value};

use random::Random;

/// What to generate.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many events.
    pub count: u64,
    /// Equal seeds give equal events.
    pub seed: u64,
    /// The event time of the first.
    pub start: Timestamp,
    /// Event time between two events.
    pub step: SignedDuration,
    /// How many of 10,000 events are no JSON.
    pub poison: u32,
}

/// One event, ready to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    /// `events.windows.<computer>`.
    pub subject: String,
    /// A JSON object, or poison.
    pub payload: Vec<u8>,
}

/// An endless company, cut off at [`Plan::count`].
pub fn generate(plan: &Plan) -> impl Iterator<Item = Generated> + use<> {
    let Plan {
        count,
        seed,
        start,
        step,
        poison,
    } = plan.clone();
    let mut random = Random::new(seed);
    let mut campaign = intruders::Campaign::default();
    (0..count).map(move |index| {
        let offset = step * i32::try_from(index).unwrap_or(i32::MAX);
        let scene = Scene {
            time: start + offset,
            index,
        };
        if random.below(10_000) < u64::from(poison) {
            return poisoned(&mut random, index);
        }
        let fields = campaign
            .next(&mut random, &scene)
            .unwrap_or_else(|| noise::event(&mut random, &scene));
        finish(fields, &mut random, &scene)
    })
}

/// When and as which an event happens.
struct Scene {
    time: Timestamp,
    index: u64,
}

type Fields = Map<String, Value>;

fn finish(mut fields: Fields, random: &mut Random, scene: &Scene) -> Generated {
    let time = match random.below(2_000) {
        0 => scene.time - SignedDuration::from_mins(30),
        1 => scene.time + SignedDuration::from_hours(24 * 365 * 60),
        _ => scene.time,
    };
    let utc = time.strftime("%Y-%m-%d %H:%M:%S%.3f").to_string();
    fields.insert("UtcTime".to_owned(), Value::from(utc));
    fields.insert(
        "EventRecordID".to_owned(),
        Value::from(1_000_000 + scene.index),
    );
    let computer = fields
        .get("Computer")
        .and_then(Value::as_str)
        .unwrap_or("unknown");
    let host = computer.split('.').next().unwrap_or("unknown");
    let subject = format!("events.windows.{host}");
    Generated {
        subject,
        payload: Value::Object(fields).to_string().into_bytes(),
    }
}

fn poisoned(random: &mut Random, index: u64) -> Generated {
    let payload = match random.below(5) {
        0 => Vec::new(),
        1 => format!("<Event><EventRecordID>{index}</EventRecordID></Event>").into_bytes(),
        2 => format!("[{index}]").into_bytes(),
        3 => format!("{{\"EventID\": 1, \"EventRecordID\": {index}").into_bytes(),
        _ => vec![b'{', b'"', 0xff, 0xfe, b'"', b'}'],
    };
    Generated {
        subject: "events.windows.broken".to_owned(),
        payload,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(count: u64) -> Plan {
        Plan {
            count,
            seed: 7,
            start: "2026-01-05T08:00:00Z".parse().unwrap(),
            step: SignedDuration::from_millis(100),
            poison: 20,
        }
    }

    #[test]
    fn equal_seeds_give_equal_events() {
        let first: Vec<_> = generate(&plan(500)).collect();
        assert_eq!(first, generate(&plan(500)).collect::<Vec<_>>());
    }

    #[test]
    fn another_seed_gives_other_events() {
        let other = Plan {
            seed: 8,
            ..plan(500)
        };
        assert_ne!(
            generate(&plan(500)).collect::<Vec<_>>(),
            generate(&other).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_shorter_plan_is_a_prefix_of_a_longer_one() {
        let long: Vec<_> = generate(&plan(500)).collect();
        assert_eq!(generate(&plan(200)).collect::<Vec<_>>(), long[..200]);
    }

    #[test]
    fn some_events_are_poison() {
        let is_object = |event: &Generated| {
            serde_json::from_slice::<Value>(&event.payload).is_ok_and(|value| value.is_object())
        };
        let poison = generate(&plan(5_000))
            .filter(|event| !is_object(event))
            .count();
        assert!((1..100).contains(&poison), "{poison} of 5,000");
    }
}
