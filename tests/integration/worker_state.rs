//! State files that a worker must not use, and volumes without room.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use lookback_protocol::termination::{ExitReason, TerminationMessage};
use rusqlite::Connection;

use crate::worker_fixture::{Launch, Rig, Setup};

const STEP: &str = r#"{"kind":"step","user":"eve"}"#;

/// A rig whose worker has applied something and is gone.
async fn used() -> Result<Rig> {
    let rig = Rig::new().await?;
    rig.publish_all(STEP, 20).await?;
    let worker = rig.start();
    worker.applied(20).await?;
    worker.drain().await?;
    Ok(rig)
}

/// The bytes of a state file and of its WAL. An orderly end leaves no WAL, and opening an empty one.
fn contents(file: &Path) -> Result<(Vec<u8>, Vec<u8>)> {
    let wal = fs::read(file.with_extension("db-wal")).unwrap_or_default();
    Ok((fs::read(file)?, wal))
}

/// Starts a worker that must refuse the file, and leave it as it is.
async fn refused(rig: &Rig, reason: ExitReason) -> Result<TerminationMessage> {
    let file = rig.state_file();
    let before = contents(&file)?;
    let message = rig.start().ended().await?;
    assert_eq!(message.reason, reason, "{message:?}");
    assert_eq!(reason.exit_code(), 3);
    assert!(contents(&file)? == before, "the file was written to");
    Ok(message)
}

#[tokio::test]
async fn a_second_worker_on_one_state_file_says_so_and_the_first_goes_on() -> Result<()> {
    let rig = Rig::new().await?;
    rig.publish_all(STEP, 20).await?;
    let first = rig.start();
    first.applied(20).await?;
    let message = rig.start().ended().await?;
    assert_eq!(message.reason, ExitReason::StateLocked);
    assert!(message.message.contains("another process"), "{message:?}");
    rig.publish_all(STEP, 20).await?;
    rig.finish(first).await?;
    Ok(())
}

#[tokio::test]
async fn h21_of_two_workers_with_a_file_each_the_older_is_fenced() -> Result<()> {
    let rig = used().await?;
    let copy = rig.volume().join("copy.db");
    fs::copy(rig.state_file(), &copy)?;
    let older = rig.start_with(Launch {
        state_file: copy,
        ..rig.launch()
    });
    rig.publish_all(STEP, 20).await?;
    older.applied(40).await?;
    let newer = rig.start();
    newer.applied(40).await?;
    rig.publish_all(STEP, 20).await?;
    let message = older.ended().await?;
    assert_eq!(message.reason, ExitReason::Fenced, "{message:?}");
    assert_eq!(message.reason.exit_code(), 4);
    assert_eq!(
        message.facts["takenOverBy"],
        rig.checkpoint().await?.incarnation
    );
    rig.finish(newer).await?;
    Ok(())
}

#[tokio::test]
async fn the_file_of_another_pipeline_is_refused() -> Result<()> {
    let mut rig = used().await?;
    rig.config.owner.cluster = "another".to_owned();
    let message = refused(&rig, ExitReason::OwnedByOther).await?;
    assert_eq!(message.facts["owner"], "cluster/prod/edr");
    Ok(())
}

#[tokio::test]
async fn a_truncated_file_is_refused_and_left_as_it_is() -> Result<()> {
    let rig = used().await?;
    let file = rig.state_file();
    let bytes = fs::read(&file)?;
    fs::write(&file, &bytes[..bytes.len() / 2])?;
    refused(&rig, ExitReason::Corrupt).await?;
    Ok(())
}

#[tokio::test]
async fn a_corrupted_file_is_refused_and_left_as_it_is() -> Result<()> {
    let rig = used().await?;
    let file = rig.state_file();
    let mut bytes = fs::read(&file)?;
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0x5a);
    fs::write(&file, bytes)?;
    refused(&rig, ExitReason::Corrupt).await?;
    Ok(())
}

#[tokio::test]
async fn the_file_of_a_newer_version_is_refused_and_left_as_it_is() -> Result<()> {
    let rig = used().await?;
    let file = rig.state_file();
    Connection::open(&file)?.pragma_update(None, "user_version", 99)?;
    let message = refused(&rig, ExitReason::NewerSchema).await?;
    assert_eq!(message.facts["found"], "99");
    Ok(())
}

#[tokio::test]
async fn a_volume_that_comes_back_empty_is_refused() -> Result<()> {
    let rig = used().await?;
    fs::remove_file(rig.state_file())?;
    let message = rig.start().ended().await?;
    assert_eq!(message.reason, ExitReason::StateLost, "{message:?}");
    assert_eq!(message.facts["position"], "20");
    Ok(())
}

/// A file system of its own, gone with the value.
struct SmallVolume {
    path: PathBuf,
}

impl SmallVolume {
    fn new(path: PathBuf, kib: u32) -> Result<Self> {
        ensure!(
            fs::metadata("/proc/self")?.uid() == 0,
            "a volume that is full needs a mount: run this test as root"
        );
        fs::create_dir(&path)?;
        let size = format!("size={kib}k");
        command("mount", &["-t", "tmpfs", "-o", &size, "tmpfs"], &path)?;
        Ok(Self { path })
    }

    fn resize(&self, kib: u32) -> Result<()> {
        let size = format!("remount,size={kib}k");
        command("mount", &["-o", &size], &self.path)
    }
}

impl Drop for SmallVolume {
    fn drop(&mut self) {
        // When it fails the directory is not empty, and stays.
        command("umount", &["--lazy"], &self.path).ok();
    }
}

fn command(program: &str, args: &[&str], path: &Path) -> Result<()> {
    let output = Command::new(program)
        .args(args)
        .arg(path)
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!("{program}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

#[tokio::test]
async fn a_full_volume_stops_the_worker_and_a_larger_one_heals_it() -> Result<()> {
    let mut rig = Rig::with(Setup::story()?).await?;
    let volume = SmallVolume::new(rig.volume().join("small"), 256)?;
    rig.move_state_to(&volume.path);
    rig.publish_story(4_000).await?;
    let message = rig.start().ended().await?;
    assert_eq!(message.reason, ExitReason::VolumeFull, "{message:?}");
    assert!(message.message.contains("no room left"), "{message:?}");
    volume.resize(64 * 1024)?;
    let worker = rig.start();
    rig.finish(worker).await?;
    Ok(())
}
