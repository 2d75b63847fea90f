//! Where the servers of the tests are found.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// The environment variable that names a directory with server binaries.
const BIN_DIR: &str = "LOOKBACK_BIN";

/// Finds a server binary: in the directory `LOOKBACK_BIN`, else in `.bin` of the workspace, else on
/// the `PATH`.
///
/// # Errors
/// When it is in none of them; `LOOKBACK_BIN` is not passed over in silence.
pub fn binary(name: &str) -> Result<PathBuf> {
    if let Some(dir) = env::var_os(BIN_DIR) {
        let path = Path::new(&dir).join(name);
        if path.is_file() {
            return Ok(path);
        }
        bail!(
            "{} does not exist; {BIN_DIR} names its directory",
            path.display()
        );
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.bin");
    let on_path = env::var_os("PATH").unwrap_or_default();
    let found = std::iter::once(workspace)
        .chain(env::split_paths(&on_path))
        .map(|dir| dir.join(name))
        .find(|path| path.is_file());
    match found {
        Some(path) => Ok(path),
        None => bail!("there is no {name} in .bin or on the PATH; run `make setup`"),
    }
}
