//! Waiting: for the end of the process, and for NATS to answer again.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::FutureExt;
use tokio::time::Instant;
use tracing::warn;

use crate::runtime::telemetry::chain;

use super::ports::Unavailable;
use super::stop::{Ending, Stop};

/// How long NATS may stay silent before the worker ends and leaves the waiting to the kubelet.
pub(super) const SILENCE: Duration = Duration::from_secs(60);
const FIRST_DELAY: Duration = Duration::from_millis(50);
pub(super) const LAST_DELAY: Duration = Duration::from_secs(5);

/// The signal that ends the process; remembered once it came.
pub(super) struct Shutdown {
    signal: Pin<Box<dyn Future<Output = ()> + Send>>,
    came: bool,
}

impl Shutdown {
    pub(super) fn new(signal: impl Future<Output = ()> + Send + 'static) -> Self {
        Self {
            signal: Box::pin(signal),
            came: false,
        }
    }

    /// Completes when the signal came. Cancel-safe.
    pub(super) async fn requested(&mut self) {
        if !self.came {
            self.signal.as_mut().await;
            self.came = true;
        }
    }

    pub(super) fn is_requested(&mut self) -> bool {
        self.requested().now_or_never().is_some()
    }

    /// Sleeps, unless the process is to end.
    pub(super) async fn sleep(&mut self, duration: Duration) -> Result<(), Ending> {
        tokio::select! {
            biased;
            () = self.requested() => Err(Ending::Drain),
            () = tokio::time::sleep(duration) => Ok(()),
        }
    }
}

/// Growing delays between attempts, bounded by [`SILENCE`] without any answer.
pub(super) struct Patience {
    silent_since: Option<Instant>,
    delays: ExponentialBackoff,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self {
            silent_since: None,
            delays: delays(),
        }
    }

    /// There was an answer.
    pub(super) fn renew(&mut self) {
        *self = Self::new();
    }

    /// Waits before the next attempt.
    ///
    /// # Errors
    /// [`Stop::Unavailable`] when patience is at its end, [`Ending::Drain`] when the process is.
    pub(super) async fn wait(
        &mut self,
        error: Unavailable,
        shutdown: &mut Shutdown,
    ) -> Result<(), Ending> {
        let since = *self.silent_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= SILENCE {
            return Err(Stop::Unavailable(error).into());
        }
        warn!(error = chain(&error), "No usable answer, trying again");
        shutdown
            .sleep(self.delays.next().unwrap_or(LAST_DELAY))
            .await
    }
}

/// What readiness waits for after `error`.
pub(super) fn waits_for(error: &Unavailable) -> String {
    format!("NATS to answer: {}", chain(error))
}

/// Endless: doubling from [`FIRST_DELAY`] to [`LAST_DELAY`].
pub(super) fn delays() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(FIRST_DELAY)
        .with_max_delay(LAST_DELAY)
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silence() -> Unavailable {
        Unavailable {
            operation: "STREAM.INFO",
            object: "EVENTS".to_owned(),
            source: "timed out".into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn patience_ends_after_a_minute_of_silence() {
        let mut shutdown = Shutdown::new(std::future::pending());
        let mut patience = Patience::new();
        let began = Instant::now();
        let ending = loop {
            if let Err(ending) = patience.wait(silence(), &mut shutdown).await {
                break ending;
            }
        };
        assert!(matches!(ending, Ending::Stop(stop) if matches!(*stop, Stop::Unavailable(_))));
        assert!(began.elapsed() >= SILENCE && began.elapsed() < SILENCE + LAST_DELAY);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_renews_patience() {
        let mut shutdown = Shutdown::new(std::future::pending());
        let mut patience = Patience::new();
        patience.wait(silence(), &mut shutdown).await.unwrap();
        tokio::time::advance(SILENCE).await;
        patience.renew();
        assert!(patience.wait(silence(), &mut shutdown).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_process_cuts_a_wait_short() {
        let mut shutdown = Shutdown::new(std::future::ready(()));
        let ending = Patience::new().wait(silence(), &mut shutdown).await;
        assert!(matches!(ending, Err(Ending::Drain)));
        assert!(shutdown.is_requested());
    }
}
