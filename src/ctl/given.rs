//! Arguments as people give them.

use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::Duration;

/// `2026-11-21T16:00:00Z`, or a duration before now such as `90m` or `2d`.
///
/// # Errors
/// A sentence that shows both forms.
pub(super) fn when(text: &str) -> Result<Timestamp, String> {
    before(text, Timestamp::now())
}

/// A word of the resource's own, such as `OncePerWindow`.
///
/// # Errors
/// A sentence that lists the words there are.
pub(super) fn named<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_value(Value::String(text.to_owned())).map_err(|error| error.to_string())
}

fn before(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let ago = text.parse::<Duration>().ok().map(|duration| {
        let milliseconds = i64::try_from(duration.milliseconds()).unwrap_or(i64::MAX);
        now.checked_sub(SignedDuration::from_millis(milliseconds))
    });
    let moment = match ago {
        Some(ago) => ago.ok(),
        None => text.parse().ok(),
    };
    moment.ok_or_else(|| {
        "give a time such as 2026-11-21T16:00:00Z, or how long ago, such as 90m or 2d".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_and_how_long_ago_are_understood_and_nothing_else() {
        let now: Timestamp = "2026-11-21T16:00:00Z".parse().unwrap();
        let parsed = |text: &str| before(text, now).map(|time| time.to_string());
        assert_eq!(parsed("90m").unwrap(), "2026-11-21T14:30:00Z");
        assert_eq!(
            parsed("2026-11-20T00:00:00+01:00").unwrap(),
            "2026-11-19T23:00:00Z"
        );
        assert!(parsed("yesterday").unwrap_err().starts_with("give a time"));
    }
}
