//! Counting under a filter, which JetStream does only from a sequence on and for a consumer. So one is
//! made that nobody reads from, and reset to both ends of the range. What arrives between two resets
//! makes their difference wrong: each count of the whole is held between two of the rest.

use std::time::Duration;

use lookback_protocol::position::StreamSeq;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Survey, SurveyError};
use crate::nats::api::ApiError;

/// After this the server deletes a consumer that is not used.
pub const IDLE: Duration = Duration::from_secs(5);
/// How often a count is repeated while messages arrive.
const ROUNDS: usize = 16;

#[derive(Deserialize)]
struct Described {
    num_pending: u64,
}

impl Survey {
    /// How many messages under the filter there are from `from` through `through`, which must be one of
    /// them, or at least under the filter: from [`Survey::last_under_filter`], say. For a range that
    /// ends elsewhere take the difference of two that end there.
    ///
    /// Messages that arrive meanwhile do not count. Where they do so without a pause as long as three
    /// requests take, the answer may be too high by as many as came within that time.
    ///
    /// # Errors
    /// [`SurveyError`].
    pub async fn count(&self, from: StreamSeq, through: StreamSeq) -> Result<u64, SurveyError> {
        if from > through {
            return Ok(0);
        }
        let name = format!("lb_survey_{}", Uuid::now_v7().simple());
        self.create(&name)
            .await
            .map_err(self.failed("count the messages"))?;
        let counted = self.count_with(&name, from, through).await;
        let subject = format!("CONSUMER.DELETE.{}.{name}", self.stream);
        let deleted = self.nats.api::<Value>(&subject, &Value::Null);
        if let Err(error) = deleted.await {
            tracing::debug!(%error, name, "Consumer of a survey is left to its idle limit");
        }
        counted
    }

    async fn count_with(
        &self,
        name: &str,
        from: StreamSeq,
        through: StreamSeq,
    ) -> Result<u64, SurveyError> {
        let pending = async |from| {
            self.pending(name, from)
                .await
                .map_err(self.failed("count the messages"))
        };
        if pending(through).await? == 0 {
            return Err(SurveyError::Behind {
                stream: self.stream.clone(),
                through,
            });
        }
        let mut rest = pending(through.next()).await?;
        let (mut at_least, mut at_most) = (0, u64::MAX);
        for _ in 0..ROUNDS {
            let whole = pending(from).await?;
            at_most = at_most.min(whole.saturating_sub(rest));
            rest = pending(through.next()).await?;
            at_least = at_least.max(whole.saturating_sub(rest));
            if at_least >= at_most {
                break;
            }
        }
        Ok(at_most)
    }

    async fn create(&self, name: &str) -> Result<(), ApiError> {
        let config = json!({
            "name": name,
            "deliver_policy": "all",
            "ack_policy": "none",
            "replay_policy": "instant",
            "filter_subjects": self.filters,
            "mem_storage": true,
            "num_replicas": 1,
            "inactive_threshold": IDLE.as_nanos() as u64,
        });
        let request = json!({ "stream_name": self.stream, "config": config, "action": "create" });
        let subject = format!("CONSUMER.CREATE.{}.{name}", self.stream);
        self.nats
            .api::<Described>(&subject, &request)
            .await
            .map(drop)
    }

    /// Messages from `from` on.
    async fn pending(&self, name: &str, from: StreamSeq) -> Result<u64, ApiError> {
        let subject = format!("CONSUMER.RESET.{}.{name}", self.stream);
        let body = json!({ "seq": from.0.max(1) });
        let described: Described = self.nats.api(&subject, &body).await?;
        Ok(described.num_pending)
    }
}
