//! Files that are written from code and committed, so that people can read and apply them.
//! `make generate` runs these tests with `LOOKBACK_GENERATE=1`, which writes instead of comparing.

use std::path::Path;
use std::{env, fs};

use super::{conditions, crd, profile};

fn is_current(path: &str, content: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if env::var_os("LOOKBACK_GENERATE").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, content).unwrap();
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    assert!(
        committed == content,
        "{path} is not what the code says: run `make generate`"
    );
}

#[test]
fn generated_definition_of_detection_pipelines_is_current() {
    is_current("crds/detectionpipelines.lookback.dev.yaml", &crd::crds());
}

#[test]
fn generated_table_of_conditions_is_current() {
    is_current("docs/conditions.md", &conditions::markdown());
}

#[test]
fn generated_table_of_profiles_is_current() {
    is_current("docs/profiles.md", &profile::markdown());
}
