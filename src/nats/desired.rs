//! What a stream or a consumer must look like, and whether it does. Pure: the operator's builders make
//! these, the adapters read and write them.
//!
//! A configuration is compared as JSON, field by field, and only the fields set here: servers add
//! defaults and `_nats.*` metadata, and a field that a newer server knows is left alone. A server too
//! old for a field drops it in silence, so what a create or an update *echoes* is compared too.

mod consumer;
mod drift;
mod stream;
mod subscription;
#[cfg(test)]
mod tests;

use std::time::Duration;

use lookback_protocol::consumer::OWNER_KEY;
use serde_json::{Map, Value};

pub use self::consumer::{ACK_WAIT, DesiredConsumer};
pub use self::drift::{Drift, merged};
pub use self::stream::{DesiredStream, Republish};
pub use self::subscription::DesiredSubscription;

/// The owner of what one NATS account holds once, for every pipeline in it.
const SHARED_OWNER: &str = "lookback";

/// A configuration in JetStream's JSON. In a desired one, `null` means "must not be set", and a flag
/// that is not needed is absent: several can only ever be switched on.
pub type Config = Map<String, Value>;

/// The owner that stands on an object, if any.
#[must_use]
pub fn owner_of(config: &Config) -> Option<&str> {
    config.get("metadata")?.get(OWNER_KEY)?.as_str()
}

/// How JetStream counts time.
pub(super) fn nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

fn object(value: Value) -> Config {
    match value {
        Value::Object(fields) => fields,
        _ => Config::new(),
    }
}
