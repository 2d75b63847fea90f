//! What a person approves: one short text over everything that decides what is done, and whether it
//! still holds when it is about to be done.

use data_encoding::HEXLOWER;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{Bounds, Rejection, StoredState, restore_start};
use crate::position::{StreamIdentity, StreamSeq};
use crate::replay::record::{Plan, Windows};
use crate::replay::request::{Approval, OnTruncated, ReplayRequest};
use crate::replay::restore::decide_windows;

/// `p-` and 12 hex digits of SHA-256 over a canonical form. What is only an estimate is no part of it;
/// the rest is, down to the counts, so that an approval that was left in Git fits no other plan.
pub(super) fn hash(request: &ReplayRequest, stream: &StreamIdentity, plan: &Plan) -> String {
    let Plan {
        hash: _,
        start,
        start_time: _,
        target,
        messages,
        bytes: _,
        eta_seconds: _,
        position,
        truncated,
        gap,
        double_counted,
        windows,
        reason,
        groups: _,
        read_back,
        known_alerts: _,
    } = plan;
    let read_back = read_back.as_ref().map(|back| (back.from, back.exact));
    let canonical = json!([
        "lookback.dev/plan/v1",
        [stream.name, stream.created.as_nanosecond().to_string()],
        [
            request.id,
            request.fingerprint,
            request.outputs,
            request.on_truncated
        ],
        [start, target, position, messages],
        [truncated, gap, double_counted],
        [windows, reason, read_back],
    ]);
    let digest = Sha256::digest(canonical.to_string().as_bytes());
    format!("p-{}", HEXLOWER.encode(&digest[..6]))
}

/// Checks a plan against the stream and the state as they are now, when no worker moves the state any
/// more and the next is not started yet. Windows that were to be kept are kept, or nothing is done: the
/// worker may have passed the start meanwhile. What a person approved is done as it was seen, or not at
/// all.
///
/// # Errors
/// [`Rejection::Truncated`] when the start has left the stream meanwhile and the request does not want
/// what is left, [`Rejection::Outdated`] when something else would be done than was written down.
pub fn check_again(
    request: &ReplayRequest,
    plan: &Plan,
    stream: &Bounds,
    state: Option<&StoredState>,
) -> Result<(), Rejection> {
    let outdated = |because: String| {
        Err(Rejection::Outdated {
            hash: plan.hash.clone(),
            because,
        })
    };
    if hash(request, &stream.identity, plan) != plan.hash {
        return outdated(format!(
            "it was made for other terms or for another stream than {} created {}",
            stream.identity.name, stream.identity.created
        ));
    }
    if plan.start < stream.first() && request.on_truncated == OnTruncated::Fail {
        return Err(Rejection::truncated(request.start, stream));
    }
    let approved = request.approval == Approval::Manual;
    let exact = plan.read_back.as_ref().filter(|back| back.exact);
    if let Some(lost) = exact.filter(|back| approved && back.from < stream.first()) {
        return outdated(format!(
            "message {}, from which windows were to be made again, has left the stream",
            lost.from
        ));
    }
    let position = state
        .filter(|state| state.stream == stream.identity)
        .map(|state| state.position.sequence);
    let start = restore_start(request, plan.start);
    let (windows, _) = decide_windows(request.state_policy, position, start);
    if windows != plan.windows && (approved || plan.windows == Windows::Kept) {
        return outdated(format!(
            "windows were to be {:?} from position {}, and from {} they would be {windows:?}",
            plan.windows,
            shown(plan.position),
            shown(position),
        ));
    }
    Ok(())
}

fn shown(position: Option<StreamSeq>) -> String {
    position.map_or_else(|| "none".to_owned(), |position| position.to_string())
}
