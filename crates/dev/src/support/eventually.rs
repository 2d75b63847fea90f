//! Waiting without guessing how long it takes.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep};

const PAUSE: Duration = Duration::from_millis(20);

/// Asks `probe` until it succeeds; its last error is the cause of the failure after `deadline`. The
/// only place in the tests that sleeps.
///
/// # Errors
/// When `what` has not come true within `deadline`.
pub async fn eventually<T>(
    deadline: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let end = Instant::now() + deadline;
    loop {
        match probe().await {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= end => {
                return Err(error).with_context(|| format!("not within {deadline:?}: {what}"));
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}
