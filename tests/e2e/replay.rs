//! A replay runs once, whatever dies or is applied again meanwhile.

use anyhow::{Context, Result, ensure};
use lookback_dev::support::eventually;
use lookback_protocol::position::{Epoch, StreamSeq};

use crate::stage::{DEADLINE, NAME, NAMESPACE, POD, STREAM, Stage};

const SYSTEM: &str = "lookback-system";
const REBUILD: &str = "  replay: {fromSequence: 2000, statePolicy: Rebuild}";

/// A pipeline that has applied 8,000 events in small commits.
async fn running(name: &str) -> Result<Stage> {
    let mut stage = Stage::open(name).await?;
    stage.publish(8_000, None).await?;
    stage.apply_pipeline(SMALL_COMMITS)?;
    stage.applied(stage.published()).await?;
    stage.remember_rules()?;
    Ok(stage)
}

const SMALL_COMMITS: &str = "  commit: {interval: 100ms, events: 200}";

fn with(replay: &str) -> String {
    format!("{SMALL_COMMITS}\n{replay}")
}

#[tokio::test(flavor = "multi_thread")]
async fn r01_killed_in_and_after_a_replay_the_worker_goes_on_at_its_own_position() -> Result<()> {
    let mut stage = running("r01").await?;
    stage.apply_pipeline(&with(REBUILD))?;
    stage.replay_reaches("RollingOut").await?;
    stage.kill_worker().await?;
    stage.replay_reaches("CatchingUp").await?;
    stage.kill_worker().await?;
    stage.replay_reaches("Completed").await?;
    stage.kill_worker().await?;
    stage.publish(2_000, None).await?;
    stage.equals_one_uninterrupted_pass().await?;
    stage.was_moved_once(Epoch(2)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn r02_operators_killed_at_every_step_do_not_repeat_or_lose_one() -> Result<()> {
    let mut stage = running("r02").await?;
    stage.apply_pipeline(&with(REBUILD))?;
    for phase in ["Fencing", "RollingOut", "CatchingUp"] {
        stage.replay_reaches(phase).await?;
        kill_operators(&stage)?;
    }
    stage.replay_reaches("Completed").await?;
    kill_operators(&stage)?;
    stage.publish(2_000, None).await?;
    stage.equals_one_uninterrupted_pass().await?;
    stage.was_moved_once(Epoch(2)).await
}

fn kill_operators(stage: &Stage) -> Result<()> {
    let kill = ["delete", "pods", "--all", "--force", "--grace-period=0"];
    stage
        .node
        .kubectl(&[["-n", SYSTEM].as_slice(), &kill].concat())
        .map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn r06_deleted_and_created_again_with_its_block_a_pipeline_goes_on_without_a_replay()
-> Result<()> {
    let mut stage = running("r06").await?;
    stage.apply_pipeline(&with(REBUILD))?;
    stage.replay_reaches("Completed").await?;
    let delete = ["delete", "detectionpipeline", NAME, "--wait"];
    stage
        .node
        .kubectl(&[["-n", NAMESPACE].as_slice(), &delete].concat())?;
    stage.publish(2_000, None).await?;
    stage.apply_pipeline(&with(REBUILD))?;
    stage.equals_one_uninterrupted_pass().await?;
    stage
        .condition("ReplayAccepted", "True", "AlreadyApplied")
        .await?;
    stage.was_moved_once(Epoch(2)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn r07_a_volume_lost_after_the_replay_is_made_good_by_on_loss_and_never_by_the_block()
-> Result<()> {
    let mut stage = running("r07").await?;
    stage.apply_pipeline(&with(REBUILD))?;
    stage.replay_reaches("Completed").await?;
    stage.empty_the_volume()?;
    stage
        .node
        .kubectl(&["-n", NAMESPACE, "delete", "pod", POD])?;
    stage.condition("Stalled", "True", "StateLost").await?;
    let lost_at = stage.applied(stage.published()).await?.position.sequence;
    let state =
        "  state: {onLoss: RebuildWindows, storage: {size: 1Gi, accessMode: ReadWriteOnce}}";
    stage.apply_pipeline(&format!("{}\n{state}", with(REBUILD)))?;
    stage.publish(2_000, None).await?;
    stage.applied(stage.published()).await?;
    let replay = stage.pipeline()?["status"]["replay"].clone();
    ensure!(replay["id"] == "loss-2", "it is {replay}");
    let start = replay["plan"]["start"].as_u64();
    ensure!(start == Some(lost_at.next().0), "it begins at {start:?}");
    stage.stored_alerts_equal_one_uninterrupted_pass().await
}

#[tokio::test(flavor = "multi_thread")]
async fn r14_a_rollout_that_fails_ends_in_the_way_back_and_detections_go_on() -> Result<()> {
    let mut stage = running("r14").await?;
    stage.operator_flags(&["--replay-step-timeout=15s"])?;
    let quota = ["create", "quota", "no-more-pods", "--hard=pods=0"];
    stage
        .node
        .kubectl(&[["-n", NAMESPACE].as_slice(), &quota].concat())?;
    stage.apply_pipeline(&with(REBUILD))?;
    stage.replay_reaches("Failed").await?;
    stage
        .node
        .kubectl(&["-n", NAMESPACE, "delete", "quota", "no-more-pods"])?;
    stage.publish(2_000, None).await?;
    stage.equals_one_uninterrupted_pass().await?;
    let state = stage.state().await?;
    ensure!(state.ledger.is_empty(), "{:?} was applied", state.ledger);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn r17_a_stale_worker_talks_to_the_consumer_of_its_own_epoch() -> Result<()> {
    let mut stage = running("r17").await?;
    let old = stage.config()?;
    stage.apply_pipeline(&with(REBUILD))?;
    stage.replay_reaches("Completed").await?;
    let refused = stage.run_worker_beside(&old)?;
    ensure!(refused == 4, "a worker of epoch 1 ended with {refused}");
    let source = stage.jetstream.get_stream(STREAM).await?;
    let consumer: async_nats::jetstream::consumer::PullConsumer = source
        .get_consumer(&stage.key.consumer(0, Epoch(1)))
        .await
        .map_err(|error| anyhow::anyhow!("the consumer of epoch 1: {error}"))?;
    stage.publish(2_000, None).await?;
    let mut messages = consumer.fetch().max_messages(100).messages().await?;
    while let Some(message) = futures::StreamExt::next(&mut messages).await {
        let message = message.map_err(anyhow::Error::from_boxed)?;
        message.ack().await.map_err(anyhow::Error::from_boxed)?;
    }
    stage.equals_one_uninterrupted_pass().await?;
    stage.was_moved_once(Epoch(2)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn r21_a_request_taken_back_while_it_begins_is_either_applied_or_not() -> Result<()> {
    let mut stage = running("r21").await?;
    stage.operator_flags(&["--replay-min-interval=1s"])?;
    for (round, phase) in ["Fencing", "CursorCreated", "RollingOut", "RollingOut"]
        .into_iter()
        .enumerate()
    {
        let id = format!("race-{round}");
        let block = format!("  replay: {{id: {id}, fromSequence: 2000, statePolicy: Rebuild}}");
        stage.apply_pipeline(&with(&block))?;
        stage.replay_reaches(phase).await?;
        stage.apply_pipeline(SMALL_COMMITS)?;
        let end = stage.replay_ends(&id).await?;
        stage.publish(500, None).await?;
        stage.applied(stage.published()).await?;
        let applied = stage
            .state()
            .await?
            .ledger
            .iter()
            .any(|row| row.request_id.as_str() == id);
        ensure!(
            applied == (end == "Completed"),
            "{id} ended as {end}, and was applied: {applied}"
        );
    }
    stage.equals_one_uninterrupted_pass().await
}

impl Stage {
    /// Waits until the replay is in `phase`, or beyond it.
    async fn replay_reaches(&self, phase: &str) -> Result<()> {
        const ORDER: [&str; 8] = [
            "Requested",
            "Planned",
            "Fencing",
            "CursorCreated",
            "RollingOut",
            "StateApplied",
            "CatchingUp",
            "Completed",
        ];
        let wanted = ORDER.iter().position(|known| *known == phase);
        eventually(
            DEADLINE,
            &format!("the replay reaches {phase}"),
            async || {
                let replay = self.pipeline()?["status"]["replay"].clone();
                let now = replay["phase"].as_str().context("no replay")?;
                let reached = ORDER.iter().position(|known| *known == now);
                ensure!(
                    now == phase || (wanted.is_some() && reached >= wanted),
                    "it is {replay}"
                );
                Ok(())
            },
        )
        .await
    }

    /// The phase in which the request `id` ended.
    async fn replay_ends(&self, id: &str) -> Result<String> {
        eventually(DEADLINE, &format!("{id} ends"), async || {
            let status = self.pipeline()?["status"].clone();
            let replay = &status["replay"];
            let phase = replay["phase"].as_str().context("no replay")?;
            let ended = ["Completed", "Superseded", "Failed"].contains(&phase);
            ensure!(replay["id"] == id && ended, "it is {replay}");
            Ok(phase.to_owned())
        })
        .await
    }

    /// The state file was moved by exactly one request, which began `epoch`.
    async fn was_moved_once(&self, epoch: Epoch) -> Result<()> {
        let state = self.state().await?;
        let epochs: Vec<_> = state.ledger.iter().map(|row| row.epoch).collect();
        ensure!(epochs == [epoch], "requests were applied in {epochs:?}");
        let checkpoint = self.applied(StreamSeq(0)).await?;
        ensure!(
            checkpoint.epoch == epoch,
            "it is in epoch {}",
            checkpoint.epoch
        );
        Ok(())
    }
}
