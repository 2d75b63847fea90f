//! Volumes: a directory for each claim, and copies of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tempfile::TempDir;

/// A copy of a volume.
pub(crate) struct Snapshot(TempDir);

impl Snapshot {
    /// Copies a volume that nobody writes to.
    pub(super) fn of(volume: &Path) -> Result<Self> {
        let copy = Self(tempfile::tempdir()?);
        copy_files(volume, copy.0.path())?;
        Ok(copy)
    }

    pub(crate) fn state_file(&self) -> PathBuf {
        self.0.path().join("state.db")
    }
}

/// The disks of one node. Nothing is deleted before the test ends.
pub(super) struct Volumes {
    root: TempDir,
    /// By the claim's uid: a claim deleted and made again has a new, empty volume.
    bound: BTreeMap<String, PathBuf>,
    made: usize,
}

impl Volumes {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            root: tempfile::tempdir()?,
            bound: BTreeMap::new(),
            made: 0,
        })
    }

    /// The directory of a claim, once it is bound; before that, makes the volume to bind it to.
    pub(super) async fn provide(
        &mut self,
        claim: &PersistentVolumeClaim,
        client: &Client,
    ) -> Result<Option<PathBuf>> {
        let uid = claim.uid().context("a claim without uid")?;
        if !self.bound.contains_key(&uid) {
            let path = self.make()?;
            let volume = volume(claim, &path)?;
            let volumes = Api::all(client.clone());
            match volumes.create(&PostParams::default(), &volume).await {
                Err(kube::Error::Api(status)) if status.is_already_exists() => {}
                created => drop(created?),
            }
            self.bound.insert(uid.clone(), path);
        }
        let status = claim.status.as_ref();
        let phase = status.and_then(|status| status.phase.as_deref());
        Ok((phase == Some("Bound")).then(|| self.bound[&uid].clone()))
    }

    /// Puts a copy into the place of the volume at `path`, which stays as it is.
    pub(super) fn detach(&mut self, path: &Path) -> Result<PathBuf> {
        let copy = self.make()?;
        copy_files(path, &copy)?;
        for bound in self.bound.values_mut().filter(|bound| *bound == path) {
            bound.clone_from(&copy);
        }
        Ok(copy)
    }

    fn make(&mut self) -> Result<PathBuf> {
        self.made += 1;
        let path = self.root.path().join(self.made.to_string());
        fs::create_dir(&path)?;
        Ok(path)
    }
}

/// Removes everything in the volume.
pub(super) fn empty(volume: &Path) -> Result<()> {
    for entry in fs::read_dir(volume)? {
        fs::remove_file(entry?.path())?;
    }
    Ok(())
}

/// Makes the volume what the copy is.
pub(super) fn restore(volume: &Path, copy: &Snapshot) -> Result<()> {
    empty(volume)?;
    copy_files(copy.0.path(), volume)
}

fn volume(claim: &PersistentVolumeClaim, path: &Path) -> Result<PersistentVolume> {
    let spec = claim.spec.as_ref().context("a claim without spec")?;
    let uid = claim.uid().context("a claim without uid")?;
    let requests = spec.resources.as_ref().and_then(|it| it.requests.as_ref());
    Ok(serde_json::from_value(json!({
        "metadata": {"name": format!("test-{uid}")},
        "spec": {
            "capacity": requests,
            "accessModes": spec.access_modes,
            "storageClassName": spec.storage_class_name,
            "hostPath": {"path": path},
            "claimRef": {"namespace": claim.namespace(), "name": claim.name_any(), "uid": uid},
        },
    }))?)
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(())
}
