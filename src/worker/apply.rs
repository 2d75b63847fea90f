//! Moving the state file as a request asks. The checkpoint says so first: that write is the point of no
//! return, because the operator takes a request back only by a write on the same revision, and one of
//! the two is refused. Only then the file is touched, in one transaction. A process that dies between
//! the two leaves the same decision to the next one.

use jiff::Timestamp;
use lookback_protocol::checkpoint::{
    self, Checkpoint, Counters, Phase, RequestOutcome, RequestProgress,
};
use lookback_protocol::config::WorkerConfig;
use lookback_protocol::position::Position;
use lookback_protocol::start::{Apply, FileFacts, FileState};
use tracing::info;

use crate::state::{Identity, StateFile};

use super::fence::Fence;
use super::metrics::Metrics;
use super::patience::{Patience, Shutdown, waits_for};
use super::ports::Checkpoints;
use super::run::Gates;
use super::start::report_gap;
use super::stop::{Ending, Stop};

/// What is about to be done.
pub(super) struct Applying<'a> {
    pub(super) config: &'a WorkerConfig,
    pub(super) apply: &'a Apply,
    /// The checkpoint that was found.
    pub(super) said: Option<&'a Checkpoint>,
    pub(super) time: Timestamp,
}

impl Applying<'_> {
    /// The checkpoint that announces it. It names the stream that the file is bound to next, and never
    /// a position beyond what the file holds before and after.
    pub(super) fn checkpoint(
        &self,
        file: &StateFile,
        incarnation: &str,
    ) -> Result<Checkpoint, Stop> {
        let Self {
            config,
            apply,
            said,
            time,
        } = self;
        let (held, counters) = match file.facts()? {
            FileFacts::State(held) => (Some(held), file.counters()?),
            _ => (None, Counters::default()),
        };
        let last = held.as_ref().and_then(|held| held.ledger.last());
        Ok(Checkpoint {
            v: checkpoint::VERSION,
            incarnation: incarnation.to_owned(),
            owner: config.owner.clone(),
            epoch: config.epoch,
            phase: Phase::Applying,
            stream: config.source.stream.clone(),
            position: self.position(held.as_deref()),
            published_through: apply.begin.published_through,
            engine_digest: config.rules.engine_digest.clone(),
            groups: said.map_or(0, |said| said.groups),
            request: Some(RequestProgress {
                id: apply.rewind.request_id.clone(),
                outcome: RequestOutcome::Applying,
            }),
            applied: last
                .cloned()
                .or_else(|| said.and_then(|said| said.applied.clone())),
            gaps: held.map(|held| held.gaps).unwrap_or_default(),
            counters,
            resumes: None,
            held: None,
            time: *time,
        })
    }

    fn position(&self, held: Option<&FileState>) -> Position {
        let next = self.apply.begin.position;
        match held {
            Some(held)
                if held.stream == self.config.source.stream
                    && held.position.sequence <= next.sequence =>
            {
                held.position
            }
            _ => next,
        }
    }
}

/// Writes `checkpoint`, waiting as long as NATS does not answer.
///
/// # Errors
/// [`Stop::Fenced`] when someone else wrote first: the request was taken back.
pub(super) async fn announce<C: Checkpoints>(
    fence: &mut Fence<C>,
    checkpoint: Checkpoint,
    gates: &Gates,
    shutdown: &mut Shutdown,
) -> Result<(), Ending> {
    let mut patience = Patience::new();
    loop {
        match fence.write(checkpoint.clone()).await {
            Ok(()) => return Ok(()),
            Err(Stop::Unavailable(error)) => {
                gates.consumer.close(&waits_for(&error));
                patience.wait(error, shutdown).await?;
            }
            Err(stop) => return Err(stop.into()),
        }
    }
}

/// Moves the file, once that is announced.
pub(super) fn move_file(
    file: &mut StateFile,
    identity: &Identity,
    apply: &Apply,
    metrics: &Metrics,
) -> Result<(), Stop> {
    file.apply(identity, apply)?;
    let Apply {
        rewind,
        windows,
        reason,
        begin,
    } = apply;
    info!(
        request = %rewind.request_id,
        epoch = %identity.epoch,
        position = %begin.position.sequence,
        ?windows,
        %reason,
        "Applied a request"
    );
    report_gap(begin, metrics);
    Ok(())
}
