//! Alerts: one JSON record a subject, `alert.<state>.<id>`. See [`super::outbox`] for what a create
//! guarantees.

mod anywhere;
mod follow;
mod step;
mod store;

pub use anywhere::anywhere;
pub use follow::{ACK_WAIT, Begin, Heard, Live, Subscription};
pub use step::{StepError, Stepped};
pub use store::{AlertStore, StoredAlert};

use bytes::Bytes;
use lookback_protocol::alert::AlertRecord;
use lookback_protocol::names::PipelineKey;

use super::api::ApiError;
use super::connect::Nats;
use super::outbox::{Place, expecting};
use crate::worker::ports::{Lookup, StoreError, Stored};

/// Stores an alert unless its id is known in any state.
///
/// With [`Lookup::No`] only the compare-and-swap on the record's own subject guards it: an alert that
/// was moved and whose tombstone has expired would be created again. So where an alert may be known,
/// [`Lookup::First`] is the caller's duty.
pub(super) async fn create(
    nats: &Nats,
    key: &PipelineKey,
    record: &AlertRecord,
    lookup: Lookup,
) -> Result<Stored, StoreError> {
    let place = Place {
        nats,
        stream: key.alerts_stream(),
        anywhere: key.alert_subject("*", &record.id),
        object: format!("alert {}", record.id),
    };
    if lookup == Lookup::First && place.is_known().await? {
        return Ok(Stored::Known);
    }
    let written = match serde_json::to_vec(record) {
        Ok(body) => {
            let subject = key.alert_subject(&record.state, &record.id);
            nats.publish(subject, expecting(0), Bytes::from(body)).await
        }
        Err(error) => Err(ApiError::Unreadable(error.into())),
    };
    place.settle(written).await
}
