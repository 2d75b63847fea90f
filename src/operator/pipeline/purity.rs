//! The steps that decide do no I/O and read no clock: their sources name nothing that could.

use std::fs;
use std::path::{Path, PathBuf};

const PURE: [&str; 11] = [
    "acts.rs",
    "build",
    "build.rs",
    "facts.rs",
    "problem.rs",
    "replay/execute.rs",
    "replay/facts.rs",
    "status",
    "status.rs",
    "validate",
    "validate.rs",
];
const FORBIDDEN: [&str; 10] = [
    "kube::Client",
    "kube::Api",
    "async_nats",
    "rusqlite",
    "tokio",
    "std::fs",
    "std::env",
    "SystemTime",
    "Instant",
    "now()",
];

fn sources(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(path).unwrap();
    entries
        .flat_map(|entry| sources(&entry.unwrap().path()))
        .collect()
}

#[test]
fn the_pure_steps_name_no_client_no_runtime_and_no_clock() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/operator/pipeline");
    let mut seen = 0;
    let paths = PURE.iter().flat_map(|name| sources(&root.join(name)));
    for path in paths.filter(|path| !path.ends_with("tests.rs")) {
        let source = fs::read_to_string(&path).unwrap();
        let product = source.split("#[cfg(test)]\nmod tests").next().unwrap();
        for word in FORBIDDEN {
            assert!(!product.contains(word), "{} names {word}", path.display());
        }
        seen += 1;
    }
    assert!(seen > 15, "only {seen} files were looked at");
}
