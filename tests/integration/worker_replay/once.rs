//! A request is applied once, whoever comes late.

use anyhow::{Result, ensure};
use lookback::nats::checkpoint::{JetStreamCheckpoints, TakeBack, take_back};
use lookback::nats::log::JetStreamLog;
use lookback::worker::ports::{Checkpoints, Log, Pulled};
use lookback_protocol::checkpoint::{Checkpoint, Phase, RequestOutcome};
use lookback_protocol::replay::request::StatePolicy::{Clear, Rebuild};

use super::*;
use crate::nats_fixture::{STREAM, connect};
use crate::worker_fixture::{Launch, Setup};

const START: u64 = 301;

/// A pipeline that has read 600 events.
async fn worked() -> Result<Rig> {
    let rig = Rig::with_story(600).await?;
    rig.read_all().await?;
    Ok(rig)
}

fn after_clear(rig: &Rig) -> [Segment; 2] {
    let after = Segment {
        dropped: true,
        ..rig.segment(START, None)
    };
    [rig.segment(1, Some(600)), after]
}

#[tokio::test]
async fn an_id_in_the_ledger_is_answered_in_a_new_epoch_and_moves_nothing() -> Result<()> {
    let mut rig = worked().await?;
    let rewind = request(&rig, "r", Clear, START);
    rig.ask(rewind.clone()).await?;
    rig.read_all().await?;
    let said = rig.checkpoint().await?.request;
    assert_eq!(said.map(|it| it.outcome), Some(RequestOutcome::Applied));

    rig.ask(Rewind {
        of: Some(rig.config.epoch),
        ..rewind
    })
    .await?;
    let worker = rig.start();
    rig.publish_story(200).await?;
    rig.finish(worker).await?;
    let said = rig.checkpoint().await?;
    let outcome = said.request.map(|request| request.outcome);
    assert_eq!(outcome, Some(RequestOutcome::AlreadyApplied));
    assert_eq!(said.epoch, rig.config.epoch);
    assert_eq!(said.applied.map(|applied| applied.epoch), Some(Epoch(2)));
    assert_eq!(rig.ledger()?.len(), 1);
    rig.equals(&after_clear(&rig)).await?;
    Ok(())
}

#[tokio::test]
async fn r01_a_worker_killed_during_and_after_a_replay_resumes_at_its_own_position() -> Result<()> {
    let mut rig = Rig::with(Setup {
        commit_events: 20,
        ..Setup::story()?
    })
    .await?;
    rig.publish_story(600).await?;
    rig.read_all().await?;
    rig.publish_story(1_400).await?;
    rig.ask(request(&rig, "r", Clear, START)).await?;
    let mut stood = 0;
    for through in [START, 500, 900, 1_500, 2_000] {
        let worker = rig.start();
        worker.applied(through).await?;
        worker.crash().await?;
        let position = lookback::state::digest(&rig.state_file())?
            .position
            .sequence
            .0;
        ensure!(position >= stood, "it went back from {stood} to {position}");
        stood = position;
    }
    let worker = rig.start();
    rig.publish_story(200).await?;
    rig.finish(worker).await?;
    assert_eq!(rig.ledger()?.len(), 1);
    rig.equals(&after_clear(&rig)).await?;
    Ok(())
}

/// The operator and the worker write over the same revision, sooner or later in each round.
#[tokio::test]
async fn r21_of_the_way_back_and_the_announcement_exactly_one_wins() -> Result<()> {
    let mut rig = Rig::new().await?;
    rig.publish_all(r#"{"kind":"step","user":"eve"}"#, 30)
        .await?;
    rig.read_all().await?;
    let (mut won, mut lost) = (0, 0);
    for round in 0..60 {
        if won > 0 && lost > 0 && round >= 12 {
            break;
        }
        let before = rig.ledger()?.len();
        let of = Some(rig.config.epoch);
        let mut checkpoints = JetStreamCheckpoints::new(rig.nats.clone(), &key(), 0);
        let (said, revision) = checkpoints.load().await?.context("no checkpoint")?;
        rig.ask(request(&rig, &format!("r{round}"), Clear, 11))
            .await?;
        let back = Checkpoint {
            incarnation: "operator".to_owned(),
            epoch: Epoch(rig.config.epoch.0 + 1),
            phase: Phase::TakenBack,
            resumes: of,
            request: None,
            ..said
        };
        let worker = rig.start();
        // As late as it takes for the worker to be first.
        for _ in 0..round * round {
            let now = checkpoints.load().await?;
            if now.is_none_or(|(_, now)| now != revision) {
                break;
            }
        }
        match take_back(&rig.nats, 0, &back, Some(revision)).await? {
            TakeBack::Won(_) => {
                won += 1;
                let message = worker.ended().await?;
                assert_eq!(message.reason, ExitReason::Fenced, "{message:?}");
                assert_eq!(rig.ledger()?.len(), before, "round {round}");
                rig.roll_out(Cursor::Resume { of }).await?;
            }
            TakeBack::Lost(stands) => {
                lost += 1;
                let (stands, _) = *stands.context("the checkpoint was deleted")?;
                assert_eq!(stands.epoch, rig.config.epoch);
                worker.applied(30).await?;
                worker.drain().await?;
                assert_eq!(rig.ledger()?.len(), before + 1, "round {round}");
            }
        }
        rig.read_all().await?;
    }
    ensure!(
        won > 0 && lost > 0,
        "{won} times the way back won, {lost} times it lost"
    );
    rig.equals_oracle().await?;
    Ok(())
}

/// A worker that was cut off holds deliveries of the consumer of its epoch. What it acknowledges when
/// the cursor has moved reaches only that one.
#[tokio::test]
async fn r17_an_ack_of_the_epoch_before_harms_nothing() -> Result<()> {
    let mut rig = worked().await?;
    rig.publish_story(200).await?;
    let old_consumer = rig.config.source.consumer.clone();
    let nats = connect(rig.server.url()).await?;
    let mut old = JetStreamLog::new(nats, STREAM, &*old_consumer);
    old.reset(StreamSeq(601)).await?;
    old.open().await?;
    let mut last = None;
    while last.as_ref().is_none_or(|(sequence, _)| *sequence < 800) {
        match old.next().await? {
            Pulled::Delivery(delivery) => last = Some((delivery.sequence.0, delivery.ack)),
            other => ensure!(matches!(other, Pulled::Heartbeat { .. }), "{other:?}"),
        }
    }
    let (_, ack) = last.context("no delivery")?;

    rig.ask(request(&rig, "r", Clear, START)).await?;
    let worker = rig.start();
    worker.applied(400).await?;
    old.ack(&ack).await?;
    rig.publish_story(200).await?;
    rig.finish(worker).await?;
    rig.acknowledged(1_000).await?;
    rig.equals(&after_clear(&rig)).await?;
    Ok(())
}

/// The same with the whole worker, which still has its file: of the two only the new one goes on. It
/// makes its windows again, so that what the old one stored of its last batch is the same.
#[tokio::test]
async fn r17_a_worker_of_the_epoch_before_is_fenced_before_it_acks() -> Result<()> {
    let mut rig = worked().await?;
    let copy = rig.volume().join("older.db");
    std::fs::copy(rig.state_file(), &copy)?;
    let zombie = rig.start_with(Launch {
        state_file: copy,
        ..rig.launch()
    });
    zombie.applied(600).await?;
    let old_consumer = rig.config.source.consumer.clone();
    let mut rewind = request(&rig, "r", Rebuild, START);
    rewind.read_from = Some(StreamSeq(1));
    rig.ask(rewind).await?;
    let worker = rig.start();
    worker.applied(600).await?;
    rig.publish_story(200).await?;
    let message = zombie.ended().await?;
    assert_eq!(message.reason, ExitReason::Fenced, "{message:?}");
    rig.finish(worker).await?;
    let stream = rig.js.get_stream_no_info(STREAM).await?;
    let floor = stream.consumer_info(&old_consumer).await?.ack_floor;
    assert_eq!(floor.stream_sequence, 600);
    rig.equals(&[rig.segment(1, None)]).await?;
    Ok(())
}

#[tokio::test]
async fn a_request_is_said_in_every_checkpoint_of_its_epoch_and_the_last_one_in_all() -> Result<()>
{
    let mut rig = worked().await?;
    assert_eq!(rig.checkpoint().await?.request, None);
    rig.ask(request(&rig, "r", Clear, START)).await?;
    rig.read_all().await?;
    let said = rig.checkpoint().await?;
    assert_eq!(said.phase, Phase::Drained);
    let id = RequestId::new("r")?;
    assert_eq!(said.request.map(|request| request.id), Some(id.clone()));

    let of = Some(rig.config.epoch);
    rig.roll_out(Cursor::Resume { of }).await?;
    rig.read_all().await?;
    let said = rig.checkpoint().await?;
    assert_eq!(said.request, None);
    assert_eq!(said.applied.map(|applied| applied.id), Some(id));
    Ok(())
}

/// The annotation says that the old cluster is gone; its file and checkpoint become ours.
#[tokio::test]
async fn a_file_of_a_cluster_that_is_gone_is_adopted_and_its_requests_stay_applied() -> Result<()> {
    let mut rig = worked().await?;
    let rewind = request(&rig, "r", Clear, START);
    rig.ask(rewind.clone()).await?;
    rig.read_all().await?;
    let gone = rig.config.owner.clone();
    rig.config.owner.cluster = "another".to_owned();
    rig.config.epoch = Epoch(3);
    rig.config.cursor = Cursor::Rewind(rewind);
    let message = rig.refused(ExitReason::OwnedByOther).await?;
    assert!(
        message.message.contains("lookback.dev/adopt"),
        "{message:?}"
    );

    rig.config.adopt = Some(gone);
    rig.publish_story(200).await?;
    rig.read_all().await?;
    assert_eq!(rig.checkpoint().await?.owner, rig.config.owner);
    rig.config.adopt = None;
    let worker = rig.start();
    rig.publish_story(200).await?;
    rig.finish(worker).await?;
    rig.equals(&after_clear(&rig)).await?;
    Ok(())
}
