//! An alert by its id alone, in whatever pipeline of the account.

use futures::{StreamExt, stream};
use lookback_protocol::names::PipelineKey;
use serde::Deserialize;
use serde_json::json;

use super::store::{StoredAlert, Version, entries};
use crate::nats::connect::Nats;
use crate::nats::entries::ReadError;

/// Every subject under which an alert can stand.
const ALERTS: &str = "lookback.v1.*.*.alert.*.*";
/// Streams asked at once.
const AT_ONCE: usize = 16;

/// The alert of this id in any pipeline of the account.
///
/// # Errors
/// [`ReadError::NotFound`] when the leaders of all streams of alerts say so. One that does not answer
/// is an error unless the alert was found in another: no two pipelines have an id in common.
pub async fn anywhere(nats: &Nats, id: &str) -> Result<(PipelineKey, StoredAlert), ReadError> {
    let keys = pipelines(nats).await?;
    let mut asked = stream::iter(keys)
        .map(|key| async move {
            let entries = entries(nats, &key);
            let message = entries.get(id).await?;
            let version = Version::read(&entries, message)?;
            Ok::<_, ReadError>((key, version.alert))
        })
        .buffer_unordered(AT_ONCE);
    let mut failure = None;
    while let Some(answer) = asked.next().await {
        match answer {
            Ok(found) => return Ok(found),
            Err(ReadError::NotFound { .. }) => {}
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| ReadError::NotFound {
        noun: "alert",
        id: id.to_owned(),
    }))
}

/// The pipelines that have a stream of alerts.
async fn pipelines(nats: &Nats) -> Result<Vec<PipelineKey>, ReadError> {
    let mut names = Vec::new();
    loop {
        let by = json!({ "subject": ALERTS, "offset": names.len() });
        let page: Names = nats
            .api("STREAM.NAMES", &by)
            .await
            .map_err(|source| ReadError::Api {
                operation: "list",
                object: "streams of alerts".to_owned(),
                source,
            })?;
        let got = page.streams.as_ref().map_or(0, Vec::len);
        names.extend(page.streams.unwrap_or_default());
        if got == 0 || names.len() >= page.total {
            return Ok(names.iter().filter_map(|name| pipeline(name)).collect());
        }
    }
}

/// Whose alerts a stream of this name holds. Neither a namespace nor a name has a `_`.
fn pipeline(stream: &str) -> Option<PipelineKey> {
    let both = stream.strip_prefix("LB_")?.strip_suffix("_ALERTS")?;
    let (namespace, name) = both.split_once('_')?;
    let key = PipelineKey::new(namespace, name).ok()?;
    (key.alerts_stream() == stream).then_some(key)
}

#[derive(Deserialize)]
struct Names {
    #[serde(default)]
    total: usize,
    /// `null` for none.
    streams: Option<Vec<String>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stream_of_alerts_names_its_pipeline() {
        let key = PipelineKey::new("prod", "edr").unwrap();
        assert_eq!(pipeline(&key.alerts_stream()), Some(key.clone()));
        for other in [
            key.dead_letters_stream().as_str(),
            "LB_prod_ALERTS",
            "LB_a_b_c_ALERTS",
            "EVENTS",
        ] {
            assert_eq!(pipeline(other), None, "{other}");
        }
    }
}
