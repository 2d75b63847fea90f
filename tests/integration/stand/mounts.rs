//! What a pod's container is started with: its arguments, and the files of the ConfigMaps it mounts.

use std::fs;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, PodSpec, Volume};
use kube::Api;
use lookback::operator::pipeline::build;
use lookback::operator::pipeline::build::names::CONFIG_KEY;
use lookback_engine::RuleFile;
use lookback_protocol::config::WorkerConfig;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A configuration that a worker was started with, and its rules.
#[derive(Clone, Debug)]
pub(crate) struct Configured {
    pub(crate) config: WorkerConfig,
    pub(crate) rules: Vec<RuleFile>,
}

/// Read once a pod, as the kubelet mounts immutable ConfigMaps.
pub(super) struct Mounts {
    arguments: Vec<String>,
    /// Where each file stands in the container, and what is in it.
    files: Vec<(String, Vec<u8>)>,
    /// Where volumes are mounted.
    directories: Vec<String>,
    pub(super) configured: Configured,
}

impl Mounts {
    /// Fails while a ConfigMap is missing, and the pod waits.
    pub(super) async fn read(pod: &Pod, api: &Api<ConfigMap>) -> Result<Self> {
        let spec = pod.spec.as_ref().context("a pod without spec")?;
        let container = spec.containers.first().context("a pod without container")?;
        let mounts = container.volume_mounts.iter().flatten();
        let (mut files, mut directories, mut config_maps) = (Vec::new(), Vec::new(), Vec::new());
        for volume in spec.volumes.iter().flatten() {
            if volume.persistent_volume_claim.is_some() {
                continue;
            }
            let mount = mounts.clone().find(|mount| mount.name == volume.name);
            let directory = &mount.context("a volume that is not mounted")?.mount_path;
            directories.push(directory.clone());
            for name in sources(volume) {
                let config_map = api.get(&name).await?;
                files.extend(content(&config_map, directory));
                config_maps.push(config_map);
            }
        }
        Ok(Self {
            arguments: container.args.clone().unwrap_or_default(),
            files,
            directories,
            configured: configured(&config_maps)?,
        })
    }

    /// Writes the files, and gives the arguments that name them. With `route` the worker connects
    /// there instead of to the servers of its configuration.
    pub(super) fn write(&self, route: Option<&str>) -> Result<(TempDir, Vec<String>)> {
        let root = tempfile::tempdir()?;
        let moved = |text: &str| {
            let prefix = root.path().display().to_string();
            let directories = self.directories.iter();
            directories.fold(text.to_owned(), |text, directory| {
                text.replace(directory, &format!("{prefix}{directory}"))
            })
        };
        for directory in &self.directories {
            fs::create_dir_all(moved(directory))?;
        }
        for (path, bytes) in &self.files {
            let path_here = moved(path);
            if path.ends_with(CONFIG_KEY) {
                let mut config: Value = serde_json::from_str(&moved(std::str::from_utf8(bytes)?))?;
                if let Some(url) = route {
                    config["nats"]["urls"] = json!([url]);
                }
                fs::write(path_here, serde_json::to_vec(&config)?)?;
            } else {
                fs::write(path_here, bytes)?;
            }
        }
        let arguments = self.arguments.iter().map(|argument| moved(argument));
        let arguments = arguments.collect();
        Ok((root, arguments))
    }
}

/// The image of the pod's container.
pub(super) fn image(spec: &PodSpec) -> &str {
    let image = spec.containers.first().and_then(|it| it.image.as_deref());
    image.unwrap_or_default()
}

fn sources(volume: &Volume) -> Vec<String> {
    let single = volume.config_map.iter().map(|source| source.name.clone());
    let projected = volume.projected.iter().flat_map(|it| &it.sources).flatten();
    let merged = projected.filter_map(|it| Some(it.config_map.as_ref()?.name.clone()));
    single.chain(merged).collect()
}

fn content(config_map: &ConfigMap, directory: &str) -> Vec<(String, Vec<u8>)> {
    let text = config_map.data.iter().flatten();
    let text = text.map(|(key, value)| (key, value.clone().into_bytes()));
    let binary = config_map.binary_data.iter().flatten();
    let binary = binary.map(|(key, value)| (key, value.0.clone()));
    text.chain(binary)
        .map(|(key, bytes)| (format!("{directory}/{key}"), bytes))
        .collect()
}

fn configured(config_maps: &[ConfigMap]) -> Result<Configured> {
    let running = build::running(config_maps).context("the configuration cannot be read")?;
    Ok(Configured {
        config: running.config,
        rules: running.files.context("a rule file is not mounted")?,
    })
}
