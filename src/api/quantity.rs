//! Amounts of bytes as Kubernetes writes them: `10Gi`, `1.5Ti`, `500M`, or a plain number.

use std::borrow::Cow;
use std::fmt;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// What the API server accepts.
pub const PATTERN: &str = r"^[0-9]+(\.[0-9]{1,3})?(k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?$";
const MAX_LENGTH: usize = 20;

/// An amount of whole bytes that remembers how it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Quantity", into = "String")]
pub struct Bytes {
    text: String,
    bytes: u64,
}

/// Not of the form [`PATTERN`], or more than JetStream and Kubernetes can count.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no amount of bytes like 10Gi, 500M or 1073741824")]
pub struct BytesError(String);

impl Bytes {
    /// The amount.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// As Kubernetes' own type, written as it was read.
    #[must_use]
    pub fn to_quantity(&self) -> Quantity {
        Quantity(self.text.clone())
    }
}

impl TryFrom<Quantity> for Bytes {
    type Error = BytesError;

    fn try_from(quantity: Quantity) -> Result<Self, BytesError> {
        match bytes(&quantity.0) {
            Some(bytes) => Ok(Self {
                text: quantity.0,
                bytes,
            }),
            None => Err(BytesError(quantity.0)),
        }
    }
}

impl From<Bytes> for String {
    fn from(bytes: Bytes) -> Self {
        bytes.text
    }
}

impl std::str::FromStr for Bytes {
    type Err = BytesError;

    fn from_str(text: &str) -> Result<Self, BytesError> {
        Self::try_from(Quantity(text.to_owned()))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl JsonSchema for Bytes {
    fn schema_name() -> Cow<'static, str> {
        "Bytes".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "pattern": PATTERN,
            "maxLength": MAX_LENGTH,
        })
    }
}

fn bytes(text: &str) -> Option<u64> {
    if text.len() > MAX_LENGTH {
        return None;
    }
    let unit_at = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let factor: u128 = match unit {
        "" => 1,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "E" => 1_000_000_000_000_000_000,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        "Ei" => 1 << 60,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    if !(1..=3).contains(&fraction.len()) {
        return None;
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let thousandths = whole.parse::<u128>().ok()? * scale + fraction.parse::<u128>().ok()?;
    // Rounded up, as Kubernetes does, and within the signed 64 bits of JetStream.
    let amount = (thousandths * factor).div_ceil(scale);
    i64::try_from(amount).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_and_decimal_suffixes_are_kubernetes_own() {
        let amounts = ["1Ki", "1k", "10Gi", "1.5Gi", "0.0005k", "42"]
            .map(|text| text.parse::<Bytes>().map(|amount| amount.bytes()).ok());
        assert_eq!(
            amounts,
            [
                Some(1_024),
                Some(1_000),
                Some(10_737_418_240),
                Some(1_610_612_736),
                None,
                Some(42)
            ]
        );
    }

    #[test]
    fn a_plain_number_is_an_amount_too() {
        let amount: Bytes = serde_json::from_str("1048576").unwrap();
        assert_eq!(amount.bytes(), 1_048_576);
    }

    #[test]
    fn more_than_63_bits_are_refused() {
        assert!("8Ei".parse::<Bytes>().is_err());
        assert!("7Ei".parse::<Bytes>().is_ok());
    }

    #[test]
    fn what_the_pattern_refuses_is_refused() {
        for text in [
            "", "Gi", "1.", ".5Gi", "-1", "1GiB", "1e3", "1.0001Gi", "1 Gi",
        ] {
            assert!(text.parse::<Bytes>().is_err(), "{text:?} was accepted");
        }
    }
}
