//! The worker's pod, within what the restricted Pod Security Standard allows. Secrets are mounted as
//! files that the worker reads again at every connect, and their content stands nowhere in the
//! template: a rotation reaches the worker and rolls nothing.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapProjection, ConfigMapVolumeSource, Container, ContainerPort, EnvVar,
    EnvVarSource, HTTPGetAction, KeyToPath, ObjectFieldSelector, PodSecurityContext, PodSpec,
    Probe, ProjectedVolumeSource, SeccompProfile, SecretVolumeSource, SecurityContext, Volume,
    VolumeMount, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::config_map::{CA, CREDENTIALS, PASSWORD, USERNAME};
use super::names::{
    self, ADMIN_PORT, AUTH_DIR, CA_DIR, CONFIG_DIR, CONFIG_KEY, CONFIG_VOLUME, CONTAINER,
    RULES_DIR, RULES_VOLUME, STATE_DIR, STATE_VOLUME,
};
use crate::operator::pipeline::validate::{ValidatedAuth, ValidatedPipeline, ValidatedWorker};

const USER: i64 = 65532;
const SECRET_MODE: i32 = 0o440;
/// Longer than a drain and its final commit: a worker that is killed in them loses nothing, but the
/// next one has more to do.
const GRACE_SECONDS: i64 = 60;
const AUTH_VOLUME: &str = "nats-auth";
const CA_VOLUME: &str = "nats-ca";

pub(super) fn build(pipeline: &ValidatedPipeline, config: &str, rules: &[String]) -> PodSpec {
    let ValidatedWorker {
        image: _,
        resources: _,
        node_selector,
        tolerations,
        affinity,
        priority_class_name,
        annotations: _,
        labels: _,
        log_level: _,
    } = &pipeline.worker;
    let mut volumes = vec![config_volume(config), rules_volume(rules)];
    volumes.extend(secret_volumes(pipeline));
    PodSpec {
        service_account_name: Some(names::worker_name(&pipeline.owner.pipeline)),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(pipeline, &volumes)],
        volumes: Some(volumes),
        node_selector: (!node_selector.is_empty()).then(|| node_selector.clone()),
        tolerations: (!tolerations.is_empty()).then(|| tolerations.clone()),
        affinity: affinity.clone(),
        priority_class_name: priority_class_name.clone(),
        ..PodSpec::default()
    }
}

fn container(pipeline: &ValidatedPipeline, volumes: &[Volume]) -> Container {
    let worker = &pipeline.worker;
    let config = format!("{CONFIG_DIR}/{CONFIG_KEY}");
    let log_level = worker.log_level.as_str();
    let args = [
        "worker",
        "--config",
        &config,
        "--log-format",
        "json",
        "--log-level",
        log_level,
    ];
    let read_only = volumes.iter().map(|volume| VolumeMount {
        name: volume.name.clone(),
        mount_path: directory(&volume.name).to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    });
    let state = VolumeMount {
        name: STATE_VOLUME.to_owned(),
        mount_path: STATE_DIR.to_owned(),
        ..VolumeMount::default()
    };
    Container {
        name: CONTAINER.to_owned(),
        image: Some(worker.image.clone()),
        args: Some(args.map(str::to_owned).into()),
        env: Some(vec![EnvVar {
            name: "POD_NAME".to_owned(),
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector {
                    field_path: "metadata.name".to_owned(),
                    ..ObjectFieldSelector::default()
                }),
                ..EnvVarSource::default()
            }),
            ..EnvVar::default()
        }]),
        ports: Some(vec![ContainerPort {
            name: Some("admin".to_owned()),
            container_port: ADMIN_PORT,
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        resources: worker.resources.clone(),
        startup_probe: Some(probe("/live", 2, 150)),
        liveness_probe: Some(probe("/live", 10, 6)),
        readiness_probe: Some(probe("/ready", 5, 2)),
        termination_message_policy: Some("File".to_owned()),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                ..Capabilities::default()
            }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(read_only.chain([state]).collect()),
        ..Container::default()
    }
}

fn directory(volume: &str) -> &'static str {
    match volume {
        CONFIG_VOLUME => CONFIG_DIR,
        RULES_VOLUME => RULES_DIR,
        AUTH_VOLUME => AUTH_DIR,
        _ => CA_DIR,
    }
}

fn probe(path: &str, period_seconds: i32, failure_threshold: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(ADMIN_PORT),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        failure_threshold: Some(failure_threshold),
        timeout_seconds: Some(5),
        ..Probe::default()
    }
}

fn config_volume(name: &str) -> Volume {
    Volume {
        name: CONFIG_VOLUME.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: name.to_owned(),
            ..ConfigMapVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn rules_volume(names: &[String]) -> Volume {
    let source = |name: &String| VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: name.clone(),
            ..ConfigMapProjection::default()
        }),
        ..VolumeProjection::default()
    };
    Volume {
        name: RULES_VOLUME.to_owned(),
        projected: Some(ProjectedVolumeSource {
            sources: Some(names.iter().map(source).collect()),
            ..ProjectedVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn secret_volumes(pipeline: &ValidatedPipeline) -> Vec<Volume> {
    let auth = pipeline.nats.auth.as_ref().map(|auth| match auth {
        ValidatedAuth::Credentials { secret, key } => {
            secret_volume(AUTH_VOLUME, secret, [(key.as_str(), CREDENTIALS)].into())
        }
        ValidatedAuth::UserPassword { secret } => {
            let items = [(USERNAME, USERNAME), (PASSWORD, PASSWORD)].into();
            secret_volume(AUTH_VOLUME, secret, items)
        }
    });
    let ca = pipeline.nats.ca.as_ref();
    let ca = ca.map(|(secret, key)| secret_volume(CA_VOLUME, secret, [(key.as_str(), CA)].into()));
    auth.into_iter().chain(ca).collect()
}

fn secret_volume(name: &str, secret: &str, items: BTreeMap<&str, &str>) -> Volume {
    let item = |(key, path): (&str, &str)| KeyToPath {
        key: key.to_owned(),
        path: path.to_owned(),
        ..KeyToPath::default()
    };
    Volume {
        name: name.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.to_owned()),
            default_mode: Some(SECRET_MODE),
            items: Some(items.into_iter().map(item).collect()),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}
