//! When an event happened.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use lookback_protocol::config::{CorrelationConfig, TimestampFallback};
use rsigma_eval::{Event as _, EventValue, JsonEvent};

use super::At;

/// Epoch numbers above this are milliseconds; as seconds they would be after the year 33,000.
const MILLISECONDS_ABOVE: f64 = 1e12;
/// No time is after this second, in the year 9999.
const LAST_SECOND: f64 = 253_402_300_799.0;

/// An event's time, and whether windows may use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventTime {
    /// The event says it.
    Claimed(Timestamp),
    /// The fallback gives it.
    Assumed(Timestamp),
    /// Unknown, so no window is touched; the published time is shown.
    Unknown(Timestamp),
}

/// A time that windows use.
#[derive(Clone, Copy, Debug)]
pub(super) struct WindowTime {
    pub(super) time: Timestamp,
    claimed: bool,
}

impl EventTime {
    /// The time to show to people.
    pub(super) fn shown(self) -> Timestamp {
        match self {
            Self::Claimed(time) | Self::Assumed(time) | Self::Unknown(time) => time,
        }
    }

    pub(super) fn for_windows(self) -> Option<WindowTime> {
        match self {
            Self::Claimed(time) => Some(WindowTime {
                time,
                claimed: true,
            }),
            Self::Assumed(time) => Some(WindowTime {
                time,
                claimed: false,
            }),
            Self::Unknown(_) => None,
        }
    }
}

/// The time of the event at `at`: the first timestamp field that holds one, else the fallback.
pub(super) fn of(event: &JsonEvent<'_>, at: At, settings: &CorrelationConfig) -> EventTime {
    let claimed = claimed(event, &settings.timestamp_fields);
    match (claimed, settings.timestamp_fallback) {
        (Some(time), _) => EventTime::Claimed(time),
        (None, TimestampFallback::Published) => EventTime::Assumed(at.published),
        (None, TimestampFallback::WallClock) => EventTime::Assumed(at.received),
        (None, TimestampFallback::Skip) => EventTime::Unknown(at.published),
    }
}

/// The time in the first of `fields` that holds one.
pub(super) fn claimed(event: &JsonEvent<'_>, fields: &[String]) -> Option<Timestamp> {
    fields
        .iter()
        .find_map(|field| parse(&event.get_field(field)?))
}

/// Whether the event claims to be too far after its published time.
pub(super) fn is_skewed(time: &WindowTime, at: At, settings: &CorrelationConfig) -> bool {
    let ahead = time.time.as_second() - at.published.as_second();
    time.claimed && ahead > settings.max_future_skew_seconds
}

/// RFC 3339; date and time without an offset, read as UTC; seconds or milliseconds since 1970 as a
/// number or its digits. A time before 1970 is none.
fn parse(value: &EventValue<'_>) -> Option<Timestamp> {
    let time = match value {
        EventValue::Int(number) => from_epoch(*number),
        EventValue::Float(number) => from_fractional_epoch(*number),
        EventValue::Str(text) => from_text(text.trim()),
        _ => None,
    }?;
    (time >= Timestamp::UNIX_EPOCH).then_some(time)
}

fn from_text(text: &str) -> Option<Timestamp> {
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    // Anything that begins like a date is one or is no time at all; the parser also takes dates
    // without a time of day, which are too coarse for windows.
    if text.as_bytes().get(4) == Some(&b'-') {
        if !matches!(text.as_bytes().get(10), Some(b'T' | b't' | b' ')) {
            return None;
        }
        return text.parse::<Timestamp>().ok().or_else(|| {
            let naive: DateTime = text.parse().ok()?;
            TimeZone::UTC.to_timestamp(naive).ok()
        });
    }
    match text.parse::<i64>() {
        Ok(number) => from_epoch(number),
        Err(_) => from_fractional_epoch(text.parse().ok()?),
    }
}

fn from_epoch(number: i64) -> Option<Timestamp> {
    if number as f64 > MILLISECONDS_ABOVE {
        Timestamp::from_millisecond(number).ok()
    } else {
        Timestamp::from_second(number).ok()
    }
}

/// To the microsecond: a float of this size is no more exact than that.
fn from_fractional_epoch(number: f64) -> Option<Timestamp> {
    let seconds = if number > MILLISECONDS_ABOVE {
        number / 1e3
    } else {
        number
    };
    if !(0.0..LAST_SECOND).contains(&seconds) {
        return None;
    }
    // Both casts are exact: whole numbers within the bounds just checked.
    let whole = seconds.trunc() as i64 * 1_000_000;
    let fraction = (seconds.fract() * 1e6).round() as i64;
    Timestamp::from_microsecond(whole + fraction).ok()
}

#[cfg(test)]
mod tests {
    use lookback_protocol::position::StreamSeq;
    use serde_json::json;

    use super::*;

    fn parsed(value: &serde_json::Value) -> Option<String> {
        parse(&EventValue::from(value)).map(|time| time.to_string())
    }

    #[test]
    fn every_accepted_form_is_read() {
        for (value, expected) in [
            (json!("2026-11-21T16:00:00Z"), "2026-11-21T16:00:00Z"),
            (
                json!("2026-11-21T16:00:00.123456789+02:00"),
                "2026-11-21T14:00:00.123456789Z",
            ),
            (json!("2026-11-21 16:00:00.123"), "2026-11-21T16:00:00.123Z"),
            (json!("2026-11-21T16:00:00"), "2026-11-21T16:00:00Z"),
            (json!(1_795_276_800), "2026-11-21T16:00:00Z"),
            (json!("1795276800"), "2026-11-21T16:00:00Z"),
            (json!(1_795_276_800.5), "2026-11-21T16:00:00.5Z"),
            (json!("1795276800.25"), "2026-11-21T16:00:00.25Z"),
            (json!(1_795_276_800_123_i64), "2026-11-21T16:00:00.123Z"),
            (json!("1795276800123"), "2026-11-21T16:00:00.123Z"),
        ] {
            assert_eq!(parsed(&value).as_deref(), Some(expected), "{value}");
        }
    }

    #[test]
    fn other_values_are_no_time() {
        for value in [
            json!(null),
            json!(true),
            json!([1_795_276_800]),
            json!(""),
            json!("yesterday"),
            json!("2026-11-21"),
            json!("2026-13-41 16:00:00"),
            json!("12:30:00"),
            json!("21/Nov/2026:16:00:00 +0000"),
            json!(-1),
            json!("1969-12-31T23:59:59Z"),
            json!(u64::MAX),
            json!(1e300),
        ] {
            assert_eq!(parsed(&value), None, "{value}");
        }
    }

    fn fallen_back(fallback: TimestampFallback) -> (EventTime, bool) {
        let mut settings = crate::fixture::options().correlation;
        settings.timestamp_fallback = fallback;
        let at = At {
            sequence: StreamSeq(1),
            published: Timestamp::from_second(1_000).unwrap(),
            received: Timestamp::from_second(9_000).unwrap(),
        };
        let time = of(&JsonEvent::owned(json!({})), at, &settings);
        let skewed = time
            .for_windows()
            .is_some_and(|time| is_skewed(&time, at, &settings));
        (time, skewed)
    }

    #[test]
    fn each_fallback_gives_its_own_time_and_none_is_skewed() {
        let published = Timestamp::from_second(1_000).unwrap();
        let received = Timestamp::from_second(9_000).unwrap();
        for (fallback, expected) in [
            (TimestampFallback::Published, EventTime::Assumed(published)),
            (TimestampFallback::WallClock, EventTime::Assumed(received)),
            (TimestampFallback::Skip, EventTime::Unknown(published)),
        ] {
            assert_eq!(fallen_back(fallback), (expected, false));
        }
    }
}
