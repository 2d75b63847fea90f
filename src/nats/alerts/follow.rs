//! Hearing of alerts as they are stored or moved: live, which costs the server nothing and misses what
//! came while nobody listened, or by a durable consumer of one's own, which misses nothing.

use lookback_protocol::names::PipelineKey;

use super::store::StoredAlert;
use crate::nats::connect::Nats;
use crate::nats::entries::ReadError;

/// What a follower hears.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// A new version of an alert.
    Alert(Box<StoredAlert>),
    /// The connection was cut: what came meanwhile was not heard. List what is newer than the last one.
    Interrupted,
}

/// Alerts as they are stored or moved, by the server's republishing.
#[derive(Debug)]
pub struct Live {
    _to_be: (),
}

impl Live {
    /// Listens to alerts that come into `state`, or into any.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn open(
        nats: &Nats,
        key: &PipelineKey,
        state: Option<&str>,
    ) -> Result<Self, ReadError> {
        todo!("store: {nats:?} {key} {state:?}")
    }

    /// The next one. `None` when the connection is closed for good. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Heard, ReadError>> {
        todo!("store")
    }
}

/// A durable subscription: a name of its own for each subscriber, so that two never share a cursor.
/// What is not acknowledged comes again after a time. Of an alert that moved meanwhile only the newest
/// version comes, with its history in it.
#[derive(Debug)]
pub struct Subscription {
    _to_be: (),
}

/// Where a new subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// With every alert there is.
    All,
    /// With the next one.
    New,
}

impl Subscription {
    /// Opens the subscription of `subscriber`, a name of `[A-Za-z0-9_-]`, or goes on with it.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn open(
        nats: &Nats,
        key: &PipelineKey,
        subscriber: &str,
        states: &[&str],
        begin: Begin,
    ) -> Result<Self, ReadError> {
        todo!("store: {nats:?} {key} {subscriber} {states:?} {begin:?}")
    }

    /// The next alert; wait for it. Cancel-safe.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn next(&mut self) -> Result<StoredAlert, ReadError> {
        todo!("store")
    }

    /// Says that `alert`, the last one [`Self::next`] gave, is dealt with, and waits until the server
    /// knows.
    ///
    /// # Errors
    /// [`ReadError`].
    pub async fn done(&mut self, alert: &StoredAlert) -> Result<(), ReadError> {
        todo!("store: {alert:?}")
    }
}
