//! The version that stands in every wire format. A reader takes exactly the one it knows: fields that
//! an unknown version added or gave another meaning must not be passed over.

use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// Reads a version and refuses any but `KNOWN`.
pub(crate) fn exactly<'de, const KNOWN: u32, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<u32, D::Error> {
    match u32::deserialize(deserializer)? {
        version if version == KNOWN => Ok(version),
        version => Err(D::Error::custom(format_args!(
            "format version {version} is not the one known here, {KNOWN}; run the Lookback version that wrote it"
        ))),
    }
}
