//! The rules as immutable ConfigMaps: a copy of what was validated, so that a pod can load nothing
//! else. A ConfigMap holds 1 MiB, so a set is spread over as many as it needs; all are mounted into
//! one directory, where a file's name is its place in the set.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Volume};
use lookback_engine::RuleFile;
use lookback_protocol::config::{RuleFileRef, WorkerConfig};

use super::names::{self, CONFIG_KEY, CONFIG_VOLUME, RULES_DIR, RULES_VOLUME};
use crate::operator::pipeline::facts::Running;
use crate::operator::pipeline::validate::ValidatedPipeline;

/// Below the 1 MiB of a ConfigMap's content, and with base64 below the 1.5 MiB of a request. A larger
/// file has a ConfigMap of its own, as it had where it came from.
const MAX_BYTES: usize = 900 * 1024;

/// The ConfigMaps that `set` mounts: they are in use, and hold what runs.
#[must_use]
pub fn mounted(set: &StatefulSet) -> Vec<String> {
    let pod = set
        .spec
        .as_ref()
        .and_then(|spec| spec.template.spec.as_ref());
    let volumes = pod
        .and_then(|pod| pod.volumes.as_deref())
        .unwrap_or_default();
    volumes.iter().flat_map(config_maps).collect()
}

/// What `set` runs, from the ConfigMaps of [`mounted`]; `None` when its config cannot be read, as one
/// that another version wrote.
#[must_use]
pub fn running(config_maps: &[ConfigMap]) -> Option<Running> {
    let files: BTreeMap<&str, &[u8]> = config_maps.iter().flat_map(files).collect();
    let config: WorkerConfig = serde_json::from_slice(files.get(CONFIG_KEY)?).ok()?;
    let read = |file: &RuleFileRef| {
        let key = file.path.rsplit('/').next()?;
        Some(RuleFile {
            name: file.name.clone(),
            bytes: files.get(key)?.to_vec(),
        })
    };
    let files = config.rules.files.iter().map(read).collect();
    Some(Running { config, files })
}

pub(super) fn references(files: &[RuleFile]) -> Vec<RuleFileRef> {
    let reference = |(at, file): (usize, &RuleFile)| RuleFileRef {
        name: file.name.clone(),
        path: format!("{RULES_DIR}/{}", key(at, file)),
    };
    files.iter().enumerate().map(reference).collect()
}

pub(super) fn build(pipeline: &ValidatedPipeline) -> Vec<ConfigMap> {
    let files = &pipeline.rules.files;
    let parts = files
        .iter()
        .flat_map(|file| [file.name.as_bytes(), file.bytes.as_slice()]);
    let digest = names::content_hash(parts);
    let name = pipeline.owner.pipeline.name();
    let numbered: Vec<(usize, &RuleFile)> = files.iter().enumerate().collect();
    split(&numbered)
        .into_iter()
        .enumerate()
        .map(|(at, files)| config_map(pipeline, format!("{name}-rules-{digest}-{at}"), files))
        .collect()
}

fn config_map(
    pipeline: &ValidatedPipeline,
    name: String,
    files: &[(usize, &RuleFile)],
) -> ConfigMap {
    let mut data = BTreeMap::new();
    let mut binary_data = BTreeMap::new();
    for &(at, file) in files {
        match std::str::from_utf8(&file.bytes) {
            Ok(text) => {
                data.insert(key(at, file), text.to_owned());
            }
            Err(_) => {
                binary_data.insert(key(at, file), ByteString(file.bytes.clone()));
            }
        }
    }
    ConfigMap {
        metadata: names::metadata(pipeline, name),
        data: (!data.is_empty()).then_some(data),
        binary_data: (!binary_data.is_empty()).then_some(binary_data),
        immutable: Some(true),
    }
}

fn split<'a, 'b>(files: &'a [(usize, &'b RuleFile)]) -> Vec<&'a [(usize, &'b RuleFile)]> {
    let mut parts = Vec::new();
    let mut rest = files;
    while !rest.is_empty() {
        let mut bytes = 0;
        let fitting = rest.iter().take_while(|(_, file)| {
            bytes += file.bytes.len();
            bytes <= MAX_BYTES
        });
        let (part, after) = rest.split_at(fitting.count().max(1));
        parts.push(part);
        rest = after;
    }
    parts
}

/// Unique in the set, and with the suffix that says what the file is.
fn key(at: usize, file: &RuleFile) -> String {
    let suffix = [".tar.gz", ".yaml"]
        .into_iter()
        .find(|suffix| file.name.ends_with(suffix))
        .unwrap_or(".yml");
    format!("{at:05}{suffix}")
}

fn config_maps(volume: &Volume) -> Vec<String> {
    let single = volume.config_map.as_ref().map(|source| source.name.clone());
    let projected = volume
        .projected
        .iter()
        .flat_map(|projected| &projected.sources);
    let merged = projected
        .flatten()
        .filter_map(|source| Some(source.config_map.as_ref()?.name.clone()));
    match volume.name.as_str() {
        CONFIG_VOLUME | RULES_VOLUME => single.into_iter().chain(merged).collect(),
        _ => Vec::new(),
    }
}

fn files(config_map: &ConfigMap) -> impl Iterator<Item = (&str, &[u8])> {
    let text = config_map.data.iter().flatten();
    let binary = config_map.binary_data.iter().flatten();
    text.map(|(key, value)| (key.as_str(), value.as_bytes()))
        .chain(binary.map(|(key, value)| (key.as_str(), value.0.as_slice())))
}
