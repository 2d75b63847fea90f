//! Durations as people write them in a spec: `^[0-9]+(ms|s|m|h|d)$`. Kubernetes' own format stops at
//! hours, and retention is a matter of days.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// What the API server accepts.
pub const PATTERN: &str = "^[0-9]+(ms|s|m|h|d)$";
/// Twelve characters hold at most 11 digits and `d`, which fits 64 bits of milliseconds.
const MAX_LENGTH: usize = 12;

/// A duration in whole milliseconds that remembers how it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Duration {
    text: String,
    milliseconds: u64,
}

/// Not of the form [`PATTERN`].
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "duration {0:?} is not a whole number followed by ms, s, m, h or d, in at most {MAX_LENGTH} characters"
)]
pub struct DurationError(String);

impl Duration {
    /// Its length in milliseconds.
    #[must_use]
    pub fn milliseconds(&self) -> u64 {
        self.milliseconds
    }

    /// Its length in whole seconds, rounded down.
    #[must_use]
    pub fn seconds(&self) -> i64 {
        i64::try_from(self.milliseconds / 1000).unwrap_or(i64::MAX)
    }
}

impl TryFrom<String> for Duration {
    type Error = DurationError;

    fn try_from(text: String) -> Result<Self, DurationError> {
        match milliseconds(&text) {
            Some(milliseconds) => Ok(Self { text, milliseconds }),
            None => Err(DurationError(text)),
        }
    }
}

impl From<Duration> for String {
    fn from(duration: Duration) -> Self {
        duration.text
    }
}

impl std::str::FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        Self::try_from(text.to_owned())
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": PATTERN, "maxLength": MAX_LENGTH})
    }
}

fn milliseconds(text: &str) -> Option<u64> {
    if text.len() > MAX_LENGTH {
        return None;
    }
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_has_its_length() {
        let lengths = ["250ms", "1s", "5m", "2h", "30d"]
            .map(|text| text.parse::<Duration>().unwrap().milliseconds());
        assert_eq!(lengths, [250, 1_000, 300_000, 7_200_000, 2_592_000_000]);
    }

    #[test]
    fn the_longest_duration_that_fits_the_schema_fits_64_bits() {
        assert!("99999999999d".parse::<Duration>().is_ok());
    }

    #[test]
    fn what_the_pattern_refuses_is_refused() {
        for text in [
            "",
            "5",
            "m",
            "1h30m",
            "-1s",
            "1.5s",
            "5 m",
            "5M",
            "999999999999d",
        ] {
            assert!(text.parse::<Duration>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn it_is_written_back_as_it_was_read() {
        let duration: Duration = serde_json::from_str("\"90s\"").unwrap();
        assert_eq!(serde_json::to_string(&duration).unwrap(), "\"90s\"");
    }
}
