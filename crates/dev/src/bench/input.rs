//! What both sides are given.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use flate2::read::MultiGzDecoder;
use jiff::SignedDuration;
use lookback_engine::RuleFile;
use tempfile::TempDir;

use crate::events::{Generated, Plan, generate};

const OWN_RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/examples/rules");
/// Events of a file carry no subject of their own.
const SUBJECT: &str = "events.windows.file";

/// A set of rules: unpacked in one folder for the evaluator, as files for the worker.
pub(super) struct Rules {
    unpacked: TempDir,
    files: Vec<(RuleFile, PathBuf)>,
}

impl Rules {
    /// The project's own rules, and those of `more`.
    pub(super) fn load(more: Option<&Path>) -> Result<Self> {
        let mut rules = Self {
            unpacked: TempDir::new().context("make a folder for the rules")?,
            files: Vec::new(),
        };
        rules.add_folder("own", Path::new(OWN_RULES))?;
        match more {
            None => {}
            Some(folder) if folder.is_dir() => rules.add_folder("more", folder)?,
            Some(archive) => rules.add_archive("more", archive)?,
        }
        Ok(rules)
    }

    /// Where every rule stands in a YAML file.
    pub(super) fn directory(&self) -> &Path {
        self.unpacked.path()
    }

    /// What the operator would mount, and where it is.
    pub(super) fn files(&self) -> &[(RuleFile, PathBuf)] {
        &self.files
    }

    fn add_folder(&mut self, name: &str, folder: &Path) -> Result<()> {
        let before = self.files.len();
        self.add_files(name, folder)?;
        ensure!(
            self.files.len() > before,
            "no .yml file is in {}",
            folder.display()
        );
        Ok(())
    }

    fn add_files(&mut self, name: &str, folder: &Path) -> Result<()> {
        let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
        let mut paths = entries
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<_>>>()?;
        paths.sort();
        for path in paths {
            let key = path.file_name().unwrap_or_default().to_string_lossy();
            let name = format!("{name}/{key}");
            if path.is_dir() {
                self.add_files(&name, &path)?;
            } else if name.ends_with(".yml") || name.ends_with(".yaml") {
                let copy = self.unpacked.path().join(&name);
                if let Some(parent) = copy.parent() {
                    fs::create_dir_all(parent)?;
                }
                fs::copy(&path, &copy).with_context(|| format!("copy {}", path.display()))?;
                self.add(name, path)?;
            }
        }
        Ok(())
    }

    fn add_archive(&mut self, name: &str, archive: &Path) -> Result<()> {
        let file = File::open(archive).with_context(|| format!("open {}", archive.display()))?;
        tar::Archive::new(MultiGzDecoder::new(file))
            .unpack(self.unpacked.path().join(name))
            .with_context(|| format!("unpack {} as .tar.gz", archive.display()))?;
        self.add(format!("{name}/rules.tar.gz"), archive.to_owned())
    }

    fn add(&mut self, name: String, path: PathBuf) -> Result<()> {
        let path = fs::canonicalize(&path).with_context(|| format!("find {}", path.display()))?;
        let bytes = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        self.files.push((RuleFile { name, bytes }, path));
        Ok(())
    }
}

/// Events in their order, with the subjects they are published to.
pub(super) struct Events {
    pub(super) subjects: Vec<String>,
    pub(super) payloads: Vec<Vec<u8>>,
}

impl Events {
    /// The lines of `file`, or `count` generated events.
    pub(super) fn load(file: Option<&Path>, count: u64) -> Result<Self> {
        let (subjects, payloads): (Vec<_>, Vec<_>) = match file {
            Some(file) => {
                let bytes = fs::read(file).with_context(|| format!("read {}", file.display()))?;
                bytes
                    .split(|byte| *byte == b'\n')
                    .filter(|line| !line.trim_ascii().is_empty())
                    .map(|line| (SUBJECT.to_owned(), line.to_owned()))
                    .unzip()
            }
            None => generate(&plan(count)?)
                .map(|event| (event.subject, event.payload))
                .unzip(),
        };
        ensure!(!payloads.is_empty(), "there are no events");
        Ok(Self { subjects, payloads })
    }

    /// As they are published.
    pub(super) fn generated(&self) -> impl Iterator<Item = Generated> + '_ {
        let pairs = self.subjects.iter().zip(&self.payloads);
        pairs.map(|(subject, payload)| Generated {
            subject: subject.clone(),
            payload: payload.clone(),
        })
    }

    /// Bytes of an event on average.
    pub(super) fn mean_bytes(&self) -> usize {
        self.payloads.iter().map(Vec::len).sum::<usize>() / self.payloads.len()
    }
}

fn plan(count: u64) -> Result<Plan> {
    Ok(Plan {
        count,
        seed: 1,
        start: "2026-01-05T08:00:00Z".parse()?,
        step: SignedDuration::from_millis(200),
        poison: 0,
    })
}
