//! Paths -> rule files, named and ordered as the keys of a ConfigMap would be.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use lookback_engine::RuleFile;

const SUFFIXES: [&str; 3] = [".yml", ".yaml", ".tar.gz"];

/// Where rules are.
#[derive(Debug, clap::Args)]
pub(super) struct Paths {
    /// Rule files, archives of them (.tar.gz), or folders of both
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Name the files as keys of this ConfigMap: the engine digest is then that of the cluster
    #[arg(long, value_name = "NAME")]
    config_map: Option<String>,
}

impl Paths {
    /// The files of all paths, each once, in the order of the paths; of a folder by name.
    pub(super) fn read(&self) -> Result<Vec<RuleFile>> {
        let mut found = Vec::new();
        for path in &self.paths {
            if path.is_dir() {
                walk(path, &mut found)?;
            } else {
                found.push(path.clone());
            }
        }
        ensure!(
            !found.is_empty(),
            "there is no .yml, .yaml or .tar.gz file under {}",
            self.list()
        );
        match &self.config_map {
            None => in_order(found),
            Some(name) => as_keys(name, found),
        }
    }

    fn list(&self) -> String {
        let paths: Vec<_> = self
            .paths
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        paths.join(", ")
    }
}

/// A file that is named as a processing pipeline need not be among the paths.
pub(super) fn with_processing(files: &mut Vec<RuleFile>, processing: &[String]) -> Result<()> {
    for name in processing {
        let is_known = |file: &RuleFile| file.name == *name || key(&file.name) == name.as_str();
        if Path::new(name).is_file() && !files.iter().any(is_known) {
            files.push(read(Path::new(name), name.clone())?);
        }
    }
    Ok(())
}

fn walk(folder: &Path, out: &mut Vec<PathBuf>) -> Result<()> {
    let cannot = || format!("cannot read the folder {}", folder.display());
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(cannot)? {
        entries.push(entry.with_context(cannot)?.path());
    }
    entries.sort_unstable();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        if path.is_dir() {
            walk(&path, out)?;
        } else if SUFFIXES.iter().any(|suffix| name.ends_with(suffix)) {
            out.push(path);
        }
    }
    Ok(())
}

fn in_order(paths: Vec<PathBuf>) -> Result<Vec<RuleFile>> {
    let mut files: Vec<RuleFile> = Vec::new();
    for path in paths {
        let name = path.display().to_string();
        if !files.iter().any(|file| file.name == name) {
            files.push(read(&path, name)?);
        }
    }
    Ok(files)
}

fn as_keys(config_map: &str, paths: Vec<PathBuf>) -> Result<Vec<RuleFile>> {
    let mut keys = BTreeMap::new();
    for path in paths {
        let key = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if let Some(other) = keys.insert(key.clone(), path.clone()) {
            ensure!(
                other == path,
                "a ConfigMap cannot hold both {} and {}: its keys are file names",
                other.display(),
                path.display()
            );
        }
    }
    let files = keys.into_iter();
    files
        .map(|(key, path)| read(&path, format!("{config_map}/{key}")))
        .collect()
}

fn read(path: &Path, name: String) -> Result<RuleFile> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(RuleFile { name, bytes })
}

fn key(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(paths: &[&Path], config_map: Option<&str>) -> Result<Vec<String>> {
        let paths = Paths {
            paths: paths.iter().map(|path| path.to_path_buf()).collect(),
            config_map: config_map.map(str::to_owned),
        };
        Ok(paths.read()?.into_iter().map(|file| file.name).collect())
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        for name in [
            "b.yml",
            "a.yaml",
            "README.md",
            ".hidden.yml",
            "sub/c.tar.gz",
        ] {
            std::fs::write(folder.path().join(name), "x").unwrap();
        }
        folder
    }

    #[test]
    fn a_folder_gives_its_rule_files_by_name_and_each_file_once() {
        let folder = folder();
        let b = folder.path().join("b.yml");
        let names = names(&[folder.path(), &b], None).unwrap();
        let keys: Vec<_> = names.iter().map(|name| key(name)).collect();
        assert_eq!(keys, ["a.yaml", "b.yml", "c.tar.gz"]);
    }

    #[test]
    fn files_can_be_named_as_the_keys_of_a_config_map() {
        let folder = folder();
        let named = names(&[folder.path()], Some("rules")).unwrap();
        assert_eq!(named, ["rules/a.yaml", "rules/b.yml", "rules/c.tar.gz"]);
    }

    #[test]
    fn a_config_map_holds_no_two_files_of_one_name() {
        let (one, other) = (folder(), folder());
        let error = names(&[one.path(), other.path()], Some("rules")).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("a ConfigMap cannot hold both")
        );
    }
}
