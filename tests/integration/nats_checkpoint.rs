//! The contract of the worker's checkpoints, on a real server.

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use jiff::Timestamp;
use lookback::nats::checkpoint::{
    self, CheckpointWatch, JetStreamCheckpoints, TakeBack, take_back,
};
use lookback::nats::connect::Nats;
use lookback::nats::desired::DesiredStream;
use lookback::nats::ensure::{Deleted, ObjectError};
use lookback::nats::streams;
use lookback::worker::ports::{CheckpointError, Checkpoints, Revision};
use lookback_dev::support::{NatsCluster, TcpProxy, eventually};
use lookback_protocol::checkpoint::{Checkpoint, Counters, Phase, VERSION};
use lookback_protocol::names::{Owner, PipelineKey};
use lookback_protocol::position::{Epoch, Position, StreamIdentity, StreamSeq};

use crate::nats_fixture::{Fixture, SOON, connect, connect_as_usual, key};

/// How the answer to a write into the bucket begins.
const ANSWER: &str = "{\"stream\":\"KV_LOOKBACK_STATE\"";

fn owner(cluster: &str) -> Owner {
    Owner {
        cluster: cluster.to_owned(),
        pipeline: key(),
    }
}

pub(crate) fn checkpoint(incarnation: &str) -> Checkpoint {
    Checkpoint {
        v: VERSION,
        incarnation: incarnation.to_owned(),
        owner: owner("cluster"),
        epoch: Epoch(1),
        phase: Phase::Started,
        stream: StreamIdentity {
            name: "EVENTS".to_owned(),
            created: Timestamp::UNIX_EPOCH,
        },
        position: Position::before(StreamSeq(1)),
        published_through: StreamSeq(0),
        engine_digest: "d".to_owned(),
        groups: 0,
        gaps: Vec::new(),
        counters: Counters::default(),
        request: None,
        applied: None,
        resumes: None,
        held: None,
        time: Timestamp::UNIX_EPOCH,
    }
}

async fn bucket() -> Result<(Fixture, JetStreamCheckpoints)> {
    let fixture = Fixture::bare().await?;
    streams::ensure(&fixture.nats, &DesiredStream::state_bucket(1)).await?;
    let checkpoints = of(&fixture.nats);
    Ok((fixture, checkpoints))
}

fn of(nats: &Nats) -> JetStreamCheckpoints {
    JetStreamCheckpoints::new(nats.clone(), &key(), 0)
}

#[tokio::test]
async fn a_checkpoint_that_never_was_is_none() -> Result<()> {
    let (_fixture, mut checkpoints) = bucket().await?;
    assert_eq!(checkpoints.load().await?, None);
    Ok(())
}

#[tokio::test]
async fn a_checkpoint_reads_back_with_its_revision() -> Result<()> {
    let (_fixture, mut checkpoints) = bucket().await?;
    let first = checkpoints.store(&checkpoint("a"), None).await?;
    let second = checkpoints.store(&checkpoint("b"), Some(first)).await?;
    assert_eq!(checkpoints.load().await?, Some((checkpoint("b"), second)));
    Ok(())
}

#[tokio::test]
async fn t12_a_stale_writer_meets_a_conflict() -> Result<()> {
    let (_fixture, mut checkpoints) = bucket().await?;
    let first = checkpoints.store(&checkpoint("a"), None).await?;
    checkpoints.store(&checkpoint("b"), Some(first)).await?;
    for expected in [None, Some(first)] {
        let refused = checkpoints.store(&checkpoint("a"), expected).await;
        assert!(
            matches!(refused, Err(CheckpointError::Conflict)),
            "{refused:?}"
        );
    }
    assert_eq!(checkpoints.load().await?.unwrap().0.incarnation, "b");
    Ok(())
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_found_by_loading() -> Result<()> {
    let (fixture, mut near) = bucket().await?;
    let proxy = TcpProxy::start(fixture.server.address()).await?;
    let mut far = of(&connect_as_usual(format!("nats://{}", proxy.address())).await?);
    proxy.cut_at(ANSWER);
    let lost = far.store(&checkpoint("a"), None).await;
    assert!(
        matches!(lost, Err(CheckpointError::Unavailable(_))),
        "{lost:?}"
    );
    let again = near.store(&checkpoint("a"), None).await;
    assert!(matches!(again, Err(CheckpointError::Conflict)), "{again:?}");
    let (found, revision) = near.load().await?.context("no checkpoint")?;
    assert_eq!(found, checkpoint("a"));
    near.store(&checkpoint("a"), Some(revision)).await?;
    Ok(())
}

#[tokio::test]
async fn a_checkpoint_and_its_revision_survive_a_killed_server() -> Result<()> {
    let (mut fixture, mut checkpoints) = bucket().await?;
    let revision = checkpoints.store(&checkpoint("a"), None).await?;
    fixture.server.kill();
    fixture.server.restart().await?;
    let found = eventually(SOON, "the client is back", async || {
        Ok(checkpoints.load().await?)
    })
    .await?;
    assert_eq!(found, Some((checkpoint("a"), revision)));
    checkpoints.store(&checkpoint("b"), Some(revision)).await?;
    Ok(())
}

#[tokio::test]
async fn a_checkpoint_deleted_by_hand_can_be_written_again() -> Result<()> {
    let (fixture, mut checkpoints) = bucket().await?;
    checkpoints.store(&checkpoint("a"), None).await?;
    let kv = fixture.js.get_key_value("LOOKBACK_STATE").await?;
    kv.delete(key().checkpoint_key(0)).await?;
    assert_eq!(checkpoints.load().await?, None);
    checkpoints.store(&checkpoint("b"), None).await?;
    assert_eq!(checkpoints.load().await?.unwrap().0.incarnation, "b");
    Ok(())
}

#[tokio::test]
async fn something_else_under_the_key_is_unreadable_and_stays() -> Result<()> {
    let (fixture, mut checkpoints) = bucket().await?;
    let kv = fixture.js.get_key_value("LOOKBACK_STATE").await?;
    kv.put(key().checkpoint_key(0), "?".into()).await?;
    let found = checkpoints.load().await;
    assert!(
        matches!(found, Err(CheckpointError::Unreadable(_))),
        "{found:?}"
    );
    let refused = checkpoints.store(&checkpoint("a"), None).await;
    assert!(
        matches!(refused, Err(CheckpointError::Conflict)),
        "{refused:?}"
    );
    Ok(())
}

#[tokio::test]
async fn of_eight_writers_on_three_replicas_one_wins_each_round() -> Result<()> {
    let cluster = NatsCluster::start().await?;
    let mut nodes = Vec::new();
    for url in cluster.urls() {
        nodes.push(connect(url).await?);
    }
    streams::ensure(&nodes[0], &DesiredStream::state_bucket(3)).await?;
    let mut writers: Vec<_> = (0..8).map(|n| of(&nodes[n % 3])).collect();
    for writer in &mut writers {
        eventually(SOON, "each node knows the bucket", async || {
            let refused = writer.store(&checkpoint("x"), Some(Revision(999))).await;
            ensure!(
                matches!(refused, Err(CheckpointError::Conflict)),
                "{refused:?}"
            );
            Ok(())
        })
        .await?;
    }
    let mut revision = None;
    for round in 0..20 {
        let mine: Vec<_> = (0..8)
            .map(|n| checkpoint(&format!("{round}-{n}")))
            .collect();
        let writes = writers
            .iter_mut()
            .zip(&mine)
            .map(|(writer, checkpoint)| writer.store(checkpoint, revision));
        let mut winner = None;
        for (at, written) in join_all(writes).await.into_iter().enumerate() {
            match written {
                Ok(revision) => {
                    assert!(winner.is_none(), "two winners in round {round}");
                    winner = Some((at, revision));
                }
                Err(CheckpointError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let (at, won) = winner.context("no winner")?;
        let found = writers[(at + 1) % 8].load().await?;
        assert_eq!(found, Some((mine[at].clone(), won)));
        revision = Some(won);
    }
    Ok(())
}

fn taken_back() -> Checkpoint {
    Checkpoint {
        phase: Phase::TakenBack,
        epoch: Epoch(3),
        resumes: Some(Epoch(1)),
        ..checkpoint("operator")
    }
}

#[tokio::test]
async fn an_epoch_that_nobody_began_is_taken_back() -> Result<()> {
    let (fixture, mut checkpoints) = bucket().await?;
    let before = checkpoints.store(&checkpoint("worker"), None).await?;
    let taken = take_back(&fixture.nats, 0, &taken_back(), Some(before)).await?;
    let Some((stands, revision)) = checkpoints.load().await? else {
        anyhow::bail!("there is no checkpoint");
    };
    assert_eq!(taken, TakeBack::Won(revision));
    assert_eq!(stands, taken_back());
    Ok(())
}

#[tokio::test]
async fn taking_back_again_changes_nothing() -> Result<()> {
    let (fixture, mut checkpoints) = bucket().await?;
    let before = checkpoints.store(&checkpoint("worker"), None).await?;
    let taken = take_back(&fixture.nats, 0, &taken_back(), Some(before)).await?;
    let again = take_back(&fixture.nats, 0, &taken_back(), Some(before)).await?;
    assert_eq!(taken, again);
    Ok(())
}

#[tokio::test]
async fn a_worker_that_was_first_cannot_be_taken_back() -> Result<()> {
    let (fixture, mut checkpoints) = bucket().await?;
    let before = checkpoints.store(&checkpoint("old"), None).await?;
    let applying = Checkpoint {
        phase: Phase::Applying,
        epoch: Epoch(2),
        ..checkpoint("new")
    };
    let revision = checkpoints.store(&applying, Some(before)).await?;
    for expected in [None, Some(before)] {
        let taken = take_back(&fixture.nats, 0, &taken_back(), expected).await?;
        assert_eq!(
            taken,
            TakeBack::Lost(Some(Box::new((applying.clone(), revision))))
        );
    }
    assert_eq!(checkpoints.load().await?, Some((applying, revision)));
    Ok(())
}

#[tokio::test]
async fn a_pipeline_without_a_checkpoint_is_taken_back_also_after_a_person_deleted_it() -> Result<()>
{
    let (fixture, mut checkpoints) = bucket().await?;
    let before = checkpoints.store(&checkpoint("worker"), None).await?;
    let kv = fixture.js.get_key_value("LOOKBACK_STATE").await?;
    kv.delete(key().checkpoint_key(0)).await?;
    let lost = take_back(&fixture.nats, 0, &taken_back(), Some(before)).await?;
    assert_eq!(lost, TakeBack::Lost(None));
    let taken = take_back(&fixture.nats, 0, &taken_back(), None).await?;
    assert!(matches!(taken, TakeBack::Won(_)), "{taken:?}");
    Ok(())
}

#[tokio::test]
async fn taking_back_finds_its_own_write_when_the_answer_was_lost() -> Result<()> {
    let (fixture, mut checkpoints) = bucket().await?;
    let before = checkpoints.store(&checkpoint("worker"), None).await?;
    let proxy = TcpProxy::start(fixture.server.address()).await?;
    let far = connect_as_usual(format!("nats://{}", proxy.address())).await?;
    proxy.cut_at(ANSWER);
    let taken = take_back(&far, 0, &taken_back(), Some(before)).await?;
    let (stands, revision) = checkpoints.load().await?.context("no checkpoint")?;
    assert_eq!(taken, TakeBack::Won(revision));
    assert_eq!(stands, taken_back());
    Ok(())
}

#[tokio::test]
async fn taking_back_is_undecided_while_nobody_answers() -> Result<()> {
    let (fixture, mut checkpoints) = bucket().await?;
    let before = checkpoints.store(&checkpoint("worker"), None).await?;
    let proxy = TcpProxy::start(fixture.server.address()).await?;
    let far = connect_as_usual(format!("nats://{}", proxy.address())).await?;
    proxy.freeze_at("Nats-Expected-Last-Subject-Sequence");
    let taken = take_back(&far, 0, &taken_back(), Some(before)).await;
    assert!(
        matches!(taken, Err(CheckpointError::Unavailable(_))),
        "{taken:?}"
    );
    assert_eq!(checkpoints.load().await?.context("none")?.1, before);
    Ok(())
}

#[tokio::test]
async fn of_an_operator_and_a_worker_on_three_replicas_one_wins_each_round() -> Result<()> {
    let cluster = NatsCluster::start().await?;
    let mut nodes = Vec::new();
    for url in cluster.urls() {
        nodes.push(connect(url).await?);
    }
    streams::ensure(&nodes[0], &DesiredStream::state_bucket(3)).await?;
    let mut worker = of(&nodes[1]);
    let mut revision = eventually(SOON, "the node knows the bucket", async || {
        match worker.load().await? {
            Some((_, revision)) => Ok(Some(revision)),
            None => Ok(Some(worker.store(&checkpoint("first"), None).await?)),
        }
    })
    .await?;
    for round in 0..50 {
        let theirs = checkpoint(&format!("worker {round}"));
        let ours = Checkpoint {
            incarnation: format!("operator {round}"),
            ..taken_back()
        };
        let (stored, taken) = futures::join!(
            worker.store(&theirs, revision),
            take_back(&nodes[round % 3], 0, &ours, revision),
        );
        let stands = of(&nodes[0]).load().await?.context("no checkpoint")?;
        match (stored, taken) {
            (Ok(theirs), Ok(TakeBack::Lost(Some(found)))) => {
                assert_eq!((*found, theirs), (stands.clone(), stands.1));
            }
            (Ok(theirs), Err(CheckpointError::Conflict)) => assert_eq!(theirs, stands.1),
            (Err(CheckpointError::Conflict), Ok(TakeBack::Won(won))) => {
                assert_eq!(stands, (ours, won));
            }
            (stored, taken) => anyhow::bail!("round {round}: {stored:?} and {taken:?}"),
        }
        revision = Some(stands.1);
    }
    Ok(())
}

#[tokio::test]
async fn a_watch_shows_what_there_is_and_then_each_change() -> Result<()> {
    let (fixture, mut checkpoints) = bucket().await?;
    let revision = checkpoints.store(&checkpoint("a"), None).await?;
    let mut watch = CheckpointWatch::open(&fixture.nats).await?;
    assert_eq!(watch.next().await, Some((key(), 0)));
    checkpoints.store(&checkpoint("b"), Some(revision)).await?;
    assert_eq!(watch.next().await, Some((key(), 0)));
    let other = PipelineKey::new("prod", "other").unwrap();
    let mut others = JetStreamCheckpoints::new(fixture.nats.clone(), &other, 0);
    others.store(&checkpoint("c"), None).await?;
    assert_eq!(watch.next().await, Some((other, 0)));
    Ok(())
}

#[tokio::test]
async fn a_watch_goes_on_after_a_killed_server() -> Result<()> {
    let (mut fixture, mut checkpoints) = bucket().await?;
    checkpoints.store(&checkpoint("a"), None).await?;
    let mut watch = CheckpointWatch::open(&fixture.nats).await?;
    watch.next().await;
    fixture.server.kill();
    fixture.server.restart().await?;
    eventually(SOON, "the client is back", async || {
        // A try without an answer may have been one that the server carried out.
        let (_, revision) = checkpoints.load().await?.context("no checkpoint")?;
        checkpoints.store(&checkpoint("b"), Some(revision)).await?;
        Ok(())
    })
    .await?;
    let changed = tokio::time::timeout(SOON, watch.next()).await?;
    assert_eq!(changed, Some((key(), 0)));
    Ok(())
}

#[tokio::test]
async fn a_watch_without_a_bucket_is_refused() -> Result<()> {
    let fixture = Fixture::bare().await?;
    let error = CheckpointWatch::open(&fixture.nats).await.err().unwrap();
    assert_eq!(error.to_string(), "cannot watch bucket LOOKBACK_STATE");
    Ok(())
}

#[tokio::test]
async fn a_deleted_checkpoint_is_gone_for_good() -> Result<()> {
    let (fixture, mut checkpoints) = bucket().await?;
    checkpoints.store(&checkpoint("a"), None).await?;
    let ours = owner("cluster");
    assert_eq!(
        checkpoint::delete(&fixture.nats, &ours, 0).await?,
        Deleted::Now
    );
    assert_eq!(checkpoints.load().await?, None);
    assert_eq!(
        checkpoint::delete(&fixture.nats, &ours, 0).await?,
        Deleted::Absent
    );
    checkpoints.store(&checkpoint("b"), None).await?;
    Ok(())
}

#[tokio::test]
async fn a_checkpoint_of_another_cluster_is_not_deleted() -> Result<()> {
    let (fixture, mut checkpoints) = bucket().await?;
    checkpoints.store(&checkpoint("a"), None).await?;
    let refused = checkpoint::delete(&fixture.nats, &owner("other"), 0).await;
    assert!(
        matches!(refused, Err(ObjectError::Foreign { .. })),
        "{refused:?}"
    );
    ensure!(checkpoints.load().await?.is_some());
    Ok(())
}

#[tokio::test]
async fn without_a_bucket_there_is_nothing_to_delete() -> Result<()> {
    let fixture = Fixture::bare().await?;
    let deleted = checkpoint::delete(&fixture.nats, &owner("cluster"), 0).await?;
    assert_eq!(deleted, Deleted::Absent);
    Ok(())
}
