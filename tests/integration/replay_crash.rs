//! Whoever dies in the midst of a request, it is carried out once and goes on where it was.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use lookback_dev::support::TcpProxy;
use lookback_protocol::checkpoint;
use lookback_protocol::position::StreamSeq;
use lookback_protocol::replay::record::ReplayPhase;
use serde_json::{Value, json};

use crate::api_gate::{Stop, gated, is_set_write, is_status_write, is_write};
use crate::operator_fixture::SOON;
use crate::replay_fixture::{
    ALARM, Dice, STEP, applied, ask, begun, carried_out, completed, ended, frozen, pod_uid,
    stopped_at, story_applied, with_replay,
};

fn again() -> Value {
    json!({"id": "again", "fromSequence": 1, "statePolicy": "Clear"})
}

#[tokio::test]
async fn r01_a_worker_that_dies_again_and_again_resumes_at_its_own_position() -> Result<()> {
    let mut stand = story_applied(600).await?;
    ask(&stand, json!({"id": "again", "fromSequence": 100})).await?;
    begun(&stand, "again", ReplayPhase::RollingOut).await?;
    for _ in 0..4 {
        stand.kubelet.kill().await?;
    }
    completed(&stand, "again").await?;
    stand.publish_story(200).await?;
    stand.kubelet.kill().await?;
    carried_out(&stand, 2, &[("again", 2)]).await?;
    Ok(())
}

#[tokio::test]
async fn r01_a_worker_killed_at_each_message_of_its_beginning_moves_the_file_once() -> Result<()> {
    let stand = applied(&[ALARM, STEP, STEP, STEP]).await?;
    let proxy = stopped_at(&stand, "\"phase\":\"applying\"").await?;
    ask(&stand, again()).await?;
    frozen(&proxy).await?;
    let next = stopped_at(&stand, "\"outcome\":\"applied\"").await?;
    stand.kubelet.kill().await?;
    proxy.cut();
    frozen(&next).await?;
    // The state file is moved, and the checkpoint does not say so yet.
    assert_eq!(stand.checkpoint().await?.phase, checkpoint::Phase::Applying);
    let last = stopped_at(&stand, "$JS.API.CONSUMER.RESET").await?;
    stand.kubelet.kill().await?;
    next.cut();
    frozen(&last).await?;
    stand.kubelet.route(None).await;
    stand.kubelet.kill().await?;
    last.cut();
    completed(&stand, "again").await?;
    stand.publish(ALARM).await?;
    carried_out(&stand, 2, &[("again", 2)]).await?;
    Ok(())
}

#[tokio::test]
async fn r02_an_operator_killed_after_each_phase_goes_on_from_the_recorded_step() -> Result<()> {
    let mut stand = applied(&[ALARM, STEP, STEP, STEP]).await?;
    ask(&stand, again()).await?;
    for phase in [
        ReplayPhase::Requested,
        ReplayPhase::Planned,
        ReplayPhase::Fencing,
        ReplayPhase::CursorCreated,
        ReplayPhase::RollingOut,
        ReplayPhase::StateApplied,
        ReplayPhase::CatchingUp,
        ReplayPhase::Completed,
    ] {
        begun(&stand, "again", phase).await?;
        stand.kill_operator().await?;
        stand.start_operator().await?;
    }
    carried_out(&stand, 2, &[("again", 2)]).await?;
    assert_eq!(stand.claims().await?.len(), 1);
    Ok(())
}

/// The operator dies again and again, each time at one of its next writes to the API server: before
/// it is sent, or when it is carried out and not answered.
async fn operator_dies_at_writes(seed: u64) -> Result<()> {
    let mut dice = Dice::new(seed);
    let mut stand = applied(&[ALARM, STEP, STEP, STEP]).await?;
    ask(&stand, again()).await?;
    let mut lives = Vec::new();
    while lives.len() < 100 {
        stand.kill_operator().await?;
        let (client, gate) = gated(stand.client.clone(), &stand.namespace);
        let stop = [Stop::Before, Stop::After][usize::from(dice.below(2) == 1)];
        // A reconcile that applies everything makes about ten.
        let mut writes = dice.below(16);
        lives.push((stop, writes));
        gate.close_at(stop, move |parts, _| {
            let is_last = is_write(parts) && writes == 0;
            writes = writes.saturating_sub(u64::from(is_write(parts)));
            is_last
        });
        stand.start_operator_as(client).await?;
        tokio::select! {
            closed = gate.is_closed() => closed?,
            done = completed(&stand, "again") => {
                done?;
                let done = carried_out(&stand, 2, &[("again", 2)]).await;
                done.with_context(|| format!("seed {seed}, lives {lives:?}"))?;
                assert_eq!(stand.claims().await?.len(), 1);
                return Ok(());
            }
        }
    }
    bail!("seed {seed}: it is not done after these lives: {lives:?}")
}

#[tokio::test]
async fn r02_an_operator_killed_at_its_writes_goes_on_seed_1() -> Result<()> {
    operator_dies_at_writes(1).await
}

#[tokio::test]
async fn r02_an_operator_killed_at_its_writes_goes_on_seed_2() -> Result<()> {
    operator_dies_at_writes(2).await
}

#[tokio::test]
async fn r02_an_operator_killed_at_random_times_goes_on() -> Result<()> {
    let mut dice = Dice::new(3);
    let mut stand = applied(&[ALARM, STEP, STEP, STEP]).await?;
    ask(&stand, again()).await?;
    // Each life may be longer than those before: the machine may be slow.
    for longest in (500..).step_by(100) {
        let life = dice.millis(20, longest);
        let done = tokio::time::timeout(life, completed(&stand, "again")).await;
        stand.kill_operator().await?;
        stand.start_operator().await?;
        if let Ok(done) = done {
            done?;
            break;
        }
    }
    carried_out(&stand, 2, &[("again", 2)]).await?;
    Ok(())
}

#[tokio::test]
async fn r02_an_operator_killed_at_its_messages_to_nats_goes_on() -> Result<()> {
    let mut stand = applied(&[ALARM, STEP, STEP, STEP]).await?;
    let direct = stand.nats.url();
    let mut spec = with_replay(&stand, again());
    for text in [
        "PUB lookback.audit.",
        "$JS.API.CONSUMER.CREATE.EVENTS.lb_",
        "",
    ] {
        stand.kill_operator().await?;
        let proxy = TcpProxy::start(stand.nats.address()).await?;
        // The worker goes past it.
        stand.kubelet.route(Some(direct.clone())).await;
        spec["nats"]["urls"] = json!([format!("nats://{}", proxy.address())]);
        if text.is_empty() {
            spec["nats"]["urls"] = json!([direct]);
        } else {
            proxy.freeze_at(text);
        }
        stand.apply(&spec).await?;
        stand.start_operator().await?;
        if !text.is_empty() {
            frozen(&proxy).await?;
        }
    }
    completed(&stand, "again").await?;
    carried_out(&stand, 2, &[("again", 2)]).await?;
    assert_eq!(stand.claims().await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn r02_operator_worker_and_nats_die_at_random_times_and_it_is_done_once() -> Result<()> {
    let mut dice = Dice::new(4);
    let mut stand = applied(&[ALARM, STEP, STEP, STEP]).await?;
    ask(&stand, again()).await?;
    for _ in 0..6 {
        let life = dice.millis(20, 900);
        tokio::time::timeout(life, completed(&stand, "again"))
            .await
            .ok();
        match dice.below(3) {
            0 => {
                stand.kill_operator().await?;
                stand.start_operator().await?;
            }
            1 => {
                // Nobody may run just now.
                let kill = stand.kubelet.kill();
                tokio::time::timeout(Duration::from_millis(200), kill)
                    .await
                    .ok();
            }
            _ => {
                stand.world.nats.kill();
                stand.world.nats.restart().await?;
            }
        }
    }
    completed(&stand, "again").await?;
    stand.publish(ALARM).await?;
    carried_out(&stand, 2, &[("again", 2)]).await?;
    Ok(())
}

#[tokio::test]
async fn r12_latest_and_times_are_resolved_once_whatever_is_retried() -> Result<()> {
    let mut stand = applied(&[ALARM, STEP, STEP]).await?;
    let latest = json!({"id": "latest", "latest": true, "approval": "Manual"});
    ask(&stand, latest.clone()).await?;
    let planned = ended(&stand, "latest", ReplayPhase::AwaitingApproval).await?;
    let plan = planned.plan.expect("a plan");
    assert_eq!(plan.start, StreamSeq(4));
    stand.publish_all(ALARM, 3).await?;
    stand.caught_up().await?;
    stand.kill_operator().await?;
    stand.start_operator().await?;
    stand.reconciles(2).await?;
    stand.annotate("lookback.dev/approve", &plan.hash).await?;
    begun(&stand, "latest", ReplayPhase::Fencing).await?;
    stand.publish(ALARM).await?;
    stand.kill_operator().await?;
    stand.start_operator().await?;
    let done = completed(&stand, "latest").await?;
    assert_eq!(done.plan, Some(plan));
    let digest = carried_out(&stand, 2, &[("latest", 2)]).await?;
    assert_eq!(digest.ledger[0].start, StreamSeq(4));
    Ok(())
}

/// An operator that stops at a request, whose work another one does, and that wakes then.
async fn former_leader_wakes(
    rule: impl FnMut(&http::request::Parts, &str) -> bool + Send + 'static,
) -> Result<()> {
    let mut stand = applied(&[ALARM, STEP, STEP, STEP]).await?;
    stand.kill_operator().await?;
    let (client, gate) = gated(stand.client.clone(), &stand.namespace);
    let former = stand.operator_as(client, stand.settings()).await?;
    gate.close_at(Stop::Before, rule);
    ask(&stand, again()).await?;
    gate.is_closed().await?;

    stand.start_operator().await?;
    completed(&stand, "again").await?;
    carried_out(&stand, 2, &[("again", 2)]).await?;
    let (pod, before) = (pod_uid(&stand).await?, stand.status().await?);
    gate.open();
    former.reconciles(3).await?;
    let now = stand.status().await?;
    assert_eq!((now.replay, now.epoch), (before.replay, before.epoch));
    assert_eq!(now.replay_history, before.replay_history);
    stand.publish(ALARM).await?;
    carried_out(&stand, 2, &[("again", 2)]).await?;
    assert_eq!(pod_uid(&stand).await?, pod);
    assert_eq!(stand.claims().await?.len(), 1);
    former.end().await
}

#[tokio::test]
async fn r24_a_former_leader_that_wakes_before_it_writes_the_request_changes_nothing() -> Result<()>
{
    former_leader_wakes(|parts, body| {
        is_status_write(parts) && body.contains("\"phase\":\"Requested\"")
    })
    .await
}

#[tokio::test]
async fn r24_a_former_leader_that_wakes_before_it_writes_a_later_phase_changes_nothing()
-> Result<()> {
    former_leader_wakes(|parts, body| {
        is_status_write(parts) && body.contains("\"phase\":\"CursorCreated\"")
    })
    .await
}

#[tokio::test]
async fn r24_a_former_leader_that_wakes_before_it_stops_the_worker_stops_nothing() -> Result<()> {
    former_leader_wakes(|parts, body| is_set_write(parts) && body.contains("\"replicas\":0")).await
}

#[tokio::test]
async fn r24_a_former_leader_that_wakes_before_it_starts_the_worker_starts_nothing() -> Result<()> {
    let mut is_stopped = false;
    former_leader_wakes(move |parts, body| {
        let has_replicas = |count| body.contains(&format!("\"replicas\":{count}"));
        is_stopped |= is_set_write(parts) && has_replicas(0);
        is_stopped && is_set_write(parts) && has_replicas(1)
    })
    .await
}

#[tokio::test]
async fn r24_a_former_leader_whose_way_back_arrives_late_undoes_nothing() -> Result<()> {
    let mut stand = applied(&[ALARM, STEP, STEP]).await?;
    stand.kill_operator().await?;
    let late = TcpProxy::start(stand.nats.address()).await?;
    let through = |mut spec: Value| {
        spec["nats"]["urls"] = json!([format!("nats://{}", late.address())]);
        spec
    };
    let worker = stopped_at(&stand, "\"phase\":\"applying\"").await?;
    stand.apply(&through(with_replay(&stand, again()))).await?;
    let former = stand.operator().await?;
    frozen(&worker).await?;
    late.freeze_at("PUB $KV.LOOKBACK_STATE");
    stand.apply(&through(stand.spec())).await?;
    frozen(&late).await?;

    // Another operator takes it back, over another way, and carries out the next request.
    stand.kubelet.route(None).await;
    ask(&stand, json!({"id": "next", "fromSequence": 2})).await?;
    stand.start_operator().await?;
    completed(&stand, "next").await?;
    worker.cut();
    let epoch = stand.checkpoint().await?.epoch.0;
    carried_out(&stand, epoch, &[("next", epoch)]).await?;
    late.thaw();
    former.reconciles(3).await?;
    stand.publish(ALARM).await?;
    carried_out(&stand, epoch, &[("next", epoch)]).await?;
    former.end().await
}

#[tokio::test]
async fn r24_two_operators_that_both_think_they_lead_do_it_once() -> Result<()> {
    let stand = applied(&[ALARM, STEP, STEP, STEP]).await?;
    let other = stand.operator().await?;
    ask(&stand, again()).await?;
    completed(&stand, "again").await?;
    stand.publish(ALARM).await?;
    carried_out(&stand, 2, &[("again", 2)]).await?;
    assert_eq!(stand.claims().await?.len(), 1);
    let ended = tokio::time::timeout(SOON, other.end()).await;
    ended??;
    Ok(())
}
