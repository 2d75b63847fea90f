//! Hearing of alerts as they are stored or moved: live, which costs the server nothing and misses what
//! came while nobody listened, or by a durable consumer of one's own, which misses nothing.

mod live;
mod subscription;

pub use self::live::Live;
pub use self::subscription::{ACK_WAIT, Begin, Subscription};
use super::store::StoredAlert;

/// What a listener hears.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// A new version of an alert.
    Alert(Box<StoredAlert>),
    /// The connection was cut: what came meanwhile was not heard. List what is newer than the last one.
    Interrupted,
}
